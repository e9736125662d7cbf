//! Where things lie in a guest's physical address space and I/O space: one table of constants for
//! boot, devices and both backends, and the split of RAM around the device hole (design "Boot").
//!
//! ```text
//! 0x0000_0500  GDT, then zero page, PVH start info, page tables, command line, setup data
//! 0x000e_0000  ACPI tables (reserved in the memory map)
//! 0x0010_0000  RAM: kernel; the initramfs at its top
//! 0xc000_0000  hole: virtio-mmio windows, I/O APIC, local APIC
//! 0x1_0000_0000 the rest of RAM
//! ```

use vm_memory::GuestAddress;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Page size of the guest, and the granularity of RAM.
pub const PAGE_SIZE: u64 = 4096;

/// End of low RAM and start of the hole for devices.
pub const LOW_RAM_LIMIT: u64 = 3 * GIB;
/// Where RAM goes on above the hole.
pub const HIGH_RAM_START: u64 = 4 * GIB;
/// Least RAM a machine may have: less than this holds no Linux kernel.
pub const MIN_RAM: u64 = 16 * MIB;
/// Most RAM a machine may have: it must end below [`crate::cpuid::PHYS_ADDR_BITS`].
pub const MAX_RAM: u64 = 256 * GIB;
/// Most vCPUs a machine may have: what the topology leaves of the CPU model can express.
pub const MAX_CPUS: u32 = 64;

/// Global descriptor table for the boot processor's first instructions.
pub const GDT_START: u64 = 0x500;
/// PVH start info with its memory map and module list.
pub const PVH_INFO_START: u64 = 0x6000;
/// The zero page: Linux' `boot_params`.
pub const ZERO_PAGE_START: u64 = 0x7000;
/// First stack pointer, growing down from here.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Top-level page table; the lower levels follow page by page.
pub const PAGE_TABLES_START: u64 = 0x9000;
/// Kernel command line.
pub const CMDLINE_START: u64 = 0x2_0000;
/// Room for the command line, its NUL included.
pub const CMDLINE_ROOM: u64 = 0x1_0000;
/// `setup_data` nodes handed to the kernel (the RNG seed).
pub const SETUP_DATA_START: u64 = 0x3_0000;
/// End of conventional memory; from here to 1 MiB the memory map says "reserved".
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// ACPI tables, RSDP first. The kernel also finds it here by its own search.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// Extended memory: nothing of ours is below except the tables above.
pub const EXTENDED_MEMORY_START: u64 = MIB;

/// First virtio-mmio window.
pub const VIRTIO_MMIO_START: u64 = 0xd000_0000;
/// Distance from one virtio-mmio window to the next, and its size.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// First GSI of the virtio-mmio slots; each slot has its own.
pub const VIRTIO_FIRST_GSI: u32 = 5;
/// Number of input pins of the I/O APIC.
pub const IOAPIC_PINS: u32 = 24;
/// Number of virtio-mmio slots: one I/O APIC pin each.
pub const VIRTIO_SLOTS: u32 = IOAPIC_PINS - VIRTIO_FIRST_GSI;
/// I/O APIC registers.
pub const IOAPIC_START: u64 = 0xfec0_0000;
/// Local APIC registers.
pub const LAPIC_START: u64 = 0xfee0_0000;
/// Three pages that KVM needs for itself on Intel hosts (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS_START: u64 = 0xfffb_d000;
/// Page that KVM needs for its identity map (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const KVM_IDENTITY_MAP_START: u64 = 0xfffb_c000;

/// First serial port: the console `ttyS0`.
pub const COM1_PORT: u16 = 0x3f8;
/// Interrupt of [`COM1_PORT`].
pub const COM1_GSI: u32 = 4;
/// Second serial port: the agent's fallback channel.
pub const COM2_PORT: u16 = 0x2f8;
/// Interrupt of [`COM2_PORT`].
pub const COM2_GSI: u32 = 3;
/// Ports of one 16550.
pub const COM_PORTS: u8 = 8;

/// First port of the power device.
pub const POWER_PORT: u16 = 0x600;
/// Interrupt by which the power device announces events (the ACPI generic event device).
pub const POWER_GSI: u32 = 1;

/// A contiguous piece of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// Guest physical address of its first byte.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

