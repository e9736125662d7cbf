//! Descriptors of the agent itself, as opposed to those a test opened through it.
//!
//! A forked worker must not keep the agent's own descriptors: a copied pipe end would hold off
//! the end of somebody's input. So each [`Fd`] is in one list, and [`fork_apart`] closes the list
//! in the child (E-092).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Sys, check, check_size};

static OWN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

fn own() -> MutexGuard<'static, Vec<RawFd>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor that belongs to the agent.
#[derive(Debug)]
pub(crate) struct Fd(OwnedFd);

impl Fd {
    /// Takes over what a call returned.
    pub(crate) fn new(raw: RawFd) -> Self {
        own().push(raw);
        // SAFETY: the caller got the descriptor from the kernel and gives it away here.
        Self(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Reads what is there.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Sys<usize> {
        read(self.raw(), buffer)
    }

    /// Reads at most `max` bytes and appends them.
    pub(crate) fn read_append(&self, buffer: &mut Vec<u8>, max: usize) -> Sys<usize> {
        read_append(self.raw(), buffer, max)
    }

    /// Writes what fits.
    pub(crate) fn write(&self, bytes: &[u8]) -> Sys<usize> {
        write(self.raw(), bytes)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let raw = self.raw();
        let mut own = own();
        if let Some(index) = own.iter().position(|fd| *fd == raw) {
            own.swap_remove(index);
        }
    }
}

/// Forks. In the child the agent's own descriptors are closed, except `keep`, and the list
/// describes the child.
pub(crate) fn fork_apart(keep: &[RawFd]) -> Sys<libc::pid_t> {
    // Held across the fork, so that the child finds a list that no other thread was changing.
    let mut own = own();
    // SAFETY: the C library prepares its own locks for the fork; the child touches nothing of the
    // parent's state but this list, whose lock it holds.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        for fd in own.iter().filter(|fd| !keep.contains(fd)) {
            // SAFETY: closing a descriptor of the parent's objects, which the child never uses.
            unsafe { libc::close(*fd) };
        }
        own.retain(|fd| keep.contains(fd));
    }
    Ok(pid)
}

/// Reads from any descriptor.
pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> Sys<usize> {
    // SAFETY: the buffer is valid for its length.
    check_size(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Has a call write behind the contents of a vector, at most `max` bytes, and keeps what it wrote.
pub(super) fn append_with(
    buffer: &mut Vec<u8>,
    max: usize,
    call: impl FnOnce(*mut libc::c_void) -> libc::ssize_t,
) -> Sys<usize> {
    buffer.reserve(max);
    let count = check_size(call(buffer.spare_capacity_mut().as_mut_ptr().cast()))?.min(max);
    // SAFETY: `reserve` made room for `max` bytes, and the call has written `count` of them.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

/// Reads at most `max` bytes from any descriptor and appends them.
pub(crate) fn read_append(fd: RawFd, buffer: &mut Vec<u8>, max: usize) -> Sys<usize> {
    // SAFETY: the room is `max` bytes large.
    append_with(buffer, max, |room| unsafe { libc::read(fd, room, max) })
}

/// Reads at most `max` bytes at an offset and appends them.
pub(crate) fn pread_append(fd: RawFd, buffer: &mut Vec<u8>, max: usize, offset: u64) -> Sys<usize> {
    let offset = i64::try_from(offset).map_err(|_| libc::EINVAL)?;
    // SAFETY: the room is `max` bytes large.
    append_with(buffer, max, |room| unsafe {
        libc::pread(fd, room, max, offset)
    })
}

/// Writes to any descriptor.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> Sys<usize> {
    // SAFETY: the bytes are valid for their length.
    check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// A pipe: its reading and its writing end, neither of them 0, 1 or 2.
pub(crate) fn pipe() -> Sys<(Fd, Fd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` holds two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let (read, write) = (Fd::new(ends[0]), Fd::new(ends[1]));
    Ok((above_standard(read)?, above_standard(write)?))
}

/// Moves a descriptor away from 0, 1 and 2, which a child needs for itself. The agent keeps those
/// open, but a test may have closed them.
pub(crate) fn above_standard(fd: Fd) -> Sys<Fd> {
    if fd.raw() > 2 {
        Ok(fd)
    } else {
        duplicate(fd.raw())
    }
}

/// A second descriptor for the same open file.
pub(crate) fn duplicate(fd: RawFd) -> Sys<Fd> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }).map(Fd::new)
}

/// Sets or clears `O_NONBLOCK`.
pub(crate) fn set_nonblocking(fd: RawFd, on: bool) -> Sys<()> {
    // SAFETY: no memory is involved.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let flags = if on {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }).map(drop)
}
