//! Telling how processes ended, and handing out their output (E-059, E-060, E-062, E-086).

use provium_protocol::ops::{ExecResult, JoinedProc, ProcState, ProcStatus, Which};
use provium_protocol::{Error, ErrorKind, MAX_FRAME};

use super::{Owner, Proc, kill_for_time};
use crate::server::handles::{Handle, Output};
use crate::server::request::{At, ReplyTo, Ticket};
use crate::server::state::State;
use crate::server::timers::{Due, TimerKey};

/// Most output in one answer; the rest of the frame is for what stands around it.
const INLINE: usize = MAX_FRAME - 64 * 1024;

/// A request that waits for a process.
pub(super) struct Waiter {
    ticket: Ticket,
    /// Kill the process when the time is up.
    kill: bool,
    timer: Option<TimerKey>,
}

impl Proc {
    /// The result with as much output as fits, and whether that was all.
    fn result(&self) -> (ExecResult, bool) {
        let (stdout, stderr) = (self.stdout.data(), self.stderr.data());
        let out = stdout.len().min(INLINE);
        let err = stderr.len().min(INLINE - out);
        let ProcState {
            status,
            code,
            signal,
        } = self.state();
        let result = ExecResult {
            status,
            code,
            signal,
            stdout: stdout[..out].to_vec(),
            stderr: stderr[..err].to_vec(),
            more: None,
        };
        (result, out == stdout.len() && err == stderr.len())
    }
}

impl State {
    /// Answers an `exec`.
    pub(super) fn answer_exec(&mut self, id: u64, to: ReplyTo) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let (mut result, complete) = proc.result();
        let (stdout, stderr) = (proc.stdout.take(), proc.stderr.take());
        if !complete {
            let output = Output {
                stdout,
                stderr,
                buffers: Vec::new(),
            };
            result.more = Some(self.handles.add(Handle::Output(output)));
        }
        self.reply(to, Ok(result));
    }

    /// `proc_wait`.
    pub(crate) fn proc_wait(
        &mut self,
        h: u64,
        timeout_ms: Option<u64>,
        kill: bool,
        ticket: Ticket,
    ) {
        let done = match self.proc(h) {
            Ok(proc) => proc.done,
            Err(error) => return self.answer(ticket, Err::<ExecResult, _>(error)),
        };
        if done || (timeout_ms == Some(0) && !kill) {
            return self.answer_wait(h, ticket);
        }
        let timer = timeout_ms.map(|ms| {
            self.timers
                .after(ms.saturating_mul(1_000_000), Due::WaitTimeout(h, ticket))
        });
        self.moved(ticket, At::Wait(h));
        if let Ok(proc) = self.proc(h) {
            proc.waiters.push(Waiter {
                ticket,
                kill,
                timer,
            });
        }
    }

    /// A `proc_wait` has used up its time.
    pub(crate) fn wait_timed_out(&mut self, id: u64, ticket: Ticket) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let Some(index) = proc
            .waiters
            .iter()
            .position(|waiter| waiter.ticket == ticket)
        else {
            return;
        };
        if proc.waiters[index].kill {
            // Its end answers the waiter.
            proc.waiters[index].timer = None;
            kill_for_time(proc);
        } else {
            proc.waiters.swap_remove(index);
            self.answer_wait(id, ticket);
        }
    }

    /// A cancelled `proc_wait`.
    pub(crate) fn forget_waiter(&mut self, id: u64, ticket: Ticket) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let (gone, left) = std::mem::take(&mut proc.waiters)
            .into_iter()
            .partition(|waiter| waiter.ticket == ticket);
        proc.waiters = left;
        self.stop_timers(gone);
    }

    pub(super) fn answer_waiters(&mut self, id: u64) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let waiters = std::mem::take(&mut proc.waiters);
        let tickets: Vec<Ticket> = waiters.iter().map(|waiter| waiter.ticket).collect();
        self.stop_timers(waiters);
        tickets
            .into_iter()
            .for_each(|ticket| self.answer_wait(id, ticket));
    }

    fn stop_timers(&mut self, waiters: Vec<Waiter>) {
        for key in waiters.into_iter().filter_map(|waiter| waiter.timer) {
            self.timers.cancel(key);
        }
    }

    /// Answers with the state of a process as it is now; its own handle gives the rest.
    fn answer_wait(&mut self, id: u64, ticket: Ticket) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        let (mut result, complete) = proc.result();
        if !proc.done {
            result = ExecResult {
                status: ProcStatus::Running,
                code: None,
                signal: None,
                ..result
            };
        }
        result.more = (!complete).then_some(id);
        self.answer(ticket, Ok(result));
    }

    /// `output_read`.
    pub(crate) fn output_read(
        &mut self,
        h: u64,
        which: Which,
        offset: u64,
        max: u64,
    ) -> Result<Vec<u8>, Error> {
        let data: &[u8] = match (self.handles.get(h), which) {
            (Some(Handle::Output(output)), Which::Stdout) => &output.stdout,
            (Some(Handle::Output(output)), Which::Stderr) => &output.stderr,
            (Some(Handle::Output(output)), Which::Buffers) => &output.buffers,
            (Some(Handle::Process), Which::Stdout) => self.proc(h)?.stdout.data(),
            (Some(Handle::Process), Which::Stderr) => self.proc(h)?.stderr.data(),
            (Some(Handle::Process), Which::Buffers) => {
                let message = format!("field `which`: process {h} has no buffers");
                return Err(Error::new(ErrorKind::BadArgs, message));
            }
            _ => return Err(self.handles.wrong(h, "an output")),
        };
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let max = usize::try_from(max)
            .unwrap_or(usize::MAX)
            .min(INLINE)
            .min(data.len() - start);
        Ok(data[start..start + max].to_vec())
    }

    /// `output_release`.
    pub(crate) fn output_release(&mut self, h: u64) -> Result<(), Error> {
        match self.handles.get(h) {
            Some(Handle::Process) => Ok(()),
            Some(Handle::Output(_)) => {
                self.handles.remove(h);
                Ok(())
            }
            _ => Err(self.handles.wrong(h, "an output")),
        }
    }

    /// `worker_join`.
    pub(crate) fn worker_join(&mut self, ticket: Ticket) {
        self.moved(ticket, At::Join);
        self.procs.joiners.push(ticket);
        self.answer_joiners();
    }

    /// Answers those who wait for all processes, when none runs any more.
    pub(super) fn answer_joiners(&mut self) {
        let running = |proc: &Proc| !proc.done && !matches!(proc.owner, Owner::Exec(_));
        if self.procs.joiners.is_empty() || self.procs.live.values().any(running) {
            return;
        }
        let all = self.procs.started.clone();
        for ticket in std::mem::take(&mut self.procs.joiners) {
            self.answer(ticket, Ok(all.clone()));
        }
    }

    /// Notes how a process of a worker ended.
    pub(super) fn note_end(&mut self, id: u64, state: ProcState) {
        if let Some(entry) = self.procs.started.iter_mut().find(|entry| entry.h == id) {
            let ProcState {
                status,
                code,
                signal,
            } = state;
            *entry = JoinedProc {
                status,
                code,
                signal,
                ..*entry
            };
        }
    }
}
