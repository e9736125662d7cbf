//! Frames: a big-endian length and that many bytes of body (E-003, E-004).
//!
//! [`FrameReader`] takes bytes as they come and gives whole bodies; it does no I/O itself. A bad
//! length is refused when its four bytes are there, before a byte of body is stored.

use crate::MAX_FRAME;

/// Bytes of the length in front of each body.
pub const HEADER: usize = 4;

/// How much room the reader offers at least for the next read.
const READ_SIZE: usize = 16 * 1024;

/// What can be wrong with a stream of frames (E-004, E-007). Offsets count from the first byte
/// the reader was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is zero or above [`MAX_FRAME`].
    #[error("frame at byte {offset} declares {length} bytes, legal are 1 to {MAX_FRAME}")]
    BadLength {
        /// Where the frame starts.
        offset: u64,
        /// The length it declares.
        length: u32,
    },
    /// The stream ended inside a frame.
    #[error("stream ends at byte {offset}, inside the frame that starts at byte {start}")]
    Truncated {
        /// Where the stream ended.
        offset: u64,
        /// Where the unfinished frame starts.
        start: u64,
    },
}

/// Encodes one frame whose body `fill` appends. A body that came out empty or too large is handed
/// back as its length, and nothing of it stays in memory.
pub fn encode_with(fill: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[0; HEADER]);
    fill(&mut out);
    let body = out.len() - HEADER;
    match u32::try_from(body) {
        Ok(length) if (1..=MAX_FRAME).contains(&body) => {
            out[..HEADER].copy_from_slice(&length.to_be_bytes());
            Ok(out)
        }
        _ => Err(body),
    }
}

/// An incremental reader of frames.
///
/// Feed it with [`push`](Self::push), or let a `read` call write straight into
/// [`space`](Self::space) and report with [`filled`](Self::filled); then take frames with
/// [`next_frame`](Self::next_frame) until it gives `None`.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// First byte not yet given out.
    start: usize,
    /// End of the valid bytes.
    end: usize,
    /// Stream offset of `buffer[start]`.
    offset: u64,
    /// Set at the first malformed length; nothing after it can be trusted.
    broken: Option<FrameError>,
    /// The mark to look for before the first frame.
    search: Option<Search>,
    /// The number behind the mark that was found.
    call_number: Option<u8>,
}

/// Looking for a mark and the number behind it, byte by byte.
#[derive(Debug)]
struct Search {
    /// Its first byte does not occur again in it.
    mark: [u8; 7],
    number: Option<u8>,
    /// Bytes of the mark that have been seen.
    seen: usize,
}

impl Search {
    /// Takes a byte; true if it is the number that was looked for.
    fn found(&mut self, byte: u8) -> bool {
        if self.seen == self.mark.len() && self.number.is_none_or(|number| number == byte) {
            return true;
        }
        self.seen = match (
            self.mark.get(self.seen) == Some(&byte),
            byte == self.mark[0],
        ) {
            (true, _) => self.seen + 1,
            (false, true) => 1,
            (false, false) => 0,
        };
        false
    }
}

impl FrameReader {
    /// An empty reader at stream offset 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader for a link without connections: whatever comes before the mark is dropped, and
    /// the stream starts behind it and its number, which is `number` if one is given.
    pub(crate) fn behind(mark: [u8; 7], number: Option<u8>) -> Self {
        Self {
            search: Some(Search {
                mark,
                number,
                seen: 0,
            }),
            ..Self::default()
        }
    }

    /// The number behind the mark, once it has been found.
    #[must_use]
    pub fn call_number(&self) -> Option<u8> {
        self.call_number
    }

