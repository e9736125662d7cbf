//! The state in which the boot processor begins, and the tables in low memory that it needs.
//!
//! Both backends start from the same structs: the boot processor at the kernel's entry point, the
//! others waiting for their start-up interrupt.

use kvm_bindings::{kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use provium_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::{cpuid, layout};

/// Where and in which mode the boot processor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuEntry {
    /// 64-bit mode, low 4 GiB mapped to themselves, the zero page's address in RSI: Linux' 64-bit
    /// boot protocol.
    Long {
        /// First instruction.
        rip: u64,
        /// Address of the zero page.
        zero_page: u64,
    },
    /// 32-bit protected mode without paging, the start info's address in EBX: the PVH protocol.
    Protected {
        /// First instruction.
        eip: u32,
        /// Address of the start info.
        start_info: u32,
    },
}

/// First state of one processor, as the `kvm-bindings` structs that both backends take.
#[derive(Clone, Debug)]
pub struct VcpuStart {
    /// General registers.
    pub regs: kvm_regs,
    /// Model-specific registers to write.
    pub msrs: Vec<kvm_msr_entry>,
    entry: CpuEntry,
}

impl VcpuStart {
    /// Sets segments, descriptor tables and control registers; leaves what belongs to the local
    /// APIC (its base, CR8, pending interrupts) as the backend has it.
    pub fn apply(&self, sregs: &mut kvm_sregs) {
        let tables = descriptors(self.entry);
        sregs.cs = tables.code;
        for segment in [
            &mut sregs.ds,
            &mut sregs.es,
            &mut sregs.fs,
            &mut sregs.gs,
            &mut sregs.ss,
        ] {
            *segment = tables.data;
        }
        sregs.tr = tables.task;
        sregs.ldt = kvm_segment {
            type_: 2,
            unusable: 1,
            ..Default::default()
        };
        let limit = (GDT_ENTRIES * 8 - 1) as u16;
        sregs.gdt = kvm_dtable {
            base: layout::GDT_START,
            limit,
            ..Default::default()
        };
        sregs.idt = kvm_dtable::default();
        sregs.cr2 = 0;
        match self.entry {
            CpuEntry::Long { .. } => {
                sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
                sregs.cr3 = layout::PAGE_TABLES_START;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME | EFER_LMA;
            }
            CpuEntry::Protected { .. } => {
                sregs.cr0 = CR0_PE | CR0_ET;
                sregs.cr3 = 0;
                sregs.cr4 = 0;
                sregs.efer = 0;
            }
        }
    }
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always set.
const RFLAGS_RESERVED: u64 = 2;

/// The boot processor's first state.
pub fn initial_state(entry: CpuEntry) -> VcpuStart {
    let regs = match entry {
        CpuEntry::Long { rip, zero_page } => kvm_regs {
            rip,
            rsi: zero_page,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        },
        CpuEntry::Protected { eip, start_info } => kvm_regs {
            rip: eip.into(),
            rbx: start_info.into(),
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        },
    };
    VcpuStart {
        regs,
        msrs: cpuid::boot_msrs(),
        entry,
    }
}

const GDT_ENTRIES: usize = 6;
/// Selectors that the boot protocol prescribes.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
/// The task descriptor takes two entries in 64-bit mode.
const TASK_SELECTOR: u16 = 0x20;

struct Descriptors {
    code: kvm_segment,
    data: kvm_segment,
    task: kvm_segment,
}

fn descriptors(entry: CpuEntry) -> Descriptors {
    let long = matches!(entry, CpuEntry::Long { .. });
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    Descriptors {
        // Executable, readable, accessed.
        code: kvm_segment {
            selector: CODE_SELECTOR,
            type_: 11,
            l: u8::from(long),
            db: u8::from(!long),
            ..flat
        },
        // Writable, accessed.
        data: kvm_segment {
            selector: DATA_SELECTOR,
            type_: 3,
            db: 1,
            ..flat
        },
        // Busy task state segment: nobody switches tasks, but a processor must have one.
        task: kvm_segment {
            selector: TASK_SELECTOR,
            type_: 11,
            limit: 0x67,
            present: 1,
            ..Default::default()
        },
    }
}

/// The descriptor as it stands in a GDT.
fn encode(segment: &kvm_segment) -> u64 {
    let limit = if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    };
    let (limit, base) = (u64::from(limit), segment.base);
    let bits = [
        (u64::from(segment.type_), 40),
        (u64::from(segment.s), 44),
        (u64::from(segment.dpl), 45),
        (u64::from(segment.present), 47),
        (u64::from(segment.avl), 52),
        (u64::from(segment.l), 53),
        (u64::from(segment.db), 54),
        (u64::from(segment.g), 55),
    ];
    let fields = limit & 0xffff
        | (limit & 0xf_0000) << 32
        | (base & 0xff_ffff) << 16
        | (base & 0xff00_0000) << 32;
    bits.iter().fold(fields, |descriptor, (value, shift)| {
        descriptor | value << shift
    })
}

const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;
const TABLE_ENTRIES: u64 = 512;
/// Page directories: one maps 1 GiB.
const DIRECTORIES: u64 = 4;

