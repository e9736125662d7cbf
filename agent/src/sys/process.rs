//! Processes and threads: who we are, and what became of our children.

use std::os::fd::RawFd;

use super::fd::Fd;
use super::{Sys, check, retry};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Signalled(i32),
    /// Somebody else took the status: a test that waits for any child.
    Unknown,
}

impl Ended {
    fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signalled(libc::WTERMSIG(status))
        } else {
            Self::Exited(libc::WEXITSTATUS(status))
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was killed by signal {signal}"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// Reaps a child if it has ended.
pub(crate) fn try_wait(pid: libc::pid_t) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: `status` is valid during the call.
    match retry(|| check(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) })) {
        Ok(0) => None,
        Ok(_) => Some(Ended::from_status(status)),
        Err(_) => Some(Ended::Unknown),
    }
}

/// Waits for any child; `None` when there is none left.
pub(crate) fn wait_any() -> Option<(libc::pid_t, Ended)> {
    let mut status = 0;
    // SAFETY: `status` is valid during the call.
    let pid = retry(|| check(unsafe { libc::waitpid(-1, &raw mut status, 0) })).ok()?;
    Some((pid, Ended::from_status(status)))
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: libc::pid_t) -> Sys<Fd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(|_| libc::EINVAL)?;
    check(fd).map(Fd::new)
}

/// This process.
pub(crate) fn pid() -> i32 {
    // SAFETY: always succeeds.
    unsafe { libc::getpid() }
}

/// This thread.
pub(crate) fn tid() -> i32 {
    // SAFETY: always succeeds.
    unsafe { libc::gettid() }
}

/// Gives this thread a root, working directory and umask of its own.
pub(crate) fn unshare_fs() -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// Leaves the session of the parent.
pub(crate) fn new_session() {
    // SAFETY: no memory is involved; a leader already stays one.
    unsafe { libc::setsid() };
}

/// Dies when the thread that forked us dies.
pub(crate) fn die_with_parent() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Sets the umask and gives the old one.
pub(crate) fn umask(mask: u32) -> u32 {
    // SAFETY: always succeeds.
    unsafe { libc::umask(mask) }
}

/// Ends the process at once, without destructors of other threads' objects.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Forks; 0 is the child. Of our own descriptors it keeps `keep`.
pub(crate) fn fork(keep: &[RawFd]) -> Sys<libc::pid_t> {
    super::fd::fork_apart(keep)
}
