//! Block device (virtio 1.2, 5.2): a disk whose contents live behind a trait.
//!
//! ```text
//!   guest driver == queue ==> device::Blk --> dyn BlockStore
//!                                             (faults::FaultyStore around memory, file, ...)
//! ```
//!
//! The host reads and writes sectors through the same [`SharedStore`], so it sees what the guest
//! sees, faults included (L-161, L-163). Requests are executed one by one on the machine's thread;
//! a store may ask that one be put off for some guest time, during which others pass it.

mod device;
pub mod faults;
mod request;
pub mod store;
#[cfg(test)]
mod tests;

pub use device::{Blk, BlkHandle, BlkOptions, BlkState};
pub use store::{BlockError, BlockOp, BlockStore, SharedStore};

/// Bytes of a sector, the unit of all positions (virtio 1.2, 5.2.6).
pub const SECTOR: u64 = 512;
