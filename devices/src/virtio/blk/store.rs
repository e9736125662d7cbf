//! What keeps a disk's bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Part of the range lies past the end.
    #[error("bytes {offset} to {end} of a disk of {capacity} bytes", end = offset.saturating_add(*len))]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// Size of the disk.
        capacity: u64,
    },
    /// The disk cannot be written.
    #[error("the disk is read-only")]
    ReadOnly,
    /// A fault of the fault plan.
    #[error("EIO (fault_inject)")]
    Injected,
    /// The disk was detached.
    #[error("disk is detached")]
    Detached,
    /// The file behind the disk failed.
    #[error("the disk's file failed")]
    Io(#[from] io::Error),
}

/// An operation, as a fault plan judges it. Positions in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOp {
    /// Reading so many bytes from there.
    Read {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Writing, zeroing or discarding so many bytes from there.
    Write {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Making everything written so far durable.
    Flush,
}

/// The contents of a disk. Wrappers (faults, caches, overlays) are stores around stores.
pub trait BlockStore: Send {
    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// True if writes fail.
    fn is_read_only(&self) -> bool;

    /// Guest time that the operation is to be put off, asked once before it is executed.
    fn delay_ns(&mut self, _op: &BlockOp) -> u64 {
        0
    }

    /// Fills `data` from `offset` on.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BlockError>;

    /// Stores `data` at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BlockError>;

    /// Makes everything written so far durable.
    fn flush(&mut self) -> Result<(), BlockError>;

    /// Makes a range read as zeros, freeing its place if possible.
    fn zero(&mut self, offset: u64, len: u64) -> Result<(), BlockError>;
}

/// A store shared between the device and the host's own sector access.
pub type SharedStore = Arc<Mutex<dyn BlockStore>>;

/// Checks a range against a capacity.
pub fn check_range(offset: u64, len: u64, capacity: u64) -> Result<(), BlockError> {
    match offset.checked_add(len) {
        Some(end) if end <= capacity => Ok(()),
        _ => Err(BlockError::OutOfRange {
            offset,
            len,
            capacity,
        }),
    }
}

fn check_slice(offset: u64, data: &[u8], capacity: u64) -> Result<(), BlockError> {
    check_range(
        offset,
        u64::try_from(data.len()).unwrap_or(u64::MAX),
        capacity,
    )
}

/// Pages of a [`MemoryStore`].
const PAGE: u64 = 64 * 1024;

/// A sparse disk in memory; what was never written is zero and takes no place.
#[derive(Debug)]
pub struct MemoryStore {
    capacity: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl MemoryStore {
    /// A blank disk.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            pages: BTreeMap::new(),
        }
    }

    /// Calls `f` with page number, place in the page and place in the range, for each part of a
    /// checked range that lies in one page.
    fn parts(offset: u64, len: u64, mut f: impl FnMut(u64, std::ops::Range<usize>, usize)) {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let start = at % PAGE;
            let count = (PAGE - start).min(len - done);
            // All three are bounded by a page or by the length of a slice.
            f(
                at / PAGE,
                start as usize..(start + count) as usize,
                done as usize,
            );
            done += count;
        }
    }
}

impl BlockStore for MemoryStore {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BlockError> {
        check_slice(offset, data, self.capacity)?;
        Self::parts(offset, data.len() as u64, |number, in_page, at| {
            let target = &mut data[at..at + in_page.len()];
            match self.pages.get(&number) {
                Some(page) => target.copy_from_slice(&page[in_page]),
                None => target.fill(0),
            }
        });
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        check_slice(offset, data, self.capacity)?;
        Self::parts(offset, data.len() as u64, |number, in_page, at| {
            let blank = || vec![0; PAGE as usize].into_boxed_slice();
            let page = self.pages.entry(number).or_insert_with(blank);
            let len = in_page.len();
            page[in_page].copy_from_slice(&data[at..at + len]);
        });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), BlockError> {
        check_range(offset, len, self.capacity)?;
        if len == 0 {
            return Ok(());
        }
        // Only pages that exist need a look, however long the range.
        let end = offset + len;
        let touched: Vec<u64> = self
            .pages
            .range(offset / PAGE..=(end - 1) / PAGE)
            .map(|(&number, _)| number)
            .collect();
        for number in touched {
            let start = (number * PAGE).max(offset);
            let stop = (number * PAGE).saturating_add(PAGE).min(end);
            if stop - start == PAGE {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                page[(start % PAGE) as usize..][..(stop - start) as usize].fill(0);
            }
        }
        Ok(())
    }
}

