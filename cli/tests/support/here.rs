//! A place with a cache of fixtures of its own, and the prepared guests of this user.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ran, program, repository};

/// A directory with a cache of fixtures of its own, and the guests of this user.
pub(crate) struct Here(tempfile::TempDir);

impl Here {
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let here = Self(tempfile::tempdir().unwrap());
        let suite = repository().join("tests/warm");
        std::fs::create_dir(here.path().join("runs")).unwrap();
        let config = format!(
            "[provium]\nroots = [{suite:?}, \".\"]\ncache_dir = \"cache\"\n\
             [profiles.never]\nkernel = \"recipe:minimal\"\ninitrd = \"recipe:minimal\"\nwarm = false\n"
        );
        std::fs::write(here.path().join("provium.toml"), config).unwrap();
        for (name, text) in files {
            here.write(name, text);
        }
        here
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = program();
        command
            .args(line.split_whitespace())
            .current_dir(self.path())
            .env("PROVIUM_VMM", "soft")
            .env("PROVIUM_RERUN_STATE", self.path().join("rerun.json"))
            .env("PROVIUM_RUNS_DIR", self.path().join("runs"));
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        self.command(line).output().unwrap().into()
    }

    /// The entries of its cache with this extension.
    pub(crate) fn cached(&self, extension: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("cache"));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect()
    }
}
