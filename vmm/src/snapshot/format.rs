//! The header and the chunk table: fixed little-endian words, no encoding to trust.

use std::ops::Range;

use crate::cpuid;

/// First bytes of every snapshot.
pub(super) const MAGIC: [u8; 8] = *b"PROVIUM\0";
/// Raised with every change of the file or of [`MachineState`](super::MachineState).
pub(super) const VERSION: u32 = 3;
/// Size of the header, and alignment of the RAM part.
pub(super) const PAGE: u64 = 4096;
/// RAM under one checksum.
pub(super) const CHUNK: u64 = 64 * 1024;
/// Most ranges of RAM that an image is made of: each costs every machine of the image a mapping,
/// of which the host gives a process some ten thousand.
const MAX_RUNS: usize = 256;
/// Word of the chunk table: the chunk is in the file, its checksum in the low half.
const PRESENT: u64 = 1 << 32;
/// Bytes of the header before its checksum.
pub(super) const FIELDS: usize = 8 + 4 + 4 + 8 + 5 * PART_SIZE + 8;
const PART_SIZE: usize = 8 + 8 + 4;

/// A part of the file and its checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) crc: u32,
}

impl Part {
    pub(super) fn of(offset: u64, bytes: &[u8]) -> Self {
        Self {
            offset,
            len: bytes.len() as u64,
            crc: crc32fast::hash(bytes),
        }
    }

    pub(super) fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }
}

/// The header's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cpu_model: u32,
    /// Bytes of RAM.
    pub(super) memory: u64,
    pub(super) state: Part,
    pub(super) owner: Part,
    pub(super) console: Part,
    /// What it builds on; empty for a whole image.
    pub(super) base: Part,
    pub(super) chunks: Part,
    /// Offset of RAM.
    pub(super) ram: u64,
}

/// What the first page of a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Header(Header),
    NotASnapshot,
    Version(u32),
    Damaged(&'static str),
}

/// Fingerprint of the CPU model that guests see.
pub(super) fn cpu_model() -> u32 {
    let mut hash = crc32fast::Hasher::new();
    for e in cpuid::table(1, 0) {
        for word in [e.function, e.index, e.eax, e.ebx, e.ecx, e.edx] {
            hash.update(&word.to_le_bytes());
        }
    }
    hash.finalize()
}

impl Header {
    /// In the order in which they lie in the file.
    pub(super) fn parts(&self) -> [Part; 5] {
        [self.state, self.owner, self.console, self.base, self.chunks]
    }

