//! A guest's memory as tests build it: RAM, page tables and descriptor tables.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::alloc::{Layout, alloc_zeroed, dealloc};

use provium_cpu::{CpuidLeaf, Ram, RamRegion, SegmentState, TableState};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const GLOBAL: u64 = 1 << 8;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;

/// Host memory behind the guest's RAM, from guest-physical address 0.
pub(crate) struct Memory {
    host: *mut u8,
    len: usize,
    /// Next free page for tables.
    next: u64,
}

impl Memory {
    /// RAM of `len` bytes; pages from `tables` on are handed out by [`Memory::page`].
    pub(crate) fn new(len: usize, tables: u64) -> Memory {
        let layout = Layout::from_size_align(len, 4096).expect("a whole number of pages");
        // SAFETY: the size is not zero.
        let host = unsafe { alloc_zeroed(layout) };
        assert!(!host.is_null(), "no memory for the guest");
        Memory {
            host,
            len,
            next: tables,
        }
    }

    /// The RAM for a [`provium_cpu::Complex`], which must not outlive `self`.
    pub(crate) fn ram(&self) -> Ram {
        let region = RamRegion {
            gpa: 0,
            len: self.len as u64,
            host: self.host,
        };
        // SAFETY: the memory stays until `self` is dropped, after the processor (tests keep the
        // two in one struct, in that order); we touch it by raw copies only.
        unsafe { Ram::new(vec![region]) }
    }

    pub(crate) fn host(&self, gpa: u64, len: usize) -> *mut u8 {
        assert!(gpa as usize + len <= self.len, "{gpa:#x} is outside RAM");
        self.host.wrapping_add(gpa as usize)
    }

    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) {
        // SAFETY: `host` has checked the range.
        unsafe {
            self.host(gpa, bytes.len())
                .copy_from(bytes.as_ptr(), bytes.len())
        };
    }

    pub(crate) fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        // SAFETY: as in `write`.
        unsafe { self.host(gpa, len).copy_to(out.as_mut_ptr(), len) };
        out
    }

    pub(crate) fn write_u64(&self, gpa: u64, value: u64) {
        self.write(gpa, &value.to_le_bytes());
    }

    pub(crate) fn read_u64(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.read(gpa, 8));
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn read_u32(&self, gpa: u64) -> u32 {
        self.read_u64(gpa) as u32
    }

    /// A zeroed page of its own.
    pub(crate) fn page(&mut self) -> u64 {
        let page = self.next;
        self.next += 0x1000;
        self.write(page, &[0; 4096]);
        page
    }

    /// Maps a page of `1 << shift` bytes (12, 21 or 30) in 4-level tables below `root`, making
    /// tables as needed; they permit everything, the entry itself says what is permitted.
    pub(crate) fn map(&mut self, root: u64, linear: u64, entry: u64, shift: u32) {
        let at = self.entry(root, linear, shift);
        self.write_u64(at, entry | if shift > 12 { LARGE } else { 0 });
    }

    /// Address of the page-table entry that maps `linear` at level `shift`.
    pub(crate) fn entry(&mut self, root: u64, linear: u64, shift: u32) -> u64 {
        let mut table = root;
        let mut level = 39;
        loop {
            let at = table + (linear >> level & 0x1ff) * 8;
            if level == shift {
                return at;
            }
            if self.read_u64(at) & PRESENT == 0 {
                let page = self.page();
                self.write_u64(at, page | PRESENT | WRITE | USER);
            }
            table = self.read_u64(at) & 0x00ff_ffff_f000;
            level -= 9;
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let layout = Layout::from_size_align(self.len, 4096).expect("as in `new`");
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.host, layout) };
    }
}

/// A segment descriptor of base `base` and limit `limit` (bytes; with `flags` bit 3 in pages),
/// access byte `access` and the four flag bits G, D/B, L, AVL (SDM vol. 3, figure 3-8).
pub(crate) fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    u64::from(limit & 0xffff)
        | u64::from(base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | u64::from(limit >> 16 & 0xf) << 48
        | u64::from(flags & 0xf) << 52
        | u64::from(base >> 24) << 56
}

/// What loading `descriptor` with `selector` leaves in a segment register.
pub(crate) fn loaded(selector: u16, descriptor: u64) -> SegmentState {
    let raw = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    let pages = descriptor >> 55 & 1 != 0;
    SegmentState {
        selector,
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
        limit: if pages { raw << 12 | 0xfff } else { raw },
        access: (descriptor >> 40 & 0xf0ff) as u16,
        unusable: false,
    }
}

/// A segment register with a null selector.
pub(crate) fn null() -> SegmentState {
    SegmentState {
        unusable: true,
        ..SegmentState::default()
    }
}

/// A 64-bit interrupt gate (`kind` 0xe) or trap gate (0xf) as two words (SDM vol. 3, figure 6-8).
pub(crate) fn gate64(selector: u16, offset: u64, dpl: u8, ist: u8, kind: u8) -> [u64; 2] {
    let low = offset & 0xffff
        | u64::from(selector) << 16
        | u64::from(ist) << 32
        | u64::from(kind) << 40
        | u64::from(dpl) << 45
        | 1 << 47
        | (offset >> 16 & 0xffff) << 48;
    [low, offset >> 32]
}

/// A 32-bit interrupt or trap gate.
pub(crate) fn gate32(selector: u16, offset: u32, dpl: u8, kind: u8) -> u64 {
    u64::from(offset) & 0xffff
        | u64::from(selector) << 16
        | u64::from(kind) << 40
        | u64::from(dpl) << 45
        | 1 << 47
        | u64::from(offset >> 16) << 48
}

pub(crate) fn table(base: u64, limit: u16) -> TableState {
    TableState { base, limit }
}

/// The features that tests ask for; the processor itself executes whatever it can.
pub(crate) fn cpuid() -> Vec<CpuidLeaf> {
    let leaf = |leaf, value| CpuidLeaf {
        leaf,
        subleaf: None,
        value,
    };
    vec![
        leaf(0, [0xd, 0, 0, 0]),
        leaf(1, [0x600, 0, 0x0098_2203, 0x078b_fbff]),
        leaf(0x8000_0001, [0, 0, 1, 0x2810_0800]),
    ]
}
