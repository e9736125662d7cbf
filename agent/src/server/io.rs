//! The io thread: it waits for everything the op thread does not (see the [parent](super)).

use std::sync::Arc;

use super::Server;
use super::timers::Due;
use super::token::{Kind, parts, token};
use crate::sys::Sys;
use crate::sys::poll::{HANGUP, ONCE, READABLE, Ready, WRITABLE};

/// Its stack: no operation runs on it.
const STACK: usize = 128 * 1024;

/// Starts the thread.
pub(super) fn start(server: &Arc<Server>) -> Sys<()> {
    let wake = token(Kind::Wake, 0);
    server
        .epoll
        .add(server.io_wake.raw(), wake, READABLE | ONCE)?;
    match server.link.listener() {
        Some(listener) => server
            .epoll
            .add(listener, token(Kind::Listener, 0), READABLE)?,
        None => drop(server.open_session(&[])),
    }
    server.lock().expect_host();
    let server = Arc::clone(server);
    let thread = std::thread::Builder::new().stack_size(STACK);
    let run = move || while server.wait_once() {};
    thread
        .spawn(run)
        .map(drop)
        .map_err(|error| crate::sys::errno_of(&error))
}

impl Server {
    /// Waits for something and handles it. False when the server has ended and all that it had
    /// started is gone: whatever it leaves behind in this process nobody else takes care of.
    fn wait_once(self: &Arc<Self>) -> bool {
        let mut ready: Vec<Ready> = self.epoll.wait().collect();
        // Output of a process before its end, so that a command that is all done is seen as such.
        ready.sort_unstable_by_key(|ready| ready.token);
        ready.into_iter().for_each(|ready| self.handle(ready));
        !self.lock().is_over()
    }

    fn handle(self: &Arc<Self>, ready: Ready) {
        let Some((kind, id)) = parts(ready.token) else {
            return;
        };
        let hangup = ready.events & HANGUP != 0;
        match kind {
            Kind::Stdout | Kind::Stderr => self.lock().output_ready(id, kind, hangup),
            Kind::Stdin => self.lock().stdin_ready(id),
            Kind::Exit => self.lock().process_ended(id),
            Kind::Stream => self.lock().stream_ready(id),
            Kind::Inotify => self.lock().files_changed(),
            Kind::Session => self.session_ready(id, ready.events),
            Kind::Listener => drop(self.open_session(&[])),
            Kind::Timer => self.timers_expired(),
            Kind::Wake => self.lock().op_thread_ended(),
        }
    }

    /// The connection has room, or the op thread is busy and a request has come.
    fn session_ready(self: &Arc<Self>, generation: u64, events: u32) {
        let session = {
            let mut state = self.lock();
            if events & WRITABLE != 0 && state.session(generation).is_some() {
                state.flush();
            }
            match state.session(generation) {
                Some(session) if state.op.armed => session,
                // The op thread reads; it only wanted to hear of room.
                Some(_) if state.current.outbox.is_empty() => return,
                Some(_) => return state.watch_session(),
                None => return,
            }
        };
        if events & !WRITABLE != 0 {
            self.read_now(&session);
        }
        self.lock().watch_session();
    }

    fn timers_expired(&self) {
        let mut state = self.lock();
        for due in state.timers.expired() {
            match due {
                Due::ExecTimeout(process) => state.exec_timed_out(process),
                Due::OutputGrace(process) => state.output_grace_over(process),
                Due::WaitTimeout(process, ticket) => state.wait_timed_out(process, ticket),
                Due::Sleep(ticket) => state.answer(ticket, Ok(())),
                Due::InterruptOp(job) => state.interrupt_job(job),
                Due::InterruptCall(call) => state.interrupt_call(call),
                Due::Retry(job) => state.unpark(*job),
                Due::Alone(generation) => state.alone(generation),
                Due::PollFiles => state.poll_files(),
            }
        }
    }
}
