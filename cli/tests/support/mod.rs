//! Runs the built program in a directory of its own.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod here;
pub(crate) mod kitchen;
pub(crate) mod stream;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory with files in it, where the program is run.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// What a run of the program gave.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// A place with these files.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The program, to be run here with a home of its own and no KVM.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = program();
        command
            .args(line.split_whitespace())
            .current_dir(self.path())
            .env("HOME", self.path().join("home"))
            .env_remove("XDG_CACHE_HOME")
            .env_remove("NO_COLOR")
            .env("PROVIUM_VMM", "soft")
            .stdin(Stdio::null());
        command
    }

    /// A script for the shell, to be run here as the program is.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        for (name, value) in self.command("").get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .args(["-c", script])
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program with these words, and these files behind them.
    pub(crate) fn run_words(&self, words: &[&str], files: &[PathBuf]) -> Ran {
        let mut command = self.command("");
        command.args(words).args(files).output().unwrap().into()
    }

    /// The files of a directory whose names begin so.
    pub(crate) fn files(&self, dir: &str, start: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join(dir)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let starts = |path: &PathBuf| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(start)
        };
        paths.filter(starts).collect()
    }

    /// Runs the program with the words of `line`.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.command(line).output().unwrap().into()
    }
}

/// The built program.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provium"));
    for name in [
        "PROVIUM_KERNEL",
        "PROVIUM_INITRD",
        "PROVIUM_RERUN_STATE",
        "CI_NODE_INDEX",
    ] {
        command.env_remove(name);
    }
    // How busy this machine is must not decide what a test sees.
    command.env("PROVIUM_PSI_THRESHOLD", "off");
    command
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Panics with everything that was printed unless the code is as expected.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let Self { stdout, stderr, .. } = &self;
        assert_eq!(
            self.code, code,
            "\n--- stdout ---\n{stdout}\n--- stderr ---\n{stderr}"
        );
        self
    }

    /// Stdout without the seconds of the summary.
    pub(crate) fn text(&self) -> String {
        let mut lines: Vec<String> = self.stdout.lines().map(str::to_owned).collect();
        if let Some(last) = lines.last_mut()
            && let Some(at) = last.rfind("; ")
        {
            last.replace_range(at.., "; TIME");
        }
        lines.join("\n") + "\n"
    }
}
