//! The kernel interface: every unsafe block of the agent is below this module.
//!
//! Each file wraps one family of system calls behind safe types. Errors are plain error numbers,
//! because that is what a test author gets to see.
#![expect(
    unsafe_code,
    reason = "this module is the agent's only door to the kernel"
)]

pub(crate) mod fd;
pub(crate) mod file;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod netif;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spawn;
pub(crate) mod system;
pub(crate) mod time;
pub(crate) mod tty;

use std::ffi::CString;

/// An error number of the kernel.
pub(crate) type Errno = i32;

/// What a kernel call gives.
pub(crate) type Sys<T> = Result<T, Errno>;

/// The error number of the call that just failed on this thread.
pub(crate) fn errno() -> Errno {
    // SAFETY: the location is valid for the life of the thread.
    unsafe { *libc::__errno_location() }
}

/// Turns -1 into the error number.
pub(crate) fn check(ret: libc::c_int) -> Sys<libc::c_int> {
    if ret == -1 { Err(errno()) } else { Ok(ret) }
}

/// Turns a negative size into the error number.
pub(crate) fn check_size(ret: libc::ssize_t) -> Sys<usize> {
    usize::try_from(ret).map_err(|_| errno())
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Sys<T>) -> Sys<T> {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            other => return other,
        }
    }
}

/// A path or argument as the kernel wants it; one with a zero byte names nothing.
pub(crate) fn c_string(bytes: &[u8]) -> Sys<CString> {
    CString::new(bytes).map_err(|_| libc::EINVAL)
}

/// The error number inside a standard error.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}
