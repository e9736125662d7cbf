//! Processes that run on their own (lua-api section 7).

use std::sync::Arc;
use std::time::Duration;

use provium_protocol::ops::{self, ExecResult, ProcStatus, Which};

use super::command::whole_output;
use super::stream::{StreamKind, Tail};
use super::{Command, Guest, RunResult};
use crate::error::{Error, Reason, Result};
use crate::session::{Class, Closable, Registration};
use crate::units::show_duration;
use crate::vm::{Connection, Since, VmCore};
use crate::wait::{Either, Limit, Pending, both, nanos_to_millis};

/// What `proc:status()` says (L-132).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessStatus {
    /// Not ended.
    Running,
    /// Ended by itself.
    Exited,
    /// Ended by a signal.
    Signalled,
}

impl ProcessStatus {
    /// The word of the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Signalled => "signalled",
        }
    }
}

/// A process started with [`Guest::run_async`]. Clones are the same process.
#[derive(Clone)]
pub struct Process(Arc<Core>);

struct Core {
    guest: Guest,
    connection: Connection,
    h: u64,
    pid: i32,
    command: String,
    /// What the first completed wait gave; later ones give the same (L-129).
    result: Since<RunResult>,
    stdin_closed: Since<()>,
    closed: Since<()>,
    registration: Registration,
}

impl Guest {
    /// Starts a command that runs on its own until it ends, is killed, or its scope ends (L-090).
    pub fn run_async(&self, command: impl Into<Command>) -> Result<Process> {
        self.start_run_async(command).wait()
    }

    /// Starts [`Guest::run_async`].
    pub fn start_run_async(&self, command: impl Into<Command>) -> Pending<Process> {
        let call = self.call("vm:run_async", "worker:run_async");
        let (guest, command) = (self.clone(), command.into());
        self.start(call, async move {
            let shown = command.display();
            let resource = format!("{}: command `{shown}`", guest.resource());
            if command.timeout.is_some() {
                let text = "timeout is not for run_async, give it to proc:wait";
                return Err(Error::new(call, resource, Reason::Refused(text.to_owned())));
            }
            let connection = guest.connection(call).await?;
            let spec = command.into_spec(call, &resource, &connection)?;
            let spawned = connection
                .request(call, &resource, &ops::Spawn { spec })
                .await?;
            Ok(Process::new(guest, connection, spawned, shown))
        })
    }
}

impl Process {
    fn new(guest: Guest, connection: Connection, spawned: ops::Spawned, command: String) -> Self {
        let session = guest.session().clone();
        let registration = session.register(Class::Process);
        let process = Self(Arc::new(Core {
            guest,
            connection,
            h: spawned.h,
            pid: spawned.pid,
            command,
            result: Since::default(),
            stdin_closed: Since::default(),
            closed: Since::default(),
            registration,
        }));
        process.0.registration.set(&process);
        process
    }

    /// As errors name it.
    #[must_use]
    pub fn resource(&self) -> String {
        let core = &self.0;
        format!(
            "process {} (`{}`) on {}",
            core.pid,
            core.command,
            core.guest.resource()
        )
    }

    fn error(&self, call: &'static str, reason: impl Into<Reason>) -> Error {
        Error::new(call, self.resource(), reason)
    }

