//! The ELF file that a kernel is: what to load where, and how to enter it.
//!
//! linux-loader has a loader too, but it takes a header at its word; ours refuses a file whose
//! figures do not fit together before anything is written, can place a relocatable kernel
//! elsewhere, and skips pages of zeros.

use std::ops::Range;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
/// Owner and type of the note that gives a PVH entry point.
const PVH_NOTE: (&[u8], u32) = (b"Xen", 18);
/// Owner of the notes that Linux puts into its own image.
const LINUX_NOTE_OWNER: &[u8] = b"Linux";

/// Why an ELF file cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file ends before its own header says.
    #[error("truncated: {what} ends at byte {needed}, the file at {size}")]
    Truncated {
        /// What does not fit.
        what: &'static str,
        /// Where it ends.
        needed: u64,
        /// Size of the file.
        size: usize,
    },
    /// A program for 32-bit processors.
    #[error("a 32-bit ELF file; only x86-64 kernels can be booted")]
    Not64Bit,
    /// A program for another processor.
    #[error("an ELF file for machine type {0}; only x86-64 kernels can be booted")]
    WrongMachine(u16),
    /// An object file, a core dump and so on.
    #[error("an ELF file of type {0}, not an executable")]
    NotExecutable(u16),
    /// Figures in the headers that cannot be true.
    #[error("damaged ELF file: {0}")]
    Damaged(&'static str),
    /// An ordinary program, or a kernel in a form that has no entry point for us.
    #[error(
        "no way to enter it: entry point {0:#x} is in no loaded segment, and there is no PVH note"
    )]
    NoEntry(u64),
}

/// A piece of the file with its place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address it is linked for.
    pub address: u64,
    /// Where its bytes are in the file.
    pub file: Range<usize>,
    /// Size in memory; what the file does not give is zero.
    pub memory_size: u64,
}

/// How to enter a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode with the zero page in RSI, at this linked address.
    Linux64(u64),
    /// In 32-bit mode with the PVH start info in EBX.
    Pvh(u32),
}

/// What the headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfKernel {
    /// Segments to load, ascending, not overlapping, at least one.
    pub segments: Vec<Segment>,
    /// How to enter.
    pub entry: Entry,
}

impl ElfKernel {
    /// The physical range that the kernel is linked for, zero-initialised data included.
    pub fn range(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, |first| first.address);
        let end = self
            .segments
            .last()
            .map_or(0, |last| last.address + last.memory_size);
        start..end
    }
}

/// Whether the file carries the signature of an ELF file.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// Reads little-endian fields; a field past the end reads as zero, so check lengths before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0
            .get(at..)
            .and_then(|field| field.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}

/// Reads and checks the headers of a kernel. `file` must pass [`is_elf`].
pub fn parse(file: &[u8]) -> Result<ElfKernel, ElfError> {
    let header = Fields(slice(file, "ELF header", 0, HEADER_SIZE as u64)?);
    check_kind(&header)?;
    let table = program_headers(file, &header)?;
    let mut segments = Vec::new();
    let mut notes = Notes::default();
    for raw in table.chunks_exact(PROGRAM_HEADER_SIZE) {
        let program = Fields(raw);
        match program.u32(0) {
            SEGMENT_LOAD => segments.extend(load_segment(file, &program)?),
            SEGMENT_NOTE => notes.read(slice(file, "notes", program.u64(8), program.u64(32))?),
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.address);
    check_overlap(&segments)?;
    let entry = choose_entry(header.u64(24), &segments, &notes)?;
    Ok(ElfKernel { segments, entry })
}

fn check_kind(header: &Fields<'_>) -> Result<(), ElfError> {
    let [class, data] = header.bytes(4);
    let machine = header.u16(18);
    match (class, data, machine) {
        (CLASS_64, LITTLE_ENDIAN, MACHINE_X86_64) => {}
        (_, _, MACHINE_386) => return Err(ElfError::Not64Bit),
        (_, LITTLE_ENDIAN, other) if other != MACHINE_X86_64 => {
            return Err(ElfError::WrongMachine(other));
        }
        (_, LITTLE_ENDIAN, _) => return Err(ElfError::Not64Bit),
        _ => return Err(ElfError::WrongMachine(machine.swap_bytes())),
    }
    match header.u16(16) {
        TYPE_EXECUTABLE | TYPE_SHARED => Ok(()),
        other => Err(ElfError::NotExecutable(other)),
    }
}

fn slice<'a>(
    file: &'a [u8],
    what: &'static str,
    start: u64,
    len: u64,
) -> Result<&'a [u8], ElfError> {
    let range = file_range(file, what, start, len)?;
    Ok(&file[range])
}