    pub(super) fn to_page(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.cpu_model.to_le_bytes());
        out.extend_from_slice(&self.memory.to_le_bytes());
        for part in self.parts() {
            out.extend_from_slice(&part.offset.to_le_bytes());
            out.extend_from_slice(&part.len.to_le_bytes());
            out.extend_from_slice(&part.crc.to_le_bytes());
        }
        out.extend_from_slice(&self.ram.to_le_bytes());
        debug_assert_eq!(out.len(), FIELDS);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        // The rest of the page is checked to be zero.
        out.resize(PAGE as usize, 0);
        out
    }

    pub(super) fn parse(page: &[u8]) -> Parsed {
        let mut fields = Fields(page);
        if fields.take::<8>() != Some(MAGIC) {
            return Parsed::NotASnapshot;
        }
        let Some(version) = fields.u32() else {
            return Parsed::Damaged("the header is cut off");
        };
        if version != VERSION {
            return Parsed::Version(version);
        }
        let header = (|| {
            let cpu_model = fields.u32()?;
            let memory = fields.u64()?;
            let mut part = || {
                Some(Part {
                    offset: fields.u64()?,
                    len: fields.u64()?,
                    crc: fields.u32()?,
                })
            };
            let (state, owner, console) = (part()?, part()?, part()?);
            let (base, chunks) = (part()?, part()?);
            let header = Self {
                cpu_model,
                memory,
                state,
                owner,
                console,
                base,
                chunks,
                ram: fields.u64()?,
            };
            Some((header, fields.u32()?, fields.0))
        })();
        match header {
            None => Parsed::Damaged("the header is cut off"),
            Some((_, crc, _)) if crc != crc32fast::hash(&page[..FIELDS]) => {
                Parsed::Damaged("the header's checksum does not match")
            }
            Some((_, _, rest)) if rest.iter().any(|b| *b != 0) => {
                Parsed::Damaged("the header's page has something after its end")
            }
            Some((header, ..)) => Parsed::Header(header),
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Which chunks of RAM are in the file, with their checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunks(Vec<Option<u32>>);

impl Chunks {
    /// For `memory` bytes of RAM, nothing present.
    pub(super) fn none(memory: u64) -> Self {
        let count = usize::try_from(memory.div_ceil(CHUNK)).unwrap_or(usize::MAX);
        Self(vec![None; count])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn set(&mut self, chunk: usize, crc: u32) {
        self.0[chunk] = Some(crc);
    }

    pub(super) fn is_present(&self, chunk: usize) -> bool {
        self.0.get(chunk).is_some_and(Option::is_some)
    }

    /// The chunks in the file.
    pub(super) fn present(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(chunk, crc)| Some((chunk, (*crc)?)))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let word = |crc: &Option<u32>| crc.map_or(0, |crc| PRESENT | u64::from(crc));
        self.0.iter().flat_map(|c| word(c).to_le_bytes()).collect()
    }

    /// None if a word means nothing.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let mut chunks = Vec::with_capacity(bytes.len() / 8);
        while let Some(word) = fields.u64() {
            chunks.push(match word {
                0 => None,
                word if word >> 32 == 1 => Some(word as u32),
                _ => return None,
            });
        }
        fields.0.is_empty().then_some(Self(chunks))
    }
}

/// Takes gaps between marked chunks along that are of fewer than `short` chunks, and the shortest of
/// the others until few enough runs are left.
pub(super) fn close_gaps(marked: &mut [bool], short: usize) {
    let set: Vec<usize> = (0..marked.len()).filter(|at| marked[*at]).collect();
    let mut gaps: Vec<Range<usize>> = set
        .windows(2)
        .map(|pair| pair[0] + 1..pair[1])
        .filter(|gap| !gap.is_empty())
        .collect();
    let excess = (gaps.len() + 1).saturating_sub(MAX_RUNS);
    gaps.sort_by_key(Range::len);
    for (index, gap) in gaps.into_iter().enumerate() {
        if index < excess || gap.len() < short {
            marked[gap].fill(true);
        }
    }
}

/// The linear range of RAM that a chunk covers.
pub(super) fn chunk_range(chunk: usize, memory: u64) -> Range<u64> {
    let start = chunk as u64 * CHUNK;
    start..(start + CHUNK).min(memory)
}

/// The next multiple of a page.
pub(super) fn page_up(offset: u64) -> u64 {
    offset.next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            cpu_model: 7,
            memory: 1 << 20,
            state: Part::of(4096, b"state"),
            owner: Part::of(5000, b""),
            console: Part::of(5001, b"log"),
            base: Part::of(5004, b"base"),
            chunks: Part::of(6000, &[1; 128]),
            ram: 8192,
        }
    }

    #[test]
    fn a_header_survives_and_every_flipped_bit_is_noticed() {
        let page = header().to_page();
        assert_eq!(Header::parse(&page), Parsed::Header(header()));
        for bit in 0..page.len() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(Header::parse(&damaged), Parsed::Header(_)),
                "bit {bit}"
            );
        }
        for len in 0..FIELDS + 4 {
            assert!(
                !matches!(Header::parse(&page[..len]), Parsed::Header(_)),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn another_version_is_told_whatever_follows() {
        let mut page = header().to_page();
        page[8] = 9;
        page.truncate(12);
        assert_eq!(Header::parse(&page), Parsed::Version(9));
        assert_eq!(Header::parse(b"#!/bin/sh"), Parsed::NotASnapshot);
    }

    #[test]
    fn chunks_survive() {
        let memory = 40 * CHUNK - 4096;
        let mut chunks = Chunks::none(memory);
        assert_eq!(chunks.len(), 40);
        for chunk in [0, 3, 39] {
            chunks.set(chunk, 5);
        }
        assert_eq!(chunk_range(39, memory), 39 * CHUNK..memory);
        assert!(chunks.is_present(3) && !chunks.is_present(4) && !chunks.is_present(40));
        assert_eq!(Chunks::from_bytes(&chunks.to_bytes()), Some(chunks));
        assert_eq!(Chunks::from_bytes(&[0; 9]), None);
        assert_eq!(Chunks::from_bytes(&(2u64 << 32).to_le_bytes()), None);
    }

    #[test]
    fn the_shortest_gaps_close_when_there_are_too_many_runs() {
        let mut few = [true, false, false, true, false];
        close_gaps(&mut few, 2);
        assert_eq!(few, [true, false, false, true, false]);
        close_gaps(&mut few, 3);
        assert_eq!(few, [true, true, true, true, false]);
        // Runs of one chunk, MAX_RUNS + 2 of them; the gaps are of two chunks but for two of one.
        let mut marked = Vec::new();
        for run in 0..MAX_RUNS + 2 {
            marked.push(true);
            marked.push(false);
            if run != 3 && run != 9 {
                marked.push(false);
            }
        }
        let before = marked.iter().filter(|m| **m).count();
        close_gaps(&mut marked, 0);
        assert_eq!(marked.iter().filter(|m| **m).count(), before + 2);
        let runs = marked.chunk_by(|a, b| a == b).filter(|run| run[0]).count();
        assert_eq!(runs, MAX_RUNS);
    }
}