    /// The stable handle (L-131).
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.0.h
    }

    /// The pid told when it was started.
    #[must_use]
    pub fn spawned_pid(&self) -> i32 {
        self.0.pid
    }

    fn start<T: Send + 'static>(
        &self,
        call: &'static str,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        self.reopen();
        Pending::new(self.0.guest.world(), call, self.resource(), operation)
    }

    /// Hands it to its scope again if a restore has undone its closing (L-012).
    fn reopen(&self) {
        if self.0.connection.undone(&self.0.closed) {
            self.0.registration.set(self);
        }
    }

    fn start_request<O, T>(
        &self,
        call: &'static str,
        op: O,
        convert: impl FnOnce(O::Reply) -> T + Send + 'static,
    ) -> Pending<T>
    where
        O: provium_protocol::Operation + Send + Sync + 'static,
        O::Reply: Send,
        T: Send + 'static,
    {
        let process = self.clone();
        self.start(call, async move {
            let core = &process.0;
            Ok(convert(
                core.connection
                    .request(call, &process.resource(), &op)
                    .await?,
            ))
        })
    }

    /// Waits for its end; without a timeout for ever. At the timeout its process group is killed and the result is
    /// `timed_out` (L-129).
    pub fn wait(&self, timeout: Option<Duration>) -> Result<RunResult> {
        self.start_wait(timeout).wait()
    }

    /// Starts [`Process::wait`].
    pub fn start_wait(&self, timeout: Option<Duration>) -> Pending<RunResult> {
        let call = "proc:wait";
        let process = self.clone();
        self.start(call, async move {
            if timeout == Some(Duration::ZERO) {
                let text = "timeout must be more than zero; proc:status() tells without waiting";
                return Err(process.error(call, Reason::Refused(text.to_owned())));
            }
            if let Some(result) = process.result() {
                return Ok(result);
            }
            let result = process.wait_op(call, timeout, true).await?;
            Ok(process.remember(result))
        })
    }

    /// Waits up to `timeout` without killing: `None` for the result while it still runs (classic-api C-035).
    pub fn start_wait_gently(
        &self,
        timeout: Duration,
    ) -> Pending<(Option<RunResult>, Vec<u8>, Vec<u8>)> {
        let call = "vm:job_wait";
        let process = self.clone();
        self.start(call, async move {
            if let Some(result) = process.result() {
                let (stdout, stderr) = (result.stdout.clone(), result.stderr.clone());
                return Ok((Some(result), stdout, stderr));
            }
            let result = process.wait_op(call, Some(timeout), false).await?;
            let (stdout, stderr) = (result.stdout.clone(), result.stderr.clone());
            let ended = result.status != ProcStatus::Running;
            Ok((ended.then(|| process.remember(result)), stdout, stderr))
        })
    }

    async fn wait_op(
        &self,
        call: &'static str,
        timeout: Option<Duration>,
        kill: bool,
    ) -> Result<ExecResult> {
        let core = &self.0;
        let resource = self.resource();
        let op = ops::ProcWait {
            h: core.h,
            timeout_ms: timeout.map(nanos_to_millis),
            kill,
        };
        let connection = core.connection.renewed(call, &resource).await?;
        let request = connection.request(call, &resource, &op);
        let result = match timeout {
            None => request.await?,
            Some(limit) => {
                let what = format!("the end of the wait of {}", show_duration(limit));
                connection
                    .within_backstop(call, &resource, limit, &what, request)
                    .await?
            }
        };
        whole_output(&connection, call, &resource, result).await
    }

    fn remember(&self, result: ExecResult) -> RunResult {
        let core = &self.0;
        let result = RunResult::from_wire(&core.command, result);
        core.connection.note(&core.result, result.clone());
        self.result().unwrap_or(result)
    }

    /// Sends a signal to its process group; nothing happens if it has ended (L-130).
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.start_signal(signal).wait()
    }

    /// Starts [`Process::signal`].
    pub fn start_signal(&self, signal: i32) -> Pending<()> {
        if !(1..=64).contains(&signal) {
            let name = format!("unknown signal name {signal}");
            return Pending::failed(
                self.0.guest.world(),
                self.error("proc:signal", Reason::Refused(name)),
            );
        }
        let op = ops::ProcSignal {
            h: self.0.h,
            signal,
            group: Some(true),
        };
        self.start_request("proc:signal", op, drop)
    }

    /// Its pid, asked of the guest (L-131).
    pub fn pid(&self) -> Result<i32> {
        self.start_pid().wait()
    }

    /// Starts [`Process::pid`].
    pub fn start_pid(&self) -> Pending<i32> {
        self.start_request("proc:pid", ops::ProcPid { h: self.0.h }, |pid| pid)
    }

    /// Its state, without waiting for its end (L-132).
    pub fn status(&self) -> Result<ProcessStatus> {
        self.start_status().wait()
    }

    /// Starts [`Process::status`].
    pub fn start_status(&self) -> Pending<ProcessStatus> {
        self.start_request(
            "proc:status",
            ops::ProcStatusGet { h: self.0.h },
            |state| match state.status {
                ProcStatus::Running => ProcessStatus::Running,
                ProcStatus::Exited => ProcessStatus::Exited,
                ProcStatus::Signalled | ProcStatus::TimedOut => ProcessStatus::Signalled,
            },
        )
    }

    /// Writes all of `data` to its standard input; gives the number of bytes (L-133).
    pub fn stdin_write(&self, data: &[u8]) -> Result<u64> {
        self.start_stdin_write(data).wait()
    }

    /// Starts [`Process::stdin_write`].
    pub fn start_stdin_write(&self, data: &[u8]) -> Pending<u64> {
        /// Pieces of this size keep each request well inside a frame.
        const PIECE: usize = 1 << 20;
        let call = "proc:stdin_write";
        let (process, data) = (self.clone(), data.to_vec());
        self.start(call, async move {
            let core = &process.0;
            if core.connection.recall(&core.stdin_closed).is_some() {
                return Err(process.error(call, Reason::Closed("standard input is closed")));
            }
            let mut written = 0;
            for piece in data.chunks(PIECE) {
                let op = ops::ProcStdin {
                    h: process.0.h,
                    data: piece.to_vec(),
                };
                written += process
                    .0
                    .connection
                    .request(call, &process.resource(), &op)
                    .await?;
            }
            Ok(written)
        })
    }

    /// Closes its standard input; doing so again changes nothing (L-134).
    pub fn close_stdin(&self) -> Result<()> {
        self.start_close_stdin().wait()
    }

    /// Starts [`Process::close_stdin`].
    pub fn start_close_stdin(&self) -> Pending<()> {
        self.0.connection.note(&self.0.stdin_closed, ());
        self.start_request(
            "proc:close_stdin",
            ops::ProcCloseStdin { h: self.0.h },
            |()| (),
        )
    }

    /// Its standard output from the first byte (L-135).
    pub fn stdout_stream(&self) -> Result<Tail> {
        self.start_stream(Which::Stdout).wait()
    }

    /// Its standard error from the first byte (L-135).
    pub fn stderr_stream(&self) -> Result<Tail> {
        self.start_stream(Which::Stderr).wait()
    }

    /// Starts [`Process::stdout_stream`].
    pub fn start_stdout_stream(&self) -> Pending<Tail> {
        self.start_stream(Which::Stdout)
    }

    /// Starts [`Process::stderr_stream`].
    pub fn start_stderr_stream(&self) -> Pending<Tail> {
        self.start_stream(Which::Stderr)
    }

    fn start_stream(&self, which: Which) -> Pending<Tail> {
        let (call, kind) = match which {
            Which::Stderr => ("proc:stderr_stream", StreamKind::ProcStderr),
            _ => ("proc:stdout_stream", StreamKind::ProcStdout),
        };
        let process = self.clone();
        self.start(call, async move {
            let (core, resource) = (&process.0, process.resource());
            let op = ops::ProcStreamOpen { h: core.h, which };
            // A stream belongs to the link it was opened on, which is not that of a process from before a restore.
            let connection = core.connection.renewed(call, &resource).await?;
            let stream = connection.request(call, &resource, &op).await?;
            let detail = format!("{}", core.h);
            Ok(Tail::new(&core.guest, &connection, stream, kind, detail))
        })
    }

    /// Ends it if it has not been waited for: TERM, up to 2 s, then KILL (L-136).
    pub fn close(&self) -> Result<()> {
        self.start_close().wait()
    }

    /// Starts [`Process::close`].
    pub fn start_close(&self) -> Pending<()> {
        let process = self.clone();
        self.start("proc:close", async move {
            // It may have gone with its worker (L-063).
            process.end().await.or_else(Error::unless_stale)
        })
    }

    async fn end(&self) -> Result<()> {
        const GRACE: Duration = Duration::from_secs(2);
        let core = &self.0;
        core.registration.done();
        if !core.connection.note(&core.closed, ()) || core.connection.is_stale() {
            return Ok(());
        }
        if self.result().is_none() {
            self.signal_op(15).await?;
            let resource = self.resource();
            let op = ops::ProcWait {
                h: core.h,
                timeout_ms: Some(nanos_to_millis(GRACE)),
                kill: true,
            };
            let ended = core.connection.request("proc:close", &resource, &op);
            let limit = Limit::new(core.guest.world(), &core.connection.machine(), GRACE * 2);
            match both(ended, limit).await {
                Either::First(result) => drop(result?),
                Either::Second(_) => self.signal_op(9).await?,
            }
        }
        let op = ops::ProcRelease { h: core.h };
        core.connection
            .request("proc:close", &self.resource(), &op)
            .await
    }

    async fn signal_op(&self, signal: i32) -> Result<()> {
        let op = ops::ProcSignal {
            h: self.0.h,
            signal,
            group: Some(true),
        };
        // False means that it has ended already, which is what closing wants.
        let _was_running = self
            .0
            .connection
            .request("proc:close", &self.resource(), &op)
            .await?;
        Ok(())
    }

    /// The result of a completed wait, if there was one.
    #[must_use]
    pub fn result(&self) -> Option<RunResult> {
        self.0.connection.recall(&self.0.result)
    }
}

impl PartialEq for Process {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Closable for Process {
    fn describe(&self) -> String {
        self.resource()
    }

    fn vm(&self) -> &Arc<VmCore> {
        &self.0.guest.vm
    }

    fn start_close(&self) -> Pending<()> {
        Process::start_close(self)
    }

    fn abandon(&self) {
        self.0.connection.note(&self.0.closed, ());
        self.0.registration.done();
    }
}
