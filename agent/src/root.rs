//! Acting where process 1 acts (L-089).
//!
//! The image's init may leave the initial root for another one. The op thread then follows: it
//! compares the root of process 1 with the one it saw last, and on a change enters that root, and
//! its mount namespace if that is another one. A root that a test gave the op thread itself stays
//! until process 1 moves.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use crate::sys::fd::Fd;
use crate::sys::file::{self, Place};
use crate::sys::{Sys, process};

/// Files of process 1, and of this thread, below a proc file system.
const ROOT: &CStr = c"1/root";
const MOUNT_NAMESPACE: &CStr = c"1/ns/mnt";
const OWN_ROOT: &CStr = c"thread-self/root";
const OWN_MOUNT_NAMESPACE: &CStr = c"thread-self/ns/mnt";

/// Watches the root of process 1 for one thread.
pub(crate) struct RootFollower {
    /// Where process 1 was last; nothing if it is not followed.
    last: Option<Place>,
}

impl RootFollower {
    /// Follows process 1 from where this thread is now.
    pub(crate) fn from_here(proc_dir: &Fd) -> Self {
        Self {
            last: file::place(proc_dir.raw(), OWN_ROOT).ok(),
        }
    }

    /// Follows the next moves of process 1; until then this thread stays where it is.
    pub(crate) fn from_next_move(proc_dir: &Fd) -> Self {
        Self {
            last: file::place(proc_dir.raw(), ROOT).ok(),
        }
    }

    /// Follows nobody: process 1 of a host is not ours.
    pub(crate) fn nobody() -> Self {
        Self { last: None }
    }

    /// Enters the root of process 1 if that has changed.
    pub(crate) fn refresh(&mut self, proc_dir: &Fd) {
        let Some(last) = self.last else { return };
        if let Ok(now) = file::place(proc_dir.raw(), ROOT)
            && now != last
            && enter(proc_dir).is_ok()
        {
            self.last = Some(now);
        }
    }
}

fn enter(proc_dir: &Fd) -> Sys<()> {
    let dir = proc_dir.raw();
    let root = file::open_at(dir, ROOT, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let theirs = file::place(dir, MOUNT_NAMESPACE)?;
    if file::place(dir, OWN_MOUNT_NAMESPACE)? != theirs {
        let namespace = file::open_at(dir, MOUNT_NAMESPACE, libc::O_RDONLY, 0)?;
        // Needs a root of our own, which the op thread has.
        let _ = process::unshare_fs();
        file::enter_mount_namespace(namespace.as_raw_fd())?;
    }
    file::enter_root(root.as_raw_fd())
}