/// A raw image file; the size is the file's, asked live (L-160).
#[derive(Debug)]
pub struct FileStore {
    file: File,
    read_only: bool,
}

impl FileStore {
    /// A disk with the bytes of `file`, which must be open for writing unless `read_only`.
    pub fn new(file: File, read_only: bool) -> Self {
        Self { file, read_only }
    }

    fn check_writable(&self) -> Result<(), BlockError> {
        if self.read_only {
            Err(BlockError::ReadOnly)
        } else {
            Ok(())
        }
    }
}

impl BlockStore for FileStore {
    fn capacity(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BlockError> {
        check_slice(offset, data, self.capacity())?;
        Ok(self.file.read_exact_at(data, offset)?)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.check_writable()?;
        check_slice(offset, data, self.capacity())?;
        Ok(self.file.write_all_at(data, offset)?)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        if self.read_only {
            return Ok(());
        }
        Ok(self.file.sync_data()?)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), BlockError> {
        self.check_writable()?;
        check_range(offset, len, self.capacity())?;
        let zeros = vec![0; len.min(PAGE) as usize];
        let mut done = 0;
        while done < len {
            let count = (len - done).min(PAGE);
            self.file
                .write_all_at(&zeros[..count as usize], offset + done)?;
            done += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: u64 = 3 * PAGE;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u8, u64),
        Zero(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = (0..CAPACITY, 0..2 * PAGE);
        prop_oneof![
            (place.clone(), 1..=255u8).prop_map(|((at, len), value)| Step::Write(at, value, len)),
            place.prop_map(|(at, len)| Step::Zero(at, len)),
        ]
    }

    fn behaves_like_an_array(store: &mut dyn BlockStore, steps: &[Step]) {
        let mut model = vec![0; CAPACITY as usize];
        for step in steps {
            let (at, len, value, result) = match *step {
                Step::Write(at, value, len) => {
                    (at, len, value, store.write(at, &vec![value; len as usize]))
                }
                Step::Zero(at, len) => (at, len, 0, store.zero(at, len)),
            };
            assert_eq!(result.is_ok(), at + len <= CAPACITY);
            if result.is_ok() {
                model[at as usize..(at + len) as usize].fill(value);
            }
        }
        let mut all = vec![0xee; CAPACITY as usize];
        store.read(0, &mut all).unwrap();
        assert!(all == model);
    }

    fn file() -> FileStore {
        let file = tempfile::tempfile().unwrap();
        file.set_len(CAPACITY).unwrap();
        FileStore::new(file, false)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn stores_behave_like_an_array(steps in prop::collection::vec(step(), 0..20)) {
            behaves_like_an_array(&mut MemoryStore::new(CAPACITY), &steps);
            behaves_like_an_array(&mut file(), &steps);
        }
    }

    #[test]
    fn ranges_at_the_end_of_time_are_out_of_range() {
        let mut store = MemoryStore::new(u64::MAX);
        assert!(matches!(
            store.zero(u64::MAX, 1),
            Err(BlockError::OutOfRange { .. })
        ));
        assert!(store.zero(0, u64::MAX).is_ok(), "and a huge one is no work");
        assert!(store.write(u64::MAX - 1, &[1]).is_ok());
    }

    #[test]
    fn zeroed_pages_take_no_place() {
        let mut store = MemoryStore::new(CAPACITY);
        store.write(0, &vec![1; CAPACITY as usize]).unwrap();
        store.zero(1, CAPACITY - 1).unwrap();
        assert_eq!(store.pages.len(), 1);
    }

    /// L-157, L-160
    #[test]
    fn a_read_only_file_is_not_written_and_its_size_is_live() {
        let file = tempfile::tempfile().unwrap();
        let mut store = FileStore::new(file.try_clone().unwrap(), true);
        file.set_len(1024).unwrap();
        assert_eq!(store.capacity(), 1024);
        assert!(matches!(store.write(0, &[1]), Err(BlockError::ReadOnly)));
        assert!(matches!(store.zero(0, 1), Err(BlockError::ReadOnly)));
        assert!(store.flush().is_ok());
    }
}
