//! What the two threads of a server share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar};

use provium_protocol::MAX_FRAME;

use super::handles::Handles;
use super::identity::Identity;
use super::request::{At, Job, Pending, Ticket};
use super::session::Current;
use super::timers::{Due, Timers};
use super::token::{Kind, token};
use crate::calls::Calls;
use crate::process::Procs;
use crate::stream::Streams;
use crate::sys::poll::READABLE;
use crate::sys::{Sys, poll, signal};
use crate::worker::Workers;

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The agent itself.
    Main,
    /// A worker that is a process.
    ForkWorker,
    /// A worker that is a thread of the agent.
    ThreadWorker,
}

/// How long an interrupted thread may take before it is interrupted again.
pub(crate) const INTERRUPT_AGAIN_NS: u64 = 5_000_000;

/// What the op thread is doing.
#[derive(Debug)]
pub(crate) struct OpThreadState {
    tid: i32,
    /// The request it works on.
    running: Option<Ticket>,
    /// Counts its jobs.
    job: u64,
    /// Whether the io thread reads the connection meanwhile.
    pub(crate) armed: bool,
}

/// Everything a server knows.
pub(crate) struct State {
    pub(crate) role: Role,
    pub(crate) identity: Identity,
    pub(crate) epoll: Arc<poll::Epoll>,
    pub(crate) changed: Arc<Condvar>,
    op_wake: Arc<poll::Event>,
    pub(crate) timers: Timers,
    pub(crate) current: Current,
    pub(crate) op: OpThreadState,
    pub(crate) queue: VecDeque<Job>,
    /// Jobs that wait for something else before the op thread goes on with them.
    parked: usize,
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) handles: Handles,
    pub(crate) procs: Procs,
    pub(crate) streams: Streams,
    pub(crate) workers: Workers,
    pub(crate) calls: Calls,
    /// Set when the operation that runs should give up.
    give_up: Arc<AtomicBool>,
    quitting: bool,
    /// The op thread has come to its end.
    op_ended: bool,
}

impl State {
    pub(crate) fn new(
        role: Role,
        identity: Identity,
        tid: i32,
        epoll: Arc<poll::Epoll>,
        changed: Arc<Condvar>,
        op_wake: Arc<poll::Event>,
    ) -> Sys<Self> {
        let timers = Timers::new()?;
        epoll.add(timers.raw(), token(Kind::Timer, 0), READABLE)?;
        Ok(Self {
            role,
            identity,
            epoll,
            changed,
            op_wake,
            timers,
            current: Current::default(),
            op: OpThreadState {
                tid,
                running: None,
                job: 0,
                armed: false,
            },
            queue: VecDeque::new(),
            parked: 0,
            pending: BTreeMap::new(),
            handles: Handles::new(tid),
            procs: Procs::default(),
            streams: Streams::default(),
            workers: Workers::default(),
            calls: Calls::default(),
            give_up: Arc::new(AtomicBool::new(false)),
            quitting: false,
            op_ended: false,
        })
    }

    pub(crate) fn quitting(&self) -> bool {
        self.quitting
    }

    /// Ends the server: its processes are killed, its op thread comes back.
    pub(crate) fn quit(&mut self) {
        self.quitting = true;
        self.kill_all_processes();
        self.interrupt_op();
        self.changed.notify_all();
        self.op_wake.signal();
    }

    /// The op thread is gone; the io thread may follow.
    pub(crate) fn op_thread_ended(&mut self) {
        self.op_ended = true;
        // What it started while the server was ending.
        self.kill_all_processes();
    }

    /// Whether nothing is left of the server but its state.
    pub(crate) fn is_over(&self) -> bool {
        self.op_ended && !self.procs.any_runs() && self.calls.is_empty()
    }

    /// What an operation looks at to see whether it should give up.
    pub(crate) fn give_up_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.give_up)
    }

    /// Whether the op thread may wait for the connection: nothing else is to be done.
    pub(crate) fn may_wait(&self, generation: u64) -> bool {
        self.queue.is_empty() && !self.quitting && self.session(generation).is_some()
    }

    /// Whether enough requests wait for the op thread (E-101).
    pub(crate) fn queue_is_full(&self) -> bool {
        self.queue.len() > 4096 || self.queue.iter().map(Job::size).sum::<usize>() >= MAX_FRAME
    }

    /// The op thread's next job.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        let job = self.queue.pop_front()?;
        self.op.running = Some(job.ticket);
        self.op.job += 1;
        self.give_up.store(false, Ordering::Relaxed);
        self.mark_running(job.ticket);
        Some(job)
    }

    /// The op thread is done with its job.
    pub(crate) fn op_done(&mut self) {
        self.op.running = None;
        self.disarm();
    }

    /// Whether the op thread works on this request.
    pub(crate) fn runs(&self, ticket: Ticket) -> bool {
        self.op.running == Some(ticket)
    }

    /// Makes the operation that runs give up, if one does. A signal that comes just before a
    /// system call is lost, so it is sent again until the op thread has moved on.
    pub(crate) fn interrupt_op(&mut self) {
        if self.op.running.is_some() {
            self.give_up.store(true, Ordering::Relaxed);
            self.interrupt_job(self.op.job);
        }
    }

    pub(crate) fn interrupt_job(&mut self, job: u64) {
        if self.op.running.is_some() && self.op.job == job {
            signal::interrupt(self.op.tid);
            self.timers.after(INTERRUPT_AGAIN_NS, Due::InterruptOp(job));
        }
    }

    pub(crate) fn any_parked(&self) -> bool {
        self.parked > 0
    }

    /// Counts a job that the op thread puts aside.
    pub(crate) fn park(&mut self) {
        self.parked += 1;
    }

    /// A parked job is not coming back.
    pub(crate) fn forget_parked(&mut self) {
        self.parked = self.parked.saturating_sub(1);
    }

    /// A parked job goes on, before everything that came after it.
    pub(crate) fn unpark(&mut self, job: Job) {
        self.forget_parked();
        let ticket = job.ticket;
        if self.session(ticket.generation).is_some() && self.pending.contains_key(&ticket.id) {
            self.moved(ticket, At::Queued);
            self.queue.push_front(job);
            // An op thread that works looks at the queue before it waits again.
            if self.op.running.is_none() {
                self.op_wake.signal();
            }
        }
    }

    /// A new harness wants nothing of the one before: files are closed, processes left running
    /// on their own, workers ended (E-047).
    pub(crate) fn drop_handles(&mut self) {
        self.handles.clear();
        self.release_all_processes();
        self.end_workers();
    }
}
