//! What a process reads: written as it takes it, without holding any thread.

use std::collections::VecDeque;

use provium_protocol::Error;

use crate::server::request::{At, Ticket};
use crate::server::state::State;
use crate::server::token::{Kind, token};
use crate::sys::fd::Fd;
use crate::sys::poll::{ONCE, WRITABLE};
use crate::sys::socket;

/// The input of a process.
#[derive(Default)]
pub(super) struct Stdin {
    /// The writing end, until it is closed.
    pipe: Option<Fd>,
    queue: VecDeque<Piece>,
    /// Close when everything is written.
    last: bool,
    /// Whether the io thread knows the pipe.
    watched: bool,
}

/// Bytes to be written, and who wants to know.
struct Piece {
    data: Vec<u8>,
    written: usize,
    ticket: Option<Ticket>,
}

impl Stdin {
    /// Closes the pipe; what was not written is dropped with it.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// Writes what the pipe takes. Gives the pieces that were finished or failed.
    fn write(&mut self) -> Vec<(Ticket, Result<u64, Error>)> {
        let mut finished = Vec::new();
        while let (Some(pipe), Some(piece)) = (&self.pipe, self.queue.front_mut()) {
            let result = match piece.data.get(piece.written..) {
                None | Some([]) => Ok(0),
                Some(rest) => pipe.write(rest),
            };
            match result {
                Ok(count) => piece.written += count,
                Err(libc::EINTR) => continue,
                Err(errno) if socket::would_block(errno) => return finished,
                Err(errno) => {
                    finished.append(&mut self.fail(errno));
                    return finished;
                }
            }
            if piece.written == piece.data.len()
                && let Some(Piece {
                    data,
                    ticket: Some(ticket),
                    ..
                }) = self.queue.pop_front()
            {
                finished.push((ticket, Ok(data.len() as u64)));
            }
        }
        if self.last && self.queue.is_empty() {
            self.pipe = None;
        }
        finished
    }

    /// Nobody will read: everything that waits fails.
    fn fail(&mut self, errno: i32) -> Vec<(Ticket, Result<u64, Error>)> {
        self.pipe = None;
        let tickets = self.queue.drain(..).filter_map(|piece| piece.ticket);
        tickets.map(|ticket| (ticket, Err(closed(errno)))).collect()
    }
}

fn closed(errno: i32) -> Error {
    Error::os("write to the standard input", errno)
}

impl State {
    /// A process was started with an input. It ends with the data unless it is to stay open.
    pub(super) fn open_stdin(&mut self, id: u64, pipe: Fd, data: Vec<u8>, stay_open: bool) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        proc.stdin.pipe = Some(pipe);
        proc.stdin.last = !stay_open;
        if !data.is_empty() {
            proc.stdin.queue.push_back(Piece {
                data,
                written: 0,
                ticket: None,
            });
        }
        self.stdin_ready(id);
    }

    /// `proc_stdin`: answered when all of it is written.
    pub(crate) fn proc_stdin(&mut self, h: u64, data: Vec<u8>, ticket: Ticket) {
        let proc = match self.proc(h) {
            Ok(proc) => proc,
            Err(error) => return self.answer(ticket, Err::<u64, _>(error)),
        };
        if proc.stdin.pipe.is_none() || proc.stdin.last {
            return self.answer(ticket, Err::<u64, _>(closed(libc::EPIPE)));
        }
        proc.stdin.queue.push_back(Piece {
            data,
            written: 0,
            ticket: Some(ticket),
        });
        self.moved(ticket, At::Stdin(h));
        self.stdin_ready(h);
    }

    /// `proc_close_stdin`: after what is still to be written.
    pub(crate) fn proc_close_stdin(&mut self, h: u64) -> Result<(), Error> {
        self.proc(h)?.stdin.last = true;
        self.stdin_ready(h);
        Ok(())
    }

    /// An input has room.
    pub(crate) fn stdin_ready(&mut self, id: u64) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let finished = proc.stdin.write();
        self.watch_stdin(id);
        for (ticket, result) in finished {
            self.answer(ticket, result);
        }
    }

    /// A cancelled `proc_stdin`: what was not written is dropped.
    pub(crate) fn forget_stdin(&mut self, id: u64, ticket: Ticket) {
        if let Some(proc) = self.procs.get_mut(id) {
            proc.stdin
                .queue
                .retain(|piece| piece.ticket != Some(ticket));
        }
    }

    /// The process has ended: nothing more is written to it.
    pub(super) fn fail_stdin(&mut self, id: u64) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        for (ticket, result) in proc.stdin.fail(libc::EPIPE) {
            self.answer(ticket, result);
        }
    }

    /// Has the io thread tell when a full pipe has room again.
    fn watch_stdin(&mut self, id: u64) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let stdin = &mut proc.stdin;
        let Some(pipe) = stdin.pipe.as_ref().filter(|_| !stdin.queue.is_empty()) else {
            return;
        };
        let (fd, token, events) = (pipe.raw(), token(Kind::Stdin, id), ONCE | WRITABLE);
        let known = std::mem::replace(&mut stdin.watched, true);
        // Watching a pipe of our own fails only for want of memory.
        let _ = match known {
            true => self.epoll.change(fd, token, events),
            false => self.epoll.add(fd, token, events),
        };
    }
}
