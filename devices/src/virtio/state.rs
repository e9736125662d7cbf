//! Saved states of virtio devices, as plain data.

use serde::{Deserialize, Serialize};

use super::blk::BlkState;
use super::rng::RngState;
use super::vsock::VsockState;

/// The state of one device without its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// Entropy source.
    Rng(RngState),
    /// Socket device.
    Vsock(VsockState),
    /// Block device.
    Block(BlkState),
}

/// Why a saved state was refused.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state belongs to another kind of device.
    #[error("the saved state is not that of {0} device")]
    WrongDevice(&'static str),
    /// A value no device of this kind can have.
    #[error("the saved state is damaged: {0}")]
    Damaged(&'static str),
    /// A queue the device cannot work with.
    #[error("the saved state of queue {index} is damaged")]
    Queue {
        /// Number of the queue.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: super::QueueError,
    },
}
