//! Files by path and by handle (E-067 to E-074, L-096 to L-104, L-121 to L-127).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use provium_protocol::ops::{
    DirEntry, EntryType, FileData, FileStat, Mkdir, Open, Opened, Read, ReadFile, Seek, Stat,
    Whence, Write, open_mode,
};
use provium_protocol::{Error, ErrorKind, MAX_FRAME};

use super::Interruption;
use crate::server::Server;
use crate::server::handles::{Handle, OpenFile};
use crate::sys::{Errno, Sys, fd, file, process};

/// Most bytes of a file in one answer.
const INLINE: u64 = (MAX_FRAME - 64 * 1024) as u64;

/// Largest single read of something that does not tell its size.
const CHUNK: usize = 64 * 1024;

/// Permission bits that a new file or directory may be given.
const PERM: u32 = 0o7777;

fn failed<'a>(what: &'a str, path: &'a [u8]) -> impl Fn(Errno) -> Error + 'a {
    move |errno| Error::os(what, errno).about(path)
}

/// `read_file`.
pub(crate) fn read_file(
    server: &Server,
    op: &ReadFile,
    interruption: &Interruption,
) -> Result<FileData, Error> {
    let open = || file::open(&op.path, libc::O_RDONLY, 0);
    let handle = interruption.retry(open).map_err(failed("open", &op.path))?;
    let failed = failed("read", &op.path);
    let raw = handle.as_raw_fd();
    let status = file::fstat(raw).map_err(&failed)?;
    let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
    let size = u64::try_from(status.st_size).unwrap_or(0);
    let max = usize::try_from(op.max.min(INLINE)).unwrap_or(0);
    let mut data = Vec::new();
    loop {
        let left = max - data.len();
        if left == 0 {
            break;
        }
        // One byte more than the size tells the end without another read.
        let expected = usize::try_from(size)
            .unwrap_or(max)
            .saturating_sub(data.len());
        let room = left.min(if expected > 0 { expected + 1 } else { CHUNK });
        let read = || fd::read_append(raw, &mut data, room);
        let count = interruption.retry(read).map_err(&failed)?;
        let whole = regular && size > 0 && data.len() as u64 == size && count < room;
        if count == 0 || whole {
            return Ok(FileData { data, h: None });
        }
    }
    let h = server.lock().handles.add(Handle::File(Arc::new(OpenFile {
        fd: handle,
        regular,
    })));
    Ok(FileData { data, h: Some(h) })
}

/// `write_file`.
pub(crate) fn write_file(
    path: &[u8],
    data: &[u8],
    perm: Option<u32>,
    interruption: &Interruption,
) -> Result<(), Error> {
    let perm = perm.map(checked_perm).transpose()?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let open = || exact(|| file::open(path, flags, perm.unwrap_or(0o644)));
    let handle = interruption.retry(open).map_err(failed("open", path))?;
    if let Some(perm) = perm {
        file::fchmod(handle.as_raw_fd(), perm).map_err(failed("chmod", path))?;
    }
    let mut rest = data;
    while !rest.is_empty() {
        let write = || fd::write(handle.as_raw_fd(), rest);
        let count = interruption.retry(write).map_err(failed("write", path))?;
        rest = &rest[count..];
    }
    file::close(handle).map_err(failed("close", path))
}

/// Makes the permissions of what is created exactly those asked for.
fn exact<T>(create: impl FnOnce() -> T) -> T {
    let old = process::umask(0);
    let result = create();
    process::umask(old);
    result
}

fn checked_perm(perm: u32) -> Result<u32, Error> {
    if perm & !PERM == 0 {
        return Ok(perm);
    }
    Err(Error::new(
        ErrorKind::BadArgs,
        format!("field `perm`: {perm} is beyond {PERM}"),
    ))
}

/// `stat`.
pub(crate) fn stat(op: &Stat) -> Result<FileStat, Error> {
    let status = file::stat(&op.path, op.follow).map_err(failed("stat", &op.path))?;
    let mtime = status
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(status.st_mtime_nsec);
    Ok(FileStat {
        size: u64::try_from(status.st_size).unwrap_or(0),
        mtime_ns: mtime,
        perm: status.st_mode & PERM,
        entry_type: entry_type((status.st_mode & libc::S_IFMT) >> 12),
        uid: status.st_uid,
        gid: status.st_gid,
        ino: status.st_ino,
        dev: status.st_dev,
    })
}

