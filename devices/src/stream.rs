//! The host end of a byte stream into the guest, whatever carries it.
//!
//! [`VsockStream`](crate::virtio::vsock::VsockStream) and
//! [`SerialStream`](crate::serial::SerialStream) implement [`ByteStream`], so the agent's client
//! runs over either. The core never blocks; waiting is done with a [`Signal`] (see there for the
//! pattern), because only the machine knows how guest time and host time relate.

use std::sync::Arc;

use crate::signal::Signal;

/// What a non-blocking read or write achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many bytes were moved (never 0, unless the given buffer was empty).
    Bytes(usize),
    /// Nothing can be moved now; the subscribed signals tell when to try again.
    Pending,
    /// Reading only: the guest will send no more, and all it sent has been read.
    Eof,
}

/// Why a stream is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Nothing listens on the guest's port.
    #[error("connection refused by the guest")]
    Refused,
    /// The guest ended the connection with a reset.
    #[error("connection reset by the guest")]
    Reset,
    /// The guest reset the device, rebooted, or was restored from a snapshot.
    #[error("connection lost: the guest's device was reset")]
    DeviceReset,
    /// The guest broke the protocol, so the device ended the connection.
    #[error("connection ended: the guest violated the protocol ({0})")]
    Violation(&'static str),
    /// The guest no longer reads: writing makes no sense.
    #[error("the guest has shut down its receiving side")]
    GuestStoppedReading,
    /// The host itself has shut down this direction.
    #[error("this direction was shut down by the host")]
    ShutDown,
    /// The machine is gone.
    #[error("the machine has stopped")]
    MachineGone,
}

/// A two-way byte stream between a host thread and a program in the guest.
///
/// All methods may be called from any thread; none blocks. Dropping the stream closes it: what was
/// written before is still delivered, then the guest sees the end.
pub trait ByteStream: Send + Sync {
    /// Takes bytes that the guest sent.
    fn try_read(&self, buffer: &mut [u8]) -> Result<Progress, StreamError>;

    /// Hands bytes over for the guest, as many as there is room for.
    fn try_write(&self, data: &[u8]) -> Result<Progress, StreamError>;

    /// True while the guest's end exists and at least one direction can still move bytes.
    fn is_open(&self) -> bool;

    /// Says that no more will be written: the guest reads EOF after the bytes written so far.
    fn shutdown_write(&self);

    /// Notifies `signal` whenever a call that returned [`Progress::Pending`] may do better now, and
    /// on any change of state.
    fn subscribe(&self, signal: &Arc<Signal>);
}
