//! The "newc" cpio format, the only one that Linux unpacks: one header, and a reader of entries.
//!
//! All numbers are eight hexadecimal digits. Headers, names and contents begin on multiples of four,
//! counted from the start of the archive.

/// Magic of an entry without a checksum.
pub(crate) const MAGIC: &[u8; 6] = b"070701";
/// Magic of an entry with one; Linux takes both.
const MAGIC_CHECKSUM: &[u8; 6] = b"070702";
/// Bytes of a header.
const HEADER_SIZE: usize = 110;
/// Name of the entry that ends an archive.
pub(crate) const TRAILER: &[u8] = b"TRAILER!!!";
const ALIGNMENT: usize = 4;
/// Longest name that Linux takes, its NUL included.
const LONGEST_NAME: usize = 4096;

/// The file type bits of a mode.
pub(crate) const TYPE_MASK: u32 = 0o170_000;
/// A directory.
pub(crate) const TYPE_DIRECTORY: u32 = 0o040_000;
/// A regular file.
pub(crate) const TYPE_FILE: u32 = 0o100_000;
/// A symbolic link, its content being the target.
pub(crate) const TYPE_SYMLINK: u32 = 0o120_000;
/// A character device.
pub(crate) const TYPE_CHARACTER: u32 = 0o020_000;
/// A block device.
pub(crate) const TYPE_BLOCK: u32 = 0o060_000;

/// One entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name as it stands in the archive, without the NUL.
    pub name: &'a [u8],
    /// File type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of hard links.
    pub links: u32,
    /// Device number of a device file: major and minor.
    pub device: (u32, u32),
    /// Content of a file, target of a link.
    pub content: &'a [u8],
}

/// Why bytes are not a cpio archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// No entry begins where one should.
    #[error("no cpio entry at byte {0}")]
    NotAnEntry(usize),
    /// An entry claims more than is there.
    #[error("the cpio entry at byte {0} is cut off")]
    Truncated(usize),
}

/// Reads the entries of one archive, up to its trailer.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    archive: &'a [u8],
    at: usize,
    ended: bool,
}

impl<'a> Reader<'a> {
    /// Reads the archive at the start of `archive`.
    pub fn new(archive: &'a [u8]) -> Self {
        Reader {
            archive,
            at: 0,
            ended: false,
        }
    }

    /// Whether such an archive seems to begin here.
    pub fn recognises(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC) || bytes.starts_with(MAGIC_CHECKSUM)
    }

    /// Bytes read so far: the archive's length once the reader has ended.
    pub fn position(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Result<Option<Entry<'a>>, CpioError> {
        let start = self.at;
        let bytes = self.archive.get(start..).unwrap_or(&[]);
        if !Self::recognises(bytes) {
            return Err(CpioError::NotAnEntry(start));
        }
        let header = bytes
            .get(..HEADER_SIZE)
            .ok_or(CpioError::Truncated(start))?;
        let field = |index| number(header, index).ok_or(CpioError::NotAnEntry(start));
        let (name_size, size) = (field(11)? as usize, field(6)? as usize);
        if name_size == 0 || name_size > LONGEST_NAME {
            return Err(CpioError::NotAnEntry(start));
        }
        let name_start = start + HEADER_SIZE;
        let content_start = (name_start + name_size).next_multiple_of(ALIGNMENT);
        let content_end = content_start + size;
        let cut = CpioError::Truncated(start);
        let name = self
            .archive
            .get(name_start..name_start + name_size - 1)
            .ok_or(cut)?;
        let content = self.archive.get(content_start..content_end).ok_or(cut)?;
        self.at = content_end
            .next_multiple_of(ALIGNMENT)
            .min(self.archive.len());
        if name == TRAILER {
            return Ok(None);
        }
        Ok(Some(Entry {
            name,
            mode: field(1)?,
            uid: field(2)?,
            gid: field(3)?,
            links: field(4)?,
            device: (field(9)?, field(10)?),
            content,
        }))
    }
}

/// Field `index` of a header.
fn number(header: &[u8], index: usize) -> Option<u32> {
    let start = MAGIC.len() + index * 8;
    let digits = std::str::from_utf8(header.get(start..start + 8)?).ok()?;
    // The parser takes a sign, the format does not.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then_some(())?;
    u32::from_str_radix(digits, 16).ok()
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Entry<'a>, CpioError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let result = self.read();
        self.ended = !matches!(result, Ok(Some(_)));
        result.transpose()
    }
}

