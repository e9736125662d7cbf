//! Which paths an existing initramfs has, so that an archive can be made to fit over it.

use std::collections::BTreeMap;

use super::archive::Placed;
use super::{InitramfsError, Unpacked, join, normal_path};
use crate::boot::cpio::{self, Entry};

/// What a path in an existing initramfs is, as far as appending to it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Symlink(String),
    Other,
}

/// The paths in the archives of an existing initramfs.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(super) paths: BTreeMap<String, Kind>,
}

impl Index {
    /// Reads the archives of an initramfs.
    pub fn of(initramfs: &Unpacked<'_>) -> Result<Index, InitramfsError> {
        let mut index = Index::default();
        for (at, archive) in initramfs.located() {
            for entry in cpio::Reader::new(archive) {
                index.add(&entry.map_err(|source| InitramfsError::Unreadable { at, source })?);
            }
        }
        Ok(index)
    }

    /// Takes a further archive into account, made by [`Archive::finish`](super::Archive::finish).
    pub fn extend(&mut self, archive: &[u8]) -> Result<(), InitramfsError> {
        for entry in cpio::Reader::new(archive) {
            self.add(&entry.map_err(|source| InitramfsError::Unreadable { at: 0, source })?);
        }
        Ok(())
    }

    /// Whether there is anything at this path, links in its directories followed.
    pub fn contains(&self, path: &str) -> bool {
        let Ok(path) = normal_path(path) else {
            return false;
        };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let Ok(real) = Placed::over(self).resolve(&path, parent) else {
            return false;
        };
        self.paths.contains_key(&join(&real, name))
    }

    fn add(&mut self, entry: &Entry<'_>) {
        // Names that are not UTF-8 cannot clash with ours, which are.
        let Ok(name) = std::str::from_utf8(entry.name) else {
            return;
        };
        let Ok(path) = normal_path(name) else { return };
        let kind = match entry.mode & cpio::TYPE_MASK {
            cpio::TYPE_DIRECTORY => Kind::Directory,
            cpio::TYPE_SYMLINK => {
                Kind::Symlink(String::from_utf8_lossy(entry.content).into_owned())
            }
            _ => Kind::Other,
        };
        self.paths.insert(path, kind);
    }
}
