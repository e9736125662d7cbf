//! `--coverage`: the events of a run handed to `provium-coverage` (cli-and-config ).
//!
//! The events go to the file of `--save-events`, or to a temporary one with a marker beside it
//! that proves whose it is. The temporary file is gone when the program ends, also by a signal;
//! a file of the user is never removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exit::Exit;
use crate::problem::Problem;

/// Where the events of the run go, and whose file that is.
pub(crate) struct Coverage {
    events: PathBuf,
    /// Proof that the events file is ours to remove.
    marker: Option<PathBuf>,
}

impl Coverage {
    /// Collects into `user_file` if there is one, else into a temporary file.
    pub(crate) fn begin(user_file: Option<&Path>) -> Result<Self, Problem> {
        if let Some(path) = user_file {
            return Ok(Self {
                events: path.to_path_buf(),
                marker: None,
            });
        }
        let name = format!("provium-coverage-{}.msgpack", std::process::id());
        let events = std::env::temp_dir().join(name);
        let marker = events.with_extension("msgpack.marker");
        // Both are new: what somebody else has put there is not written through.
        for path in [&marker, &events] {
            // Left by a process of the same number that was killed.
            let _ = std::fs::remove_file(path);
            std::fs::File::create_new(path).map_err(Problem::file("create", path))?;
        }
        crate::signals::remove_on_exit(&[&events, &marker]);
        let marker = Some(marker);
        Ok(Self { events, marker })
    }

    /// The file that the events go to.
    #[must_use]
    pub(crate) fn events(&self) -> &Path {
        &self.events
    }

    /// Prints the report. Without one the exit code is at least that of a failure.
    pub(crate) fn report(&self, exit: Exit) -> Exit {
        match self.run() {
            Ok(()) => exit,
            Err(why) => {
                eprintln!("provium: --coverage: {why}");
                exit.max(Exit::Failed)
            }
        }
    }

    fn run(&self) -> Result<(), String> {
        let program = program();
        let mut command = Command::new(&program);
        command.arg("--from").arg(&self.events);
        match &self.marker {
            Some(marker) => command
                .env("PROVIUM_COVERAGE_TMP", &self.events)
                .env("PROVIUM_COVERAGE_MARKER", marker),
            None => command.env("PROVIUM_COVERAGE_USER_FILE", "1"),
        };
        let status = command.status().map_err(|error| {
            format!(
                "cannot start {}: {error}; install provium-coverage beside provium or on PATH",
                program.display()
            )
        })?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} ended with {status}", program.display()))
        }
    }
}

impl Drop for Coverage {
    fn drop(&mut self) {
        if let Some(marker) = &self.marker {
            // Only what the marker proves to be ours.
            if std::fs::remove_file(marker).is_ok() {
                let _ = std::fs::remove_file(&self.events);
            }
        }
    }
}

/// The program next to this one, else the one on PATH.
fn program() -> PathBuf {
    let name = "provium-coverage";
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(name)));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r114_the_temporary_file_goes_and_a_users_file_stays() {
        let coverage = Coverage::begin(None).unwrap();
        let events = coverage.events().to_path_buf();
        assert!(events.is_file());
        drop(coverage);
        assert!(!events.exists() && !events.with_extension("msgpack.marker").exists());
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("mine");
        std::fs::write(&mine, "x").unwrap();
        drop(Coverage::begin(Some(&mine)).unwrap());
        assert!(mine.is_file());
    }
}