/// Appends an entry with the given inode number. Everything that could differ from run to run
/// (times, devices of origin) is zero.
///
/// # Errors
/// Content of 4 GiB or more: the format has no room for its size.
pub(crate) fn append(
    out: &mut Vec<u8>,
    inode: u32,
    entry: &Entry<'_>,
) -> Result<(), std::num::TryFromIntError> {
    let size = u32::try_from(entry.content.len())?;
    let name_size = u32::try_from(entry.name.len() + 1)?;
    let (major, minor) = entry.device;
    let (time, origin, checksum) = (0, 0, 0);
    let numbers = [
        inode,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.links,
        time,
        size,
        origin,
        origin,
        major,
        minor,
        name_size,
        checksum,
    ];
    append_raw(out, &numbers, entry.name, entry.content);
    Ok(())
}

/// Appends the entry that ends an archive.
pub(crate) fn append_trailer(out: &mut Vec<u8>) {
    let trailer = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, TRAILER.len() as u32 + 1, 0];
    append_raw(out, &trailer, TRAILER, &[]);
}

fn append_raw(out: &mut Vec<u8>, numbers: &[u32; 13], name: &[u8], content: &[u8]) {
    out.extend_from_slice(MAGIC);
    for number in numbers {
        out.extend_from_slice(format!("{number:08x}").as_bytes());
    }
    out.extend_from_slice(name);
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry<'a>(name: &'a [u8], mode: u32, content: &'a [u8]) -> Entry<'a> {
        Entry {
            name,
            mode,
            uid: 1,
            gid: 2,
            links: 1,
            device: (5, 1),
            content,
        }
    }

    #[test]
    fn header_is_as_the_format_says() {
        let mut out = Vec::new();
        append(&mut out, 7, &entry(b"ab", TYPE_FILE | 0o644, b"hello")).unwrap();
        assert_eq!(out.len(), 116 + 8);
        assert!(out.starts_with(b"07070100000007000081a4000000010000000200000001"));
        assert_eq!(&out[110..], b"ab\0\0\0\0hello\0\0\0");
    }

    #[test]
    fn cut_archives_and_other_data_are_told_apart() {
        let mut out = Vec::new();
        append(&mut out, 1, &entry(b"file", TYPE_FILE, &[9; 100])).unwrap();
        let error = |bytes: &[u8]| Reader::new(bytes).find_map(Result::err);
        assert_eq!(error(&out), Some(CpioError::NotAnEntry(out.len())));
        assert_eq!(error(&out[..150]), Some(CpioError::Truncated(0)));
        assert_eq!(error(b"nothing"), Some(CpioError::NotAnEntry(0)));
    }

    proptest! {
        #[test]
        fn entries_come_back_as_written(
            entries in proptest::collection::vec(
                (
                    proptest::collection::vec(1u8.., 1..40),
                    any::<u32>(),
                    proptest::collection::vec(any::<u8>(), 0..300),
                ),
                0..8,
            ),
        ) {
            let mut out = Vec::new();
            for (inode, (name, mode, content)) in (1..).zip(&entries) {
                append(&mut out, inode, &entry(name, *mode, content)).unwrap();
            }
            append_trailer(&mut out);
            let mut reader = Reader::new(&out);
            for (name, mode, content) in &entries {
                prop_assert_eq!(reader.next(), Some(Ok(entry(name, *mode, content))));
            }
            prop_assert_eq!(reader.next(), None);
            prop_assert_eq!(reader.position(), out.len());
        }

        #[test]
        fn hostile_archives_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            patches in proptest::collection::vec((6usize..118, proptest::sample::select(b"0123456789abcdefF+-".as_slice())), 0..30),
        ) {
            let mut archive = Vec::new();
            append(&mut archive, 1, &entry(b"name", TYPE_FILE, b"content")).unwrap();
            for (at, byte) in patches {
                archive[at] = byte;
            }
            archive.append(&mut bytes);
            prop_assert!(Reader::new(&archive).count() < 600);
        }
    }
}
