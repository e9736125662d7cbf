//! Taking an initramfs file apart into plain archives.

use std::borrow::Cow;
use std::ops::Range;

use super::InitramfsError;
use crate::boot::{cpio, decompress};

/// An initramfs with its compressed archives unpacked, so that it can be read here and need not be
/// unpacked by the guest.
#[derive(Clone, Debug)]
pub struct Unpacked<'a> {
    parts: Vec<Part<'a>>,
}

/// A plain archive of the file, or what one compressed stream in it held.
#[derive(Clone, Debug)]
struct Part<'a> {
    /// Where it begins in the file.
    at: usize,
    bytes: Cow<'a, [u8]>,
    /// The archives in `bytes`.
    archives: Vec<Range<usize>>,
}

impl<'a> Unpacked<'a> {
    /// Takes an initramfs apart the way the kernel does: archives plain or compressed, one after
    /// another, zeros between them. Within a compressed stream all must be plain.
    pub fn new(file: &'a [u8]) -> Result<Unpacked<'a>, InitramfsError> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(start) = skip_zeros(file, at) {
            let rest = &file[start..];
            let (bytes, consumed) = if cpio::Reader::recognises(rest) {
                let length = archive_length(rest, start)?;
                (Cow::from(&rest[..length]), length)
            } else {
                let unpacked = decompress::decompress(rest, 0)
                    .map_err(|source| InitramfsError::Compressed { at: start, source })?;
                (Cow::from(unpacked.data), unpacked.consumed)
            };
            let archives = plain_archives(&bytes, start)?;
            parts.push(Part {
                at: start,
                bytes,
                archives,
            });
            at = start + consumed;
        }
        Ok(Unpacked { parts })
    }

    /// The archives, all plain.
    pub fn archives(&self) -> impl Iterator<Item = &[u8]> {
        self.located().map(|(_, archive)| archive)
    }

    /// The archives, each with the place in the file where it, or its compressed form, begins.
    pub(super) fn located(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.parts.iter().flat_map(|part| {
            part.archives
                .iter()
                .map(|range| (part.at, &part.bytes[range.clone()]))
        })
    }

    /// Total size of the plain archives.
    pub fn size(&self) -> u64 {
        self.archives().map(|archive| archive.len() as u64).sum()
    }
}

/// Where the next byte that is not zero is.
fn skip_zeros(bytes: &[u8], at: usize) -> Option<usize> {
    let zeros = bytes.get(at..)?.iter().position(|byte| *byte != 0)?;
    Some(at + zeros)
}

/// The archives in bytes that hold nothing but archives and zeros; `at` is for errors.
fn plain_archives(bytes: &[u8], at: usize) -> Result<Vec<Range<usize>>, InitramfsError> {
    let mut archives = Vec::new();
    let mut end = 0;
    while let Some(start) = skip_zeros(bytes, end) {
        end = start + archive_length(&bytes[start..], at)?;
        archives.push(start..end);
    }
    Ok(archives)
}

fn archive_length(bytes: &[u8], at: usize) -> Result<usize, InitramfsError> {
    let mut reader = cpio::Reader::new(bytes);
    match reader.find_map(Result::err) {
        Some(source) => Err(InitramfsError::Unreadable { at, source }),
        None => Ok(reader.position()),
    }
}
