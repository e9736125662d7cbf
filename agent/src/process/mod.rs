//! The processes an agent has started: their output, input, end, and who waits for them.
//!
//! One table holds commands of `exec`, which end in one answer, and processes of `spawn`, which a
//! handle stands for. A process is *done* when it has ended and its output is complete; children
//! that hold its output open delay that by one second at most (L-088). Whoever holds the output
//! after that, or after nobody is interested any more, may go on writing: it is read and dropped.

mod command;
mod output;
mod stdin;
mod wait;

use std::collections::BTreeMap;

pub(crate) use command::{Launch, Surroundings, launch};
use output::Pipe;
use provium_protocol::ops::{JoinedProc, ProcState, ProcStatus, Spawned};
use provium_protocol::{Error, ErrorKind};
use stdin::Stdin;
use wait::Waiter;

use crate::server::handles::Handle;
use crate::server::request::{At, ReplyTo, Ticket};
use crate::server::state::{Role, State};
use crate::server::timers::{Due, TimerKey};
use crate::server::token::{Kind, token};
use crate::sys::fd::Fd;
use crate::sys::poll::READABLE;
use crate::sys::process::{self, Ended};
use crate::sys::signal;

/// How long children may delay the end of a command by holding its output (L-088).
const OUTPUT_GRACE_NS: u64 = 1_000_000_000;

/// All processes of one server.
#[derive(Default)]
pub(crate) struct Procs {
    live: BTreeMap<u64, Proc>,
    /// Every process a worker ever started, in this order (L-142).
    started: Vec<JoinedProc>,
    joiners: Vec<Ticket>,
}

impl Procs {
    /// Whether a process has not been reaped.
    pub(crate) fn any_runs(&self) -> bool {
        self.live.values().any(|proc| proc.ended.is_none())
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Proc> {
        self.live.get_mut(&id)
    }
}

/// Who wants to know about a process.
enum Owner {
    /// The request that waits for its end.
    Exec(ReplyTo),
    /// Whoever has its handle.
    Handle,
    /// Nobody.
    Nobody,
}

/// A process.
pub(crate) struct Proc {
    pid: i32,
    /// Watched until the process has ended.
    pidfd: Option<Fd>,
    owner: Owner,
    ended: Option<Ended>,
    timed_out: bool,
    /// Ended and its output complete.
    done: bool,
    pub(crate) stdout: Pipe,
    pub(crate) stderr: Pipe,
    stdin: Stdin,
    timer: Option<TimerKey>,
    waiters: Vec<Waiter>,
}

impl Proc {
    /// Its state, ended or not.
    fn state(&self) -> ProcState {
        let (status, code, signal) = match self.ended {
            None => (ProcStatus::Running, None, None),
            Some(_) if self.timed_out => (ProcStatus::TimedOut, None, None),
            Some(Ended::Exited(code)) => (ProcStatus::Exited, Some(code), None),
            Some(Ended::Signalled(signal)) => (ProcStatus::Signalled, None, Some(signal)),
            Some(Ended::Unknown) => (ProcStatus::Exited, None, None),
        };
        ProcState {
            status,
            code,
            signal,
        }
    }

    /// Whether everything about it is known.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    fn signal_group(&self, signal: i32) -> Result<(), i32> {
        signal::kill(-self.pid, signal)
    }
}

impl State {
    /// Takes over a command of `exec` that was just started.
    pub(crate) fn watch_exec(&mut self, launch: Launch, to: ReplyTo, timeout_ms: Option<u64>) {
        let id = self.handles.number();
        self.moved(to.ticket(), At::Exec(id));
        self.watch(id, launch, Owner::Exec(to));
        if let Some(ms) = timeout_ms
            && let Some(proc) = self.procs.live.get_mut(&id)
        {
            let due = Due::ExecTimeout(id);
            proc.timer = Some(self.timers.after(ms.saturating_mul(1_000_000), due));
        }
    }

