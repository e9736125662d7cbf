//! Socket device (virtio 1.2, 5.10): byte streams between guest programs and host threads.
//!
//! ```text
//!   guest driver == queues ==> device::Vsock --+
//!                                              +-- hub::Hub (one lock: all connections)
//!   host threads == VsockHost, VsockStream ----+
//! ```
//!
//! The host end of every connection lives in this process. The machine's thread and host threads
//! meet only in the hub, whose lock is held for short copies and never while anything waits. Data
//! towards the guest is held in the connection until the guest has receive buffers and credit for
//! it; data from the guest until the host reads it. Both are bounded: the host's writes then
//! report [`Progress::Pending`](crate::Progress::Pending), the guest's run out of credit. Neither
//! ever blocks the machine.
//!
//! A connection, seen from here:
//!
//! ```text
//!   connect(): REQUEST ->  <- RESPONSE            (<- RST: refused)
//!   guest's:   <- REQUEST  RESPONSE ->            (RST ->: nobody listens, or backlog full)
//!   RW both ways, CREDIT_UPDATE, CREDIT_REQUEST
//!   host done:  SHUTDOWN -> (after all data)  <- RST
//!   guest done: <- SHUTDOWN                   RST ->
//! ```
//!
//! Whatever else the guest sends is a violation: it costs the guest that connection.

mod connection;
mod device;
mod host;
mod hub;
mod packet;
#[cfg(test)]
mod tests;

pub use device::{Vsock, VsockState};
pub use host::{ConnectionState, ListenError, VsockHost, VsockListener, VsockStream};

/// The context id of the host, fixed by the standard (virtio 1.2, 5.10.4).
pub const HOST_CID: u64 = 2;
