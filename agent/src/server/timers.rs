//! Things to do at a time: one timer descriptor, always set to the earliest.

use std::collections::BTreeMap;

use super::request::{Job, Ticket};
use crate::sys::{Sys, poll, time};

/// What to do when the time has come.
pub(crate) enum Due {
    /// An `exec` has used up its time.
    ExecTimeout(u64),
    /// Children of an ended process still hold its output open, and have had their second.
    OutputGrace(u64),
    /// A `proc_wait` has waited long enough.
    WaitTimeout(u64, Ticket),
    /// A `clock_sleep` is over.
    Sleep(Ticket),
    /// The op thread did not take notice of its interruption: the signal may have come just
    /// before the system call. The number is the job it was for.
    InterruptOp(u64),
    /// The same for a thread of `syscall_async`.
    InterruptCall(u64),
    /// A parked job gets another try.
    Retry(Box<Job>),
    /// A worker has been without a connection for long enough since the one with this number.
    Alone(u64),
    /// Followed files that nobody reports changes of are looked at.
    PollFiles,
}

/// Key of a timer, for taking it back.
pub(crate) type TimerKey = (u64, u64);

/// All timers of one server.
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Due>,
    next: u64,
    timer: poll::Timer,
    /// What the descriptor is set to, unless it has gone off.
    set_to: Option<u64>,
}

impl Timers {
    pub(crate) fn new() -> Sys<Self> {
        Ok(Self {
            due: BTreeMap::new(),
            next: 0,
            timer: poll::Timer::new()?,
            set_to: None,
        })
    }

    pub(crate) fn raw(&self) -> std::os::fd::RawFd {
        self.timer.raw()
    }

    /// Does something after a time.
    pub(crate) fn after(&mut self, ns: u64, what: Due) -> TimerKey {
        let key = (time::monotonic().saturating_add(ns), self.next);
        self.next += 1;
        self.due.insert(key, what);
        self.arm();
        key
    }

    /// Takes a timer back. The descriptor may go off for nothing; that costs less than setting it.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<Due> {
        self.due.remove(&key)
    }

    /// Everything whose time has come, in order.
    pub(crate) fn expired(&mut self) -> Vec<Due> {
        self.timer.drain();
        self.set_to = None;
        let later = self
            .due
            .split_off(&(time::monotonic().saturating_add(1), 0));
        let now = std::mem::replace(&mut self.due, later);
        self.arm();
        now.into_values().collect()
    }

    fn arm(&mut self) {
        let Some(((first, _), _)) = self.due.first_key_value() else {
            return;
        };
        if self.set_to.is_none_or(|at| *first < at) {
            self.set_to = Some(*first);
            // Setting a valid time on our own descriptor cannot fail.
            let _ = self.timer.set(*first);
        }
    }
}
