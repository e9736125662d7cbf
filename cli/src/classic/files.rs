//! Which files a classic run takes (classic-api C-052).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::discover::{Bases, TestFile, named};
use crate::problem::Problem;

/// Fixtures are no tests.
const FIXTURES: &str = "fixtures";

/// The files of a classic run.
#[derive(Debug)]
pub(crate) struct ClassicFiles {
    /// The directory that names are relative to.
    pub(crate) root: PathBuf,
    /// The files, sorted by path.
    pub(crate) files: Vec<TestFile>,
}

/// All files that `path` means.
pub(crate) fn find(path: &Path, bases: &Bases) -> Result<ClassicFiles, Problem> {
    let full = bases
        .cwd
        .join(path)
        .canonicalize()
        .map_err(Problem::file("read", path))?;
    let mut found = BTreeSet::new();
    let root = if full.is_dir() {
        walk(&full, &mut found)?;
        full
    } else if full.extension().is_some_and(|extension| extension == "lua") {
        let root = full.parent().unwrap_or(Path::new("/")).to_path_buf();
        found.insert(full);
        root
    } else {
        let text = format!("{}: neither a directory nor a .lua file", path.display());
        return Err(Problem::Usage(text));
    };
    let roots = [root.clone()];
    let files = found
        .into_iter()
        .map(|path| named(path, &roots, bases))
        .collect();
    Ok(ClassicFiles { root, files })
}

fn walk(dir: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), Problem> {
    let failed = || Problem::file("read", dir);
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if entry.file_type().map_err(failed())?.is_dir() {
            if !name.starts_with('.') && name != FIXTURES {
                walk(&path, found)?;
            }
        } else if name.ends_with(".lua") && path.is_file() {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c052_lua_files_except_fixtures_sorted() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "b/z.lua",
            "a.lua",
            "b/fixtures/f.lua",
            ".git/x.lua",
            "b/y.test.lua",
            "notes.txt",
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let bases = Bases {
            cwd: dir.path().to_path_buf(),
            config: None,
        };
        let names = |path: &str| -> Vec<String> {
            let found = find(Path::new(path), &bases).unwrap();
            found.files.into_iter().map(|file| file.relative).collect()
        };
        assert_eq!(names("."), ["a.lua", "b/y.test.lua", "b/z.lua"]);
        assert_eq!(names("b/z.lua"), ["z.lua"]);
        let error = find(Path::new("notes.txt"), &bases).unwrap_err();
        assert!(error.to_string().contains("notes.txt"), "{error}");
        assert!(find(Path::new("none"), &bases).is_err());
    }
}
