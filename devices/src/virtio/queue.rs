//! A split virtqueue as devices use it: checked chains in, used buffers out, notifications.
//!
//! The ring itself is `virtio-queue`'s. This adds what it leaves to its user: malformed chains are
//! given back unanswered instead of reaching the device, VIRTQ_AVAIL_F_NO_INTERRUPT is honoured,
//! and the state can be saved.

use serde::{Deserialize, Serialize};
use std::num::Wrapping;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::Chain;
use crate::memory::GuestMemory;

/// VIRTQ_AVAIL_F_NO_INTERRUPT (virtio 1.2, 2.7.6).
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// What the driver wrote into the queue registers: untrusted until a [`VirtQueue`] is made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSetup {
    /// Number of entries.
    pub size: u16,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring ("driver area").
    pub available: u64,
    /// Guest address of the used ring ("device area").
    pub used: u64,
}

/// What is wrong with a queue; only a reset repairs it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Size or alignment break the rules, or the ring's indices contradict each other.
    #[error("the ring breaks the rules")]
    Ring(#[from] virtio_queue::Error),
    /// A ring does not lie in guest memory.
    #[error("a ring lies outside of guest memory")]
    OutsideMemory,
    /// The available ring names a descriptor that does not exist.
    #[error("descriptor {index} offered in a queue of {size}")]
    NoSuchDescriptor {
        /// The index in the available ring.
        index: u16,
        /// Size of the queue.
        size: u16,
    },
}

/// A queue in use.
#[derive(Debug)]
pub struct VirtQueue {
    ring: Queue,
    /// Buffers were added to the used ring since the driver was last told.
    unannounced: bool,
    malformed: u64,
}

impl VirtQueue {
    /// Checks what the driver set up and takes the queue into use.
    pub fn new(
        memory: &GuestMemory,
        max_size: u16,
        setup: &QueueSetup,
        event_idx: bool,
    ) -> Result<Self, QueueError> {
        Self::with_indices(memory, max_size, setup, event_idx, 0, 0)
    }

    fn with_indices(
        memory: &GuestMemory,
        max_size: u16,
        setup: &QueueSetup,
        event_idx: bool,
        next_avail: u16,
        next_used: u16,
    ) -> Result<Self, QueueError> {
        let ring = Queue::try_from(QueueState {
            max_size,
            next_avail,
            next_used,
            event_idx_enabled: event_idx,
            size: setup.size,
            ready: true,
            desc_table: setup.descriptors,
            avail_ring: setup.available,
            used_ring: setup.used,
        })?;
        if !ring.is_valid(memory) {
            return Err(QueueError::OutsideMemory);
        }
        Ok(Self {
            ring,
            unannounced: false,
            malformed: 0,
        })
    }

    /// Takes the next request. Malformed ones before it are given back with length 0.
    pub fn pop(&mut self, memory: &GuestMemory) -> Result<Option<Chain>, QueueError> {
        // The driver can make at most one ring's worth available at a time, and giving back a bad
        // chain does not let it add more within this loop unless another vCPU does: so the bound.
        for _ in 0..self.ring.size() {
            let Some(descriptors) = self.ring.iter(memory)?.next() else {
                return Ok(None);
            };
            let head = descriptors.head_index();
            if head >= self.ring.size() {
                return Err(QueueError::NoSuchDescriptor {
                    index: head,
                    size: self.ring.size(),
                });
            }
            match Chain::collect(memory, descriptors) {
                Ok(chain) => return Ok(Some(chain)),
                Err(_) => {
                    self.malformed += 1;
                    self.give_back(memory, head, 0)?;
                }
            }
        }
        Ok(None)
    }

    /// Gives a request back to the driver, `written` bytes of its writable part being filled.
    pub fn complete(
        &mut self,
        memory: &GuestMemory,
        chain: Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        self.give_back(memory, chain.head(), written)
    }

    fn give_back(&mut self, memory: &GuestMemory, head: u16, len: u32) -> Result<(), QueueError> {
        self.ring.add_used(memory, head, len)?;
        self.unannounced = true;
        Ok(())
    }

    /// Puts a chain taken last back to where it came from, to be popped again later.
    pub fn undo_pop(&mut self, _chain: Chain) {
        self.ring.go_to_previous_position();
    }

    /// Asks the driver for notifications; true if requests are waiting already.
    pub fn enable_notifications(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        Ok(self.ring.enable_notification(memory)?)
    }

    /// Tells the driver that notifications are not needed for now.
    pub fn disable_notifications(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        Ok(self.ring.disable_notification(memory)?)
    }

    /// True, once, if the driver is to be interrupted for buffers given back since the last call.
    pub fn take_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        if !std::mem::take(&mut self.unannounced) {
            return Ok(false);
        }
        let wanted = self.ring.needs_notification(memory)?;
        Ok(wanted && (self.ring.event_idx_enabled() || !self.interrupts_suppressed(memory)?))
    }

    fn interrupts_suppressed(&self, memory: &GuestMemory) -> Result<bool, QueueError> {
        let flags: u16 = memory
            .load(GuestAddress(self.ring.avail_ring()), Ordering::Relaxed)
            .map_err(|_| QueueError::OutsideMemory)?;
        Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT != 0)
    }

    /// True if the driver has made requests available that were not popped.
    pub fn has_requests(&self, memory: &GuestMemory) -> bool {
        let available = self.ring.avail_idx(memory, Ordering::Acquire);
        available.is_ok_and(|index| index != Wrapping(self.ring.next_avail()))
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// How many malformed chains were given back so far.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// The queue's state for a snapshot.
    pub fn save(&self) -> SavedQueue {
        let state = self.ring.state();
        SavedQueue {
            setup: QueueSetup {
                size: state.size,
                descriptors: state.desc_table,
                available: state.avail_ring,
                used: state.used_ring,
            },
            next_avail: state.next_avail,
            next_used: state.next_used,
        }
    }

    /// Rebuilds a queue from a saved state, with the checks of [`VirtQueue::new`].
    pub fn restore(
        memory: &GuestMemory,
        max_size: u16,
        saved: &SavedQueue,
        event_idx: bool,
    ) -> Result<Self, QueueError> {
        let SavedQueue {
            setup,
            next_avail,
            next_used,
        } = saved;
        Self::with_indices(memory, max_size, setup, event_idx, *next_avail, *next_used)
    }
}

/// A queue in use, as saved in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQueue {
    /// What the driver set up.
    pub setup: QueueSetup,
    /// Next entry of the available ring to take.
    pub next_avail: u16,
    /// Next entry of the used ring to fill.
    pub next_used: u16,
}
