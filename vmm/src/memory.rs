//! Guest RAM as a whole: wiping it for a restart, laying a snapshot's image under it, learning
//! what devices and the host wrote to it, and what of it exists at all.
//!
//! Offsets here count RAM linearly, the regions one after another, as an image file holds them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use provium_devices::GuestMemory;
use provium_devices::dirty::PAGE_SIZE;
use vm_memory::{Address, Bytes, GuestMemoryBackend, GuestMemoryRegion};

use crate::error::Error;

/// Replaces the pages of a part of guest memory by those of `file`, copied when written, or by
/// zeroes.
fn replace(address: *mut u8, len: usize, file: Option<(&File, u64)>) -> io::Result<()> {
    let private = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let (fd, offset, flags) = match file {
        Some((file, offset)) => (file.as_raw_fd(), offset, private),
        None => (-1, 0, private | libc::MAP_ANONYMOUS),
    };
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the callers pass page-aligned ranges inside of one mapping that a `GuestMemory` owns,
    // so nothing else is unmapped, and the new mapping has the same place, size and protection and
    // is unmapped with the region. Others access guest memory only through volatile accessors or as
    // vCPUs, for which its content may change at any time.
    let rc = unsafe { libc::mmap(address.cast(), len, prot, flags, fd, offset) };
    if rc == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the host keep equal pages of guests once. A host without that keeps them all.
pub(crate) fn mark_mergeable(memory: &GuestMemory) {
    for region in memory.iter() {
        // SAFETY: the range is exactly what one region of `memory` covers. Merging changes neither
        // content nor place of a page: the kernel write-protects it and copies it when it is
        // written.
        let _ =
            unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_MERGEABLE) };
    }
}

/// Makes all RAM zero and gives its pages back to the host.
pub(crate) fn wipe(memory: &GuestMemory) -> Result<(), Error> {
    for region in memory.iter() {
        replace(region.as_ptr(), region.size(), None).map_err(|source| Error::Wipe { source })?;
    }
    Ok(())
}

/// A linear range of RAM, of whole pages, and the bytes that are to lie under it.
#[derive(Clone)]
pub(crate) struct Layer<'a> {
    pub(crate) range: Range<u64>,
    /// A file and where in it the range begins; zeroes without one.
    pub(crate) from: Option<(&'a File, u64)>,
}

/// Lays an image, or parts of it, under RAM. Nothing is read here, and pages are copied only when
/// they are written. Each layer is in place at once, so that a failure leaves every byte as it was
/// or as it is to be.
pub(crate) fn lay<'a>(
    memory: &GuestMemory,
    layers: impl Iterator<Item = Layer<'a>> + Clone,
) -> io::Result<()> {
    let size = |len| usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput);
    let mut start = 0;
    for region in memory.iter() {
        let end = start + region.len();
        for layer in layers.clone() {
            let (from, to) = (layer.range.start.max(start), layer.range.end.min(end));
            if from < to {
                let into = region.as_ptr().wrapping_add(size(from - start)?);
                let skipped = from - layer.range.start;
                let source = layer.from.map(|(file, at)| (file, at + skipped));
                replace(into, size(to - from)?, source)?;
            }
        }
        start = end;
    }
    Ok(())
}

