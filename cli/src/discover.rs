//! Finds the files to run and names them (cli-and-config R-038..R-040, R-043).
//!
//! A file has three names: its canonical path; its display path, used in every output; and its
//! root-relative path, which `--filter` and fixture names go by.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a kind of file is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `*.test.lua`
    Test,
    /// `*.fixture.lua`
    Fixture,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Test => ".test.lua",
            Self::Fixture => ".fixture.lua",
        }
    }
}

/// The directories that names are relative to.
#[derive(Debug, Clone)]
pub(crate) struct Bases {
    /// The current directory.
    pub(crate) cwd: PathBuf,
    /// The directory of the configuration file, if there is one.
    pub(crate) config: Option<PathBuf>,
}

/// A file to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestFile {
    /// Canonical path.
    pub(crate) path: PathBuf,
    /// Name in all outputs.
    pub(crate) display: String,
    /// Name relative to the root or argument that contains it.
    pub(crate) relative: String,
    /// The path as it works from the current directory.
    pub(crate) again: PathBuf,
}

/// Discovery could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoverError {
    /// A path given by the user is not there.
    #[error("{}: no such file or directory", .0.display())]
    Missing(PathBuf),
    /// A directory or file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// All files of `kind` under `paths`, or under `roots`, or under the current directory, sorted
/// by path and without duplicates.
pub(crate) fn discover(
    paths: &[PathBuf],
    roots: &[PathBuf],
    bases: &Bases,
    kind: Kind,
) -> Result<Vec<TestFile>, DiscoverError> {
    let starts = match (paths.is_empty(), roots.is_empty()) {
        (false, _) => paths.to_vec(),
        (true, false) => roots.to_vec(),
        (true, true) => vec![bases.cwd.clone()],
    };
    let mut found = BTreeSet::new();
    let mut bases_of_names: Vec<PathBuf> = roots
        .iter()
        .filter_map(|root| root.canonicalize().ok())
        .collect();
    for start in &starts {
        let path = canonical(&bases.cwd.join(start), start)?;
        if path.is_dir() {
            walk(&path, kind, &mut found)?;
            bases_of_names.push(path);
        } else {
            bases_of_names.extend(path.parent().map(Path::to_path_buf));
            found.insert(path);
        }
    }
    Ok(found
        .into_iter()
        .map(|path| named(path, &bases_of_names, bases))
        .collect())
}

fn canonical(path: &Path, given: &Path) -> Result<PathBuf, DiscoverError> {
    path.canonicalize().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DiscoverError::Missing(given.to_path_buf()),
        _ => DiscoverError::Read {
            path: given.to_path_buf(),
            source,
        },
    })
}

/// Collects files below `dir`; dot-directories and symlinked directories are not entered.
fn walk(dir: &Path, kind: Kind, found: &mut BTreeSet<PathBuf>) -> Result<(), DiscoverError> {
    let failed = |source| DiscoverError::Read {
        path: dir.to_path_buf(),
        source,
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file_type = entry.file_type().map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if file_type.is_dir() {
            if !name.starts_with('.') {
                walk(&path, kind, found)?;
            }
        } else if name.ends_with(kind.suffix()) && path.is_file() {
            found.insert(path.canonicalize().map_err(failed)?);
        }
    }
    Ok(())
}

/// Names a file; the first root that contains it gives the relative name.
pub(crate) fn named(path: PathBuf, roots: &[PathBuf], bases: &Bases) -> TestFile {
    let relative = roots
        .iter()
        .find_map(|root| path.strip_prefix(root).ok())
        .unwrap_or(&path);
    TestFile {
        display: display_path(&path, bases),
        relative: relative.to_string_lossy().into_owned(),
        again: from_cwd(&path, bases),
        path,
    }
}

/// The path relative to the current directory if it is below it.
fn from_cwd(path: &Path, bases: &Bases) -> PathBuf {
    let cwd = bases.cwd.canonicalize().ok();
    let below = cwd.and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_path_buf));
    below.unwrap_or_else(|| path.to_path_buf())
}

/// The display path of R-039.
#[must_use]
pub(crate) fn display_path(path: &Path, bases: &Bases) -> String {
    let below = bases.config.iter().chain([&bases.cwd]).find_map(|base| {
        path.strip_prefix(base.canonicalize().ok()?)
            .ok()
            .map(Path::to_path_buf)
    });
    below
        .as_deref()
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    fn names(dir: &Path, paths: &[&str], roots: &[&str]) -> Vec<String> {
        let bases = Bases {
            cwd: dir.to_path_buf(),
            config: None,
        };
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let roots: Vec<PathBuf> = roots.iter().map(|root| dir.join(root)).collect();
        let files = discover(&paths, &roots, &bases, Kind::Test).unwrap();
        files
            .into_iter()
            .map(|file| format!("{} [{}]", file.display, file.relative))
            .collect()
    }

    #[test]
    fn r038_directories_are_walked_and_dot_directories_skipped() {
        let dir = tree(&[
            "b/x.test.lua",
            "a.test.lua",
            ".git/y.test.lua",
            "c.lua",
            "b/z.fixture.lua",
        ]);
        std::os::unix::fs::symlink(dir.path().join("b"), dir.path().join("link")).unwrap();
        assert_eq!(
            names(dir.path(), &[], &[]),
            ["a.test.lua [a.test.lua]", "b/x.test.lua [b/x.test.lua]"]
        );
    }

    #[test]
    fn r038_a_file_is_taken_as_it_is_and_only_once() {
        let dir = tree(&["t/odd.lua", "t/x.test.lua"]);
        let got = names(dir.path(), &["t/odd.lua", "t", "./t/x.test.lua"], &[]);
        assert_eq!(got, ["t/odd.lua [odd.lua]", "t/x.test.lua [x.test.lua]"]);
    }

    #[test]
    fn r039_names_are_relative_to_the_root() {
        let dir = tree(&["suite/net/x.test.lua"]);
        assert_eq!(
            names(dir.path(), &[], &["suite"]),
            ["suite/net/x.test.lua [net/x.test.lua]"]
        );
        assert_eq!(
            names(dir.path(), &["suite/net"], &["suite"]),
            ["suite/net/x.test.lua [net/x.test.lua]"]
        );
    }

    #[test]
    fn r038_a_missing_path_is_named_as_given() {
        let dir = tree(&[]);
        let bases = Bases {
            cwd: dir.path().to_path_buf(),
            config: None,
        };
        let error = discover(&["nope".into()], &[], &bases, Kind::Test).unwrap_err();
        assert_eq!(error.to_string(), "nope: no such file or directory");
    }
}
