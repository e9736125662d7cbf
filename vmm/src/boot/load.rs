//! Copying kernel and initramfs into guest memory.
//!
//! Memory must be all zero before: pages of zeros are not written, so that they stay untouched on
//! the host and cost nothing there.

use provium_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::image::KernelImage;
use super::place::{self, Placement};
use crate::layout::PAGE_SIZE;

/// Writes the kernel's segments.
pub(crate) fn kernel(
    memory: &GuestMemory,
    kernel: &KernelImage,
    placement: &Placement,
) -> Result<(), GuestMemoryError> {
    for segment in &kernel.elf().segments {
        let start = segment.address.wrapping_add(placement.shift);
        write_sparse(memory, start, kernel.segment_bytes(segment))?;
    }
    Ok(())
}

/// Writes the archives of the initramfs.
pub(crate) fn initrd(
    memory: &GuestMemory,
    parts: &[&[u8]],
    placement: &Placement,
) -> Result<(), GuestMemoryError> {
    let (offsets, _) = place::lay_archives(parts);
    for (part, offset) in parts.iter().zip(offsets) {
        memory.write_slice(part, GuestAddress(placement.initrd.start + offset))?;
    }
    Ok(())
}

/// Writes all of `bytes` but whole pages of zeros.
fn write_sparse(memory: &GuestMemory, start: u64, bytes: &[u8]) -> Result<(), GuestMemoryError> {
    let mut at = start;
    let mut chunks = bytes.chunks(PAGE_SIZE as usize).peekable();
    let mut rest = bytes;
    while let Some(first) = chunks.next() {
        let zero = is_zero(first);
        let mut run = first.len();
        while let Some(next) = chunks.next_if(|chunk| is_zero(chunk) == zero) {
            run += next.len();
        }
        let (now, later) = rest.split_at(run);
        if !zero {
            memory.write_slice(now, GuestAddress(at))?;
        }
        rest = later;
        at += run as u64;
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    // In words, eight at a time: tens of megabytes pass through here on every boot.
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::bitmap::Bitmap;
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }

    #[test]
    fn pages_of_zeros_stay_untouched() {
        let memory = memory();
        let mut bytes = vec![0; 5 * 4096 + 100];
        bytes[4096 * 2 + 7] = 1;
        bytes[5 * 4096 + 99] = 2;
        write_sparse(&memory, 0x1_0000, &bytes).unwrap();
        let region = memory.iter().next().unwrap();
        let dirty: Vec<usize> = (0..16)
            .filter(|page| region.bitmap().dirty_at(0x1_0000 + page * 4096))
            .collect();
        assert_eq!(dirty, [2, 5]);
    }

    proptest! {
        #[test]
        fn every_byte_arrives(
            pages in proptest::collection::vec(0u8..3, 0..12),
            tail in proptest::collection::vec(any::<u8>(), 0..200),
            start in 0u64..9000,
        ) {
            let mut bytes: Vec<u8> = pages.iter().flat_map(|fill| [*fill; 4096]).collect();
            bytes.extend(tail);
            let memory = memory();
            write_sparse(&memory, start, &bytes).unwrap();
            let mut back = vec![0xff; bytes.len()];
            memory.read_slice(&mut back, GuestAddress(start)).unwrap();
            prop_assert!(back == bytes);
        }
    }
}
