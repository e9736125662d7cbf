//! Places for suites that boot guests.

use std::process::{Command, Stdio};

use super::{Place, program};

/// A file that boots a VM.
pub(crate) const BOOTS: &str = "local vm = provium:vm('a', 'minimal'):boot()\n\
                     test('it runs', function(t) t:assert_eq(vm:run('echo hi').stdout, 'hi\\n') end)";

/// A place whose runs use the user's own prepared guests and leave everything else behind here.
pub(crate) struct Kitchen(pub(crate) Place);

impl Kitchen {
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let place = Place::with(files);
        std::fs::create_dir(place.path().join("tmp")).unwrap();
        Self(place)
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = program();
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env("PROVIUM_VMM", "soft")
            .env("PROVIUM_RERUN_STATE", self.0.path().join("rerun.json"))
            .env("TMPDIR", self.0.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.0.path().join("tmp"))
            .unwrap()
            .count()
    }

    pub(crate) fn events(&self) -> Vec<provium_protocol::Event> {
        super::stream::read(&self.0.path().join("ev"))
    }
}
