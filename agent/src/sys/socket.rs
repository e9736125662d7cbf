//! Sockets: vsock in a guest, Unix sockets where the agent runs on a host for its tests.

use std::os::fd::RawFd;

use super::fd::Fd;
use super::{Errno, Sys, check, check_size};

/// Listens on a vsock port; `None` lets the kernel choose. Gives the port.
pub(crate) fn listen_vsock(port: Option<u32>) -> Sys<(Fd, u32)> {
    let socket = stream(libc::AF_VSOCK)?;
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port.unwrap_or(libc::VMADDR_PORT_ANY);
    let mut size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is valid for its size.
    check(unsafe { libc::bind(socket.raw(), (&raw const address).cast(), size) })?;
    listen(&socket)?;
    // SAFETY: the address is valid for its size, and so is the size.
    check(unsafe { libc::getsockname(socket.raw(), (&raw mut address).cast(), &raw mut size) })?;
    Ok((socket, address.svm_port))
}

/// Listens on a path.
pub(crate) fn listen_unix(path: &[u8]) -> Sys<Fd> {
    let socket = stream(libc::AF_UNIX)?;
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(libc::ENAMETOOLONG);
    }
    for (target, byte) in address.sun_path.iter_mut().zip(path) {
        *target = libc::c_char::from_ne_bytes([*byte]);
    }
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is valid for its size.
    check(unsafe { libc::bind(socket.raw(), (&raw const address).cast(), size) })?;
    listen(&socket)?;
    Ok(socket)
}

fn stream(family: libc::c_int) -> Sys<Fd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    check(unsafe { libc::socket(family, kind, 0) }).map(Fd::new)
}

fn listen(socket: &Fd) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(socket.raw(), 16) }).map(drop)
}

/// Accepts a connection that waits.
pub(crate) fn accept(listener: RawFd) -> Sys<Fd> {
    let none = std::ptr::null_mut();
    // SAFETY: the peer's address is not asked for.
    check(unsafe { libc::accept4(listener, none, std::ptr::null_mut(), libc::SOCK_CLOEXEC) })
        .map(Fd::new)
}

/// Receives, waiting for the first byte if `wait`.
pub(crate) fn receive(socket: RawFd, buffer: &mut [u8], wait: bool) -> Sys<usize> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the buffer is valid for its length.
    check_size(unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// Receives at most `max` bytes without waiting and appends them.
pub(crate) fn receive_append(socket: RawFd, buffer: &mut Vec<u8>, max: usize) -> Sys<usize> {
    super::fd::append_with(buffer, max, |room| {
        // SAFETY: the room is `max` bytes large.
        unsafe { libc::recv(socket, room, max, libc::MSG_DONTWAIT) }
    })
}

/// Sends what fits without waiting.
pub(crate) fn send_now(socket: RawFd, bytes: &[u8]) -> Sys<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are valid for their length.
    check_size(unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Ends a connection in both directions; whoever waits in it wakes up.
pub(crate) fn shut_down(socket: RawFd) {
    // SAFETY: no memory is involved; a connection that is gone is an error that changes nothing.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

/// A datagram socket for network ioctls.
pub(crate) fn datagram() -> Sys<Fd> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
        .map(Fd::new)
}

/// Whether an error says that the transport dropped a connection which neither side had ended: a
/// call that waits is told of the reset, the next ones that there is no connection.
pub(crate) fn was_cut(errno: Errno) -> bool {
    matches!(errno, libc::ECONNRESET | libc::ENOTCONN | libc::ETIMEDOUT)
}

/// Whether an error only says that nothing can be moved right now.
pub(crate) fn would_block(errno: Errno) -> bool {
    errno == libc::EAGAIN || errno == libc::EWOULDBLOCK
}