    /// Room for the next read; never empty. It grows with what has arrived, not with what a
    /// length promises, so a peer that only announces costs nothing.
    pub fn space(&mut self) -> &mut [u8] {
        self.compact();
        let wanted = self.missing().clamp(READ_SIZE, READ_SIZE.max(self.end));
        if self.buffer.len() - self.end < wanted {
            self.buffer.resize(self.end + wanted, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Says how many bytes were written to the front of [`space`](Self::space).
    ///
    /// # Panics
    /// If `count` exceeds the space that was offered.
    pub fn filled(&mut self, count: usize) {
        assert!(
            count <= self.buffer.len() - self.end,
            "more bytes reported than offered"
        );
        self.end += count;
        self.search();
    }

    /// Appends bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// The next whole frame body, or `None` while more bytes are needed. After an error the
    /// reader stays at it.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some(length) = self.declared_length()? else {
            return Ok(None);
        };
        let total = HEADER + length;
        if self.end - self.start < total {
            return Ok(None);
        }
        let body = self.start + HEADER..self.start + total;
        self.start += total;
        self.offset += total as u64;
        Ok(Some(&self.buffer[body]))
    }

    /// Checks that the stream may end here: only between frames (E-007).
    pub fn finish(&self) -> Result<(), FrameError> {
        let left = self.end - self.start;
        match (self.broken, left) {
            (Some(error), _) => Err(error),
            (None, 0) => Ok(()),
            (None, _) => Err(FrameError::Truncated {
                offset: self.offset + left as u64,
                start: self.offset,
            }),
        }
    }

    /// Stream offset of the next byte to be given out.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes received and not given out.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn declared_length(&mut self) -> Result<Option<usize>, FrameError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if self.search.is_some() {
            return Ok(None);
        }
        let Some(header) = self.pending().first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header);
        match usize::try_from(length) {
            Ok(bytes) if (1..=MAX_FRAME).contains(&bytes) => Ok(Some(bytes)),
            _ => {
                let error = FrameError::BadLength {
                    offset: self.offset,
                    length,
                };
                self.broken = Some(error);
                Err(error)
            }
        }
    }

    /// Drops everything up to and including the mark, if one is awaited.
    fn search(&mut self) {
        let Some(search) = &mut self.search else {
            return;
        };
        while self.start < self.end {
            let byte = self.buffer[self.start];
            self.start += 1;
            if search.found(byte) {
                self.call_number = Some(byte);
                self.search = None;
                return;
            }
        }
    }

    /// Bytes that the frame at the front still lacks; 0 when unknown.
    fn missing(&mut self) -> usize {
        let have = self.end - self.start;
        match self.declared_length() {
            Ok(Some(length)) => (HEADER + length).saturating_sub(have),
            _ => 0,
        }
    }

    /// Moves what is left to the front, so that the buffer stays within one frame and a read; a
    /// buffer that a large frame had stretched is given back when it is empty.
    fn compact(&mut self) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buffer.len() > 16 * READ_SIZE {
                self.buffer = Vec::new();
            }
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        encode_with(|out| out.extend_from_slice(body)).unwrap()
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let stream = [frame(b"one"), frame(&[7; 40_000]), frame(b"three")].concat();
        for step in [1, 3, 4, 5, 4096, stream.len()] {
            let mut reader = FrameReader::new();
            let mut seen = Vec::new();
            for chunk in stream.chunks(step) {
                reader.push(chunk);
                while let Some(body) = reader.next_frame().unwrap() {
                    seen.push(body.to_vec());
                }
            }
            assert_eq!(seen, [b"one".to_vec(), vec![7; 40_000], b"three".to_vec()]);
            assert_eq!(reader.finish(), Ok(()));
            assert_eq!(reader.offset(), stream.len() as u64);
        }
    }

    /// E-004: zero and oversized lengths fail from the header alone.
    #[test]
    fn bad_lengths_fail_from_the_header_alone() {
        for length in [0, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut reader = FrameReader::new();
            reader.push(&frame(b"ok"));
            reader.push(&length.to_be_bytes());
            assert_eq!(reader.next_frame().unwrap(), Some(&b"ok"[..]));
            let error = FrameError::BadLength { offset: 6, length };
            assert_eq!(reader.next_frame(), Err(error));
            assert_eq!(reader.next_frame(), Err(error));
            assert_eq!(reader.finish(), Err(error));
        }
    }

    /// E-007: the end of the stream is clean only between frames.
    #[test]
    fn an_end_inside_a_frame_is_reported_with_its_offset() {
        let mut reader = FrameReader::new();
        reader.push(&frame(b"ok"));
        reader.push(&[0, 0, 0]);
        assert!(reader.next_frame().unwrap().is_some());
        assert_eq!(reader.next_frame(), Ok(None));
        assert_eq!(
            reader.finish(),
            Err(FrameError::Truncated {
                offset: 9,
                start: 6
            })
        );
    }

    /// E-101: an announced but unsent body costs no memory, and a full one at most a frame.
    #[test]
    fn memory_follows_what_arrived() {
        let mut reader = FrameReader::new();
        reader.push(&(MAX_FRAME as u32).to_be_bytes());
        assert_eq!(reader.next_frame(), Ok(None));
        reader.space();
        assert!(reader.buffer.len() <= 2 * READ_SIZE);
        reader.push(&vec![0; MAX_FRAME]);
        assert!(reader.buffer.len() <= MAX_FRAME + 2 * READ_SIZE);
        assert_eq!(reader.next_frame().unwrap().unwrap().len(), MAX_FRAME);
        reader.space();
        assert!(reader.buffer.len() <= 2 * READ_SIZE);
    }

    #[test]
    fn bodies_that_do_not_fit_are_not_encoded() {
        assert_eq!(encode_with(|_| ()), Err(0));
        let large = encode_with(|out| out.resize(out.len() + MAX_FRAME + 1, 0));
        assert_eq!(large, Err(MAX_FRAME + 1));
    }
}