/// The type of a file from the kernel's number for it, which is the same in a mode (above its
/// permissions) and in a directory entry.
fn entry_type(number: u32) -> EntryType {
    match number {
        1 => EntryType::Fifo,
        2 => EntryType::CharDevice,
        4 => EntryType::Directory,
        6 => EntryType::BlockDevice,
        8 => EntryType::File,
        10 => EntryType::Symlink,
        12 => EntryType::Socket,
        _ => EntryType::Other,
    }
}

/// `listdir`.
pub(crate) fn list_dir(path: &[u8]) -> Result<Vec<DirEntry>, Error> {
    let entries = file::list(path).map_err(failed("listdir", path))?;
    let mut entries: Vec<_> = entries
        .into_iter()
        .map(|(name, kind)| entry(path, name, kind))
        .collect();
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// An entry; file systems that do not tell its type are asked again.
fn entry(dir: &[u8], name: Vec<u8>, kind: u8) -> DirEntry {
    let mut kind = u32::from(kind);
    if kind == 0
        && let Ok(status) = file::stat(&[dir, b"/", &name].concat(), false)
    {
        kind = (status.st_mode & libc::S_IFMT) >> 12;
    }
    DirEntry {
        name,
        entry_type: entry_type(kind),
    }
}

/// `mkdir`.
pub(crate) fn mkdir(op: &Mkdir) -> Result<(), Error> {
    let perm = op.perm.map(checked_perm).transpose()?;
    let failed = failed("mkdir", &op.path);
    match make_dir(&op.path, perm) {
        Err(libc::ENOENT) if op.parents => {
            make_parents(&op.path).map_err(&failed)?;
            existing_is_fine(make_dir(&op.path, perm), &op.path).map_err(failed)
        }
        result if op.parents => existing_is_fine(result, &op.path).map_err(failed),
        result => result.map_err(failed),
    }
}

fn make_dir(path: &[u8], perm: Option<u32>) -> Sys<()> {
    match perm {
        None => file::mkdir(path, 0o777),
        Some(perm) => {
            file::mkdir(path, perm)?;
            // The umask and the kernel's own rules may have taken bits away.
            file::chmod(path, perm)
        }
    }
}

/// With `parents`, a directory that is there is what was wanted.
fn existing_is_fine(result: Sys<()>, path: &[u8]) -> Sys<()> {
    match result {
        Err(libc::EEXIST) => match file::stat(path, true) {
            Ok(status) if status.st_mode & libc::S_IFMT == libc::S_IFDIR => Ok(()),
            _ => Err(libc::EEXIST),
        },
        other => other,
    }
}

fn make_parents(path: &[u8]) -> Sys<()> {
    let slashes = path
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, byte)| **byte == b'/');
    for (end, _) in slashes {
        match file::mkdir(&path[..end], 0o777) {
            // A parent that may not be made may be there; the last step tells.
            Ok(()) | Err(libc::EEXIST | libc::EACCES | libc::EROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// `unlink`: a file, a link or an empty directory.
pub(crate) fn unlink(path: &[u8]) -> Result<(), Error> {
    let result = match file::unlink(path) {
        Err(libc::EISDIR) => file::rmdir(path),
        // What some file systems say about directories.
        Err(libc::EPERM) => file::rmdir(path).map_err(|errno| match errno {
            libc::ENOTDIR => libc::EPERM,
            other => other,
        }),
        other => other,
    };
    result.map_err(failed("unlink", path))
}

/// `rename`.
pub(crate) fn rename(from: &[u8], to: &[u8]) -> Result<(), Error> {
    file::rename(from, to).map_err(failed("rename", from))
}

/// `open`.
pub(crate) fn open(
    server: &Server,
    op: &Open,
    interruption: &Interruption,
) -> Result<Opened, Error> {
    let flags = flags(op.mode)?;
    let perm = checked_perm(op.perm.unwrap_or(0o644))?;
    let open = || exact(|| file::open(&op.path, flags, perm));
    let handle = interruption.retry(open).map_err(failed("open", &op.path))?;
    let fd = handle.as_raw_fd();
    let status = file::fstat(fd).map_err(failed("stat", &op.path))?;
    let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
    let file = Arc::new(OpenFile {
        fd: handle,
        regular,
    });
    let h = server.lock().handles.add(Handle::File(file));
    Ok(Opened { h, fd })
}

/// Flags for the kernel (E-072).
fn flags(mode: u32) -> Result<i32, Error> {
    let bad = |why: &str| Error::new(ErrorKind::BadArgs, format!("field `mode`: {mode} {why}"));
    if mode & !open_mode::ALL != 0 {
        return Err(bad("has unknown bits"));
    }
    let has = |bit| mode & bit != 0;
    let write = has(open_mode::WRITE) || has(open_mode::APPEND);
    let mut flags = match (has(open_mode::READ), write) {
        (true, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (true, true) => libc::O_RDWR,
        (false, false) => return Err(bad("neither reads, writes nor appends")),
    };
    let bits = [
        (open_mode::CREATE, libc::O_CREAT),
        (open_mode::TRUNCATE, libc::O_TRUNC),
        (open_mode::APPEND, libc::O_APPEND),
        (open_mode::EXCLUSIVE, libc::O_EXCL),
    ];
    flags |= bits
        .iter()
        .filter(|(bit, _)| has(*bit))
        .fold(0, |flags, (_, flag)| flags | flag);
    Ok(flags)
}

/// `read`.
pub(crate) fn read(
    server: &Server,
    op: &Read,
    interruption: &Interruption,
) -> Result<Vec<u8>, Error> {
    let file = server.lock().handles.file(op.h)?;
    let max = usize::try_from(op.max.min(INLINE)).unwrap_or(0);
    let mut data = Vec::new();
    // Room is taken as it is filled: `max` may be far more than there is.
    while data.len() < max {
        let room = (max - data.len()).min(if file.regular { 1024 * 1024 } else { CHUNK });
        let read = || fd::read_append(file.fd.as_raw_fd(), &mut data, room);
        let count = interruption
            .retry(read)
            .map_err(|errno| Error::os("read", errno))?;
        if count < room || !file.regular {
            break;
        }
    }
    Ok(data)
}

/// `write`.
pub(crate) fn write(
    server: &Server,
    op: &Write,
    interruption: &Interruption,
) -> Result<u64, Error> {
    let file = server.lock().handles.file(op.h)?;
    let write = || fd::write(file.fd.as_raw_fd(), &op.data);
    let count = interruption
        .retry(write)
        .map_err(|errno| Error::os("write", errno))?;
    Ok(count as u64)
}

/// `seek`.
pub(crate) fn seek(server: &Server, op: &Seek) -> Result<u64, Error> {
    let file = server.lock().handles.file(op.h)?;
    let whence = match op.whence {
        Whence::Set => libc::SEEK_SET,
        Whence::Cur => libc::SEEK_CUR,
        Whence::End => libc::SEEK_END,
    };
    file::seek(file.fd.as_raw_fd(), op.offset, whence).map_err(|errno| Error::os("seek", errno))
}

/// `close`.
pub(crate) fn close(server: &Server, h: u64) -> Result<(), Error> {
    let file = {
        let mut state = server.lock();
        let file = state.handles.file(h)?;
        state.handles.remove(h);
        file
    };
    // Nobody else holds a file between operations of the op thread.
    let Some(OpenFile { fd, .. }) = Arc::into_inner(file) else {
        return Ok(());
    };
    close_fd(fd)
}

fn close_fd(fd: OwnedFd) -> Result<(), Error> {
    file::close(fd).map_err(|errno| Error::os("close", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E-072: the bits mean what they say, and nothing else is accepted.
    #[test]
    fn open_modes_become_flags() {
        use open_mode::{APPEND, CREATE, EXCLUSIVE, READ, TRUNCATE, WRITE};
        assert_eq!(flags(READ).unwrap(), libc::O_RDONLY);
        assert_eq!(
            flags(READ | WRITE | CREATE).unwrap(),
            libc::O_RDWR | libc::O_CREAT
        );
        assert_eq!(flags(APPEND).unwrap(), libc::O_WRONLY | libc::O_APPEND);
        let new = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC;
        assert_eq!(flags(WRITE | CREATE | EXCLUSIVE | TRUNCATE).unwrap(), new);
        for mode in [0, CREATE, 64, READ | 1 << 31] {
            assert_eq!(flags(mode).unwrap_err().kind, ErrorKind::BadArgs);
        }
    }
}
