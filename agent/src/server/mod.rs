//! Serving a harness: two threads around one state.
//!
//! The *op thread* runs everything that acts with the agent's identity, in the order of arrival
//! (E-055). The *io thread* waits for everything else: ends of processes, their output, streams,
//! time, and new connections. Answers are sent by the thread that has them.
//!
//! An idle op thread reads the connection itself, so the usual request costs no switch of
//! threads. Only around an operation that may wait for somebody does it ask the io thread to
//! watch the connection instead ([`State::arm`]); the io thread then answers what needs no op
//! thread, queues the rest, and passes cancels on. Whoever reads holds the lock of the session's
//! reader; queueing happens under that lock, and the op thread looks at the queue once more
//! after taking it, so no request can be left behind.
//!
//! Locks are taken in the order reader, state; no system call that may wait is made under the
//! state's lock.

pub(crate) mod handles;
mod identity;
mod io;
mod outbox;
pub(crate) mod request;
mod session;
mod staged;
pub(crate) mod state;
pub(crate) mod timers;
pub(crate) mod token;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use provium_protocol::{FrameReader, ToAgent};

pub(crate) use identity::Identity;
use request::Job;
use session::{End, Session};
pub(crate) use state::{Role, State};

use crate::link::{self, Link};
use crate::ops::OpThread;
use crate::sys::{Sys, poll, process, signal};

/// One server: the agent itself, or one of its workers.
pub(crate) struct Server {
    state: Mutex<State>,
    /// The op thread waits here while there is nothing to read.
    changed: Arc<Condvar>,
    /// Wakes the op thread while it waits for a parked job as well as for its connection.
    op_wake: Arc<poll::Event>,
    /// Wakes the io thread when the server ends.
    io_wake: poll::Event,
    epoll: Arc<poll::Epoll>,
    link: Link,
}

/// What the op thread does next.
enum Step {
    Run(Job),
    /// Read the connection; a parked job may become ready meanwhile.
    Read(Arc<Session>, bool),
    Quit,
}

impl Server {
    /// A server whose op thread will be the calling one.
    pub(crate) fn new(role: Role, link: Link, identity: Identity) -> Sys<Arc<Self>> {
        let epoll = Arc::new(poll::Epoll::new()?);
        let changed = Arc::new(Condvar::new());
        let op_wake = Arc::new(poll::Event::new()?);
        let state = State::new(
            role,
            identity,
            process::tid(),
            Arc::clone(&epoll),
            Arc::clone(&changed),
            Arc::clone(&op_wake),
        )?;
        let io_wake = poll::Event::new()?;
        let state = Mutex::new(state);
        Ok(Arc::new(Self {
            state,
            changed,
            op_wake,
            io_wake,
            epoll,
            link,
        }))
    }

    /// Serves until the server ends, which only a worker's does.
    pub(crate) fn run(self: &Arc<Self>) -> Sys<()> {
        signal::prepare();
        io::start(self)?;
        // The op thread follows the root of process 1; threads that share its root must not.
        // Where this is refused (an ordinary user's container), there is no root to follow either.
        let _ = process::unshare_fs();
        let mut ops = OpThread::new(self);
        loop {
            match self.next_step() {
                Step::Run(job) => ops.run(job),
                Step::Read(session, parked) => self.read(&session, parked),
                Step::Quit => break,
            }
        }
        self.io_wake.signal();
        Ok(())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link, for workers that want one like it.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    fn next_step(&self) -> Step {
        let mut state = self.lock();
        state.op_done();
        loop {
            if state.quitting() {
                return Step::Quit;
            }
            if let Some(job) = state.next_job() {
                return Step::Run(job);
            }
            if let Some(session) = state.readable_session() {
                return Step::Read(session, state.any_parked());
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The op thread's reading: it waits for bytes.
    fn read(&self, session: &Arc<Session>, parked: bool) {
        if parked {
            poll::wait_either(session.conn.raw(), self.op_wake.raw());
            self.op_wake.drain();
        }
        let mut reader = session.lock_reader();
        // The io thread may have queued something before we got the reader.
        if self.lock().may_wait(session.generation) {
            self.receive(session, &mut reader, !parked);
        }
    }

    /// The io thread's reading, while the op thread is busy: it takes what is there.
    fn read_now(&self, session: &Arc<Session>) {
        if let Some(mut reader) = session.try_reader() {
            self.receive(session, &mut reader, false);
        }
    }

    fn receive(&self, session: &Arc<Session>, reader: &mut FrameReader, wait: bool) {
        let mut over = match session.conn.receive(reader.space(), wait) {
            Ok(count) if count > 0 => {
                reader.filled(count);
                self.take_frames(session, reader)
            }
            Err(libc::EINTR | libc::EAGAIN) => None,
            ended => {
                let end = ended.map_or_else(End::by, |_| End::Over);
                self.lock().end_session(session.generation, end);
                Some(Vec::new())
            }
        };
        while let Some(early) = over {
            over = self.restart_serial(&early);
        }
    }

    /// Takes all whole frames. If the connection ended over one, gives what came behind it.
    fn take_frames(&self, session: &Arc<Session>, reader: &mut FrameReader) -> Option<Vec<u8>> {
        let call = reader.call_number();
        loop {
            let message = match reader.next_frame() {
                Ok(None) => return None,
                Ok(Some(body)) => ToAgent::from_body(body).map(|message| (message, body.len())),
                Err(error) => {
                    let early = reader.pending().to_vec();
                    self.lock()
                        .protocol_error(session.generation, &error.to_string(), &early);
                    return Some(early);
                }
            };
            match message {
                Ok((message, size)) => {
                    if !self.lock().accept(session.generation, call, message, size) {
                        return Some(reader.pending().to_vec());
                    }
                }
                Err(error) => {
                    self.lock()
                        .protocol_error(session.generation, &error.to_string(), &[]);
                    return Some(reader.pending().to_vec());
                }
            }
        }
    }

    /// A serial port is always connected: the next conversation may begin at once, with what came
    /// behind the end of the last. Gives the same if that ended too.
    fn restart_serial(&self, early: &[u8]) -> Option<Vec<u8>> {
        let Link::Serial(_) = self.link else {
            return None;
        };
        let session = self.open_session(early)?;
        let mut reader = session.lock_reader();
        self.take_frames(&session, &mut reader)
    }

    /// Takes a connection; it replaces the one before (E-043).
    fn open_session(&self, early: &[u8]) -> Option<Arc<Session>> {
        let conn = self.link.accept().ok()?;
        let reader = link::reader(&conn, early);
        self.lock().open_session(conn, reader)
    }
}
