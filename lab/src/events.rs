//! Telling what happens: the events this crate causes (events-and-protocol E-020, E-021, E-023).

use std::time::Duration;

use provium_protocol::EventKind;

/// Is told events as they happen, from whatever thread causes them; adds the time stamp (E-009) and passes them on
/// in that order. Must not block.
pub trait EventSink: Send + Sync {
    /// One event.
    fn emit(&self, event: EventKind);

    /// A call of `file` waits for something of the host: what, for people to see; an empty text when it goes on.
    fn waiting(&self, _file: &str, _text: &str) {}

    /// Something that a user should know, in one line.
    fn note(&self, _text: &str) {}

    /// A VM of `file` has come up in this way, after `took` on the host's clock.
    fn booted(&self, _file: &str, _vm: &str, _how: &Booted, _took: Duration) {}
}

/// How a VM came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Booted {
    /// It went on from the state of an earlier boot.
    Warm,
    /// Its kernel was started.
    Cold {
        /// Why it was not warm.
        why: String,
        /// How long keeping its state for later boots took, or why it was not kept; nothing if it was not to be.
        kept: Option<Result<Duration, String>>,
    },
}

impl std::fmt::Display for Booted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Warm => f.write_str("warm"),
            Self::Cold { why, kept: None } => write!(f, "cold ({why})"),
            Self::Cold {
                why,
                kept: Some(Ok(took)),
            } => {
                let seconds = took.as_secs_f64();
                write!(f, "cold ({why}; its state is kept, {seconds:.2}s)")
            }
            Self::Cold {
                why,
                kept: Some(Err(problem)),
            } => write!(f, "cold ({why}; its state is not kept: {problem})"),
        }
    }
}

/// Drops all events.
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _event: EventKind) {}
}
