//! Files by path and by descriptor.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::fd::Fd;
use super::{Sys, c_string, check, retry};

/// Opens a file; it is not inherited by programs.
pub(crate) fn open(path: &[u8], flags: i32, perm: u32) -> Sys<OwnedFd> {
    let path = c_string(path)?;
    open_at(libc::AT_FDCWD, &path, flags, perm)
}

/// Opens a file relative to a directory.
pub(crate) fn open_at(dir: RawFd, path: &CStr, flags: i32, perm: u32) -> Sys<OwnedFd> {
    // SAFETY: the path is a valid string.
    let fd = check(unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, perm) })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes a file, telling what the kernel says about it.
pub(crate) fn close(fd: OwnedFd) -> Sys<()> {
    // SAFETY: the descriptor was ours and is given up here.
    check(unsafe { libc::close(fd.into_raw_fd()) }).map(drop)
}

/// What the kernel tells about a file.
pub(crate) type Status = libc::stat;

/// Status of a path.
pub(crate) fn stat(path: &[u8], follow: bool) -> Sys<Status> {
    let path = c_string(path)?;
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut status: Status = unsafe { std::mem::zeroed() };
    // SAFETY: path and structure are valid during the call.
    check(unsafe { libc::fstatat(libc::AT_FDCWD, path.as_ptr(), &raw mut status, flags) })?;
    Ok(status)
}

/// Status of an open file.
pub(crate) fn fstat(fd: RawFd) -> Sys<Status> {
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut status: Status = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid during the call.
    check(unsafe { libc::fstat(fd, &raw mut status) })?;
    Ok(status)
}

/// Which mount and file a path below a directory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    mount: u64,
    dev: (u32, u32),
    ino: u64,
}

/// The place of a path, links followed.
pub(crate) fn place(dir: RawFd, path: &CStr) -> Sys<Place> {
    // Kernels from 5.8 on know the mount; older ones leave it zero.
    const MOUNT_ID: u32 = 0x1000;
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_INO | MOUNT_ID;
    // SAFETY: path and structure are valid during the call.
    check(unsafe { libc::statx(dir, path.as_ptr(), 0, mask, &raw mut found) })?;
    let mount = if found.stx_mask & MOUNT_ID == 0 {
        0
    } else {
        found.stx_mnt_id
    };
    Ok(Place {
        mount,
        dev: (found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
    })
}

/// Makes a directory this thread's working directory and root.
pub(crate) fn enter_root(dir: RawFd) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fchdir(dir) })?;
    // SAFETY: a constant string.
    check(unsafe { libc::chroot(c".".as_ptr()) }).map(drop)
}

/// Changes the working directory.
pub(crate) fn change_dir(path: &CStr) -> Sys<()> {
    // SAFETY: the path is a valid string.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// Enters a mount namespace.
pub(crate) fn enter_mount_namespace(namespace: RawFd) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWNS) }).map(drop)
}

/// Moves the cursor.
pub(crate) fn seek(fd: RawFd, offset: i64, whence: i32) -> Sys<u64> {
    // SAFETY: no memory is involved.
    let at = unsafe { libc::lseek(fd, offset, whence) };
    u64::try_from(at).map_err(|_| super::errno())
}

/// Creates a directory.
pub(crate) fn mkdir(path: &[u8], perm: u32) -> Sys<()> {
    let path = c_string(path)?;
    // SAFETY: the path is a valid string.
    check(unsafe { libc::mkdir(path.as_ptr(), perm) }).map(drop)
}

/// Sets the permissions of a path.
pub(crate) fn chmod(path: &[u8], perm: u32) -> Sys<()> {
    let path = c_string(path)?;
    // SAFETY: the path is a valid string.
    check(unsafe { libc::chmod(path.as_ptr(), perm) }).map(drop)
}

/// Sets the permissions of an open file.
pub(crate) fn fchmod(fd: RawFd, perm: u32) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fchmod(fd, perm) }).map(drop)
}

/// Removes a file or link.
pub(crate) fn unlink(path: &[u8]) -> Sys<()> {
    let path = c_string(path)?;
    // SAFETY: the path is a valid string.
    check(unsafe { libc::unlink(path.as_ptr()) }).map(drop)
}

/// Removes an empty directory.
pub(crate) fn rmdir(path: &[u8]) -> Sys<()> {
    let path = c_string(path)?;
    // SAFETY: the path is a valid string.
    check(unsafe { libc::rmdir(path.as_ptr()) }).map(drop)
}

/// Renames.
pub(crate) fn rename(from: &[u8], to: &[u8]) -> Sys<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    // SAFETY: both paths are valid strings.
    check(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) }).map(drop)
}

/// Entries of a directory: names and types as the kernel knows them.
pub(crate) fn list(path: &[u8]) -> Sys<Vec<(Vec<u8>, u8)>> {
    let dir = open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut entries = Vec::new();
    let mut buffer = vec![0u8; 32 * 1024];
    loop {
        // SAFETY: the buffer is valid for its length.
        let count = unsafe {
            let size = buffer.len();
            libc::syscall(
                libc::SYS_getdents64,
                dir.as_raw_fd(),
                buffer.as_mut_ptr(),
                size,
            )
        };
        let count = usize::try_from(count).map_err(|_| super::errno())?;
        if count == 0 {
            return Ok(entries);
        }
        records(&buffer[..count], &mut entries);
    }
}

/// Takes apart what the kernel wrote: inode, offset, length of the record, type, name.
fn records(mut rest: &[u8], entries: &mut Vec<(Vec<u8>, u8)>) {
    while rest.len() > 19 {
        let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]])).clamp(19, rest.len());
        let name = rest[19..length]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        if !matches!(name, b"." | b".." | b"") {
            entries.push((name.to_vec(), rest[18]));
        }
        rest = &rest[length..];
    }
}

/// Size of an open file.
pub(crate) fn size(fd: RawFd) -> Sys<u64> {
    fstat(fd).map(|status| u64::try_from(status.st_size).unwrap_or(0))
}

/// All of a file, whatever size it says it has.
pub(crate) fn contents(path: &[u8]) -> Sys<Vec<u8>> {
    let file = open(path, libc::O_RDONLY, 0)?;
    let mut data = Vec::new();
    while retry(|| super::fd::read_append(file.as_raw_fd(), &mut data, 4096))? > 0 {}
    Ok(data)
}

/// Replaces the contents of a file, creating it if need be.
pub(crate) fn put_contents(path: &[u8], data: &[u8]) -> Sys<()> {
    let file = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
    let mut rest = data;
    while !rest.is_empty() {
        rest = &rest[retry(|| super::fd::write(file.as_raw_fd(), rest))?..];
    }
    close(file)
}

/// Opens a file for the agent itself.
pub(crate) fn open_own(path: &[u8], flags: i32) -> Sys<Fd> {
    super::fd::above_standard(Fd::new(open(path, flags, 0)?.into_raw_fd()))
}

/// A second descriptor for the same open file, for a test's use.
pub(crate) fn duplicate(fd: RawFd) -> Sys<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same file behind a descriptor, opened once more in a way that never waits.
pub(crate) fn reopen_nonblocking(proc_dir: &Fd, fd: RawFd) -> Sys<Fd> {
    let path = c_string(format!("self/fd/{fd}").as_bytes())?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    open_at(proc_dir.raw(), &path, flags, 0).map(|fd| Fd::new(fd.into_raw_fd()))
}
