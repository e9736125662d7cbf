//! Frames on their way to the harness.
//!
//! A frame is sent at once by whichever thread made it. Only what the link does not take waits
//! here, and the io thread sends it on when there is room.

use std::collections::VecDeque;

use provium_protocol::MAX_FRAME;

use crate::link::Conn;
use crate::sys::{Errno, socket};

/// Bytes beyond which streams wait for the link.
const BUSY: usize = 512 * 1024;

/// Frames that wait, the first of them maybe sent in part.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that are sent.
    sent: usize,
    waiting: usize,
}

impl Outbox {
    /// Sends a frame, or as much of it as the link takes now.
    pub(crate) fn send(&mut self, conn: &Conn, frame: Vec<u8>) -> Result<(), Errno> {
        self.waiting += frame.len();
        self.frames.push_back(frame);
        if self.frames.len() == 1 {
            self.flush(conn)
        } else {
            Ok(())
        }
    }

    /// Sends what the link takes now.
    pub(crate) fn flush(&mut self, conn: &Conn) -> Result<(), Errno> {
        while let Some(frame) = self.frames.front() {
            match conn.send_now(&frame[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.waiting -= count;
                    if self.sent == frame.len() {
                        self.frames.pop_front();
                        self.sent = 0;
                    }
                }
                Err(libc::EINTR) => {}
                Err(errno) if socket::would_block(errno) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether enough waits for streams to hold back. They do so long before requests must, or an
    /// endless stream with endless credit would keep every request out.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting >= BUSY
    }

    /// Whether so much waits that no more requests should be taken (E-101).
    pub(crate) fn is_full(&self) -> bool {
        self.waiting >= MAX_FRAME
    }
}
