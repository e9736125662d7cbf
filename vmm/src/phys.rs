//! Reading and writing guest-physical memory from the host (L-238).

use provium_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::error::Error;

/// `len` bytes at `address`; an error unless all of it is RAM.
pub(crate) fn read(
    memory: &GuestMemory,
    address: GuestAddress,
    len: usize,
) -> Result<Vec<u8>, Error> {
    if !memory.check_range(address, len) {
        return Err(not_ram(memory, address, len));
    }
    let mut data = vec![0; len];
    memory
        .read_slice(&mut data, address)
        .map_err(|_| not_ram(memory, address, len))?;
    Ok(data)
}

/// Writes `data` at `address`; an error, and nothing written, unless all of it is RAM.
pub(crate) fn write(memory: &GuestMemory, address: GuestAddress, data: &[u8]) -> Result<(), Error> {
    if !memory.check_range(address, data.len()) {
        return Err(not_ram(memory, address, data.len()));
    }
    memory
        .write_slice(data, address)
        .map_err(|_| not_ram(memory, address, data.len()))
}

fn not_ram(memory: &GuestMemory, address: GuestAddress, len: usize) -> Error {
    let range = |r: &vm_memory::GuestRegionMmap<_>| {
        let start = r.start_addr().0;
        format!("{start:#x}..{:#x}", start + r.len())
    };
    let ram: Vec<String> = memory.iter().map(range).collect();
    Error::PhysRange {
        address: address.0,
        len: len as u64,
        ram: ram.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x4000), (GuestAddress(0x1_0000), 0x1000)])
            .unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let memory = memory();
        write(&memory, GuestAddress(0x3ffe), &[1, 2]).unwrap();
        assert_eq!(read(&memory, GuestAddress(0x3ffd), 3).unwrap(), [0, 1, 2]);
        assert_eq!(read(&memory, GuestAddress(0), 0).unwrap(), []);
    }

    #[test]
    fn ranges_outside_ram_are_refused_whole() {
        // L-238
        let memory = memory();
        let error = write(&memory, GuestAddress(0x3fff), &[1, 2]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "guest-physical range 0x3fff..0x4001 is not RAM (RAM is 0x0..0x4000, 0x10000..0x11000)"
        );
        assert_eq!(read(&memory, GuestAddress(0x3fff), 1).unwrap(), [0]);
        assert!(read(&memory, GuestAddress(u64::MAX), 2).is_err());
        assert!(read(&memory, GuestAddress(0), usize::MAX).is_err());
    }
}
