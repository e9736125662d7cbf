//! The page walker: 4-level, PAE and 32-bit paging (SDM vol. 3, chapter 4).

use crate::cpu::{Cpu, cr};
use crate::flags::bit;
use crate::op::Stop;
use crate::tlb;

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

/// On whose behalf memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The program, at its privilege.
    Program,
    /// The processor itself (descriptor tables, TSS): always supervisor, whatever EFLAGS.AC says.
    System,
}

/// The outcome of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    /// Guest-physical address of the byte.
    pub(crate) gpa: u64,
    /// A write needs no further walk: it is permitted and the page is marked dirty.
    pub(crate) writable: bool,
    /// [`tlb::GLOBAL`], [`tlb::LARGE`], [`tlb::HUGE`].
    pub(crate) kind: u64,
}

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Physical-address bits of an entry; the model has 40.
const ADDRESS: u64 = 0x00ff_ffff_f000;
/// Physical-address bits that the model does not have.
const RESERVED_ADDRESS: u64 = 0x000f_ff00_0000_0000;

/// Bits of a page fault's error code.
mod error {
    pub(super) const PRESENT: u32 = 1;
    pub(super) const WRITE: u32 = 2;
    pub(super) const USER: u32 = 4;
    pub(super) const RESERVED: u32 = 8;
    pub(super) const FETCH: u32 = 16;
}

/// Shape of one paging mode.
struct Levels {
    /// Index shift of the topmost table.
    top: u32,
    /// Index bits of a table.
    bits: u32,
    /// Bytes of an entry.
    size: u64,
}

impl Cpu {
    /// Translates `linear`, setting accessed and dirty bits, or raises #PF.
    pub(crate) fn walk(
        &mut self,
        linear: u64,
        access: Access,
        who: Who,
    ) -> Result<Translation, Stop> {
        if self.cr0 & cr::CR0_PG == 0 {
            return Ok(Translation {
                gpa: linear & 0xffff_ffff,
                writable: true,
                kind: 0,
            });
        }
        if self.bits == 64 || self.long_mode() {
            self.walk_tables(
                linear,
                access,
                who,
                self.cr3 & ADDRESS,
                Levels {
                    top: 39,
                    bits: 9,
                    size: 8,
                },
            )
        } else if self.cr4 & cr::CR4_PAE != 0 {
            let pdpte_at = (self.cr3 & 0xffff_ffe0) + (linear >> 30 & 3) * 8;
            let pdpte = self.shared.ram.read_u64(pdpte_at).unwrap_or(0);
            if pdpte & PRESENT == 0 {
                return Err(self.page_fault(linear, access, who, 0));
            }
            self.walk_tables(
                linear & 0xffff_ffff,
                access,
                who,
                pdpte & ADDRESS,
                Levels {
                    top: 21,
                    bits: 9,
                    size: 8,
                },
            )
        } else {
            self.walk_tables(
                linear & 0xffff_ffff,
                access,
                who,
                self.cr3 & 0xffff_f000,
                Levels {
                    top: 22,
                    bits: 10,
                    size: 4,
                },
            )
        }
    }

