//! One request: a descriptor chain, checked once and then plain data.
//!
//! `virtio-queue` walks the descriptors (direct and indirect) and never loops or overflows; it
//! ends a bad chain silently, though. `Chain::collect` finds these cases and checks the rest of
//! virtio 1.2, 2.7.5: a chain that it returns is complete, lies in guest memory, has its readable
//! part before its writable part, and stays valid however the guest rewrites its descriptors
//! afterwards.

use serde::{Deserialize, Serialize};
use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, GuestMemoryError, Permissions};

use crate::memory::GuestMemory;

/// More descriptors than any driver has reason to put into one chain. The table a guest can point
/// to has up to 65,535; this bounds what one request may cost.
pub const MAX_DESCRIPTORS: usize = 1024;

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It loops, leaves the table, or continues in an unreadable or malformed indirect table.
    #[error("the chain does not end")]
    Unterminated,
    /// It has more than [`MAX_DESCRIPTORS`].
    #[error("the chain has too many descriptors")]
    TooLong,
    /// A buffer is not in guest memory.
    #[error("a buffer lies outside of guest memory")]
    OutsideMemory,
    /// A readable buffer follows a writable one.
    #[error("a readable buffer follows a writable one")]
    WrongOrder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Segment {
    address: u64,
    len: u32,
}

impl Segment {
    fn is_accessible(&self, memory: &GuestMemory, permission: Permissions) -> bool {
        let address = GuestAddress(self.address);
        usize::try_from(self.len).is_ok_and(|len| memory.check_range(address, len, permission))
    }
}

/// The buffers of one request. Its form in a snapshot is the same, but unchecked; see
/// [`SavedChain`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a chain that is not given back is lost to the driver"]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    /// Walks and checks the chain.
    pub(crate) fn collect(
        memory: &GuestMemory,
        descriptors: DescriptorChain<&GuestMemory>,
    ) -> Result<Self, ChainError> {
        let head = descriptors.head_index();
        let mut chain = Self {
            head,
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let mut complete = false;
        for (count, descriptor) in descriptors.enumerate() {
            if count == MAX_DESCRIPTORS {
                return Err(ChainError::TooLong);
            }
            chain.push(memory, descriptor)?;
            complete = !descriptor.has_next();
        }
        if complete {
            Ok(chain)
        } else {
            Err(ChainError::Unterminated)
        }
    }

    fn push(&mut self, memory: &GuestMemory, descriptor: Descriptor) -> Result<(), ChainError> {
        let segment = Segment {
            address: descriptor.addr().0,
            len: descriptor.len(),
        };
        let (list, permission) = if descriptor.is_write_only() {
            (&mut self.writable, Permissions::Write)
        } else if self.writable.is_empty() {
            (&mut self.readable, Permissions::Read)
        } else {
            return Err(ChainError::WrongOrder);
        };
        if !segment.is_accessible(memory, permission) {
            return Err(ChainError::OutsideMemory);
        }
        list.push(segment);
        Ok(())
    }

    /// Index of the first descriptor, which names the chain in the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes the device may read.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes the device may write.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies from the readable part, starting `offset` bytes into it; returns how many bytes
    /// there were (fewer than asked for only at its end).
    pub fn read_at(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, GuestMemoryError> {
        let mut done = 0;
        for (address, len) in pieces(&self.readable, offset, data.len()) {
            memory.read_slice(&mut data[done..done + len], address)?;
            done += len;
        }
        Ok(done)
    }

    /// Copies into the writable part, starting `offset` bytes into it; returns how many bytes
    /// fitted.
    pub fn write_at(
        &self,
        memory: &GuestMemory,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, GuestMemoryError> {
        let mut done = 0;
        for (address, len) in pieces(&self.writable, offset, data.len()) {
            memory.write_slice(&data[done..done + len], address)?;
            done += len;
        }
        Ok(done)
    }
}

/// A request that a device holds while a snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedChain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    /// The request for a snapshot.
    pub(crate) fn save(&self) -> SavedChain {
        SavedChain {
            head: self.head,
            readable: self.readable.clone(),
            writable: self.writable.clone(),
        }
    }

    /// Checks a saved request anew; None if it cannot have been one in this memory.
    pub(crate) fn restore(memory: &GuestMemory, saved: &SavedChain) -> Option<Self> {
        let SavedChain {
            head,
            readable,
            writable,
        } = saved.clone();
        let accessible = |segments: &[Segment], permission| {
            segments
                .iter()
                .all(|segment| segment.is_accessible(memory, permission))
        };
        let valid = readable.len() + writable.len() <= MAX_DESCRIPTORS
            && accessible(&readable, Permissions::Read)
            && accessible(&writable, Permissions::Write);
        valid.then_some(Self {
            head,
            readable,
            writable,
        })
    }
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// The contiguous pieces that `len` bytes from `offset` on fall into, as far as the segments go.
fn pieces(
    segments: &[Segment],
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> {
    let mut skip = offset;
    let mut left = len;
    segments.iter().filter_map(move |segment| {
        let segment_len = u64::from(segment.len);
        let start = skip.min(segment_len);
        skip -= start;
        let take = usize::try_from(segment_len - start)
            .unwrap_or(usize::MAX)
            .min(left);
        left -= take;
        // The range was checked, so its addresses do not wrap.
        (take > 0).then(|| (GuestAddress(segment.address.wrapping_add(start)), take))
    })
}
