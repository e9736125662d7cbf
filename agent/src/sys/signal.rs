//! Interrupting a thread that is inside a system call.

use super::{Sys, check};

/// The signal that interrupts. Its handler does nothing; that the call returns `EINTR` is all.
/// A real-time signal near the end of the range, where tests seldom go.
pub(crate) const INTERRUPT: i32 = 63;

extern "C" fn nothing(_: libc::c_int) {}

/// Installs the handler, and lets writing to a closed pipe be an error instead of the end.
pub(crate) fn prepare() {
    // SAFETY: zero is a valid value for every field: no flags, so calls are not restarted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing at all, so it may run anywhere.
    unsafe { libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut()) };
    // SAFETY: no memory is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Sends a signal to a process, or with a negative number to a process group.
pub(crate) fn kill(pid: libc::pid_t, signal: i32) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Interrupts a thread of this process.
pub(crate) fn interrupt(tid: libc::pid_t) {
    // SAFETY: no memory is involved; a thread that is gone is an error that changes nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, INTERRUPT) };
}
