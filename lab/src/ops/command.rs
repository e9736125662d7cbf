//! Running commands to their end (lua-api L-084..L-095).

use std::collections::BTreeMap;
use std::time::Duration;

use provium_protocol::ops::{self, ExecResult, ExecSpec, ProcStatus, Which};

use super::Guest;
use super::signal::signal_name;
use crate::agent::Stager;
use crate::error::{Error, Reason, Result};
use crate::units::show_duration;
use crate::vm::Connection;
use crate::wait::{Pending, nanos_to_millis};

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A script for `/bin/sh -c`.
    Shell(Vec<u8>),
    /// A program with its arguments, itself being the first.
    Exec(Vec<Vec<u8>>),
}

/// A command and its surroundings (L-084, L-085).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Variables, laid over the agent's environment unless `env_clear`.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Start from an empty environment.
    pub env_clear: bool,
    /// Working directory.
    pub cwd: Option<Vec<u8>>,
    /// Bytes for its standard input; absent is /dev/null.
    pub stdin: Option<Vec<u8>>,
    /// When its process group is killed, in guest time (L-086, L-248).
    pub timeout: Option<Duration>,
}

impl Command {
    fn new(program: Program) -> Self {
        Self {
            program,
            env: BTreeMap::new(),
            env_clear: false,
            cwd: None,
            stdin: None,
            timeout: None,
        }
    }

    /// A script for the guest's shell.
    pub fn shell(script: impl Into<Vec<u8>>) -> Self {
        Self::new(Program::Shell(script.into()))
    }

    /// A program with arguments, found through the agent's PATH.
    pub fn exec<A: Into<Vec<u8>>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self::new(Program::Exec(argv.into_iter().map(Into::into).collect()))
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<Vec<u8>>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Gives it bytes to read.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(data.into());
        self
    }

    /// Bounds its run time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// As messages show it, cut to a sensible length.
    #[must_use]
    pub fn display(&self) -> String {
        let text = match &self.program {
            Program::Shell(script) => String::from_utf8_lossy(script).into_owned(),
            Program::Exec(argv) => {
                let words: Vec<_> = argv
                    .iter()
                    .map(|arg| String::from_utf8_lossy(arg))
                    .collect();
                words.join(" ")
            }
        };
        if text.chars().count() <= 200 {
            return text;
        }
        text.chars().take(200).chain("...".chars()).collect()
    }

    /// Checks what the guest need not be asked about (L-085, L-086).
    fn check(&self) -> Result<(), Reason> {
        let bad = |name: &str, problem: &str| {
            Err(Reason::BadArgument {
                name: name.to_owned(),
                problem: problem.to_owned(),
            })
        };
        if self.timeout == Some(Duration::ZERO) {
            return bad("timeout", "must be more than zero");
        }
        if matches!(&self.program, Program::Exec(argv) if argv.is_empty()) {
            return bad("command", "an empty list names no program");
        }
        Ok(())
    }

    fn byte_count(&self) -> usize {
        let program = match &self.program {
            Program::Shell(script) => script.len(),
            Program::Exec(argv) => argv.iter().map(Vec::len).sum(),
        };
        let env: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        program + env + self.stdin.as_ref().map_or(0, Vec::len)
    }

    /// The wire form; large parts are uploaded on the way.
    pub(super) fn into_spec(
        self,
        call: &'static str,
        resource: &str,
        connection: &Connection,
    ) -> Result<ExecSpec> {
        let error = |reason: Reason| Error::new(call, resource, reason);
        self.check().map_err(error)?;
        let stager = Stager::new(connection.link(), self.byte_count())
            .map_err(|limit| error(Reason::Refused(limit.to_string())))?;
        let mut spec = match self.program {
            Program::Shell(script) => ExecSpec::shell(stager.blob(script)),
            Program::Exec(argv) => ExecSpec::argv(argv.into_iter().map(|arg| stager.blob(arg))),
        };
        spec.env = (!self.env.is_empty()).then_some(self.env);
        spec.env_clear = self.env_clear.then_some(true);
        spec.cwd = self.cwd;
        spec.stdin = self.stdin.map(|data| stager.blob(data));
        Ok(spec)
    }
}

impl From<&str> for Command {
    fn from(script: &str) -> Self {
        Self::shell(script)
    }
}

/// How a command ended (L-093).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// By itself.
    Exited,
    /// By a signal.
    Signalled,
    /// Killed because its time was up.
    TimedOut,
}

impl ExitKind {
    /// The word of the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Output and end of a command (L-091..L-095).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunResult {
    /// What was run, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitKind,
    /// Exit status; -1 if signalled, -2 if timed out.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// How much of each output an assertion shows (L-095).
const SHOWN_OUTPUT: usize = 4096;

impl RunResult {
    /// Whether it exited with status 0 (L-094).
    #[must_use]
    pub fn ok(&self) -> bool {
        self.exit_code == 0
    }

    /// Whether it was killed because its time was up (L-092).
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.status == ExitKind::TimedOut
    }

