//! A connection of the harness, from its acceptance to its end (E-043 to E-047, E-091).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use provium_protocol::message::err_frame;
use provium_protocol::{
    Error, ErrorKind, FrameReader, Hello, HelloErr, PROTOCOL_VERSION, ToAgent, serial,
};

use super::outbox::Outbox;
use super::staged::Staged;
use super::state::{Role, State};
use super::timers::Due;
use super::token::{Kind, token};
use crate::link::Conn;
use crate::sys::poll::{ONCE, READABLE, WRITABLE};
use crate::sys::{Errno, socket};

/// A connection and the bytes read from it. Its number tells it from those before.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) generation: u64,
    pub(crate) conn: Conn,
    reader: Mutex<FrameReader>,
}

impl Session {
    pub(crate) fn lock_reader(&self) -> MutexGuard<'_, FrameReader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader, unless another thread is reading.
    pub(crate) fn try_reader(&self) -> Option<MutexGuard<'_, FrameReader>> {
        match self.reader.try_lock() {
            Ok(reader) => Some(reader),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// How a connection came to its end, which decides about a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One of the two sides ended it.
    Over,
    /// The transport dropped it: no connection survives a snapshot of the guest or its sleep.
    Cut,
    /// Another one took its place.
    Replaced,
}

impl End {
    /// That of a connection on which a call failed.
    pub(crate) fn by(errno: Errno) -> Self {
        if socket::was_cut(errno) {
            Self::Cut
        } else {
            Self::Over
        }
    }
}

/// How long a worker without a connection waits for one, in the guest's own time. After a restore
/// the harness comes at once if it has the worker's handle, and never if it has not: because the
/// handle was closed between the snapshot and the restore, or is another VM's.
const ALONE_NS: u64 = 30_000_000_000;

/// The state of the current connection.
#[derive(Debug, Default)]
pub(crate) struct Current {
    session: Option<Arc<Session>>,
    /// Number of the current connection, or of the last one.
    pub(crate) generation: u64,
    /// Whether hello has been answered.
    greeted: bool,
    /// Number of the call that began it, on a serial port.
    call: Option<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) staged: Staged,
}

impl State {
    /// A new connection replaces the one before (E-043).
    pub(crate) fn open_session(&mut self, conn: Conn, reader: FrameReader) -> Option<Arc<Session>> {
        self.end_session(self.current.generation, End::Replaced);
        if self.quitting() {
            return None;
        }
        self.current.generation += 1;
        let generation = self.current.generation;
        let fd = conn.raw();
        self.epoll
            .add(
                fd,
                token(Kind::Session, generation),
                self.session_interest(),
            )
            .ok()?;
        let session = Arc::new(Session {
            generation,
            conn,
            reader: Mutex::new(reader),
        });
        self.current.session = Some(Arc::clone(&session));
        self.changed.notify_all();
        Some(session)
    }

    /// Ends a connection if it is still the current one. What it waited for is given up; its
    /// handles stay, until the next hello decides about them (E-047). A worker ends with its
    /// connection (E-091), but not with one that was taken from both sides alike: after a restore
    /// its handle is as good as any other, and the harness comes back for it (L-012).
    pub(crate) fn end_session(&mut self, generation: u64, end: End) {
        if self.current.generation != generation {
            return;
        }
        let Some(session) = self.current.session.take() else {
            return;
        };
        let _ = self.epoll.remove(session.conn.raw());
        session.conn.shut_down();
        self.current.greeted = false;
        self.current.outbox = Outbox::default();
        self.current.staged = Staged::default();
        self.abandon_requests();
        self.streams.clear();
        self.handles
            .retain(|handle| !matches!(handle, super::handles::Handle::Stream));
        match end {
            End::Over if self.role != Role::Main => self.quit(),
            End::Cut => self.expect_host(),
            End::Over | End::Replaced => {}
        }
        self.changed.notify_all();
    }

    /// A worker that has no connection waits for one, but not for ever.
    pub(super) fn expect_host(&mut self) {
        if self.role != Role::Main {
            let generation = self.current.generation;
            self.timers.after(ALONE_NS, Due::Alone(generation));
        }
    }

    /// Nobody has come since this connection.
    pub(super) fn alone(&mut self, generation: u64) {
        if self.current.session.is_none() && self.current.generation == generation {
            self.quit();
        }
    }

    /// The connection, if it can be read from now.
    pub(crate) fn readable_session(&self) -> Option<Arc<Session>> {
        let session = self.current.session.as_ref()?;
        (!self.current.outbox.is_full()).then(|| Arc::clone(session))
    }

