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
        let Some(event) = stamped.wire() else {
            return Ok(());
        };
        let frame = event.to_frame().map_err(|size| {
            let text = format!("an event of {size} bytes does not fit a frame");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        self.out.write_all(&frame)?;
        self.out.flush()
    }
}
