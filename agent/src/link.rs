//! The byte links over which a harness reaches the agent (E-042).
//!
//! In a guest that is vsock, or the second serial port where the kernel has none. On a host the
//! agent's own tests use Unix sockets. Everything above sees a [`Link`] that yields [`Conn`]s.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use provium_protocol::{AGENT_PORT, FrameError, FrameReader, SERIAL_PREAMBLE};

use crate::sys::fd::{Fd, duplicate};
use crate::sys::{Sys, poll, socket, tty};

/// Where the agent waits for its harness.
pub(crate) enum Link {
    /// A vsock listener.
    Vsock(Fd),
    /// A Unix listener with the path it was given, and the port of the next worker: `PATH.PORT`.
    Unix(Fd, Vec<u8>, AtomicU32),
    /// A serial port: one conversation at a time, begun by a preamble.
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
                // A serial port has no end.
                Ok(0) => {
                    poll::wait_readable(fd.raw(), 10);
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

/// Turns received bytes into frames. On a serial port it first looks for the preamble, because
/// anything may stand before it: a port has no connections.
#[derive(Debug)]
pub(crate) struct LinkReader {
    frames: FrameReader,
    /// How much of the preamble has been seen; `None` once it is complete or on a socket.
    preamble: Option<usize>,
}

impl LinkReader {
    /// A reader for a new connection, which may start with bytes that came with the one before.
    pub(crate) fn new(conn: &Conn, early: &[u8]) -> Self {
        let mut frames = FrameReader::new();
        frames.push(early);
        let preamble = matches!(conn, Conn::Tty(_)).then_some(0);
        let mut reader = Self { frames, preamble };
        if !early.is_empty() {
            reader.search();
        }
        reader
    }

    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.frames.space()
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.frames.filled(count);
        self.search();
    }

    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if self.preamble.is_some() {
            Ok(None)
        } else {
            self.frames.next_frame()
        }
    }

    /// What was received and not understood.
    pub(crate) fn pending(&self) -> &[u8] {
        self.frames.pending()
    }

    /// Drops everything up to and including the preamble.
    fn search(&mut self) {
        let Some(mut seen) = self.preamble else {
            return;
        };
        let bytes = self.frames.pending().to_vec();
        self.frames = FrameReader::new();
        for (index, byte) in bytes.iter().enumerate() {
            // The first byte of the preamble does not occur again in it.
            seen = match (*byte == SERIAL_PREAMBLE[seen], *byte == SERIAL_PREAMBLE[0]) {
                (true, _) => seen + 1,
                (false, true) => 1,
                (false, false) => 0,
            };
            if seen == SERIAL_PREAMBLE.len() {
                self.preamble = None;
                self.frames.push(&bytes[index + 1..]);
                return;
            }
        }
        self.preamble = Some(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(bytes: &[u8], step: usize) -> LinkReader {
        let mut reader = LinkReader {
            frames: FrameReader::new(),
            preamble: Some(0),
        };
        for chunk in bytes.chunks(step) {
            reader.space()[..chunk.len()].copy_from_slice(chunk);
            reader.filled(chunk.len());
        }
        reader
    }

    /// E-042: on a serial port a conversation starts wherever the preamble is.
    #[test]
    fn a_serial_conversation_starts_at_the_preamble() {
        let noise = b"login: \xff\xffPROV\xff".to_vec();
        let frame = [0, 0, 0, 1, 0xc0];
        let stream = [noise.as_slice(), &SERIAL_PREAMBLE, &frame].concat();
        for step in [1, 2, 7, stream.len()] {
            let mut reader = serial(&stream, step);
            assert_eq!(reader.next_frame().unwrap(), Some(&[0xc0][..]));
            assert_eq!(reader.next_frame().unwrap(), None);
        }
        assert_eq!(serial(&frame, 5).next_frame().unwrap(), None);
    }

    /// A new preamble where a frame should start is no legal length, so the reader of the old
    /// conversation stops there and the next one finds it among the pending bytes.
    #[test]
    fn a_preamble_ends_the_conversation_before_it() {
        let stream = [SERIAL_PREAMBLE, SERIAL_PREAMBLE].concat();
        let mut reader = serial(&stream, 16);
        assert!(reader.next_frame().is_err());
        assert_eq!(reader.pending(), SERIAL_PREAMBLE);
    }
}