    /// The connection with this number, if it is the current one.
    pub(crate) fn session(&self, generation: u64) -> Option<Arc<Session>> {
        self.current
            .session
            .as_ref()
            .filter(|s| s.generation == generation)
            .map(Arc::clone)
    }

    /// Asks the io thread to watch the connection while the op thread is busy.
    pub(crate) fn arm(&mut self) {
        if !self.op.armed {
            self.op.armed = true;
            self.watch_session();
        }
    }

    pub(crate) fn disarm(&mut self) {
        if self.op.armed {
            self.op.armed = false;
            self.watch_session();
        }
    }

    /// Tells the kernel what the io thread now wants to know about the connection.
    pub(crate) fn watch_session(&mut self) {
        if let Some(session) = &self.current.session {
            let token = token(Kind::Session, session.generation);
            let _ = self
                .epoll
                .change(session.conn.raw(), token, self.session_interest());
        }
    }

    fn session_interest(&self) -> u32 {
        let read = self.op.armed && !self.current.outbox.is_full() && !self.queue_is_full();
        let write = !self.current.outbox.is_empty();
        ONCE | if read { READABLE } else { 0 } | if write { WRITABLE } else { 0 }
    }

    /// Sends a frame on the current connection; one that cannot take it has ended.
    pub(crate) fn send(&mut self, frame: Vec<u8>) {
        let Some(session) = &self.current.session else {
            return;
        };
        let generation = session.generation;
        match self.current.outbox.send(&session.conn, frame) {
            Ok(()) if self.current.outbox.is_empty() => {}
            Ok(()) => self.watch_session(),
            Err(errno) => self.end_session(generation, End::by(errno)),
        }
    }

    /// Sends what waited, now that the connection has room.
    pub(crate) fn flush(&mut self) {
        let Some(session) = &self.current.session else {
            return;
        };
        let generation = session.generation;
        match self.current.outbox.flush(&session.conn) {
            Ok(()) => {
                self.changed.notify_all();
                self.pump_stalled_streams();
            }
            Err(errno) => self.end_session(generation, End::by(errno)),
        }
    }

    /// Takes a message. False if the connection is over.
    pub(crate) fn accept(
        &mut self,
        generation: u64,
        call: Option<u8>,
        message: ToAgent,
        size: usize,
    ) -> bool {
        if self.session(generation).is_none() {
            return false;
        }
        self.current.call = call;
        match message {
            ToAgent::Hello(hello) if !self.current.greeted => self.greet(&hello),
            ToAgent::Hello(_) => self.protocol_error(generation, "a second hello", &[]),
            _ if !self.current.greeted => self.turn_away("the first frame must be a hello"),
            ToAgent::Request(request) => self.request(request, size),
            ToAgent::Credit { stream, credit } => self.grant(stream, credit),
            ToAgent::Cancel { id } => self.cancel(id),
        }
        self.session(generation).is_some()
    }

    /// The peer broke the protocol: it is told, unless it is a serial peer starting over, and the
    /// connection ends (E-093).
    pub(crate) fn protocol_error(&mut self, generation: u64, why: &str, early: &[u8]) {
        if self.session(generation).is_none() {
            return;
        }
        if !serial::starts_call(early) {
            self.send(err_frame(0, &Error::new(ErrorKind::Protocol, why)));
        }
        self.end_session(generation, End::Over);
    }

    fn greet(&mut self, hello: &Hello) {
        if hello.protocol_version != PROTOCOL_VERSION {
            let theirs = hello.protocol_version;
            return self.turn_away(&format!(
                "the host speaks protocol version {theirs}, this agent {PROTOCOL_VERSION}; host \
                 and agent must come from one build",
            ));
        }
        if !hello.resume {
            self.drop_handles();
        }
        self.current.greeted = true;
        let answer = self.identity.hello_ok(self.role != Role::Main);
        self.send_hello(answer.to_frame());
    }

    fn send_hello(&mut self, frame: Result<Vec<u8>, Error>) {
        let Ok(mut frame) = frame else { return };
        if let Some(number) = self.current.call {
            frame.splice(..0, serial::reply(number));
        }
        self.send(frame);
    }

    /// Refuses a connection (E-046).
    fn turn_away(&mut self, why: &str) {
        let answer = HelloErr {
            protocol_version: PROTOCOL_VERSION,
            message: why.to_owned(),
        };
        self.send_hello(answer.to_frame());
        self.end_session(self.current.generation, End::Over);
    }
}