    /// Standard output as text, invalid UTF-8 replaced.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself if it succeeded, else an error with everything there is to know (L-095).
    pub fn assert_ok(self) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        let reason = Reason::Refused(self.failure());
        Err(Error::new(
            "r:assert_ok",
            format!("command `{}`", self.command),
            reason,
        ))
    }

    /// The facts of a failed command, over several lines (L-095).
    #[must_use]
    pub fn failure(&self) -> String {
        let signal = self.signal.map_or(String::new(), |number| {
            let name = signal_name(number).unwrap_or("unknown");
            format!(", signal {number} ({name})")
        });
        let tail = |bytes: &[u8]| {
            let from = bytes.len().saturating_sub(SHOWN_OUTPUT);
            String::from_utf8_lossy(&bytes[from..]).into_owned()
        };
        format!(
            "status {}, exit code {}{signal}\nstdout: {}\nstderr: {}",
            self.status.name(),
            self.exit_code,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }

    pub(super) fn from_wire(command: &str, result: ExecResult) -> Self {
        let (status, exit_code) = match result.status {
            ProcStatus::Exited | ProcStatus::Running => {
                (ExitKind::Exited, result.code.unwrap_or(0))
            }
            ProcStatus::Signalled => (ExitKind::Signalled, -1),
            ProcStatus::TimedOut => (ExitKind::TimedOut, -2),
        };
        Self {
            command: command.to_owned(),
            status,
            exit_code,
            signal: result.signal,
            stdout: result.stdout,
            stderr: result.stderr,
        }
    }
}

/// Largest piece asked for when reading on in an output.
const OUTPUT_PIECE: u64 = 4 << 20;

/// Completes a result whose output did not fit its frame (E-060).
pub(super) async fn whole_output(
    connection: &Connection,
    call: &'static str,
    resource: &str,
    mut result: ExecResult,
) -> Result<ExecResult> {
    let Some(h) = result.more.take() else {
        return Ok(result);
    };
    for (which, out) in [
        (Which::Stdout, &mut result.stdout),
        (Which::Stderr, &mut result.stderr),
    ] {
        loop {
            let op = ops::OutputRead {
                h,
                which,
                offset: out.len() as u64,
                max: OUTPUT_PIECE,
            };
            let piece = connection.request(call, resource, &op).await?;
            if piece.is_empty() {
                break;
            }
            out.extend_from_slice(&piece);
        }
    }
    connection
        .link()
        .request(&ops::OutputRelease { h })
        .detach();
    Ok(result)
}

impl Guest {
    /// Runs a command to its end (L-084).
    pub fn run(&self, command: impl Into<Command>) -> Result<RunResult> {
        self.start_run(command).wait()
    }

    /// Starts [`Guest::run`].
    pub fn start_run(&self, command: impl Into<Command>) -> Pending<RunResult> {
        let call = self.call("vm:run", "worker:run");
        let (guest, command) = (self.clone(), command.into());
        self.start(call, async move {
            let (shown, timeout) = (command.display(), command.timeout);
            let resource = format!("{}: command `{shown}`", guest.resource());
            let connection = guest.connection(call).await?;
            let spec = command.into_spec(call, &resource, &connection)?;
            let op = ops::Exec {
                spec,
                timeout_ms: timeout.map(nanos_to_millis),
            };
            let request = connection.request(call, &resource, &op);
            let result = match timeout {
                None => request.await?,
                // The agent keeps the time; this is the backstop for a guest that does not get there (L-248).
                Some(limit) => {
                    let what = format!("the command to be killed after {}", show_duration(limit));
                    connection
                        .within_backstop(call, &resource, limit, &what, request)
                        .await?
                }
            };
            let result = whole_output(&connection, call, &resource, result).await?;
            Ok(RunResult::from_wire(&shown, result))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(status: ProcStatus, code: Option<i32>, signal: Option<i32>) -> RunResult {
        let (stdout, stderr) = (b"out".to_vec(), b"err".to_vec());
        let wire = ExecResult {
            status,
            code,
            signal,
            stdout,
            stderr,
            more: None,
        };
        RunResult::from_wire("false", wire)
    }

    #[test]
    fn l091_l093_exit_codes() {
        let exited = result(ProcStatus::Exited, Some(3), None);
        assert_eq!(
            (exited.exit_code, exited.status.name(), exited.ok()),
            (3, "exited", false)
        );
        let signalled = result(ProcStatus::Signalled, None, Some(9));
        assert_eq!((signalled.exit_code, signalled.signal), (-1, Some(9)));
        let late = result(ProcStatus::TimedOut, None, Some(9));
        assert_eq!((late.exit_code, late.timed_out()), (-2, true));
        assert!(result(ProcStatus::Exited, Some(0), None).ok());
    }

    #[test]
    fn l095_a_failed_assertion_says_everything() {
        let text = result(ProcStatus::Signalled, None, Some(15))
            .assert_ok()
            .unwrap_err()
            .to_string();
        for part in [
            "`false`",
            "signalled",
            "exit code -1",
            "signal 15 (TERM)",
            "stdout: out",
            "stderr: err",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn l086_a_zero_timeout_is_refused() {
        let problem = Command::shell("x")
            .timeout(Duration::ZERO)
            .check()
            .unwrap_err()
            .to_string();
        assert_eq!(problem, "timeout: must be more than zero");
        assert!(Command::exec(Vec::<Vec<u8>>::new()).check().is_err());
    }
}
