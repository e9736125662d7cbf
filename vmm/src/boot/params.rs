//! The zero page: what Linux wants to know from its loader (`boot_params`), and the memory map.

use linux_loader::bootparam::{SETUP_RNG_SEED, boot_e820_entry, boot_params, setup_header};
use provium_devices::GuestMemory;
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError};

use super::acpi::AcpiTables;
use super::image::KernelImage;
use super::place::Placement;
use crate::layout::{self, RamRegion};

/// Loader type "undefined": none of the registered ones.
const LOADER_UNDEFINED: u8 = 0xff;
/// The kernel sits at 1 MiB or above, which it must be told.
const LOADED_HIGH: u8 = 1;
/// Set by a decompressor that has chosen addresses at random: we have not.
const KASLR_FLAG: u8 = 1 << 1;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_PROTOCOL: u16 = 0x020f;
/// Command line size of all kernels so far; a vmlinux does not tell.
const USUAL_CMDLINE_SIZE: u32 = 2047;
/// Next node, type and length before the content of a `setup_data` node.
const SETUP_DATA_HEADER: usize = 16;

/// What a piece of the guest's address space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum MemoryKind {
    /// Free for use.
    Ram = 1,
    /// Not to be touched.
    Reserved = 2,
}

/// One entry of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapEntry {
    pub start: u64,
    pub size: u64,
    pub kind: MemoryKind,
}

/// The memory map: RAM, less what firmware keeps below 1 MiB.
pub(crate) fn memory_map(ram: &[RamRegion]) -> Vec<MapEntry> {
    let entry = |start, end, kind| MapEntry {
        start,
        size: end - start,
        kind,
    };
    let (low, high) = (layout::LOW_MEMORY_END, layout::EXTENDED_MEMORY_START);
    let mut map = vec![
        entry(0, low, MemoryKind::Ram),
        entry(low, high, MemoryKind::Reserved),
    ];
    for region in ram {
        map.push(entry(region.start.max(high), region.end(), MemoryKind::Ram));
    }
    map
}

/// Longest command line that this kernel keeps.
pub(crate) fn cmdline_size(kernel: &KernelImage) -> u32 {
    match kernel.header().map(|header| header.cmdline_size()) {
        // Protocol: 0 means the limit of old.
        None | Some(0) => USUAL_CMDLINE_SIZE,
        Some(size) => size,
    }
}

/// Writes the zero page and the `setup_data` that it points to.
pub(crate) fn write(
    memory: &GuestMemory,
    kernel: &KernelImage,
    placement: &Placement,
    ram: &[RamRegion],
    rng_seed: &[u8],
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params {
        hdr: header(kernel, placement),
        acpi_rsdp_addr: AcpiTables::RSDP,
        ..Default::default()
    };
    fill_memory_map(&mut params, &memory_map(ram));
    if !rng_seed.is_empty() {
        params.hdr.setup_data = layout::SETUP_DATA_START;
        write_seed(memory, rng_seed)?;
    }
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE_START))
}

/// The kernel's own setup header with the loader's fields filled in; a made-up one for a vmlinux.
fn header(kernel: &KernelImage, placement: &Placement) -> setup_header {
    let mut header = match kernel.header() {
        Some(from_file) => copy_header(from_file.bytes()),
        None => setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            version: BOOT_PROTOCOL,
            cmdline_size: USUAL_CMDLINE_SIZE,
            ..Default::default()
        },
    };
    header.type_of_loader = LOADER_UNDEFINED;
    header.loadflags = (header.loadflags | LOADED_HIGH) & !KASLR_FLAG;
    header.setup_data = 0;
    // Commands lines and initramfs lie below 4 GiB by the layout.
    header.cmd_line_ptr = layout::CMDLINE_START as u32;
    header.code32_start = placement.kernel.start as u32;
    let initrd = &placement.initrd;
    if !initrd.is_empty() {
        header.ramdisk_image = initrd.start as u32;
        header.ramdisk_size = (initrd.end - initrd.start) as u32;
    }
    header
}

fn copy_header(bytes: &[u8]) -> setup_header {
    let mut header = setup_header::default();
    // Newer kernels may have a longer header, older ones a shorter.
    for (to, from) in header.as_mut_slice().iter_mut().zip(bytes) {
        *to = *from;
    }
    header
}

fn fill_memory_map(params: &mut boot_params, map: &[MapEntry]) {
    let mut table = params.e820_table;
    let count = map.len().min(table.len());
    for (to, from) in table.iter_mut().zip(map) {
        *to = boot_e820_entry {
            addr: from.start,
            size: from.size,
            r#type: from.kind as u32,
        };
    }
    params.e820_table = table;
    params.e820_entries = u8::try_from(count).unwrap_or(u8::MAX);
}

