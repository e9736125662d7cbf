//! One request: a descriptor chain, checked once and then plain data.
//!
//! `virtio-queue` walks the descriptors (direct and indirect) and never loops or overflows; it
//! ends a bad chain silently, though. [`Chain::collect`] finds these cases and checks the rest of
//! virtio 1.2, 2.7.5: a chain that it returns is complete, lies in guest memory, has its readable
//! part before its writable part, and stays valid however the guest rewrites its descriptors
//! afterwards.

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    len: u32,
}

/// The buffers of one request.
#[derive(Debug)]
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
            address: descriptor.addr(),
            len: descriptor.len(),
        };
        let (list, permission) = if descriptor.is_write_only() {
            (&mut self.writable, Permissions::Write)
        } else if self.writable.is_empty() {
            (&mut self.readable, Permissions::Read)
        } else {
            return Err(ChainError::WrongOrder);
        };
        let len = usize::try_from(segment.len).map_err(|_| ChainError::OutsideMemory)?;
        if !memory.check_range(segment.address, len, permission) {
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
        (take > 0).then(|| (GuestAddress(segment.address.0.wrapping_add(start)), take))
    })
}