fn file_range(
    file: &[u8],
    what: &'static str,
    start: u64,
    len: u64,
) -> Result<Range<usize>, ElfError> {
    let needed = start
        .checked_add(len)
        .ok_or(ElfError::Damaged("a size overflows"))?;
    if needed > file.len() as u64 {
        return Err(ElfError::Truncated {
            what,
            needed,
            size: file.len(),
        });
    }
    // Both are at most the file's length, which is a usize.
    Ok(start as usize..needed as usize)
}

fn program_headers<'a>(file: &'a [u8], header: &Fields<'_>) -> Result<&'a [u8], ElfError> {
    if usize::from(header.u16(54)) != PROGRAM_HEADER_SIZE {
        return Err(ElfError::Damaged("program headers of an unknown size"));
    }
    let size = u64::from(header.u16(56)) * PROGRAM_HEADER_SIZE as u64;
    slice(file, "program headers", header.u64(32), size)
}

/// The segment that a `PT_LOAD` header describes, unless it is empty.
fn load_segment(file: &[u8], program: &Fields<'_>) -> Result<Option<Segment>, ElfError> {
    let (address, file_size, memory_size) = (program.u64(24), program.u64(32), program.u64(40));
    if memory_size < file_size {
        return Err(ElfError::Damaged(
            "a segment is larger in the file than in memory",
        ));
    }
    if address.checked_add(memory_size).is_none() {
        return Err(ElfError::Damaged(
            "a segment wraps around the address space",
        ));
    }
    let file = file_range(file, "a segment", program.u64(8), file_size)?;
    Ok((memory_size > 0).then_some(Segment {
        address,
        file,
        memory_size,
    }))
}

fn check_overlap(segments: &[Segment]) -> Result<(), ElfError> {
    if segments.is_empty() {
        return Err(ElfError::Damaged("nothing to load"));
    }
    let overlaps = |pair: &[Segment]| pair[0].address + pair[0].memory_size > pair[1].address;
    if segments.windows(2).any(overlaps) {
        return Err(ElfError::Damaged("segments overlap in memory"));
    }
    Ok(())
}

/// What the ELF notes tell us.
#[derive(Default)]
struct Notes {
    linux: bool,
    pvh_entry: Option<u32>,
}

impl Notes {
    fn read(&mut self, mut notes: &[u8]) {
        while let Some((note, rest)) = next_note(notes) {
            self.linux |= note.owner == LINUX_NOTE_OWNER;
            if (note.owner, note.kind) == PVH_NOTE && note.content.len() >= 4 {
                self.pvh_entry = Some(Fields(note.content).u32(0));
            }
            notes = rest;
        }
    }
}

struct Note<'a> {
    owner: &'a [u8],
    kind: u32,
    content: &'a [u8],
}

/// Splits the first note off.
fn next_note(notes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let fields = Fields(notes.get(..12)?);
    let (name_size, content_size) = (fields.u32(0) as usize, fields.u32(4) as usize);
    let content_start = 12 + name_size.next_multiple_of(4);
    let name = notes.get(12..12 + name_size)?;
    let content = notes.get(content_start..content_start + content_size)?;
    let rest = notes
        .get(content_start + content_size.next_multiple_of(4)..)
        .unwrap_or(&[]);
    let owner = name.strip_suffix(&[0]).unwrap_or(name);
    Some((
        Note {
            owner,
            kind: fields.u32(8),
            content,
        },
        rest,
    ))
}