    /// Takes over a process of `spawn` that was just started.
    pub(crate) fn watch_spawned(&mut self, launch: Launch) -> Spawned {
        let h = self.handles.add(Handle::Process);
        let pid = launch.child.pid;
        if self.role != Role::Main {
            let status = ProcStatus::Running;
            self.procs.started.push(JoinedProc {
                h,
                pid,
                status,
                code: None,
                signal: None,
            });
        }
        self.watch(h, launch, Owner::Handle);
        Spawned { h, pid }
    }

    fn watch(&mut self, id: u64, launch: Launch, owner: Owner) {
        let Launch {
            child,
            stdout,
            stderr,
            stdin,
        } = launch;
        // A descriptor that cannot be watched is out of memory: the process then ends unseen by
        // us, but nothing else breaks.
        let _ = self
            .epoll
            .add(child.pidfd.raw(), token(Kind::Exit, id), READABLE);
        let _ = self
            .epoll
            .add(stdout.raw(), token(Kind::Stdout, id), READABLE);
        let _ = self
            .epoll
            .add(stderr.raw(), token(Kind::Stderr, id), READABLE);
        let proc = Proc {
            pid: child.pid,
            pidfd: Some(child.pidfd),
            owner,
            ended: None,
            timed_out: false,
            done: false,
            stdout: Pipe::new(stdout),
            stderr: Pipe::new(stderr),
            stdin: Stdin::default(),
            timer: None,
            waiters: Vec::new(),
        };
        self.procs.live.insert(id, proc);
        if let Some((pipe, data, stay_open)) = stdin {
            self.open_stdin(id, pipe, data, stay_open);
        }
    }

    /// A process has ended.
    pub(crate) fn process_ended(&mut self, id: u64) {
        let Some(proc) = self.procs.live.get_mut(&id) else {
            return self.worker_ended(id);
        };
        let Some(ended) = process::try_wait(proc.pid) else {
            return;
        };
        proc.ended = Some(ended);
        proc.pidfd = None;
        if proc.stdout.is_open() || proc.stderr.is_open() {
            self.timers.after(OUTPUT_GRACE_NS, Due::OutputGrace(id));
        }
        self.fail_stdin(id);
        self.check_done(id);
    }

    /// Children have held the output for long enough.
    pub(crate) fn output_grace_over(&mut self, id: u64) {
        let Some(proc) = self.procs.live.get_mut(&id) else {
            return;
        };
        proc.stdout.stop_keeping();
        proc.stderr.stop_keeping();
        self.check_done(id);
    }

    /// Whether everything about a process is known, and if so, tells whoever waits.
    pub(crate) fn check_done(&mut self, id: u64) {
        let Some(proc) = self.procs.live.get_mut(&id) else {
            return;
        };
        let complete = proc.stdout.is_complete() && proc.stderr.is_complete();
        if !proc.done && proc.ended.is_some() && complete {
            proc.done = true;
            let timer = proc.timer.take();
            // A command of `exec` is nobody's once it is answered.
            let owner = match &proc.owner {
                Owner::Exec(_) => std::mem::replace(&mut proc.owner, Owner::Nobody),
                _ => Owner::Handle,
            };
            let state = proc.state();
            if let Some(key) = timer {
                self.timers.cancel(key);
            }
            self.note_end(id, state);
            match owner {
                Owner::Exec(to) => self.answer_exec(id, to),
                _ => self.answer_waiters(id),
            }
            self.answer_joiners();
            self.pump_process_streams(id);
        }
        self.forget_if_unused(id);
    }

    /// Drops what nobody can ask about any more.
    pub(crate) fn forget_if_unused(&mut self, id: u64) {
        let Some(proc) = self.procs.live.get(&id) else {
            return;
        };
        let over = proc.done && !proc.stdout.is_open() && !proc.stderr.is_open();
        if over && matches!(proc.owner, Owner::Nobody) && !self.streams.use_process(id) {
            self.procs.live.remove(&id);
        }
    }

