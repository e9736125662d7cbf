//! Snapshot files that are open: checked once, shared by all machines of the process.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use provium_vmm::snapshot::{Image, SnapshotError};

use crate::wait::lock;

/// Files kept open although no machine uses them.
const KEPT: usize = 16;

/// Tells whether a name still leads to the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = path.metadata().ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// The open files, the one used last at the end.
#[derive(Default)]
pub(crate) struct Images {
    open: Mutex<Vec<(PathBuf, Stamp, Arc<Image>)>>,
}

impl Images {
    /// The snapshot at `path`: the one that is open, or opened and checked now.
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<Image>, SnapshotError> {
        let known = {
            let mut open = lock(&self.open);
            forget_changed(&mut open);
            let at = open.iter().position(|(known, ..)| known == path);
            at.map(|at| {
                let entry = open.remove(at);
                let image = entry.2.clone();
                open.push(entry);
                image
            })
        };
        match known {
            Some(image) => Ok(image),
            None => {
                let image = Image::open_with(path, &|base| self.open(base))?;
                self.add(&image);
                Ok(image)
            }
        }
    }

    /// Keeps a snapshot that this process has written, which needs no check.
    pub(crate) fn add(&self, image: &Arc<Image>) {
        let Some((path, stamp)) = image
            .path()
            .and_then(|path| Some((path.to_owned(), Stamp::of(path)?)))
        else {
            return;
        };
        let mut open = lock(&self.open);
        open.retain(|(known, ..)| *known != path);
        open.push((path, stamp, image.clone()));
        if open.len() > KEPT {
            open.remove(0);
        }
    }
}

/// Lets go of files that were removed or replaced: their space is to be free.
fn forget_changed(open: &mut Vec<(PathBuf, Stamp, Arc<Image>)>) {
    open.retain(|(path, stamp, _)| Stamp::of(path).as_ref() == Some(stamp));
}
