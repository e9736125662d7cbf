//! The host's end of the agent protocol (events-and-protocol section 3).
//!
//! A [`Link`] is one connection: it frames, numbers and multiplexes requests over any byte stream, holds stream
//! data with credit, and knows when the peer was last heard. It never blocks and has no thread: whoever polls a
//! request moves bytes for all of them. [`open`] makes a link to a booting guest, over vsock or the serial
//! fallback; [`stage`] carries arguments that are larger than a frame.

mod channel;
mod link;
mod open;
mod stage;
#[cfg(test)]
mod tests;

pub(crate) use channel::ChannelEnd;
pub(crate) use link::{Link, LinkError, Request};
pub(crate) use open::{OpenError, open, open_worker};
pub(crate) use stage::Stager;
