//! Address-range buses: which device answers at which port or physical address.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// A device as its bus sees it. Offsets count from the start of the registered range.
///
/// One access is at most 8 bytes and lies wholly inside the range; `data.len()` is its width.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes at `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);

    /// Takes up what happened on the host side since the last call. The machine calls it after
    /// the device's [`Kick`](crate::Kick) was used; a superfluous call is harmless.
    fn poll(&mut self) {}
}

/// A device shared between the bus and the machine that owns it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Why a range could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The range is empty.
    #[error("bus range {0:#x?} is empty")]
    Empty(Range<u64>),
    /// Part of the range belongs to another device.
    #[error("bus range {wanted:#x?} overlaps {taken:#x?}")]
    Overlap {
        /// The refused range.
        wanted: Range<u64>,
        /// The range that is in the way.
        taken: Range<u64>,
    },
}

struct Slot {
    end: u64,
    device: SharedDevice,
}

/// One address space (ports or memory-mapped registers) and the devices in it.
#[derive(Default)]
pub struct Bus {
    slots: BTreeMap<u64, Slot>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `range` to `device`.
    pub fn register(&mut self, range: Range<u64>, device: SharedDevice) -> Result<(), BusError> {
        if range.is_empty() {
            return Err(BusError::Empty(range));
        }
        if let Some(taken) = self.overlapping(&range) {
            return Err(BusError::Overlap {
                wanted: range,
                taken,
            });
        }
        self.slots.insert(
            range.start,
            Slot {
                end: range.end,
                device,
            },
        );
        Ok(())
    }

    fn overlapping(&self, range: &Range<u64>) -> Option<Range<u64>> {
        // Ranges do not overlap each other, so the last one that starts below the end of `range`
        // is the only candidate.
        let (&start, slot) = self.slots.range(..range.end).next_back()?;
        (slot.end > range.start).then_some(start..slot.end)
    }

    /// Reads through the bus. What no device claims reads as all ones; returns whether one did.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        match self.find(address, data.len()) {
            Some((offset, device)) => {
                lock(device).read(offset, data);
                true
            }
            None => {
                data.fill(0xff);
                false
            }
        }
    }

    /// Writes through the bus. What no device claims is dropped; returns whether one did.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        match self.find(address, data.len()) {
            Some((offset, device)) => {
                lock(device).write(offset, data);
                true
            }
            None => false,
        }
    }

    /// The device at `address`, with its range.
    pub fn device_at(&self, address: u64) -> Option<(Range<u64>, SharedDevice)> {
        let (&start, slot) = self.slots.range(..=address).next_back()?;
        (address < slot.end).then(|| (start..slot.end, Arc::clone(&slot.device)))
    }

    fn find(&self, address: u64, len: usize) -> Option<(u64, &SharedDevice)> {
        let (start, slot) = self.slots.range(..=address).next_back()?;
        let end = address.checked_add(u64::try_from(len).ok()?)?;
        (end <= slot.end).then_some((address - start, &slot.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        writes: Vec<(u64, Vec<u8>)>,
    }

    impl BusDevice for Recorder {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.writes.push((offset, data.to_vec()));
        }
    }

    fn bus_with(ranges: &[(u64, u64)]) -> (Bus, Vec<Arc<Mutex<Recorder>>>) {
        let mut bus = Bus::new();
        let mut devices = Vec::new();
        for &(start, end) in ranges {
            let device = Arc::new(Mutex::new(Recorder::default()));
            bus.register(start..end, device.clone()).unwrap();
            devices.push(device);
        }
        (bus, devices)
    }

    #[test]
    fn accesses_reach_the_device_with_their_offset() {
        let (bus, devices) = bus_with(&[(0x10, 0x18), (0x18, 0x20)]);
        assert!(bus.write(0x1a, &[1, 2]));
        assert_eq!(lock(&devices[1]).writes, [(2, vec![1, 2])]);
        let mut data = [0; 4];
        assert!(bus.read(0x14, &mut data));
        assert_eq!(data, [4; 4]);
    }

    #[test]
    fn unclaimed_reads_are_all_ones() {
        let (bus, _) = bus_with(&[(0x10, 0x18)]);
        for address in [0, 0xf, 0x18, u64::MAX] {
            let mut data = [0; 4];
            assert!(!bus.read(address, &mut data), "{address:#x}");
            assert_eq!(data, [0xff; 4]);
            assert!(!bus.write(address, &data));
        }
    }

    #[test]
    fn an_access_across_the_end_of_a_device_is_unclaimed() {
        let (bus, devices) = bus_with(&[(0x10, 0x18)]);
        assert!(!bus.write(0x16, &[0; 4]));
        assert!(lock(&devices[0]).writes.is_empty());
    }

    #[test]
    fn overlaps_and_empty_ranges_are_refused() {
        let (mut bus, devices) = bus_with(&[(0x10, 0x18)]);
        for range in [0x10..0x18, 0xf..0x11, 0x17..0x20, 0x0..0x100, 0x12..0x13] {
            let error = bus.register(range, devices[0].clone()).unwrap_err();
            assert!(matches!(
                error,
                BusError::Overlap {
                    taken: Range {
                        start: 0x10,
                        end: 0x18
                    },
                    ..
                }
            ));
        }
        let empty = bus.register(0x40..0x40, devices[0].clone());
        assert!(matches!(empty, Err(BusError::Empty(_))));
    }
}
