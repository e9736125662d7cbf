//! A machine at one instant as a file, and machines that go on from it.
//!
//! ```text
//!   Machine::save ---> writer: pause, state, RAM's pages ---> Image (an open, checked file)
//!                                                               |
//!   Machine::restore, Machine::rewind <--- mapped copy-on-write-+--- Image::open (checks it all)
//! ```
//!
//! # The file
//!
//! | part | content |
//! |---|---|
//! | header, one page | magic, format version, CPU model, RAM size, where the parts lie; checksum |
//! | state | [`MachineState`] as MessagePack; checksum in the header |
//! | owner | bytes that only the machine's owner understands; checksum in the header |
//! | console | everything printed since the machine's start; checksum in the header |
//! | chunks | a word per 64 KiB of RAM: zero, or "present" and its checksum; checksum in the header |
//! | RAM | page-aligned, linear, sparse: offsets are those of RAM, pages of zeroes are holes |
//!
//! The version stands before everything that it describes, outside any encoding, so a file of
//! another version is always recognised as such. RAM needs no decoding: a restore maps it
//! copy-on-write, so machines of one image share every page that none of them has written, and a
//! restore costs what the guest then touches, however much RAM there is. The price is that nothing
//! looks at RAM on the way; so it is checked when the file is opened, once per process, at the
//! speed of reading what is not zero.
//!
//! What a machine has written since is known to the host's kernel, page by page, because it had to
//! make a copy: that serves both backends alike and costs the guest nothing. Going back is
//! forgetting those copies ([`Machine::rewind`](crate::Machine::rewind)).

mod base;
mod error;
mod format;
mod image;
mod machine;
mod publish;
mod state;
mod writer;

/// Stands for everything that makes a snapshot of this Provium usable by this Provium only: format
/// version and CPU model.
#[must_use]
pub fn format_id() -> String {
    format!("{}-{:08x}", format::VERSION, format::cpu_model())
}

pub use error::SnapshotError;
pub use image::Image;
pub use machine::Fresh;
pub use publish::free_space;
pub use state::{BoardState, EngineState, MachineState};
pub use writer::{Extent, SaveTo};