    fn walk_tables(
        &mut self,
        linear: u64,
        access: Access,
        who: Who,
        root: u64,
        levels: Levels,
    ) -> Result<Translation, Stop> {
        let mut table = root;
        let mut shift = levels.top;
        let (mut rights, mut no_execute) = (WRITE | USER, 0);
        loop {
            let index = linear >> shift & ((1 << levels.bits) - 1);
            let at = table + index * levels.size;
            let entry = if levels.size == 8 {
                self.shared.ram.read_u64(at).unwrap_or(0)
            } else {
                u64::from(self.shared.ram.read_u32(at).unwrap_or(0))
            };
            if entry & PRESENT == 0 {
                return Err(self.page_fault(linear, access, who, 0));
            }
            let nx_reserved = self.efer & cr::EFER_NXE == 0 && entry & NO_EXECUTE != 0;
            let leaf = shift == 12 || self.is_large(entry, shift, &levels);
            let bad_leaf =
                leaf && shift > 12 && levels.size == 8 && entry & large_reserved(shift) != 0;
            let bad_top = shift == 39 && entry & PAGE_SIZE != 0;
            if levels.size == 8 && (entry & RESERVED_ADDRESS != 0 || nx_reserved)
                || bad_leaf
                || bad_top
            {
                return Err(self.page_fault(linear, access, who, error::PRESENT | error::RESERVED));
            }
            rights &= entry;
            no_execute |= entry & NO_EXECUTE;
            if !leaf {
                if entry & ACCESSED == 0 {
                    self.shared.ram.or_entry(at, ACCESSED, levels.size);
                }
                table = if levels.size == 8 {
                    entry & ADDRESS
                } else {
                    entry & 0xffff_f000
                };
                shift -= levels.bits;
                continue;
            }
            let may_write = self.check(linear, access, who, rights, no_execute)?;
            let dirty = if access == Access::Write { DIRTY } else { 0 };
            if entry & (ACCESSED | dirty) != ACCESSED | dirty {
                self.shared.ram.or_entry(at, ACCESSED | dirty, levels.size);
            }
            let page = (1u64 << shift) - 1;
            let mut base = if levels.size == 8 {
                entry & ADDRESS
            } else {
                entry & 0xffff_f000
            };
            if levels.size == 4 && shift == 22 {
                // PSE-36: bits 20..13 are address bits 39..32.
                base = entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32;
            }
            let global = entry & GLOBAL != 0 && self.cr4 & cr::CR4_PGE != 0;
            return Ok(Translation {
                gpa: base & !page | linear & page,
                writable: may_write && (entry | dirty) & DIRTY != 0,
                kind: if global { tlb::GLOBAL } else { 0 }
                    | if shift > 12 { tlb::LARGE } else { 0 }
                    | if shift > 22 { tlb::HUGE } else { 0 },
            });
        }
    }

    fn is_large(&self, entry: u64, shift: u32, levels: &Levels) -> bool {
        let pse = levels.size == 8 || self.cr4 & cr::CR4_PSE != 0;
        entry & PAGE_SIZE != 0 && pse && shift < 39
    }

    /// Checks the rights collected on the way down; answers whether a write would be permitted.
    fn check(
        &mut self,
        linear: u64,
        access: Access,
        who: Who,
        rights: u64,
        nx: u64,
    ) -> Result<bool, Stop> {
        let user = who == Who::Program && self.cpl == 3;
        let user_page = rights & USER != 0;
        let write_protected = rights & WRITE == 0 && (user || self.cr0 & cr::CR0_WP != 0);
        let smap = !user
            && user_page
            && self.cr4 & cr::CR4_SMAP != 0
            && (who == Who::System || self.eflags & bit::AC == 0);
        let denied = match access {
            _ if user && !user_page => true,
            Access::Read => smap,
            Access::Write => smap || write_protected,
            Access::Execute => nx != 0 || !user && user_page && self.cr4 & cr::CR4_SMEP != 0,
        };
        if denied {
            return Err(self.page_fault(linear, access, who, error::PRESENT));
        }
        Ok(!write_protected && !smap)
    }

    #[cold]
    fn page_fault(&mut self, linear: u64, access: Access, who: Who, code: u32) -> Stop {
        let mut code = code;
        if access == Access::Write {
            code |= error::WRITE;
        }
        if who == Who::Program && self.cpl == 3 {
            code |= error::USER;
        }
        if access == Access::Execute
            && (self.efer & cr::EFER_NXE != 0 || self.cr4 & cr::CR4_SMEP != 0)
        {
            code |= error::FETCH;
        }
        self.pf(linear, code)
    }
}

/// Address bits of a large-page entry that must be zero; bit 12 is PAT there.
fn large_reserved(shift: u32) -> u64 {
    ((1u64 << shift) - 1) & ADDRESS & !(1 << 12)
}
