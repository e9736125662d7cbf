//! The jump cache: blocks by linear address, for the moment between two of them.
//!
//! It repeats what the code TLB and the block tables say and is dropped whole whenever one of
//! those loses something; so it needs no rules of its own.

use crate::code::Block;

const ENTRIES: usize = 4096;

#[derive(Clone, Copy)]
struct Entry {
    linear: u64,
    /// Generation and processor mode; 0 fits none.
    key: u64,
    block: Block,
}

/// A vCPU's jump cache.
pub(crate) struct JumpCache {
    entries: Box<[Entry]>,
    generation: u64,
}

// SAFETY: the pointers in blocks are used by the vCPU that holds the arena they lead into, and
// that forgets them when it is cleared.
unsafe impl Send for JumpCache {}

impl JumpCache {
    pub(crate) fn new() -> JumpCache {
        let block = Block {
            ops: std::ptr::null(),
            len: 0,
            instructions: 0,
        };
        let none = Entry {
            linear: 0,
            key: 0,
            block,
        };
        JumpCache {
            entries: vec![none; ENTRIES].into_boxed_slice(),
            generation: 1,
        }
    }

    #[inline(always)]
    fn index(linear: u64) -> usize {
        (linear ^ linear >> 12) as usize & (ENTRIES - 1)
    }

    /// The block at `linear` for processor mode `mode` (below 256).
    #[inline(always)]
    pub(crate) fn lookup(&self, linear: u64, mode: u64) -> Option<Block> {
        let e = &self.entries[Self::index(linear)];
        (e.linear == linear && e.key == self.generation << 8 | mode).then_some(e.block)
    }

    pub(crate) fn fill(&mut self, linear: u64, mode: u64, block: Block) {
        let key = self.generation << 8 | mode;
        self.entries[Self::index(linear)] = Entry { linear, key, block };
    }

    /// Drops everything.
    pub(crate) fn forget(&mut self) {
        self.generation += 1;
    }
}