/// Linux is entered in 64-bit mode, which spares it the way there; a foreign kernel by its PVH note
/// if it has one, since its ELF entry point may expect anything.
fn choose_entry(address: u64, segments: &[Segment], notes: &Notes) -> Result<Entry, ElfError> {
    let within = |at: u64| {
        segments
            .iter()
            .any(|s| at >= s.address && at - s.address < s.file.len() as u64)
    };
    match notes.pvh_entry {
        Some(pvh) if within(pvh.into()) && !(notes.linux && within(address)) => Ok(Entry::Pvh(pvh)),
        _ if within(address) => Ok(Entry::Linux64(address)),
        _ => Err(ElfError::NoEntry(address)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const LINUX_NOTE: (&[u8], u32, &[u8]) = (b"Linux\0", 0x100, &[0; 4]);

    /// A small ELF file: segments as (address, bytes, memory size), and notes.
    pub(crate) fn build(
        entry: u64,
        segments: &[(u64, &[u8], u64)],
        notes: &[(&[u8], u32, &[u8])],
    ) -> Vec<u8> {
        let mut note_bytes = Vec::new();
        for (owner, kind, content) in notes {
            note_bytes.extend((owner.len() as u32).to_le_bytes());
            note_bytes.extend((content.len() as u32).to_le_bytes());
            note_bytes.extend(kind.to_le_bytes());
            for field in [owner, content] {
                note_bytes.extend_from_slice(field);
                note_bytes.resize(note_bytes.len().next_multiple_of(4), 0);
            }
        }
        let count = segments.len() + 1;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [TYPE_EXECUTABLE, MACHINE_X86_64, 1, 0] {
            file.extend(half.to_le_bytes());
        }
        for word in [entry, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [0, 0, 64, 56, count as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = (HEADER_SIZE + count * PROGRAM_HEADER_SIZE) as u64;
        let note = (SEGMENT_NOTE, 0, &note_bytes[..], note_bytes.len() as u64);
        let loads = segments
            .iter()
            .map(|(at, bytes, size)| (SEGMENT_LOAD, *at, *bytes, *size));
        for (kind, address, bytes, size) in loads.chain([note]) {
            file.extend(u64::from(kind).to_le_bytes());
            for word in [offset, address, address, bytes.len() as u64, size, 0] {
                file.extend(word.to_le_bytes());
            }
            offset += bytes.len() as u64;
        }
        for (_, bytes, _) in segments {
            file.extend_from_slice(bytes);
        }
        file.extend(note_bytes);
        file
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn segments_come_out_in_order_with_their_bytes() {
        let file = build(
            MIB,
            &[(2 * MIB, b"data", 8192), (MIB, b"text", 4)],
            &[LINUX_NOTE],
        );
        let kernel = parse(&file).unwrap();
        assert_eq!(kernel.entry, Entry::Linux64(MIB));
        assert_eq!(kernel.range(), MIB..2 * MIB + 8192);
        let bytes: Vec<_> = kernel
            .segments
            .iter()
            .map(|s| &file[s.file.clone()])
            .collect();
        assert_eq!(bytes, [b"text", b"data"]);
    }

    #[test]
    fn entry_depends_on_whose_kernel_it_is() {
        let pvh = (b"Xen\0".as_slice(), 18, &(MIB as u32 + 2).to_le_bytes()[..]);
        let load = [(MIB, b"text".as_slice(), 4)];
        let entry = |notes: &[_], at| parse(&build(at, &load, notes)).map(|kernel| kernel.entry);
        assert_eq!(entry(&[LINUX_NOTE, pvh], MIB).unwrap(), Entry::Linux64(MIB));
        assert_eq!(entry(&[pvh], MIB).unwrap(), Entry::Pvh(MIB as u32 + 2));
        assert_eq!(
            entry(&[LINUX_NOTE, pvh], 0xffff_ffff_8100_0000).unwrap(),
            Entry::Pvh(MIB as u32 + 2)
        );
        assert_eq!(entry(&[], MIB).unwrap(), Entry::Linux64(MIB));
        assert!(matches!(
            entry(&[], 0x40_0000),
            Err(ElfError::NoEntry(0x40_0000))
        ));
    }

    #[test]
    fn files_for_other_machines_are_told_apart() {
        let good = build(MIB, &[(MIB, b"text", 4)], &[]);
        let with = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            parse(&file).unwrap_err()
        };
        assert!(matches!(with(18, &[3, 0]), ElfError::Not64Bit));
        assert!(matches!(with(4, &[1]), ElfError::Not64Bit));
        assert!(matches!(with(18, &[183, 0]), ElfError::WrongMachine(183)));
        assert!(matches!(with(16, &[1, 0]), ElfError::NotExecutable(1)));
        assert!(matches!(with(54, &[32, 0]), ElfError::Damaged(_)));
    }

    #[test]
    fn figures_that_cannot_be_true_are_refused() {
        let refuse = |segments: &[_]| parse(&build(MIB, segments, &[])).unwrap_err().to_string();
        assert!(refuse(&[(MIB, b"text", 3)]).contains("larger in the file"));
        assert!(refuse(&[(u64::MAX - 1, b"text", 4)]).contains("wraps"));
        assert!(refuse(&[(MIB, b"text", 4), (MIB + 2, b"data", 4)]).contains("overlap"));
        assert!(refuse(&[]).contains("nothing to load"));
        let file = build(MIB, &[(MIB, &[1; 100], 100)], &[]);
        let error = parse(&file[..file.len() - 50]).unwrap_err().to_string();
        assert!(error.contains("truncated") && error.contains(&(file.len() - 50).to_string()));
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(
            patches in proptest::collection::vec((4usize..260, any::<u8>()), 0..24),
            length in 4usize..400,
        ) {
            let mut file = build(
                MIB,
                &[(MIB, &[7; 64], 64), (2 * MIB, &[9; 64], 128)],
                &[LINUX_NOTE, (b"Xen\0", 18, &[0; 4])],
            );
            for (at, byte) in patches {
                file[at] = byte;
            }
            file.truncate(length);
            if let Ok(kernel) = parse(&file) {
                prop_assert!(!kernel.segments.is_empty());
                prop_assert!(kernel.range().start <= kernel.range().end);
            }
        }
    }
}
