//! Mounting file systems, and a proc file system of our own.

use std::ffi::CStr;
use std::ptr;

use super::fd::Fd;
use super::{Sys, check, file};

/// Mounts a file system.
pub(crate) fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Sys<()> {
    // SAFETY: all strings are valid.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Moves a mounted file system.
pub(crate) fn move_mount(source: &CStr, target: &CStr) -> Sys<()> {
    let none = ptr::null();
    // SAFETY: both strings are valid, and moving uses neither type nor data.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            none,
            libc::MS_MOVE,
            ptr::null(),
        )
    })
    .map(drop)
}

/// A directory descriptor of a proc file system that is mounted nowhere: it shows every process
/// whatever happens to /proc, and keeps nobody from unmounting that.
pub(crate) fn private_proc() -> Sys<Fd> {
    const CREATE: libc::c_uint = 6;
    // SAFETY: a constant string.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), 1) };
    let context = Fd::new(check(i32::try_from(context).map_err(|_| libc::EINVAL)?)?);
    let none = ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key, value or number.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.raw(), CREATE, none, none, 0) };
    check(i32::try_from(created).map_err(|_| libc::EINVAL)?)?;
    // SAFETY: no memory is involved.
    let mounted = unsafe { libc::syscall(libc::SYS_fsmount, context.raw(), 1, 0) };
    check(i32::try_from(mounted).map_err(|_| libc::EINVAL)?).map(Fd::new)
}

/// The private proc file system, or where that cannot be had, the mounted one.
pub(crate) fn proc_dir() -> Sys<Fd> {
    private_proc().or_else(|_| {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        file::open(b"/proc", flags, 0).map(|fd| {
            use std::os::fd::IntoRawFd;
            Fd::new(fd.into_raw_fd())
        })
    })
}