/// Writes the descriptor table and, for 64-bit mode, page tables to low memory.
pub(crate) fn write_tables(memory: &GuestMemory, entry: CpuEntry) -> Result<(), GuestMemoryError> {
    let tables = descriptors(entry);
    let gdt: [u64; GDT_ENTRIES] = [
        0,
        0,
        encode(&tables.code),
        encode(&tables.data),
        encode(&tables.task),
        0,
    ];
    write_words(memory, layout::GDT_START, &gdt)?;
    if matches!(entry, CpuEntry::Long { .. }) {
        write_page_tables(memory)?;
    }
    Ok(())
}

/// Maps the low 4 GiB to themselves in 2 MiB pages, which every host can do.
fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let page = |index: u64| layout::PAGE_TABLES_START + index * layout::PAGE_SIZE;
    write_words(memory, page(0), &[page(1) | PAGE_PRESENT_WRITABLE])?;
    let directories: Vec<u64> = (0..DIRECTORIES)
        .map(|i| page(2 + i) | PAGE_PRESENT_WRITABLE)
        .collect();
    write_words(memory, page(1), &directories)?;
    let entry = |i| (i * LARGE_PAGE) | PAGE_PRESENT_WRITABLE | PAGE_LARGE;
    let pages: Vec<u64> = (0..DIRECTORIES * TABLE_ENTRIES).map(entry).collect();
    write_words(memory, page(2), &pages)
}

fn write_words(memory: &GuestMemory, at: u64, words: &[u64]) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: CpuEntry = CpuEntry::Long {
        rip: 0x100_0000,
        zero_page: 0x7000,
    };
    const PROTECTED: CpuEntry = CpuEntry::Protected {
        eip: 0x100_0000,
        start_info: 0x6000,
    };

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }

    fn word(memory: &GuestMemory, at: u64) -> u64 {
        memory.read_obj(GuestAddress(at)).unwrap()
    }

    #[test]
    fn linux_begins_in_64_bit_mode_with_the_zero_page_in_rsi() {
        let start = initial_state(LONG);
        assert_eq!((start.regs.rip, start.regs.rsi), (0x100_0000, 0x7000));
        assert_eq!(start.regs.rflags & 1 << 9, 0, "interrupts off");
        let mut sregs = kvm_sregs {
            apic_base: 0xfee0_0900,
            ..Default::default()
        };
        start.apply(&mut sregs);
        assert_eq!((sregs.cs.selector, sregs.ds.selector), (0x10, 0x18));
        assert_eq!((sregs.cs.l, sregs.cs.db), (1, 0));
        assert_ne!(sregs.cr0 & CR0_PG, 0);
        assert_eq!(sregs.efer, EFER_LMA | EFER_LME);
        assert_eq!(sregs.apic_base, 0xfee0_0900, "the local APIC is left alone");
    }

    #[test]
    fn pvh_begins_in_protected_mode_with_the_start_info_in_ebx() {
        let start = initial_state(PROTECTED);
        assert_eq!((start.regs.rip, start.regs.rbx), (0x100_0000, 0x6000));
        let mut sregs = kvm_sregs::default();
        start.apply(&mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db), (0, 1));
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (CR0_PE | CR0_ET, 0, 0));
    }

    #[test]
    fn descriptors_are_encoded_as_the_architecture_wants() {
        let memory = memory();
        write_tables(&memory, LONG).unwrap();
        let entry = |i: u64| word(&memory, layout::GDT_START + i * 8);
        assert_eq!(entry(2), 0x00af_9b00_0000_ffff);
        assert_eq!(entry(3), 0x00cf_9300_0000_ffff);
        assert_eq!(entry(4), 0x0000_8b00_0000_0067);
        write_tables(&memory, PROTECTED).unwrap();
        assert_eq!(entry(2), 0x00cf_9b00_0000_ffff);
    }

    /// Walks the tables as the processor does.
    #[test]
    fn the_low_4_gib_are_mapped_to_themselves() {
        let memory = memory();
        write_tables(&memory, LONG).unwrap();
        let next = |table: u64, index: u64| word(&memory, (table & !0xfff) + index * 8);
        for address in [0u64, 0x7000, 0x100_0000, 0xbfff_ffff, 0xffff_f000] {
            let pml4 = next(layout::PAGE_TABLES_START, address >> 39);
            let pdpt = next(pml4, address >> 30 & 511);
            let directory = next(pdpt, address >> 21 & 511);
            assert_eq!(directory & 0x83, 0x83);
            assert_eq!((directory & !0xfff) | address & (LARGE_PAGE - 1), address);
        }
        assert_eq!(next(layout::PAGE_TABLES_START, 1), 0);
    }

    #[test]
    fn tables_stay_out_of_each_others_way() {
        let page_tables_end = layout::PAGE_TABLES_START + (2 + DIRECTORIES) * layout::PAGE_SIZE;
        let gdt_end = layout::GDT_START + GDT_ENTRIES as u64 * 8;
        assert!(gdt_end <= layout::PVH_INFO_START);
        assert!(page_tables_end <= layout::CMDLINE_START);
        const { assert!(layout::BOOT_STACK < layout::PAGE_TABLES_START) };
    }
}
