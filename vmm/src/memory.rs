//! Guest RAM as a whole: wiping it for a restart, and learning what devices and the host wrote to
//! it.

use std::io;
use std::ops::Deref;

use provium_devices::GuestMemory;
use provium_devices::dirty::PAGE_SIZE;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::error::Error;

/// Makes all RAM zero and gives its pages back to the host.
pub(crate) fn wipe(memory: &GuestMemory) -> Result<(), Error> {
    for region in memory.iter() {
        // SAFETY: the range is exactly one private anonymous mapping that `memory` owns. Others
        // access it only through volatile accessors or as vCPUs, and read zeroes afterwards.
        let rc =
            unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTNEED) };
        if rc != 0 {
            return Err(Error::Wipe {
                source: io::Error::last_os_error(),
            });
        }
    }
    Ok(())
}

/// Calls `changed` with every range (start, length) that was written through [`GuestMemory`], by
/// devices or the host, since the last call.
pub(crate) fn drain_dirty(memory: &GuestMemory, mut changed: impl FnMut(u64, u64)) {
    for region in memory.iter() {
        let start = region.start_addr().0;
        // The mapping's own bitmap; the region trait only lends slices of it.
        let dirty = region.deref().bitmap();
        dirty.drain(|offset| changed(start + offset as u64, PAGE_SIZE as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[
            (GuestAddress(0), 0x10_0000),
            (GuestAddress(0x100_0000), 0x4000),
        ])
        .unwrap()
    }

    #[test]
    fn wiped_memory_reads_zero() {
        let memory = memory();
        memory.write_obj(7u64, GuestAddress(0x100_0008)).unwrap();
        wipe(&memory).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x100_0008)).unwrap(), 0);
    }

    #[test]
    fn writes_are_reported_once_by_page() {
        let memory = memory();
        let drain = || {
            let mut pages = Vec::new();
            drain_dirty(&memory, |start, len| pages.push((start, len)));
            pages
        };
        drain();
        memory.write_slice(&[1; 2], GuestAddress(0x4_1fff)).unwrap();
        memory.write_obj(1u8, GuestAddress(0x100_3000)).unwrap();
        assert_eq!(
            drain(),
            [(0x4_1000, 4096), (0x4_2000, 4096), (0x100_3000, 4096)]
        );
        assert_eq!(drain(), []);
    }
}