/// Drops every page that was written since [`lay`]: all RAM is the image's again. The cost is
/// that of the pages touched.
pub(crate) fn rewind(memory: &GuestMemory) -> io::Result<()> {
    for region in memory.iter() {
        // SAFETY: the range is exactly what one region of `memory` covers; see `replace` for why
        // its content may change.
        let rc =
            unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTNEED) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Bits of a `/proc/self/pagemap` entry: in memory, in swap, of a file (Linux,
/// Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// The host kernel's books on this process's pages. It keeps them anyway, for guests on either
/// backend.
struct Pagemap {
    file: File,
    buffer: Vec<u8>,
}

impl Pagemap {
    /// Most entries that are read at once.
    const ENTRIES: usize = 8192;

    fn open() -> io::Result<Self> {
        Ok(Self {
            file: File::open("/proc/self/pagemap")?,
            buffer: vec![0; Self::ENTRIES * 8],
        })
    }

    /// Calls `own` with the index of each of `count` pages from `address` on that this process has a
    /// copy of its own of.
    fn for_each_own(
        &mut self,
        address: *const u8,
        count: usize,
        mut own: impl FnMut(usize),
    ) -> io::Result<()> {
        let first = address as u64 / PAGE_SIZE as u64;
        for at in (0..count).step_by(Self::ENTRIES) {
            let entries = Self::ENTRIES.min(count - at);
            let bytes = &mut self.buffer[..entries * 8];
            self.file.read_exact_at(bytes, (first + at as u64) * 8)?;
            for (index, entry) in bytes.chunks_exact(8).enumerate() {
                let entry = entry.iter().rev().fold(0, |e, b| e << 8 | u64::from(*b));
                if entry & SWAPPED != 0 || entry & (PRESENT | OF_FILE) == PRESENT {
                    own(at + index);
                }
            }
        }
        Ok(())
    }
}

/// Calls `page` with the linear offset of each page that this process has a copy of its own of:
/// everything written, in memory without an image, and everything written since in memory with one.
pub(crate) fn for_each_own_page(memory: &GuestMemory, mut page: impl FnMut(u64)) -> io::Result<()> {
    let mut pagemap = Pagemap::open()?;
    let mut start = 0;
    for region in memory.iter() {
        pagemap.for_each_own(region.as_ptr(), region.size() / PAGE_SIZE, |index| {
            page(start + (index * PAGE_SIZE) as u64);
        })?;
        start += region.len();
    }
    Ok(())
}

/// As [`for_each_own_page`], but looks only at the pages at `addresses` (guest-physical,
/// ascending), and tells the addresses: the cost is that of those pages, however much RAM there is.
pub(crate) fn for_each_own_page_of(
    memory: &GuestMemory,
    addresses: &[u64],
    mut page: impl FnMut(u64),
) -> io::Result<()> {
    /// Pages this close to each other are read at once.
    const NEAR: u64 = 64 * PAGE_SIZE as u64;
    let mut pagemap = Pagemap::open()?;
    for region in memory.iter() {
        let inside = region.start_addr().0..region.start_addr().0 + region.len();
        let from = addresses.partition_point(|address| *address < inside.start);
        let to = addresses.partition_point(|address| *address < inside.end);
        for near in addresses[from..to].chunk_by(|a, b| b - a < NEAR) {
            let (first, last) = (near[0], near[near.len() - 1]);
            let host = region
                .as_ptr()
                .wrapping_add((first - inside.start) as usize);
            let count = (last - first) as usize / PAGE_SIZE + 1;
            pagemap.for_each_own(host, count, |index| {
                let address = first + (index * PAGE_SIZE) as u64;
                if near.binary_search(&address).is_ok() {
                    page(address);
                }
            })?;
        }
    }
    Ok(())
}

/// Copies the linear range from `offset` on out of RAM; it lies within one region.
pub(crate) fn read_linear(memory: &GuestMemory, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut start = 0;
    for region in memory.iter() {
        if offset >= start && offset - start < region.len() {
            let address = region.start_addr().unchecked_add(offset - start);
            return memory.read_slice(out, address).map_err(io::Error::other);
        }
        start += region.len();
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// Guest-physical addresses at which `needle` stands in `pages`, which are linear offsets of whole pages.
pub(crate) fn find(
    memory: &GuestMemory,
    pages: &BTreeSet<u64>,
    needle: &[u8],
) -> io::Result<Vec<u64>> {
    let finder = memchr::memmem::Finder::new(needle);
    let mut found = Vec::new();
    let mut start = 0;
    for region in memory.iter() {
        let end = start + region.len();
        // The page, after the end of the one before where that is its neighbour.
        let mut window = Vec::new();
        let mut neighbour = None;
        for &page in pages.range(start..end) {
            let kept = match neighbour == Some(page) {
                true => window.len().min(needle.len().saturating_sub(1)),
                false => 0,
            };
            window.drain(..window.len() - kept);
            window.resize(kept + PAGE_SIZE, 0);
            read_linear(memory, page, &mut window[kept..])?;
            let first = region.start_addr().0 + (page - start) - kept as u64;
            found.extend(finder.find_iter(&window).map(|at| first + at as u64));
            neighbour = Some(page + PAGE_SIZE as u64);
        }
        start = end;
    }
    Ok(found)
}

/// Calls `changed` with every range (start, length) that was written through [`GuestMemory`], by
/// devices or the host, since the last call.
pub(crate) fn drain_dirty(memory: &GuestMemory, mut changed: impl FnMut(u64, u64)) {
    for region in memory.iter() {
        let start = region.start_addr().0;
        // The mapping's own bitmap; the region trait only lends slices of it.
        let dirty = region.deref().bitmap();
        dirty.drain(|offset| changed(start + offset as u64, PAGE_SIZE as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[
            (GuestAddress(0), 0x10_0000),
            (GuestAddress(0x100_0000), 0x4000),
        ])
        .unwrap()
    }

    #[test]
    fn wiped_memory_reads_zero() {
        let memory = memory();
        memory.write_obj(7u64, GuestAddress(0x100_0008)).unwrap();
        wipe(&memory).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x100_0008)).unwrap(), 0);
    }

    #[test]
    fn an_image_lies_under_memory_until_it_is_written() {
        let memory = memory();
        memory.write_obj(9u64, GuestAddress(0x5000)).unwrap();
        let file = tempfile::tempfile().unwrap();
        let pages = [[1u8; 4096], [2; 4096]].concat();
        file.write_all_at(&pages, 0x1000 + 0xf_f000).unwrap();
        // The last page of the first region and the first of the second.
        let layers = [
            (0..0xf_f000, None),
            (0xf_f000..0x10_1000, Some((&file, 0x1000 + 0xf_f000))),
            (0x10_1000..0x10_4000, None),
        ];
        let layers = layers.map(|(range, from)| Layer { range, from });
        lay(&memory, layers.into_iter()).unwrap();
        let read = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([read(0x5000), read(0xf_f123), read(0x100_0000)], [0, 1, 2]);
        memory.write_obj(7u8, GuestAddress(0xf_f123)).unwrap();
        memory.write_obj(7u8, GuestAddress(0x4000)).unwrap();
        let mut own = Vec::new();
        for_each_own_page(&memory, |page| own.push(page)).unwrap();
        // Zero pages that were only read may count too; pages of the file do not.
        assert!(own.contains(&0x4000) && own.contains(&0xf_f000), "{own:x?}");
        assert!(!own.contains(&0x10_0000), "{own:x?}");
        let mut told = Vec::new();
        let asked = [0x4000, 0x5000, 0xf_f000, 0x100_0000];
        for_each_own_page_of(&memory, &asked, |page| told.push(page)).unwrap();
        assert_eq!(
            (told.first(), told.last()),
            (Some(&0x4000), Some(&0xf_f000))
        );
        rewind(&memory).unwrap();
        assert_eq!([read(0x4000), read(0xf_f123), read(0x100_0000)], [0, 1, 2]);
        wipe(&memory).unwrap();
        assert_eq!(read(0xf_f123), 0);
    }

    #[test]
    fn linear_offsets_run_through_the_regions() {
        let memory = memory();
        memory.write_obj(5u8, GuestAddress(0x100_0001)).unwrap();
        let mut out = [0; 2];
        read_linear(&memory, 0x10_0000, &mut out).unwrap();
        assert_eq!(out, [0, 5]);
        assert!(read_linear(&memory, 0x10_4000, &mut out).is_err());
    }

    #[test]
    fn what_is_searched_is_found_across_pages_and_not_across_regions() {
        let memory = memory();
        let needle = b"sixteen bytes of";
        for at in [0x1234, 0x2ff8, 0x100_1000] {
            memory.write_slice(needle, GuestAddress(at)).unwrap();
        }
        // Half of it at the end of one region, half at the start of the next: no such place.
        memory
            .write_slice(&needle[..8], GuestAddress(0xf_fff8))
            .unwrap();
        memory
            .write_slice(&needle[8..], GuestAddress(0x100_0000))
            .unwrap();
        let mut pages = BTreeSet::new();
        for_each_own_page(&memory, |page| {
            pages.insert(page);
        })
        .unwrap();
        assert_eq!(
            find(&memory, &pages, needle).unwrap(),
            [0x1234, 0x2ff8, 0x100_1000]
        );
        pages.remove(&0x3000);
        assert_eq!(find(&memory, &pages, needle).unwrap(), [0x1234, 0x100_1000]);
    }

    #[test]
    fn writes_are_reported_once_by_page() {
        let memory = memory();
        let drain = || {
            let mut pages = Vec::new();
            drain_dirty(&memory, |start, len| pages.push((start, len)));
            pages
        };
        drain();
        memory.write_slice(&[1; 2], GuestAddress(0x4_1fff)).unwrap();
        memory.write_obj(1u8, GuestAddress(0x100_3000)).unwrap();
        assert_eq!(
            drain(),
            [(0x4_1000, 4096), (0x4_2000, 4096), (0x100_3000, 4096)]
        );
        assert_eq!(drain(), []);
    }
}
