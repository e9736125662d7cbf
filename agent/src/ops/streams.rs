//! Opening streams of files and descriptors (E-075, E-076, L-105, L-106).

use std::os::fd::AsRawFd;

use provium_protocol::ops::{FdStreamOpen, TailOpen, TailStart};
use provium_protocol::{Error, ErrorKind};

use super::Interruption;
use crate::server::Server;
use crate::stream::Followed;
use crate::sys::fd::Fd;
use crate::sys::{Errno, file};

/// `tail_open`.
pub(super) fn tail_open(
    server: &Server,
    op: &TailOpen,
    interruption: &Interruption,
    proc_dir: &Fd,
) -> Result<u64, Error> {
    let failed = |errno: Errno| Error::os("open", errno).about(&op.path);
    let open = || file::open(&op.path, libc::O_RDONLY, 0);
    let handle = interruption.retry(open).map_err(failed)?;
    if is_regular(handle.as_raw_fd()).map_err(failed)? {
        let followed = Followed::new(handle, op.start).map_err(failed)?;
        return Ok(server.lock().stream_file(followed, &op.path));
    }
    server
        .lock()
        .stream_descriptor(handle.as_raw_fd(), proc_dir)
        .map_err(failed)
}

/// `fd_stream_open`.
pub(super) fn fd_stream_open(
    server: &Server,
    op: &FdStreamOpen,
    proc_dir: &Fd,
) -> Result<u64, Error> {
    let failed = |errno: Errno| Error::os("stream", errno);
    let mut state = server.lock();
    // The handle keeps its file open while we look at it.
    let (_open, fd) = match (op.fd, op.h) {
        (Some(fd), None) => (None, fd),
        (None, Some(h)) => {
            let open = state.handles.file(h)?;
            let fd = open.fd.as_raw_fd();
            (Some(open), fd)
        }
        _ => {
            let message = "field `fd`: exactly one of `fd` and `h` is needed";
            return Err(Error::new(ErrorKind::BadArgs, message));
        }
    };
    if !is_regular(fd).map_err(failed)? {
        return state.stream_descriptor(fd, proc_dir).map_err(failed);
    }
    let offset = match op.offset {
        Some(offset) => offset,
        None => file::seek(fd, 0, libc::SEEK_CUR).map_err(failed)?,
    };
    let start = i64::try_from(offset).map(TailStart::At);
    let start = start.map_err(|_| Error::new(ErrorKind::BadArgs, "field `offset`: too large"))?;
    // A descriptor of its own, but the same open file: reading at offsets moves no cursor.
    let again = file::duplicate(fd).map_err(failed)?;
    let followed = Followed::new(again, start).map_err(failed)?;
    let path = format!("/proc/self/fd/{fd}");
    Ok(state.stream_file(followed, path.as_bytes()))
}

fn is_regular(fd: i32) -> Result<bool, Errno> {
    Ok(file::fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFREG)
}