    /// An `exec` has used up its time (L-086).
    pub(crate) fn exec_timed_out(&mut self, id: u64) {
        if let Some(proc) = self.procs.live.get_mut(&id) {
            proc.timer = None;
            kill_for_time(proc);
        }
    }

    /// Nobody waits for this `exec` any more: it is killed and read to its end unheard.
    pub(crate) fn abandon_exec(&mut self, id: u64) {
        let Some(proc) = self.procs.live.get_mut(&id) else {
            return;
        };
        if let Owner::Exec(ReplyTo::Batch(_)) = std::mem::replace(&mut proc.owner, Owner::Nobody) {
            self.forget_parked();
        }
        if let Some(proc) = self.procs.live.get_mut(&id) {
            kill_if_running(proc);
            proc.drop_output();
        }
    }

    /// The process behind a handle.
    pub(crate) fn proc(&mut self, h: u64) -> Result<&mut Proc, Error> {
        match self.handles.get(h) {
            Some(Handle::Process) => {
                let gone = || Error::new(ErrorKind::Stale, format!("process {h} is gone"));
                self.procs.live.get_mut(&h).ok_or_else(gone)
            }
            _ => Err(self.handles.wrong(h, "a process")),
        }
    }

    /// `proc_status`.
    pub(crate) fn proc_state(&mut self, h: u64) -> Result<ProcState, Error> {
        self.proc(h).map(|proc| proc.state())
    }

    /// `proc_pid`.
    pub(crate) fn proc_pid(&mut self, h: u64) -> Result<i32, Error> {
        self.proc(h).map(|proc| proc.pid)
    }

    /// `proc_signal`: false if the process has ended.
    pub(crate) fn proc_signal(&mut self, h: u64, sig: i32, group: bool) -> Result<bool, Error> {
        let proc = self.proc(h)?;
        if proc.ended.is_some() {
            return Ok(false);
        }
        let result = if group {
            proc.signal_group(sig)
        } else {
            signal::kill(proc.pid, sig)
        };
        match result {
            Ok(()) => Ok(true),
            Err(libc::ESRCH) => Ok(false),
            Err(errno) => Err(Error::os("kill", errno)),
        }
    }

    /// `proc_release`: the process goes on without us.
    pub(crate) fn proc_release(&mut self, h: u64) -> Result<(), Error> {
        self.proc(h)?;
        self.handles.remove(h);
        self.release(h);
        Ok(())
    }

    fn release(&mut self, id: u64) {
        let Some(proc) = self.procs.live.get_mut(&id) else {
            return;
        };
        proc.owner = Owner::Nobody;
        proc.stdin.close();
        if !self.streams.use_process(id) {
            proc.drop_output();
        }
        self.forget_if_unused(id);
    }

    /// The harness that had the handles is gone.
    pub(crate) fn release_all_processes(&mut self) {
        let ids: Vec<u64> = self.procs.live.keys().copied().collect();
        ids.into_iter().for_each(|id| self.release(id));
    }

    /// Kills whatever still runs.
    pub(crate) fn kill_all_processes(&mut self) {
        for proc in self.procs.live.values_mut() {
            kill_if_running(proc);
        }
    }

    /// `worker_signal`: how many processes got it.
    pub(crate) fn signal_all(&mut self, sig: i32) -> Result<u64, Error> {
        let mut count = 0;
        for proc in self.procs.live.values().filter(|proc| proc.ended.is_none()) {
            match proc.signal_group(sig) {
                Ok(()) => count += 1,
                Err(libc::ESRCH) => {}
                Err(errno) => return Err(Error::os("kill", errno)),
            }
        }
        Ok(count)
    }
}

fn kill_if_running(proc: &mut Proc) {
    if proc.ended.is_none() {
        // A group that is gone needs no killing.
        let _ = proc.signal_group(libc::SIGKILL);
    }
}

fn kill_for_time(proc: &mut Proc) {
    if proc.ended.is_none() {
        proc.timed_out = true;
        kill_if_running(proc);
    }
}
