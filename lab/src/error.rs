//! What a failed call tells its author (lua-api L-230..L-234).
//!
//! One type for the whole crate: [`Error`] carries the call, the resource and a [`Reason`]; its text is
//! `CALL: RESOURCE: REASON`. Guest failures keep their errno, deaths keep the end of the console, host failures
//! keep their cause in `source`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::state::VmState;
use crate::units::{UnitError, show_duration};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call (L-230): which call, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {resource}: {reason}")]
pub struct Error {
    /// The call as a test author writes it, `vm:run`.
    pub call: &'static str,
    /// What it was made on, `vm a`, `file /etc/passwd on vm a`.
    pub resource: String,
    /// Why it failed.
    #[source]
    pub reason: Box<Reason>,
}

/// An error with its causes, those left out that its text tells already: `a: b: c`.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl Error {
    /// Puts the three facts together.
    pub fn new(call: &'static str, resource: impl Into<String>, reason: impl Into<Reason>) -> Self {
        Self {
            call,
            resource: resource.into(),
            reason: Box::new(reason.into()),
        }
    }

    /// The guest's errno, when the guest's kernel refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match &*self.reason {
            Reason::Guest(failure) => failure.errno,
            _ => None,
        }
    }

    /// Nothing, if what was to be closed had gone before; else the error itself (L-063).
    pub(crate) fn unless_stale(self) -> Result<()> {
        match *self.reason {
            Reason::Stale(_) => Ok(()),
            _ => Err(self),
        }
    }

    /// True when the wait was broken off from outside (deadline of the test, interruption), L-221.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(*self.reason, Reason::Interrupted(_))
    }

    /// The end of the guest's console, for errors that carry one (L-061, L-242).
    #[must_use]
    pub fn console(&self) -> Option<&[u8]> {
        match &*self.reason {
            Reason::Dead { console, .. } | Reason::BootFailed { console, .. } => Some(console),
            _ => None,
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The VM is in a state that does not allow the call (L-047..L-060).
    #[error("state is {actual}, needs {needed}; {way_out}")]
    WrongState {
        /// State the VM is in.
        actual: VmState,
        /// States the call works in.
        needed: &'static str,
        /// What to do about it.
        way_out: &'static str,
    },
    /// The guest answered with an error.
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    /// The VM ended or its link was lost while the call was pending (L-061, L-243).
    #[error("{cause}{}", last_lines(console))]
    Dead {
        /// What happened.
        cause: String,
        /// The end of its console.
        console: Vec<u8>,
    },
    /// The guest has suspended to RAM and answers nobody (L-245).
    #[error("the guest has suspended to RAM; vm:wakeup wakes it")]
    Suspended,
    /// The VM did not come up (L-073, L-242).
    #[error("boot failed: {cause}{}", last_lines(console))]
    BootFailed {
        /// What happened.
        cause: String,
        /// The last 16 KiB of its console.
        console: Vec<u8>,
    },
    /// The link broke one rule of the protocol; the message names direction, offset and reason (E-093).
    #[error("agent link: {0}")]
    Protocol(String),
    /// Something awaited did not come in time (L-231).
    #[error("timed out waiting for {what} after {}", show_duration(*after))]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A stream ended before what was awaited came (L-193).
    #[error("stream EOF before {0}")]
    StreamEof(String),
    /// An argument that cannot be used.
    #[error("{name}: {problem}")]
    BadArgument {
        /// Name or position of the argument.
        name: String,
        /// What was got and what is accepted.
        problem: String,
    },
    /// A name that nothing has.
    #[error("no {kind} {name:?}{}", known_names(known))]
    Unknown {
        /// Kind of thing looked for.
        kind: &'static str,
        /// The name looked for.
        name: String,
        /// Names that would have been found.
        known: Vec<String>,
    },
    /// A name that is taken (L-023).
    #[error("{code}: {kind} {name:?} already exists in lab {lab:?}")]
    Duplicate {
        /// `DuplicateVmName`, `DuplicateBridgeName` or `DuplicateLabName`.
        code: &'static str,
        /// Kind of thing.
        kind: &'static str,
        /// The taken name.
        name: String,
        /// The lab in which it is taken.
        lab: String,
    },
    /// A name that would hide one of the parent scope (L-022).
    #[error(
        "{kind} {name:?} is already declared at parent scope (lab {lab:?}); use {lookup} to reach it"
    )]
    Shadow {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
        /// The lab that has it.
        lab: String,
        /// The lookup form that reuses it.
        lookup: String,
    },
    /// The handle is of an earlier life of the VM (L-063).
    #[error("stale handle: {0}")]
    Stale(String),
    /// The handle was closed; the text is the documented one (L-126, L-196, L-234).
    #[error("{0}")]
    Closed(&'static str),
    /// A file or program of the host failed.
    #[error("{action} {}: {source}", path.display())]
    Host {
        /// What was done, `read`, `open`.
        action: &'static str,
        /// To which path.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
    /// Several members of a batch call failed (L-036).
    #[error("{}", several(.0))]
    Several(Vec<Error>),
    /// The wait was broken off: deadline of a test, interruption of the run (L-221).
    #[error("{0}")]
    Interrupted(String),
    /// The machine refused or failed to start.
    #[error("machine: {0}")]
    Machine(#[source] provium_vmm::Error),
    /// The pool refused.
    #[error(transparent)]
    Pool(#[from] crate::pool::PoolError),
    /// Preparing the guest's files failed.
    #[error(transparent)]
    Guests(#[from] crate::guest::GuestError),
    /// A rule of this API was broken; the text says which.
    #[error("{0}")]
    Refused(String),
}

impl Reason {
    /// Whether it is a snapshot that this Provium cannot use, so that taking it anew helps.
    #[must_use]
    pub fn is_unusable_snapshot(&self) -> bool {
        matches!(self, Self::Machine(provium_vmm::Error::Snapshot(error)) if error.is_unusable())
    }
}

impl From<UnitError> for Reason {
    fn from(error: UnitError) -> Self {
        Self::BadArgument {
            name: "value".into(),
            problem: error.to_string(),
        }
    }
}

/// An error answer of the agent (E-051): the guest's kernel said no, or the agent did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", guest_text(.message, *.errno, .errno_name.as_deref()))]
pub struct GuestFailure {
    /// Kind of error on the wire, `os`, `bad_args`, ...
    pub kind: String,
    /// The agent's text, which names what it tried.
    pub message: String,
    /// The kernel's errno.
    pub errno: Option<i32>,
    /// Its name, `ENOENT`.
    pub errno_name: Option<String>,
    /// The path concerned.
    pub path: Option<String>,
}

/// The message with whatever of errno's name and number it does not say already.
fn guest_text(message: &str, errno: Option<i32>, name: Option<&str>) -> String {
    match (errno, name) {
        (Some(errno), Some(name)) if !message.contains(name) => {
            format!("{message} ({name}, errno {errno})")
        }
        (Some(errno), _) if !message.contains(&errno.to_string()) => {
            format!("{message} (errno {errno})")
        }
        _ => message.to_owned(),
    }
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!("; known: {}", known.join(", "))
    }
}

fn several(errors: &[Error]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    format!("{} failed: {}", errors.len(), texts.join("; "))
}

/// Number of console lines that an error shows (L-061).
const SHOWN_LINES: usize = 20;

/// The last lines of a console as an indented block, or nothing for a silent console.
fn last_lines(console: &[u8]) -> LastLines<'_> {
    LastLines(console)
}

struct LastLines<'a>(&'a [u8]);

impl fmt::Display for LastLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|l| !l.is_empty())
            .collect();
        if lines.is_empty() {
            return f.write_str(" (the console is empty)");
        }
        f.write_str("\n--- console (last lines) ---")?;
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l230_an_error_names_call_resource_and_errno() {
        let failure = GuestFailure {
            kind: "os".into(),
            message: "open /nope: No such file or directory".into(),
            errno: Some(2),
            errno_name: Some("ENOENT".into()),
            path: Some("/nope".into()),
        };
        let error = Error::new("vm:read_file", "vm a", failure);
        assert_eq!(
            error.to_string(),
            "vm:read_file: vm a: open /nope: No such file or directory (ENOENT, errno 2)"
        );
        assert_eq!(error.errno(), Some(2));
    }

    #[test]
    fn causes_are_told_once() {
        let full = std::io::Error::other("the disk is full");
        let reason = Reason::Host {
            action: "write",
            path: "/x".into(),
            source: full,
        };
        let error = Error::new("vm:snapshot", "vm a", reason);
        assert_eq!(with_causes(&error).matches("the disk is full").count(), 1);
        let refused = provium_vmm::Error::Wipe {
            source: std::io::Error::other("the disk is full"),
        };
        let error = Error::new("vm:reset", "vm a", Reason::Machine(refused));
        assert_eq!(
            with_causes(&error),
            "vm:reset: vm a: machine: cannot wipe guest memory: the disk is full"
        );
    }

    #[test]
    fn l061_a_death_shows_the_last_twenty_console_lines() {
        let console: String = (0..30).map(|n| format!("line {n}\r\n")).collect();
        let text = Reason::Dead {
            cause: "the guest triple-faulted".into(),
            console: console.into(),
        }
        .to_string();
        assert!(text.starts_with("the guest triple-faulted\n"), "{text}");
        assert!(!text.contains("line 9\n"), "{text}");
        assert!(
            text.contains("line 10\n") && text.ends_with("line 29"),
            "{text}"
        );
    }

    #[test]
    fn l231_an_unknown_name_lists_the_known_ones() {
        let reason = Reason::Unknown {
            kind: "profile",
            name: "x".into(),
            known: vec!["minimal".into(), "y".into()],
        };
        assert_eq!(reason.to_string(), "no profile \"x\"; known: minimal, y");
    }
}
