//! Telling what happens: the events this crate causes (events-and-protocol E-020, E-021, E-023).

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
}

/// Drops all events.
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _event: EventKind) {}
}
