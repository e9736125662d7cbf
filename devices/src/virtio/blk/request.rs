//! One request: what the guest wants (virtio 1.2, 5.2.6), checked, and how it is done.
//!
//! A request is a header, data in one of both directions, and a status byte that is the last byte
//! the device may write. How these are cut into buffers is up to the driver.

use super::SECTOR;
use super::store::{BlockError, BlockOp, BlockStore, check_range};
use crate::memory::GuestMemory;
use crate::virtio::Chain;

/// Length of the serial number that the guest can ask for.
pub(super) const ID_LEN: usize = 20;
/// Greatest number of sectors that one range of a discard may have.
pub(super) const MAX_ZERO_SECTORS: u32 = 1 << 22;
/// Greatest number of ranges in a discard.
pub(super) const MAX_ZERO_RANGES: u32 = 16;
/// Data of one request at most: what a driver gets into as many segments as it may use.
const MAX_DATA: u64 = 16 << 20;
/// Data is moved in pieces of this size.
const PIECE: usize = 64 * 1024;

const HEADER: u64 = 16;
const RANGE: u64 = 16;

/// Request types.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// What the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    offset: u64,
    len: u64,
}

/// A request whose form is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read(Range),
    Write(Range),
    Flush,
    GetId,
    Zero(Vec<Range>),
}

impl Request {
    /// Reads the request out of its buffers. An error is the status to answer with.
    pub(super) fn parse(chain: &Chain, memory: &GuestMemory) -> Result<Self, Status> {
        let mut header = [0; HEADER as usize];
        read_exact(chain, memory, 0, &mut header)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let to_guest = chain.writable_len().saturating_sub(1);
        let from_guest = chain.readable_len() - HEADER;
        match u32::from_le_bytes([a, b, c, d]) {
            kind::IN => Ok(Self::Read(data_range(sector, to_guest)?)),
            kind::OUT => Ok(Self::Write(data_range(sector, from_guest)?)),
            kind::FLUSH => Ok(Self::Flush),
            kind::GET_ID => Ok(Self::GetId),
            kind::DISCARD => parse_ranges(chain, memory, from_guest, 0),
            kind::WRITE_ZEROES => parse_ranges(chain, memory, from_guest, 1),
            _ => Err(Status::Unsupported),
        }
    }

    /// The operation that a store is asked about before it is executed.
    pub(super) fn op(&self) -> Option<BlockOp> {
        match self {
            Self::Read(Range { offset, len }) => Some(BlockOp::Read {
                offset: *offset,
                len: *len,
            }),
            Self::Write(Range { offset, len }) => Some(BlockOp::Write {
                offset: *offset,
                len: *len,
            }),
            Self::Flush => Some(BlockOp::Flush),
            Self::Zero(ranges) => ranges.first().map(|range| BlockOp::Write {
                offset: range.offset,
                len: range.len,
            }),
            Self::GetId => None,
        }
    }

    /// What executing it costs, in pieces of data moved.
    pub(super) fn pieces(&self) -> u32 {
        let len = match self {
            Self::Read(range) | Self::Write(range) => range.len,
            Self::Zero(ranges) => ranges.iter().map(|range| range.len).sum(),
            Self::Flush | Self::GetId => 0,
        };
        u32::try_from(len / PIECE as u64).unwrap_or(u32::MAX)
    }

    /// Does it. Returns how many bytes were written into the guest's buffers.
    pub(super) fn execute(
        &self,
        chain: &Chain,
        memory: &GuestMemory,
        store: &mut dyn BlockStore,
        id: &[u8; ID_LEN],
    ) -> Result<u64, BlockError> {
        match self {
            Self::Read(range) => read(chain, memory, store, *range),
            Self::Write(range) => write(chain, memory, store, *range).map(|()| 0),
            Self::Flush => store.flush().map(|()| 0),
            Self::GetId => {
                let room = usize::try_from(chain.writable_len().saturating_sub(1));
                let len = room.unwrap_or(ID_LEN).min(ID_LEN);
                Ok(chain.write_at(memory, 0, &id[..len]).unwrap_or(0) as u64)
            }
            Self::Zero(ranges) => ranges
                .iter()
                .try_for_each(|range| store.zero(range.offset, range.len))
                .map(|()| 0),
        }
    }
}

fn read_exact(
    chain: &Chain,
    memory: &GuestMemory,
    offset: u64,
    data: &mut [u8],
) -> Result<(), Status> {
    match chain.read_at(memory, offset, data) {
        Ok(count) if count == data.len() => Ok(()),
        _ => Err(Status::IoError),
    }
}

fn data_range(sector: u64, len: u64) -> Result<Range, Status> {
    let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
    if len == 0 || len > MAX_DATA || !len.is_multiple_of(SECTOR) {
        return Err(Status::IoError);
    }
    Ok(Range { offset, len })
}

/// The ranges of a discard or write-zeroes; `allowed` flags are accepted.
fn parse_ranges(
    chain: &Chain,
    memory: &GuestMemory,
    len: u64,
    allowed: u32,
) -> Result<Request, Status> {
    if len == 0 || !len.is_multiple_of(RANGE) || len / RANGE > MAX_ZERO_RANGES.into() {
        return Err(Status::IoError);
    }
    let mut ranges = Vec::new();
    for index in 0..len / RANGE {
        let mut bytes = [0; RANGE as usize];
        read_exact(chain, memory, HEADER + index * RANGE, &mut bytes)?;
        let [a, b, c, d, e, f, g, h, count @ .., i, j, k, l] = bytes;
        if u32::from_le_bytes([i, j, k, l]) & !allowed != 0 {
            return Err(Status::Unsupported);
        }
        let sectors = u32::from_le_bytes(count);
        if sectors > MAX_ZERO_SECTORS {
            return Err(Status::IoError);
        }
        let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
        ranges.push(Range {
            offset,
            len: u64::from(sectors) * SECTOR,
        });
    }
    Ok(Request::Zero(ranges))
}

fn read(
    chain: &Chain,
    memory: &GuestMemory,
    store: &mut dyn BlockStore,
    range: Range,
) -> Result<u64, BlockError> {
    check_range(range.offset, range.len, store.capacity())?;
    in_pieces(range.len, |done, piece| {
        store.read(range.offset + done, piece)?;
        chain
            .write_at(memory, done, piece)
            .map_err(|_| outside_memory())?;
        Ok(())
    })?;
    Ok(range.len)
}

fn write(
    chain: &Chain,
    memory: &GuestMemory,
    store: &mut dyn BlockStore,
    range: Range,
) -> Result<(), BlockError> {
    if store.is_read_only() {
        return Err(BlockError::ReadOnly);
    }
    check_range(range.offset, range.len, store.capacity())?;
    in_pieces(range.len, |done, piece| {
        chain
            .read_at(memory, HEADER + done, piece)
            .map_err(|_| outside_memory())?;
        store.write(range.offset + done, piece)
    })
}

/// The chain was checked against memory, which does not shrink; so this does not happen.
fn outside_memory() -> BlockError {
    BlockError::Io(std::io::Error::other("guest memory is gone"))
}

fn in_pieces(
    len: u64,
    mut f: impl FnMut(u64, &mut [u8]) -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    let mut buffer = vec![0; usize::try_from(len).map_or(PIECE, |len| len.min(PIECE))];
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE));
        f(done, &mut buffer[..count])?;
        done += count as u64;
    }
    Ok(())
}
