//! Translation caches: guest-linear pages to host pages for data, and to decoded code.
//!
//! The data side is one table per way of looking at memory: user, supervisor, and supervisor
//! with EFLAGS.AC set where SMAP is on. An entry carries its own permission: a tag that
//! does not match is a miss, whatever the reason, and the slow path sorts it out.

/// Entries per view; a power of two.
const ENTRIES: usize = 4096;
/// Views, rounded up to a power of two.
const VIEWS: usize = 4;
/// A tag no aligned page address equals.
const EMPTY: u64 = u64::MAX;

/// View numbers.
const USER: usize = 0;
const SUPERVISOR: usize = 1;
const SUPERVISOR_AC: usize = 2;

/// One cached translation of a 4 KiB page.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// The page's linear address if it may be read, else [`EMPTY`].
    pub(crate) read: u64,
    /// The page's linear address if it may be written with no further ado, else [`EMPTY`].
    pub(crate) write: u64,
    /// Host address of the page less its linear address, wrapping.
    pub(crate) addend: u64,
    /// Guest-physical address of the page, with [`GLOBAL`] and [`LARGE`] in the low bits.
    pub(crate) gpa: u64,
}

/// The translation survives a load of CR3.
pub(crate) const GLOBAL: u64 = 1;
/// The translation comes from a page larger than 4 KiB.
pub(crate) const LARGE: u64 = 2;
/// The translation comes from a 1 GiB page.
pub(crate) const HUGE: u64 = 4;

const NONE: Entry = Entry {
    read: EMPTY,
    write: EMPTY,
    addend: 0,
    gpa: 0,
};

/// The data TLB.
pub(crate) struct DataTlb {
    entries: Box<[Entry; ENTRIES * VIEWS]>,
    /// First entry of the current view.
    view: usize,
    smap: bool,
    /// Slots filled with non-global translations since the last flush, to make that flush cheap.
    local: Vec<u16>,
    /// Linear 1 GiB regions of which fragments are cached.
    huge: Vec<u64>,
}

impl DataTlb {
    pub(crate) fn new() -> DataTlb {
        let entries = vec![NONE; ENTRIES * VIEWS].into_boxed_slice();
        DataTlb {
            entries: entries
                .try_into()
                .unwrap_or_else(|_| unreachable!("length is the constant's")),
            view: SUPERVISOR * ENTRIES,
            smap: false,
            local: Vec::with_capacity(ENTRIES),
            huge: Vec::new(),
        }
    }

    /// Picks the view that fits privilege and EFLAGS.AC.
    pub(crate) fn select(&mut self, cpl: u8, ac: bool) {
        self.view = ENTRIES
            * match (cpl, ac) {
                (3, _) => USER,
                (_, true) if self.smap => SUPERVISOR_AC,
                _ => SUPERVISOR,
            };
    }

    /// CR4.SMAP changed: with it off, AC makes no difference.
    pub(crate) fn set_smap(&mut self, on: bool) {
        if self.smap != on {
            self.smap = on;
            self.flush_all();
        }
    }

    /// The only entry that can hold the page of `address` in the current view.
    #[inline(always)]
    pub(crate) fn slot(&self, address: u64) -> &Entry {
        &self.entries
            [(self.view | (address >> 12) as usize & (ENTRIES - 1)) & (ENTRIES * VIEWS - 1)]
    }

    /// Caches a translation in the current view.
    pub(crate) fn fill(&mut self, address: u64, entry: Entry) {
        let slot = (self.view | (address >> 12) as usize & (ENTRIES - 1)) & (ENTRIES * VIEWS - 1);
        if entry.gpa & GLOBAL == 0 {
            if self.local.len() == ENTRIES {
                self.flush_local();
            }
            self.local.push(slot as u16);
        }
        if entry.gpa & HUGE != 0 && !self.huge.contains(&(address >> 30)) {
            self.huge.push(address >> 30);
        }
        self.entries[slot] = entry;
    }

