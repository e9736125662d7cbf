//! Decoded code: blocks by physical page, and their end when the bytes under them change.
//!
//! A page that holds decoded code has no write permission in any TLB, so every write to it comes
//! by [`CodeCache::hit`]. Writes by devices do not; whoever does them calls
//! [`crate::Complex::code_written`].

use std::collections::BTreeMap;

use crate::apic::InterruptMessage;
use crate::op::Op;
use crate::ram::Ram;

/// A run of operations that is entered at its start only.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) ops: *const Op,
    pub(crate) len: u16,
    /// Instructions in it.
    pub(crate) instructions: u16,
}

/// Blocks of one physical page, decoded for one operand size.
pub(crate) struct CodePage {
    /// Number of the physical page.
    page: usize,
    bits: u8,
    /// Block number + 1 by offset in the page.
    starts: Box<[u16; 4096]>,
    blocks: Vec<Block>,
    /// Code pages of the same physical page for other operand sizes.
    next: u32,
}

impl CodePage {
    /// The block that starts at `offset`.
    #[inline(always)]
    pub(crate) fn block(&self, offset: usize) -> Option<&Block> {
        match self.starts[offset & 0xfff] {
            0 => None,
            n => self.blocks.get(usize::from(n) - 1),
        }
    }
}

/// Operations per chunk of the arena.
const CHUNK: usize = 1 << 16;
/// Chunks after which everything is dropped: 128 MiB.
const CHUNKS: usize = 64;
/// Code pages after which everything is dropped.
const PAGES: usize = 16 << 10;

/// All decoded code of a package.
pub(crate) struct CodeCache {
    /// Chunks that never grow past their capacity: blocks point into them.
    chunks: Vec<Vec<Op>>,
    pub(crate) pages: Vec<CodePage>,
    /// Number + 1 of the first code page, by physical page.
    by_page: Vec<u32>,
    /// One bit for each 64 bytes of a page with instructions in them, by physical page.
    granules: Vec<u64>,
    /// Grows whenever a page starts to hold code: TLBs of other vCPUs may still let writes to it
    /// pass.
    pub(crate) epoch: u64,
    /// Grows whenever code pages are renumbered.
    pub(crate) generation: u64,
    /// Blocks decoded, and pages invalidated, since creation.
    pub(crate) decoded: u64,
    pub(crate) invalidated: u64,
}

// SAFETY: the raw pointers in `Block` lead into `chunks`, which belong to the same value and move
// with it.
unsafe impl Send for CodeCache {}

impl CodeCache {
    fn new(pages: usize) -> CodeCache {
        CodeCache {
            chunks: Vec::new(),
            pages: Vec::new(),
            by_page: vec![0; pages],
            granules: vec![0; pages],
            epoch: 0,
            generation: 0,
            decoded: 0,
            invalidated: 0,
        }
    }

    /// Whether the physical page holds decoded code.
    #[inline]
    pub(crate) fn holds_code(&self, page: usize) -> bool {
        self.granules[page] != 0
    }

    /// The physical pages that hold decoded code, ascending.
    pub(crate) fn pages_with_code(&self) -> impl Iterator<Item = usize> + '_ {
        let granules = self.granules.iter().enumerate();
        granules.filter_map(|(page, mask)| (*mask != 0).then_some(page))
    }

    /// Whether any of `len` bytes from `offset` is near an instruction.
    pub(crate) fn hit(&self, page: usize, offset: usize, len: usize) -> bool {
        let mask = self.granules[page];
        (offset / 64..=(offset + len.max(1) - 1).min(4095) / 64).any(|g| mask & 1 << g != 0)
    }

    /// Drops the blocks of a physical page. Their operations stay in the arena, since one of them
    /// may be executing.
    pub(crate) fn invalidate(&mut self, page: usize) {
        self.granules[page] = 0;
        self.invalidated += 1;
        let mut at = self.by_page[page];
        while at != 0 {
            let p = &mut self.pages[at as usize - 1];
            p.starts.fill(0);
            p.blocks.clear();
            at = p.next;
        }
    }

    /// Whether the arena is full, so that [`Self::clear`] is due.
    pub(crate) fn full(&self) -> bool {
        self.chunks.len() >= CHUNKS || self.pages.len() >= PAGES
    }

    /// Drops everything; nothing of it may be executing.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        for p in self.pages.drain(..) {
            self.by_page[p.page] = 0;
            self.granules[p.page] = 0;
        }
        self.generation += 1;
    }

    /// Number of the code page of a physical page, made if there is none.
    pub(crate) fn code_page(&mut self, page: usize, bits: u8) -> u32 {
        let first = self.by_page[page];
        let mut at = first;
        while at != 0 {
            let p = &self.pages[at as usize - 1];
            if p.bits == bits {
                return at - 1;
            }
            at = p.next;
        }
        self.pages.push(CodePage {
            page,
            bits,
            starts: Box::new([0; 4096]),
            blocks: Vec::new(),
            next: first,
        });
        self.by_page[page] = self.pages.len() as u32;
        self.pages.len() as u32 - 1
    }

    /// Stores a block that covers the bytes `start..end` of the code page; answers whether the
    /// physical page held no code before.
    pub(crate) fn insert(
        &mut self,
        code_page: u32,
        start: usize,
        end: usize,
        ops: &[Op],
        instructions: u16,
    ) -> (Block, bool) {
        if self
            .chunks
            .last()
            .is_none_or(|c| c.len() + ops.len() > CHUNK)
        {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        let chunk = &mut self.chunks[chunk];
        let first = chunk.len();
        chunk.extend_from_slice(ops);
        let block = Block {
            ops: &raw const chunk[first],
            len: ops.len() as u16,
            instructions,
        };
        let p = &mut self.pages[code_page as usize];
        p.blocks.push(block);
        p.starts[start] = p.blocks.len() as u16;
        self.decoded += 1;
        let mask = &mut self.granules[p.page];
        let fresh = *mask == 0;
        for g in start / 64..=(end.max(start + 1) - 1).min(4095) / 64 {
            *mask |= 1 << g;
        }
        self.epoch += u64::from(fresh);
        (block, fresh)
    }
}

/// What the vCPUs of a package share. The running vCPU holds it.
pub(crate) struct Shared {
    pub(crate) ram: Ram,
    pub(crate) code: CodeCache,
    /// Interrupt messages on their way to local APICs.
    pub(crate) messages: Vec<InterruptMessage>,
    /// Vectors of level-triggered interrupts whose end was signalled.
    pub(crate) eois: Vec<u8>,
    /// Realtime at tick 0, in nanoseconds since 1970.
    pub(crate) wall_clock: i64,
    /// How often each instruction that the processor lacks was met.
    pub(crate) unknown: BTreeMap<String, u64>,
}

impl Shared {
    pub(crate) fn new(ram: Ram) -> Shared {
        let pages = ram.pages();
        Shared {
            ram,
            code: CodeCache::new(pages),
            messages: Vec::new(),
            eois: Vec::new(),
            wall_clock: 0,
            unknown: BTreeMap::new(),
        }
    }

    /// What a vCPU holds while another one runs: nothing.
    pub(crate) fn absent() -> Shared {
        // SAFETY: no region, so nothing is promised.
        Shared::new(unsafe { Ram::new(Vec::new()) })
    }
}
