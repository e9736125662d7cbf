//! Serial port: a 16550 UART, its output going to the host and its input coming from there.
//!
//! COM1 is the guest's console: output goes to a [`ConsoleSink`] (the machine's log), input comes
//! through a [`SerialHandle`]. COM2 can carry the agent's channel when the guest has no sockets:
//! [`SerialHost`] opens a [`SerialStream`] over it, with back-pressure both ways.
//!
//! Input waits in a queue of ours until the guest's driver has receive interrupts enabled, and
//! then follows as the guest reads. Nothing written before a driver is there gets lost in its
//! set-up, which empties the chip's own FIFO.

mod stream;
#[cfg(test)]
mod tests;
mod uart;

pub use stream::{SerialHost, SerialStream};
pub use uart::{ConsoleSink, Serial, SerialHandle, SerialPortState, SerialRestoreError};

/// Bytes of I/O space.
pub const SIZE: u64 = 8;
