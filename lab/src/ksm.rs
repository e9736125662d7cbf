//! Equal pages of guests are kept once, by the host's kernel samepage merging (cli-and-config R-028).
//!
//! Guests that run the same kernel have most of their pages in common. The kernel merges pages of memory that was
//! marked as mergeable, which machines do, and only while its switch is on, which is seen to here.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The host's switch.
#[derive(Debug)]
pub struct Ksm {
    switch: PathBuf,
    begun: AtomicBool,
}

impl Ksm {
    /// That of this host.
    #[must_use]
    pub fn of_host() -> Self {
        Self::at(Path::new("/sys/kernel/mm/ksm/run"))
    }

    fn at(switch: &Path) -> Self {
        Self {
            switch: switch.to_path_buf(),
            begun: AtomicBool::new(false),
        }
    }

    /// Before the first guest: switches merging on if it is off and this process may; never an error. Answers what was
    /// changed. It stays on, since others may have come to rely on it.
    pub(crate) fn begin(&self) -> Option<String> {
        if self.begun.swap(true, Ordering::AcqRel) {
            return None;
        }
        let state = fs::read_to_string(&self.switch).ok()?;
        // 1 is on already, and 2 is somebody's wish to have all pages apart.
        if state.trim() != "0" {
            return None;
        }
        fs::write(&self.switch, "1\n").ok()?;
        let switch = self.switch.display();
        Some(format!(
            "equal pages of guests are merged: {switch} was 0 and is 1 now (--no-ksm leaves it alone)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(content: &str) -> (tempfile::TempDir, Ksm) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::write(&path, content).unwrap();
        let ksm = Ksm::at(&path);
        (dir, ksm)
    }

    #[test]
    fn r028_what_is_off_is_switched_on_once_and_told() {
        let (_dir, ksm) = switch("0\n");
        let told = ksm.begin().unwrap();
        assert!(told.contains("was 0 and is 1 now"), "{told}");
        assert_eq!(fs::read_to_string(&ksm.switch).unwrap(), "1\n");
        fs::write(&ksm.switch, "0\n").unwrap();
        assert_eq!(ksm.begin(), None, "who switches it off again is heard");
    }

    #[test]
    fn r028_nothing_is_told_where_nothing_is_changed() {
        for state in ["1\n", "2\n"] {
            let (_dir, ksm) = switch(state);
            assert_eq!(ksm.begin(), None);
            assert_eq!(fs::read_to_string(&ksm.switch).unwrap(), state);
        }
        // A kernel without it, or a process that may not.
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Ksm::at(&dir.path().join("run")).begin(), None);
        assert!(!dir.path().join("run").exists());
    }
}
