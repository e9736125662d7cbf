//! Reads a saved or live event stream, frame by frame (events-and-protocol E-006, E-007).

use std::io::{self, Read};

use provium_protocol::event::ReadEvent;
use provium_protocol::{Event, FrameReader};

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// It cannot be opened or read.
    #[error("{name}: cannot read it")]
    Read {
        /// Which stream.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// It ends within a frame, or a frame's length makes no sense.
    #[error("{name}: not a whole event stream: {problem}")]
    Frame {
        /// Which stream.
        name: String,
        /// What is wrong, with the byte offset.
        problem: String,
    },
    /// A frame holds no event.
    #[error("{name}: the frame at byte {offset} is no event: {problem}")]
    Event {
        /// Which stream.
        name: String,
        /// Where the frame starts.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// A stream of events. After an error nothing more comes that could be trusted.
pub(crate) struct EventStream<R> {
    name: String,
    input: R,
    frames: FrameReader,
    /// Kinds that this version does not know.
    pub(crate) unknown: Vec<String>,
}

impl<R: Read> EventStream<R> {
    /// Reads `input`, called `name` in errors.
    pub(crate) fn new(name: impl Into<String>, input: R) -> Self {
        Self {
            name: name.into(),
            input,
            frames: FrameReader::new(),
            unknown: Vec::new(),
        }
    }

    /// The next event; nothing at the end of the stream. Kinds of later versions are left out and
    /// noted.
    fn next_event(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            let offset = self.frames.offset();
            match self.frames.next_frame() {
                Ok(Some(body)) => match Event::from_body(body) {
                    Ok(ReadEvent::Known(event)) => return Ok(Some(event)),
                    Ok(ReadEvent::Unknown(kind)) => {
                        if !self.unknown.contains(&kind) {
                            self.unknown.push(kind);
                        }
                    }
                    Err(error) => {
                        return Err(StreamError::Event {
                            name: self.name.clone(),
                            offset,
                            problem: error.to_string(),
                        });
                    }
                },
                Ok(None) => {
                    if !self.fill()? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// Reads more bytes; false at the end, which must be the end of a frame.
    fn fill(&mut self) -> Result<bool, StreamError> {
        let count = loop {
            match self.input.read(self.frames.space()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let name = self.name.clone();
                    return Err(StreamError::Read { name, source });
                }
                Ok(count) => break count,
            }
        };
        self.frames.filled(count);
        if count == 0 {
            self.frames.finish().map_err(|error| self.broken(error))?;
        }
        Ok(count > 0)
    }

    fn broken(&self, error: impl std::fmt::Display) -> StreamError {
        StreamError::Frame {
            name: self.name.clone(),
            problem: error.to_string(),
        }
    }
}

impl<R: Read> Iterator for EventStream<R> {
    type Item = Result<Event, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use provium_protocol::event::FixtureCacheHit;

    use super::*;

    fn frame(path: &str) -> Vec<u8> {
        let path = path.to_owned();
        let kind = FixtureCacheHit { path }.into();
        Event { ts: 5, kind }.to_frame().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Event>, StreamError> {
        EventStream::new("s", bytes).collect()
    }

    #[test]
    fn e007_a_stream_is_read_to_its_end() {
        let bytes = [frame("a"), frame("b")].concat();
        assert_eq!(read(&bytes).unwrap().len(), 2);
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn e007_truncation_and_nonsense_are_told_with_their_place() {
        let bytes = [frame("a"), frame("b")].concat();
        let first = frame("a").len();
        let error = read(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("byte {}", bytes.len() - 1)),
            "{error}"
        );
        let error = read(&[frame("a"), vec![0; 4]].concat())
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("byte {first}")), "{error}");
        let error = read(&[frame("a"), vec![0, 0, 0, 1, 0xc0]].concat()).unwrap_err();
        assert!(
            matches!(error, StreamError::Event { offset, .. } if offset == first as u64),
            "{error}"
        );
    }
}