impl RamRegion {
    /// First address after the region.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// Why an amount of RAM cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of memory: must be a multiple of 4096 from {MIN_RAM} to {MAX_RAM}")]
pub struct RamSizeError {
    /// What was asked for.
    pub bytes: u64,
}

/// The RAM of a machine of `bytes`, split around the device hole; one or two regions, ascending.
pub fn ram_regions(bytes: u64) -> Result<Vec<RamRegion>, RamSizeError> {
    if !(MIN_RAM..=MAX_RAM).contains(&bytes) || !bytes.is_multiple_of(PAGE_SIZE) {
        return Err(RamSizeError { bytes });
    }
    let low = bytes.min(LOW_RAM_LIMIT);
    let mut regions = vec![RamRegion {
        start: 0,
        size: low,
    }];
    if bytes > low {
        regions.push(RamRegion {
            start: HIGH_RAM_START,
            size: bytes - low,
        });
    }
    Ok(regions)
}

/// The same regions in the shape that `GuestMemoryMmap::from_ranges` takes.
pub fn ram_ranges(bytes: u64) -> Result<Vec<(GuestAddress, usize)>, RamSizeError> {
    let range = |region: RamRegion| {
        let size = usize::try_from(region.size).map_err(|_| RamSizeError { bytes })?;
        Ok((GuestAddress(region.start), size))
    };
    ram_regions(bytes)?.into_iter().map(range).collect()
}

/// Where one virtio-mmio device sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Guest physical address of its register window, [`VIRTIO_MMIO_SIZE`] long.
    pub mmio_base: u64,
    /// Its interrupt: edge-triggered, shared with nobody.
    pub gsi: u32,
}

/// The `index`th virtio-mmio slot; `None` past the last one.
pub fn virtio_slot(index: u32) -> Option<Slot> {
    (index < VIRTIO_SLOTS).then(|| Slot {
        mmio_base: VIRTIO_MMIO_START + u64::from(index) * VIRTIO_MMIO_SIZE,
        gsi: VIRTIO_FIRST_GSI + index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ram_is_one_region_below_the_hole() {
        let size = 512 * MIB;
        assert_eq!(ram_regions(size), Ok(vec![RamRegion { start: 0, size }]));
        assert_eq!(ram_regions(LOW_RAM_LIMIT).map(|r| r.len()), Ok(1));
    }

    #[test]
    fn large_ram_goes_on_above_the_hole_and_keeps_its_size() {
        for size in [LOW_RAM_LIMIT + PAGE_SIZE, 4 * GIB, MAX_RAM] {
            let regions = ram_regions(size).unwrap();
            assert_eq!(regions.len(), 2);
            assert_eq!(regions[0].end(), LOW_RAM_LIMIT);
            assert_eq!(regions[1].start, HIGH_RAM_START);
            assert_eq!(regions.iter().map(|r| r.size).sum::<u64>(), size);
        }
    }

    #[test]
    fn odd_sizes_are_refused_with_the_figure() {
        for bytes in [0, MIN_RAM - PAGE_SIZE, MIN_RAM + 1, MAX_RAM + PAGE_SIZE] {
            let error = ram_regions(bytes).unwrap_err();
            assert!(error.to_string().contains(&bytes.to_string()));
        }
    }

    #[test]
    fn largest_ram_fits_the_address_width_of_the_cpu_model() {
        let end = ram_regions(MAX_RAM).unwrap()[1].end();
        assert!(end <= 1 << crate::cpuid::PHYS_ADDR_BITS);
    }

    #[test]
    fn slots_have_windows_and_pins_of_their_own() {
        let slots: Vec<Slot> = (0..).map_while(virtio_slot).collect();
        assert_eq!(slots.len(), 19);
        for pair in slots.windows(2) {
            assert_eq!(pair[1].mmio_base - pair[0].mmio_base, VIRTIO_MMIO_SIZE);
            assert_eq!(pair[1].gsi, pair[0].gsi + 1);
        }
        let last = slots[slots.len() - 1];
        assert!(last.gsi < IOAPIC_PINS && last.mmio_base + VIRTIO_MMIO_SIZE <= IOAPIC_START);
        assert!(![COM1_GSI, COM2_GSI, POWER_GSI].contains(&slots[0].gsi));
    }
}
