//! The machine as a whole: kernel log, modules, power, identity.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

use super::{Errno, Sys, check, errno, file};

/// Release of the running kernel.
pub(crate) fn kernel_release() -> Vec<u8> {
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid during the call.
    unsafe { libc::uname(&raw mut names) };
    names
        .release
        .iter()
        .map(|c| c.to_ne_bytes()[0])
        .take_while(|byte| *byte != 0)
        .collect()
}

/// The whole kernel log as the kernel prints it.
pub(crate) fn kernel_log() -> Sys<Vec<u8>> {
    const READ_ALL: libc::c_int = 3;
    const SIZE: libc::c_int = 10;
    // SAFETY: this action takes no buffer.
    let size = check(unsafe { libc::klogctl(SIZE, std::ptr::null_mut(), 0) })?;
    let mut log = vec![0u8; usize::try_from(size).unwrap_or(0)];
    // SAFETY: the buffer is valid for its length.
    let count = check(unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), size) })?;
    log.truncate(usize::try_from(count).unwrap_or(0));
    Ok(log)
}

/// Loads a module, letting the kernel decompress it if it is compressed. One that is there already,
/// or that the image does not have, is fine.
pub(crate) fn load_module(path: &[u8], compressed: bool) -> Result<(), Errno> {
    const COMPRESSED_FILE: libc::c_int = 4;
    let module = match file::open(path, libc::O_RDONLY, 0) {
        Err(libc::ENOENT) => return Ok(()),
        other => other?,
    };
    let flags = if compressed { COMPRESSED_FILE } else { 0 };
    let options = c"".as_ptr();
    // SAFETY: the options are a constant string.
    let ret = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), options, flags) };
    match ret {
        0 => Ok(()),
        _ if errno() == libc::EEXIST => Ok(()),
        _ => Err(errno()),
    }
}

/// Writes all dirty data out.
pub(crate) fn sync() {
    // SAFETY: always succeeds.
    unsafe { libc::sync() };
}

/// Powers the machine off; returns only if that failed.
pub(crate) fn power_off() -> Errno {
    // SAFETY: no memory is involved.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    errno()
}

/// Replaces this program; returns only if that failed.
pub(crate) fn execute(program: &CStr, argv: &[CString], envp: &[CString]) -> Errno {
    let list = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (list(argv), list(envp));
    // SAFETY: the strings and null-terminated lists are valid during the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    errno()
}

/// The environment we were started with, `NAME=value`.
pub(crate) fn environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStringExt;
    let joined = std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    });
    joined
        .filter_map(|entry| CString::new(entry).ok())
        .collect()
}
