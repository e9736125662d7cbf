//! Requests from their arrival to their one answer (E-049 to E-057, E-095 to E-097).

use provium_protocol::message::{err_frame, ok_frame};
use provium_protocol::wire::Wire;
use provium_protocol::{Error, ErrorKind, Op, RawValue, Request};

use super::state::{Role, State};
use super::timers::TimerKey;
use crate::ops::batch::BatchRun;
use crate::ops::{class, immediate};

/// Most requests that may be pending on one connection (E-101).
const MAX_PENDING: usize = 16 * 1024;

/// A request of a certain connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) generation: u64,
    pub(crate) id: u64,
}

/// Who gets the result of an operation.
pub(crate) enum ReplyTo {
    /// The harness.
    Request(Ticket),
    /// The batch of which it is a part, which then goes on.
    Batch(Box<BatchRun>),
}

impl ReplyTo {
    pub(crate) fn ticket(&self) -> Ticket {
        match self {
            Self::Request(ticket) => *ticket,
            Self::Batch(run) => run.ticket,
        }
    }
}

/// Work for the op thread.
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    pub(crate) work: Work,
    /// Bytes of the frame it came in.
    size: usize,
}

/// What kind of work.
pub(crate) enum Work {
    Op(Op),
    /// A batch that goes on behind an operation that had to wait.
    Batch(Box<BatchRun>),
    /// A device that had not appeared yet; until when to look.
    FindBlock(String, u64),
}

impl Job {
    pub(crate) fn new(ticket: Ticket, work: Work) -> Self {
        Self {
            ticket,
            work,
            size: 0,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// A request that has no answer yet.
#[derive(Debug)]
pub(crate) struct Pending {
    at: At,
    cancelled: bool,
}

/// Where a pending request is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// Before the op thread.
    Queued,
    /// On the op thread.
    Running,
    /// It started this process and waits for its end.
    Exec(u64),
    /// It waits for this process.
    Wait(u64),
    /// It writes to this process.
    Stdin(u64),
    /// It waits for the processes of a worker.
    Join,
    /// It waits for a time.
    Timer(TimerKey),
    /// It is a system call on a thread of its own.
    Call(u64),
}

impl State {
    /// A request has arrived.
    pub(crate) fn request(&mut self, request: Request, size: usize) {
        let id = request.id;
        let reject = |state: &mut Self, error: &Error| state.send(err_frame(id, error));
        if id == 0 || self.pending.contains_key(&id) {
            let why = if id == 0 {
                "ids start at 1"
            } else {
                "this id is pending already"
            };
            return reject(
                self,
                &Error::new(ErrorKind::BadArgs, format!("field `id`: {why}")),
            );
        }
        if self.pending.len() >= MAX_PENDING {
            return reject(
                self,
                &Error::new(ErrorKind::BadArgs, "too many pending requests"),
            );
        }
        let op = match request.op {
            Ok(op) if self.offers(&op) => op,
            Ok(op) => return reject(self, &provium_protocol::ops::unknown(op.name())),
            Err(error) => return reject(self, &error),
        };
        let ticket = Ticket {
            generation: self.current.generation,
            id,
        };
        self.pending.insert(
            id,
            Pending {
                at: At::Queued,
                cancelled: false,
            },
        );
        match class::is_immediate(&op) {
            true => immediate::run(self, op, ticket),
            false => self.queue.push_back(Job {
                ticket,
                work: Work::Op(op),
                size,
            }),
        }
    }

    /// Whether this kind of server has an operation (E-086, E-090).
    fn offers(&self, op: &Op) -> bool {
        match op {
            Op::SpawnWorker(_)
            | Op::NetConfigure(_)
            | Op::Shutdown(_)
            | Op::Quiesce(_)
            | Op::Unquiesce(_) => self.role == Role::Main,
            Op::WorkerSignal(_) | Op::WorkerJoin(_) | Op::WorkerExit(_) => self.role != Role::Main,
            _ => true,
        }
    }

    /// Notes where a request is now.
    pub(crate) fn moved(&mut self, ticket: Ticket, at: At) {
        if ticket.generation == self.current.generation
            && let Some(pending) = self.pending.get_mut(&ticket.id)
        {
            pending.at = at;
        }
    }

    pub(crate) fn mark_running(&mut self, ticket: Ticket) {
        self.moved(ticket, At::Running);
    }

    /// Whether a request has been cancelled or its connection is gone.
    pub(crate) fn is_dead(&self, ticket: Ticket) -> bool {
        ticket.generation != self.current.generation
            || self
                .pending
                .get(&ticket.id)
                .is_none_or(|pending| pending.cancelled)
    }

    /// Gives the result of an operation to whoever asked for it.
    pub(crate) fn reply<T: Wire>(&mut self, to: ReplyTo, result: Result<T, Error>) {
        match to {
            ReplyTo::Request(ticket) => self.answer(ticket, result),
            ReplyTo::Batch(mut run) => {
                run.record(result.map(|value| RawValue::of(&value)));
                self.unpark(Job::new(run.ticket, Work::Batch(run)));
            }
        }
    }

    /// Answers a request, unless it has been answered or its connection is gone.
    pub(crate) fn answer<T: Wire>(&mut self, ticket: Ticket, result: Result<T, Error>) {
        if ticket.generation != self.current.generation {
            return;
        }
        let Some(pending) = self.pending.remove(&ticket.id) else {
            return;
        };
        // The value of a `syscall_async` is what its interruption led to (L-235).
        let frame = match result {
            _ if pending.cancelled && !matches!(pending.at, At::Call(_)) => {
                err_frame(ticket.id, &cancelled())
            }
            Ok(value) => ok_frame(ticket.id, &value),
            Err(error) => err_frame(ticket.id, &error),
        };
        self.send(frame);
    }

    /// The harness no longer wants an operation (E-054).
    pub(crate) fn cancel(&mut self, id: u64) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        if pending.cancelled {
            return;
        }
        pending.cancelled = true;
        let at = pending.at;
        let ticket = Ticket {
            generation: self.current.generation,
            id,
        };
        if !self.give_up_on(ticket, at) {
            self.answer(ticket, Err::<(), _>(cancelled()));
        }
    }

    /// Stops the work on a request. True if its answer comes from elsewhere.
    fn give_up_on(&mut self, ticket: Ticket, at: At) -> bool {
        match at {
            At::Running if self.runs(ticket) => {
                self.interrupt_op();
                return true;
            }
            At::Call(call) => {
                self.interrupt_call(call);
                return true;
            }
            At::Queued => self.queue.retain(|job| job.ticket != ticket),
            At::Exec(process) => self.abandon_exec(process),
            At::Wait(process) => self.forget_waiter(process, ticket),
            At::Timer(key) => {
                if let Some(super::timers::Due::Retry(_)) = self.timers.cancel(key) {
                    self.forget_parked();
                }
            }
            At::Stdin(process) => self.forget_stdin(process, ticket),
            At::Running | At::Join => {}
        }
        false
    }

    /// The connection is gone: nobody waits for any answer (E-048).
    pub(crate) fn abandon_requests(&mut self) {
        let generation = self.current.generation;
        for (id, pending) in std::mem::take(&mut self.pending) {
            self.give_up_on(Ticket { generation, id }, pending.at);
        }
        self.queue.clear();
    }
}

/// The answer to a cancelled request.
fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled by the harness")
}
