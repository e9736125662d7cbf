//! Guest RAM as the processor sees it: physical ranges backed by host memory.

/// A range of guest-physical addresses backed by host memory.
#[derive(Clone, Copy, Debug)]
pub struct RamRegion {
    /// First guest-physical address, page-aligned.
    pub gpa: u64,
    /// Length in bytes, a multiple of 4096.
    pub len: u64,
    /// Host address of the first byte.
    pub host: *mut u8,
}

/// All RAM of a machine.
pub struct Ram {
    regions: Vec<RamRegion>,
    /// Pages in all regions.
    pages: usize,
}

// SAFETY: the pointers are plain addresses of memory that `Ram::new`'s caller vouches for until
// the value is dropped, and nothing about that memory is tied to a thread.
unsafe impl Send for Ram {}

impl Ram {
    /// Takes the regions, which must be page-aligned and must not overlap.
    ///
    /// # Safety
    /// Each region's host memory must be valid for reads and writes of its whole length, and stay
    /// so, at that address, for as long as the returned value lives. Other code may access the
    /// memory at the same time only by raw or volatile access.
    ///
    /// # Panics
    /// If a region is not page-aligned: that is a bug of the caller's.
    pub unsafe fn new(mut regions: Vec<RamRegion>) -> Ram {
        regions.sort_by_key(|r| r.gpa);
        for r in &regions {
            assert!(
                r.gpa % 4096 == 0 && r.len % 4096 == 0,
                "RAM region {r:x?} is not page-aligned"
            );
        }
        let pages = regions.iter().map(|r| (r.len / 4096) as usize).sum();
        Ram { regions, pages }
    }

    /// Host address of the page that holds `gpa`, and the page's number counted over all regions;
    /// `None` where there is no RAM.
    #[inline]
    pub(crate) fn page(&self, gpa: u64) -> Option<(*mut u8, usize)> {
        let mut before = 0;
        for r in &self.regions {
            if gpa.wrapping_sub(r.gpa) < r.len {
                let offset = (gpa - r.gpa) & !0xfff;
                return Some((
                    r.host.wrapping_add(offset as usize),
                    before + (offset >> 12) as usize,
                ));
            }
            before += (r.len >> 12) as usize;
        }
        None
    }

    /// Guest-physical address of a page by its number; the reverse of [`Self::page`].
    pub(crate) fn address(&self, page: usize) -> Option<u64> {
        let mut before = 0;
        for r in &self.regions {
            let pages = (r.len >> 12) as usize;
            if page - before < pages {
                return Some(r.gpa + ((page - before) as u64) * 4096);
            }
            before += pages;
        }
        None
    }

    /// Pages in all regions.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Reads a naturally aligned 64-bit word, as the page walker does; `None` outside RAM.
    #[inline]
    pub(crate) fn read_u64(&self, gpa: u64) -> Option<u64> {
        let (host, _) = self.page(gpa)?;
        // SAFETY: `page` answered the host page of `gpa`, and an aligned word lies within it.
        Some(unsafe { host.add((gpa & 0xff8) as usize).cast::<u64>().read() })
    }

    /// Reads a naturally aligned 32-bit word; `None` outside RAM.
    #[inline]
    pub(crate) fn read_u32(&self, gpa: u64) -> Option<u32> {
        let (host, _) = self.page(gpa)?;
        // SAFETY: as in `read_u64`.
        Some(unsafe { host.add((gpa & 0xffc) as usize).cast::<u32>().read() })
    }

    /// Sets bits of a page-table entry of `size` bytes (accessed and dirty).
    pub(crate) fn or_entry(&self, gpa: u64, bits: u64, size: u64) {
        if let Some((host, _)) = self.page(gpa) {
            // SAFETY: as in `read_u64`; the entry is aligned to its size.
            unsafe {
                if size == 8 {
                    let p = host.add((gpa & 0xff8) as usize).cast::<u64>();
                    p.write(p.read() | bits);
                } else {
                    let p = host.add((gpa & 0xffc) as usize).cast::<u32>();
                    p.write(p.read() | bits as u32);
                }
            }
        }
    }

    /// Copies `data` to `gpa`, page by page; bytes outside RAM are dropped.
    pub(crate) fn write(&self, gpa: u64, data: &[u8]) {
        let mut at = gpa;
        let mut rest = data;
        while !rest.is_empty() {
            let n = rest.len().min(4096 - (at & 0xfff) as usize);
            if let Some((host, _)) = self.page(at) {
                // SAFETY: `n` bytes from the offset of `at` stay within the page.
                unsafe {
                    host.add((at & 0xfff) as usize)
                        .copy_from_nonoverlapping(rest.as_ptr(), n);
                }
            }
            at += n as u64;
            rest = &rest[n..];
        }
    }
}
