//! Which pages of guest memory were written: a bitmap that is cheap to empty.
//!
//! The software CPU asks after every device access that may have written to memory, so looking
//! must cost next to nothing when little was written, however much RAM there is. A second level
//! says which words of the bitmap are worth a look: one of its words covers 16 MiB.

use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

/// log2 of the page size.
const PAGE_SHIFT: u32 = 12;
/// Size of a page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

/// One bit per page of one memory region. All methods may be called from any thread.
#[derive(Debug, Default)]
pub struct DirtyPages {
    pages: usize,
    /// A bit per page.
    words: Box<[AtomicU64]>,
    /// A bit per word that may have a bit set.
    summary: Box<[AtomicU64]>,
}

fn zeroed(words: usize) -> Box<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

impl DirtyPages {
    fn mark_page(&self, page: usize) {
        let (word, bit) = (page / 64, 1 << (page % 64));
        // Marked already is the common case, and must not cost a write to a shared line.
        if self.words[word].load(Ordering::Relaxed) & bit == 0 {
            self.words[word].fetch_or(bit, Ordering::AcqRel);
        }
        // After the word itself, so that whoever takes the summary bit finds the page's.
        let (word, bit) = (word / 64, 1 << (word % 64));
        if self.summary[word].load(Ordering::Acquire) & bit == 0 {
            self.summary[word].fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Takes all marks, and calls `page` with the offset of each marked page, ascending.
    pub fn drain(&self, mut page: impl FnMut(usize)) {
        for (first, summary) in (0..).step_by(64).zip(&self.summary) {
            if summary.load(Ordering::Acquire) == 0 {
                continue;
            }
            for word in ones(summary.swap(0, Ordering::AcqRel)).map(|bit| first + bit) {
                let marked = self.words[word].swap(0, Ordering::AcqRel);
                ones(marked).for_each(|bit| page((word * 64 + bit) << PAGE_SHIFT));
            }
        }
    }
}

/// Numbers of the bits set, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

impl<'a> WithBitmapSlice<'a> for DirtyPages {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for DirtyPages {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if len == 0 || self.pages == 0 {
            return;
        }
        let first = offset >> PAGE_SHIFT;
        let last = offset.saturating_add(len - 1) >> PAGE_SHIFT;
        (first..=last.min(self.pages - 1)).for_each(|page| self.mark_page(page));
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let page = offset >> PAGE_SHIFT;
        page < self.pages && self.words[page / 64].load(Ordering::Acquire) >> (page % 64) & 1 != 0
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for DirtyPages {
    fn with_len(len: usize) -> Self {
        let pages = len.div_ceil(PAGE_SIZE);
        let words = pages.div_ceil(64);
        Self {
            pages,
            words: zeroed(words),
            summary: zeroed(words.div_ceil(64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn drained(pages: &DirtyPages) -> Vec<usize> {
        let mut offsets = Vec::new();
        pages.drain(|offset| offsets.push(offset));
        offsets
    }

    #[test]
    fn marks_are_taken_once() {
        let pages = DirtyPages::with_len(64 << 20);
        pages.mark_dirty(0x1_0fff, 2);
        pages.mark_dirty((64 << 20) - 1, 1);
        assert!(pages.dirty_at(0x1_1234));
        assert!(!pages.dirty_at(0x1_2000));
        assert_eq!(drained(&pages), [0x1_0000, 0x1_1000, (64 << 20) - 0x1000]);
        assert!(drained(&pages).is_empty());
    }

    #[test]
    fn ranges_outside_are_cut_off() {
        let pages = DirtyPages::with_len(0x3000);
        pages.mark_dirty(0x2000, usize::MAX);
        pages.mark_dirty(usize::MAX, usize::MAX);
        pages.mark_dirty(0x1000, 0);
        assert_eq!(drained(&pages), [0x2000]);
        assert!(!pages.dirty_at(usize::MAX));
        DirtyPages::default().mark_dirty(0, 1);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(ranges in proptest::collection::vec((0usize..40 << 20, 0usize..200_000), 0..50)) {
            let pages = DirtyPages::with_len(40 << 20);
            let mut expected = BTreeSet::new();
            for (offset, len) in ranges {
                pages.mark_dirty(offset, len);
                let end = (offset + len).min(40 << 20);
                expected.extend((offset & !0xfff..end).step_by(0x1000).filter(|_| len > 0));
            }
            prop_assert_eq!(drained(&pages), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
