//! The byte links over which a harness reaches the agent (E-042).
//!
//! In a guest that is vsock, or the second serial port where the kernel has none. On a host the
//! agent's own tests use Unix sockets. Everything above sees a [`Link`] that yields [`Conn`]s.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use provium_protocol::{AGENT_PORT, FrameReader, serial};

use crate::sys::fd::{Fd, duplicate};
use crate::sys::{Sys, poll, socket, time, tty};

/// How long to leave a line alone that is hung up.
const HUNG_UP_NS: u64 = 100_000_000;

/// Where the agent waits for its harness.
pub(crate) enum Link {
    /// A vsock listener.
    Vsock(Fd),
    /// A Unix listener with the path it was given, and the port of the next worker: `PATH.PORT`.
    Unix(Fd, Vec<u8>, AtomicU32),
    /// A serial port: one conversation at a time, begun by a call.
    Serial(Fd),
}

impl Link {
    /// Listens on the agent's vsock port.
    pub(crate) fn vsock() -> Sys<Self> {
        socket::listen_vsock(Some(AGENT_PORT)).map(|(listener, _)| Self::Vsock(listener))
    }

    /// Listens on a path.
    pub(crate) fn unix(path: &[u8]) -> Sys<Self> {
        socket::listen_unix(path).map(|fd| Self::Unix(fd, path.to_vec(), AtomicU32::new(1)))
    }

    /// Takes a serial port.
    pub(crate) fn serial(path: &[u8]) -> Sys<Self> {
        tty::open_raw(path).map(Self::Serial)
    }

    /// Another link of the same kind for a worker, with its port.
    pub(crate) fn another(&self) -> Sys<(Self, u32)> {
        match self {
            Self::Vsock(_) => {
                socket::listen_vsock(None).map(|(listener, port)| (Self::Vsock(listener), port))
            }
            Self::Unix(_, path, next) => {
                let port = next.fetch_add(1, Ordering::Relaxed);
                let path = [path.as_slice(), b".", port.to_string().as_bytes()].concat();
                Self::unix(&path).map(|link| (link, port))
            }
            Self::Serial(_) => Err(libc::EOPNOTSUPP),
        }
    }

    /// The descriptor on which connections arrive.
    pub(crate) fn listener(&self) -> Option<RawFd> {
        match self {
            Self::Vsock(fd) | Self::Unix(fd, ..) => Some(fd.raw()),
            Self::Serial(_) => None,
        }
    }

    /// The descriptor that keeps the link open.
    pub(crate) fn raw(&self) -> RawFd {
        match self {
            Self::Vsock(fd) | Self::Unix(fd, ..) | Self::Serial(fd) => fd.raw(),
        }
    }

    /// Takes a connection that waits; a serial port is always one.
    pub(crate) fn accept(&self) -> Sys<Conn> {
        match self {
            Self::Vsock(fd) | Self::Unix(fd, ..) => socket::accept(fd.raw()).map(Conn::Socket),
            Self::Serial(fd) => duplicate(fd.raw()).map(Conn::Tty),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Conn {
    Socket(Fd),
    Tty(Fd),
}

impl Conn {
    pub(crate) fn raw(&self) -> RawFd {
        match self {
            Self::Socket(fd) | Self::Tty(fd) => fd.raw(),
        }
    }

    /// Receives what is there, first waiting for something if `wait`. Zero is the end.
    pub(crate) fn receive(&self, buffer: &mut [u8], wait: bool) -> Sys<usize> {
        match self {
            Self::Socket(fd) => socket::receive(fd.raw(), buffer, wait),
            Self::Tty(fd) => match fd.read(buffer) {
                Err(errno) if wait && socket::would_block(errno) => {
                    poll::wait_readable(fd.raw(), -1);
                    Err(libc::EINTR)
                }
                // A serial port has no end, but a line may be hung up for a while.
                Ok(0) | Err(libc::EIO) => {
                    time::sleep(HUNG_UP_NS);
                    Err(libc::EAGAIN)
                }
                other => other,
            },
        }
    }

    /// Sends what fits without waiting.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> Sys<usize> {
        match self {
            Self::Socket(fd) => socket::send_now(fd.raw(), bytes),
            Self::Tty(fd) => fd.write(bytes),
        }
    }

    /// Ends the connection; whoever waits in it wakes up.
    pub(crate) fn shut_down(&self) {
        if let Self::Socket(fd) = self {
            socket::shut_down(fd.raw());
        }
    }
}

/// A reader for what comes on a connection, which may start with bytes that came behind the end
/// of the one before. On a serial port it first looks for a call: a port has no connections, so
/// anything may stand before it.
pub(crate) fn reader(conn: &Conn, early: &[u8]) -> FrameReader {
    let mut reader = match conn {
        Conn::Socket(_) => FrameReader::new(),
        Conn::Tty(_) => serial::agent_reader(),
    };
    reader.push(early);
    reader
}
