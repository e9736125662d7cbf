//! Virtual devices of one machine: what the guest sees on its buses.
//!
//! A device knows guest memory, an interrupt line, a [`Clock`] and a [`Kick`]; it knows nothing of
//! KVM, of boot, or of who reads its other end. The machine (`provium-vmm`) owns every device and
//! calls it from one thread at a time: [`BusDevice::read`] and [`BusDevice::write`] for guest
//! accesses, [`BusDevice::poll`] after a device asked for it with its kick. Host threads reach a
//! device only through its handle ([`virtio::vsock::VsockHost`], [`serial::SerialHandle`],
//! [`power::PowerButton`]), never through the device itself.
//!
//! The guest is hostile. Whatever it writes into registers, rings or buffers fails at most that
//! request or that device; nothing here panics, blocks, loops without bound or allocates without
//! bound because of it.

#![forbid(unsafe_code)]

pub mod bus;
mod byte_queue;
pub mod clock;
pub mod dirty;
pub mod interrupt;
pub mod kick;
pub mod memory;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
pub mod power;
pub mod pvpanic;
pub mod serial;
pub mod signal;
pub mod stream;
mod sync;
pub mod virtio;

pub use bus::{Bus, BusDevice};
pub use clock::{AlarmId, Clock};
pub use interrupt::Interrupt;
pub use kick::Kick;
pub use memory::GuestMemory;
pub use signal::Signal;
pub use stream::{ByteStream, Progress, StreamError};
