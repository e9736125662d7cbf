//! Virtio 1.2 devices and their memory-mapped transport.
//!
//! ```text
//!   guest driver --MMIO--> mmio::MmioTransport --calls--> dyn VirtioDevice (rng, vsock, ...)
//!                          owns status, features,         owns only what is particular
//!                          queues, interrupt              to the device
//! ```
//!
//! The transport owns the queues and lends them ([`DeviceIo`]) for each call; a device never
//! raises an interrupt itself. After every call the transport looks which queues have new used
//! buffers and sends at most one pulse. A device that returns a [`DeviceError`] is put into
//! DEVICE_NEEDS_RESET (virtio 1.2, 2.1.2): the guest broke something the device cannot work with.

pub mod blk;
pub mod chain;
pub mod mmio;
pub mod queue;
pub mod rng;
pub mod state;
pub mod vsock;

pub use chain::Chain;
pub use mmio::MmioTransport;
pub use queue::{QueueError, QueueSetup, VirtQueue};
pub use state::{DeviceState, RestoreError};

use crate::memory::GuestMemory;

/// VIRTIO_F_INDIRECT_DESC: chains may continue in a table of their own (virtio 1.2, 2.7.5.3).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: both sides say at which index they want to be notified (2.7.7, 2.7.8).
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1: the only generation spoken here; the transport insists on it (6).
pub const F_VERSION_1: u64 = 1 << 32;
/// The ring features that every device here supports, thanks to [`VirtQueue`].
pub const RING_FEATURES: u64 = F_INDIRECT_DESC | F_EVENT_IDX;

/// Device ids (virtio 1.2, chapter 5).
pub mod id {
    /// Network card.
    pub const NET: u32 = 1;
    /// Block device.
    pub const BLOCK: u32 = 2;
    /// Entropy source.
    pub const RNG: u32 = 4;
    /// Socket device.
    pub const VSOCK: u32 = 19;
}

/// Why a device cannot go on until the guest resets it.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A ring is broken.
    #[error("queue {index} is broken")]
    Queue {
        /// Number of the queue.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: QueueError,
    },
    /// The driver set DRIVER_OK without having set up a queue that the device needs.
    #[error("queue {0} was not set up")]
    MissingQueue(usize),
}

/// What a device works with during one call.
pub struct DeviceIo<'a> {
    /// Guest memory.
    pub memory: &'a GuestMemory,
    queues: &'a mut [Option<VirtQueue>],
    budget: u32,
    config_changed: bool,
    unfinished: bool,
}

/// Requests taken in one call of a device. While another vCPU keeps adding requests a call would
/// otherwise never end; what is left is taken up by the poll that the transport asks for.
const BUDGET: u32 = 1024;

impl<'a> DeviceIo<'a> {
    /// Lends `queues` (None: not set up by the driver).
    pub(crate) fn new(memory: &'a GuestMemory, queues: &'a mut [Option<VirtQueue>]) -> Self {
        Self {
            memory,
            queues,
            budget: BUDGET,
            config_changed: false,
            unfinished: false,
        }
    }

    /// The queue with this number, if the driver has set it up.
    pub fn queue(&mut self, index: usize) -> Option<&mut VirtQueue> {
        self.queues.get_mut(index)?.as_mut()
    }

    /// Takes the next request of a queue; None if there is none, or if this call has had its share
    /// (then [`VirtioDevice::poll`] is called soon and has to look at every queue).
    pub fn pop(&mut self, index: usize) -> Result<Option<Chain>, DeviceError> {
        let Some(budget) = self.budget.checked_sub(1) else {
            self.unfinished = true;
            return Ok(None);
        };
        self.budget = budget;
        let memory = self.memory;
        let Some(queue) = self.queue(index) else {
            return Ok(None);
        };
        queue
            .pop(memory)
            .map_err(|source| DeviceError::Queue { index, source })
    }

    /// Counts work beyond the taking of a request, in units of about 64 KiB of data, against what
    /// this call may cost.
    pub fn spend(&mut self, units: u32) {
        self.budget = self.budget.saturating_sub(units);
    }

    /// Gives a request back, `written` bytes of its writable part being filled.
    pub fn complete(
        &mut self,
        index: usize,
        chain: Chain,
        written: u32,
    ) -> Result<(), DeviceError> {
        let memory = self.memory;
        let queue = self.queue(index).ok_or(DeviceError::MissingQueue(index))?;
        queue
            .complete(memory, chain, written)
            .map_err(|source| DeviceError::Queue { index, source })
    }

    /// Puts the request taken last back, to be popped again later.
    pub fn undo_pop(&mut self, index: usize, chain: Chain) {
        if let Some(queue) = self.queue(index) {
            queue.undo_pop(chain);
        }
    }

    /// Asks the driver for notifications about new requests of a queue; true if there are requests
    /// already, which it may not notify about and which are to be popped now.
    pub fn enable_notifications(&mut self, index: usize) -> Result<bool, DeviceError> {
        let memory = self.memory;
        let Some(queue) = self.queue(index) else {
            return Ok(false);
        };
        let waiting = queue.enable_notifications(memory);
        let waiting = waiting.map_err(|source| DeviceError::Queue { index, source })?;
        Ok(waiting && !self.unfinished)
    }

    /// Spares the driver notifications about a queue while the device is not interested.
    pub fn disable_notifications(&mut self, index: usize) -> Result<(), DeviceError> {
        let memory = self.memory;
        let Some(queue) = self.queue(index) else {
            return Ok(());
        };
        queue
            .disable_notifications(memory)
            .map_err(|source| DeviceError::Queue { index, source })
    }

    /// Announces a change of the configuration space (virtio 1.2, 2.3 and 2.5).
    pub fn config_changed(&mut self) {
        self.config_changed = true;
    }
}

/// The part of a virtio device that is not the transport's.
pub trait VirtioDevice: Send {
    /// The device id, one of [`id`].
    fn device_id(&self) -> u32;

    /// Offered features, without VERSION_1, which the transport adds.
    fn features(&self) -> u64;

    /// Greatest size of each queue, each a power of two; its length is the number of queues.
    fn queue_sizes(&self) -> &[u16];

    /// The guest reads the device's configuration space. `data` comes zeroed.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The guest writes the device's configuration space. Most devices have nothing writable.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready (DRIVER_OK) and has accepted `features`.
    fn activate(&mut self, features: u64, io: &mut DeviceIo<'_>) -> Result<(), DeviceError>;

    /// The driver announces new requests in a queue. Only called while active.
    fn notify(&mut self, queue: usize, io: &mut DeviceIo<'_>) -> Result<(), DeviceError>;

    /// Takes up what the host side did since the last call, and requests that an earlier call left
    /// behind. Only called while active.
    fn poll(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError>;

    /// The driver resets the device: back to the state before activation.
    fn reset(&mut self);

    /// The device's own state, queues and negotiation excluded.
    fn save(&self) -> DeviceState;

    /// Takes over a saved state, checking it first: a snapshot is not trusted.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError>;
}

/// Copies the part of a little-endian configuration space that was asked for.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let Ok(offset) = usize::try_from(offset) else {
        return;
    };
    let available = config.get(offset..).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(available) {
        *to = *from;
    }
}
