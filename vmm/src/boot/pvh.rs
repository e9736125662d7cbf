//! The PVH start info: what a kernel entered by its PVH note wants to know.

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use provium_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::acpi::AcpiTables;
use super::params::memory_map;
use super::place::Placement;
use crate::layout::{self, RamRegion};

/// The version with a memory map.
const VERSION: u32 = 1;
/// The module list and the memory map follow the start info at these distances.
const MODULES: u64 = layout::PVH_INFO_START + 0x40;
const MEMORY_MAP: u64 = layout::PVH_INFO_START + 0x80;
const MEMORY_MAP_ENTRY: u64 = 24;

/// Writes the start info with its module list and memory map.
pub(crate) fn write(
    memory: &GuestMemory,
    placement: &Placement,
    ram: &[RamRegion],
) -> Result<(), GuestMemoryError> {
    let map = memory_map(ram);
    let initrd = &placement.initrd;
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: u32::from(!initrd.is_empty()),
        modlist_paddr: MODULES,
        cmdline_paddr: layout::CMDLINE_START,
        rsdp_paddr: AcpiTables::RSDP,
        memmap_paddr: MEMORY_MAP,
        // A handful of entries.
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(layout::PVH_INFO_START))?;
    let module = hvm_modlist_entry {
        paddr: initrd.start,
        size: initrd.end - initrd.start,
        ..Default::default()
    };
    memory.write_obj(module, GuestAddress(MODULES))?;
    for (at, entry) in (MEMORY_MAP..).step_by(MEMORY_MAP_ENTRY as usize).zip(map) {
        let entry = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.size,
            type_: entry.kind as u32,
            ..Default::default()
        };
        memory.write_obj(entry, GuestAddress(at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ram_regions;

    #[test]
    fn start_info_leads_to_modules_and_memory_map() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let ram = ram_regions(64 << 20).unwrap();
        let initrd = 0x300_0000..0x300_1234;
        let placement = Placement {
            shift: 0,
            kernel: 0x100_0000..0x200_0000,
            initrd,
        };
        write(&memory, &placement, &ram).unwrap();
        let info: hvm_start_info = memory
            .read_obj(GuestAddress(layout::PVH_INFO_START))
            .unwrap();
        assert_eq!(
            (info.magic, info.version, info.nr_modules),
            (0x336e_c578, 1, 1)
        );
        assert_eq!(
            (info.memmap_entries, info.rsdp_paddr),
            (3, layout::ACPI_START)
        );
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x300_0000, 0x1234));
        let last = GuestAddress(info.memmap_paddr + 2 * MEMORY_MAP_ENTRY);
        let last: hvm_memmap_table_entry = memory.read_obj(last).unwrap();
        assert_eq!((last.addr, last.size, last.type_), (0x10_0000, 63 << 20, 1));
    }
}