/// Entropy for the kernel's random number generator, which then is ready from the first moment and
/// depends on nothing but the seed (lua-api L-068). Kernels before 6.0 ignore it.
fn write_seed(memory: &GuestMemory, seed: &[u8]) -> Result<(), GuestMemoryError> {
    let mut node = vec![0; SETUP_DATA_HEADER];
    node[8..12].copy_from_slice(&SETUP_RNG_SEED.to_le_bytes());
    node[12..16].copy_from_slice(&(seed.len() as u32).to_le_bytes());
    node.extend_from_slice(seed);
    memory.write_slice(&node, GuestAddress(layout::SETUP_DATA_START))
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::{tiny_bzimage, tiny_vmlinux};
    use super::super::place::place;
    use super::*;
    use crate::layout::ram_regions;
    use std::path::Path;

    const MIB: u64 = 1 << 20;

    fn written(kernel: &KernelImage, initrd: u64, seed: &[u8]) -> (GuestMemory, Vec<u8>) {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let ram = ram_regions(64 * MIB).unwrap();
        let placement = place(kernel, initrd, &ram).unwrap();
        write(&memory, kernel, &placement, &ram, seed).unwrap();
        let mut page = vec![0; 4096];
        memory
            .read_slice(&mut page, GuestAddress(layout::ZERO_PAGE_START))
            .unwrap();
        (memory, page)
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn fields_lie_at_the_offsets_of_the_boot_protocol() {
        let (_, page) = written(&tiny_bzimage(b"code"), 5000, &[]);
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(page[0x210], 0xff, "type of loader");
        assert_eq!(page[0x211] & 3, LOADED_HIGH);
        assert_eq!(
            u32_at(&page, 0x218) as u64,
            64 * MIB - 8192,
            "ramdisk address"
        );
        assert_eq!(u32_at(&page, 0x21c), 5000, "ramdisk size");
        assert_eq!(u32_at(&page, 0x228) as u64, layout::CMDLINE_START);
        assert_eq!(u32_at(&page, 0x70) as u64, layout::ACPI_START);
        assert_eq!(
            u32_at(&page, 0x238),
            2047,
            "command line size, from the file"
        );
        assert_eq!(page[0x1ef], 0, "the sentinel of a sane loader");
    }

    #[test]
    fn a_vmlinux_gets_a_header_too_and_no_ramdisk_where_there_is_none() {
        let kernel = KernelImage::parse(Path::new("vmlinux"), tiny_vmlinux(b"code")).unwrap();
        let (_, page) = written(&kernel, 0, &[]);
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!((u32_at(&page, 0x218), u32_at(&page, 0x21c)), (0, 0));
    }

    #[test]
    fn memory_map_has_all_ram_and_spares_the_firmware_area() {
        let (_, page) = written(&tiny_bzimage(b"code"), 0, &[]);
        assert_eq!(page[0x1e8], 3);
        let entries: Vec<(u32, u32, u32)> = page[0x2d0..]
            .chunks(20)
            .take(3)
            .map(|e| (u32_at(e, 0), u32_at(e, 8), u32_at(e, 16)))
            .collect();
        assert_eq!(
            entries,
            [
                (0, 0x9_fc00, 1),
                (0x9_fc00, 0x6_0400, 2),
                (0x10_0000, 63 << 20, 1)
            ]
        );
    }

    #[test]
    fn memory_map_goes_on_above_the_hole() {
        let map = memory_map(&ram_regions(4096 * MIB).unwrap());
        let above = MapEntry {
            start: 4096 * MIB,
            size: 1024 * MIB,
            kind: MemoryKind::Ram,
        };
        assert_eq!(map.last(), Some(&above));
        assert_eq!(map[2].start + map[2].size, layout::LOW_RAM_LIMIT);
    }

    #[test]
    fn seed_is_a_setup_data_node_l068() {
        let seed = [0xa5; 32];
        let (memory, page) = written(&tiny_bzimage(b"code"), 0, &seed);
        assert_eq!(u32_at(&page, 0x250) as u64, layout::SETUP_DATA_START);
        let mut node = [0; 48];
        memory
            .read_slice(&mut node, GuestAddress(layout::SETUP_DATA_START))
            .unwrap();
        assert_eq!(
            (node[..8].to_vec(), u32_at(&node, 8), u32_at(&node, 12)),
            (vec![0; 8], 9, 32)
        );
        assert_eq!(node[16..], seed);
        let (_, page) = written(&tiny_bzimage(b"code"), 0, &[]);
        assert_eq!(u32_at(&page, 0x250), 0);
    }
}