    /// Drops everything.
    pub(crate) fn flush_all(&mut self) {
        self.entries.fill(NONE);
        self.local.clear();
        self.huge.clear();
    }

    /// Drops what a load of CR3 drops.
    pub(crate) fn flush_local(&mut self) {
        for &slot in &self.local {
            let e = &mut self.entries[usize::from(slot) & (ENTRIES * VIEWS - 1)];
            if e.gpa & GLOBAL == 0 {
                *e = NONE;
            }
        }
        self.local.clear();
    }

    /// Drops the page of `address`, whatever its size, in all views.
    pub(crate) fn flush_page(&mut self, address: u64) {
        if self.huge.contains(&(address >> 30)) {
            return self.flush_all();
        }
        let page = address & !0xfff;
        for e in self
            .entries
            .iter_mut()
            .skip((address >> 12) as usize & (ENTRIES - 1))
            .step_by(ENTRIES)
        {
            if e.read == page {
                *e = NONE;
            }
        }
        // Fragments of a large page are scattered over the slots of its 2 MiB.
        let region = address & !0x1f_ffff;
        let first = (region >> 12) as usize & (ENTRIES - 1);
        for view in 0..VIEWS {
            for e in &mut self.entries[view * ENTRIES + first..][..512] {
                if e.gpa & LARGE != 0 && e.read & !0x1f_ffff == region {
                    *e = NONE;
                }
            }
        }
    }

    /// Takes write permission from every translation of the host page at `host`: it holds code
    /// now, so writes have to be seen.
    pub(crate) fn protect(&mut self, host: u64) {
        for e in self.entries.iter_mut() {
            if e.write != EMPTY && e.write.wrapping_add(e.addend) == host {
                e.write = EMPTY;
            }
        }
    }

    /// Takes write permission from everything: another vCPU has found code somewhere.
    pub(crate) fn protect_all(&mut self) {
        for e in self.entries.iter_mut() {
            e.write = EMPTY;
        }
    }
}

/// A cached translation of a page of code.
#[derive(Clone, Copy)]
pub(crate) struct CodeEntry {
    /// Linear page address, with the processor mode in the low bits.
    pub(crate) tag: u64,
    /// Number of the page's block table.
    pub(crate) page: u32,
    pub(crate) global: bool,
    pub(crate) large: bool,
}

const CODE_ENTRIES: usize = 512;

/// The code TLB.
pub(crate) struct CodeTlb {
    entries: Box<[CodeEntry; CODE_ENTRIES]>,
}

impl CodeTlb {
    pub(crate) fn new() -> CodeTlb {
        let none = CodeEntry {
            tag: EMPTY,
            page: 0,
            global: false,
            large: false,
        };
        CodeTlb {
            entries: Box::new([none; CODE_ENTRIES]),
        }
    }

    #[inline(always)]
    pub(crate) fn lookup(&self, tag: u64) -> Option<u32> {
        let e = &self.entries[(tag >> 12) as usize & (CODE_ENTRIES - 1)];
        (e.tag == tag).then_some(e.page)
    }

    pub(crate) fn fill(&mut self, entry: CodeEntry) {
        self.entries[(entry.tag >> 12) as usize & (CODE_ENTRIES - 1)] = entry;
    }

    pub(crate) fn flush_all(&mut self) {
        for e in self.entries.iter_mut() {
            e.tag = EMPTY;
        }
    }

    pub(crate) fn flush_local(&mut self) {
        for e in self.entries.iter_mut().filter(|e| !e.global) {
            e.tag = EMPTY;
        }
    }

    pub(crate) fn flush_page(&mut self, address: u64) {
        for e in self.entries.iter_mut() {
            let span = if e.large { !0x3fff_ffff } else { !0xfff };
            if e.tag != EMPTY && (e.tag ^ address) & span == 0 {
                e.tag = EMPTY;
            }
        }
    }
}
