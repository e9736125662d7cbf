//! The event stream as MessagePack frames, to a file or to stdout (events-and-protocol
//! E-036..E-039).

use std::io::{self, Write};

use super::Reporter;
use crate::news::Stamped;

/// Writes frames, each flushed as it comes.
pub(crate) struct EventWriter<W> {
    name: String,
    out: W,
}

impl<W: Write> EventWriter<W> {
    /// Writes to `out`, called `name` when it fails.
    pub(crate) fn new(name: impl Into<String>, out: W) -> Self {
        Self {
            name: name.into(),
            out,
        }
    }
}

impl<W: Write> Reporter for EventWriter<W> {
    fn name(&self) -> &str {
        &self.name
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        let Some(frame) = stamped.frame()? else {
            return Ok(());
        };
        self.out.write_all(&frame)?;
        self.out.flush()
    }
}
