//! One connection: what is on its way in each direction, and how much may be.
//!
//! Credit (virtio 1.2, 5.10.6.3): each side announces the size of its receive buffer (`buf_alloc`)
//! and how many bytes it has taken out of it so far (`fwd_cnt`, wrapping); the other never has
//! more in flight than fits.

use std::num::Wrapping;

use super::HOST_CID;
use super::packet::{Header, TYPE_STREAM, op, shutdown};
use crate::byte_queue::ByteQueue;
use crate::signal::Subscribers;
use crate::stream::{Progress, StreamError};

/// Bytes from the guest that may wait for the host to read them.
pub(super) const RECEIVE_BUFFER: u32 = 1 << 20;
/// Bytes that may wait to be taken by the guest.
pub(super) const SEND_BUFFER: usize = 1 << 20;
/// The guest learns of freed room when this part of what it can have in flight has come together.
const CREDIT_FRACTION: u32 = 4;
/// Greatest payload of one packet; guests offer smaller buffers anyway.
const MAX_PAYLOAD: usize = 64 * 1024;

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The host wants it; the guest does not know yet.
    Wanted,
    /// REQUEST was sent.
    Requested,
    /// The guest wants it; RESPONSE is to be sent.
    Accepted,
    /// Both sides know.
    Established,
    /// Nothing moves any more; None: it ended in order.
    Ended(Option<StreamError>),
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    guest_cid: u64,
    pub(super) phase: Phase,
    to_guest: ByteQueue,
    from_guest: ByteQueue,
    peer_buf_alloc: u32,
    peer_fwd_cnt: Wrapping<u32>,
    sent: Wrapping<u32>,
    received: Wrapping<u32>,
    taken: Wrapping<u32>,
    announced: Wrapping<u32>,
    credit_update_due: bool,
    credit_request_due: bool,
    /// A writer waits for room. It is woken once there is plenty, not for every packet.
    write_pending: bool,
    /// Directions that the host has ended, and what of it the guest was told.
    host_shutdown: u32,
    host_shutdown_sent: u32,
    guest_shutdown: u32,
    /// A [`VsockStream`](super::VsockStream) exists, or will once it is accepted.
    pub(super) held: bool,
    /// Is in the hub's list of connections with packets to send.
    pub(super) queued: bool,
    pub(super) subscribers: Subscribers,
}

impl Connection {
    pub(super) fn new(key: Key, guest_cid: u64, phase: Phase) -> Self {
        Self {
            key,
            guest_cid,
            phase,
            to_guest: ByteQueue::default(),
            from_guest: ByteQueue::default(),
            peer_buf_alloc: 0,
            peer_fwd_cnt: Wrapping(0),
            sent: Wrapping(0),
            received: Wrapping(0),
            taken: Wrapping(0),
            announced: Wrapping(0),
            credit_update_due: false,
            credit_request_due: false,
            write_pending: false,
            host_shutdown: 0,
            host_shutdown_sent: 0,
            guest_shutdown: 0,
            held: true,
            queued: false,
            subscribers: Subscribers::default(),
        }
    }

    // ---- the host's side ----

    /// Takes received bytes. Freed room is announced to the guest in larger steps.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Progress, StreamError> {
        if buffer.is_empty() {
            return Ok(Progress::Bytes(0));
        }
        if self.from_guest.is_empty() {
            return self.read_nothing();
        }
        let count = self.from_guest.pop(buffer);
        self.note_taken(count);
        Ok(Progress::Bytes(count))
    }

    fn read_nothing(&self) -> Result<Progress, StreamError> {
        if self.host_shutdown & shutdown::RECEIVE != 0 {
            return Err(StreamError::ShutDown);
        }
        if self.guest_shutdown & shutdown::SEND != 0 {
            return Ok(Progress::Eof);
        }
        match self.phase {
            Phase::Ended(Some(error)) => Err(error),
            Phase::Ended(None) => Ok(Progress::Eof),
            _ => Ok(Progress::Pending),
        }
    }

    fn note_taken(&mut self, count: usize) {
        // The receive buffer is far below 4 GiB, so the count fits.
        self.taken += Wrapping(count as u32);
        let unannounced = (self.taken - self.announced).0;
        self.credit_update_due |= unannounced > 0 && unannounced >= self.credit_step();
    }

    /// Guests have no more in flight than they would receive themselves, so waiting for a part of
    /// our own buffer only could leave a guest with a small one stuck.
    fn credit_step(&self) -> u32 {
        self.peer_buf_alloc.min(RECEIVE_BUFFER) / CREDIT_FRACTION
    }

    /// Accepts bytes for the guest, as many as there is room for.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<Progress, StreamError> {
        if let Phase::Ended(error) = self.phase {
            return Err(error.unwrap_or(StreamError::GuestStoppedReading));
        }
        if self.host_shutdown & shutdown::SEND != 0 {
            return Err(StreamError::ShutDown);
        }
        if self.guest_shutdown & shutdown::RECEIVE != 0 {
            return Err(StreamError::GuestStoppedReading);
        }
        let count = data.len().min(SEND_BUFFER - self.to_guest.len());
        if count == 0 && !data.is_empty() {
            self.write_pending = true;
            return Ok(Progress::Pending);
        }
        self.to_guest.push(&data[..count]);
        self.write_pending = count < data.len();
        Ok(Progress::Bytes(count))
    }

    /// The host ends directions; the guest is told once it has all data.
    pub(super) fn shut_down(&mut self, flags: u32) {
        self.host_shutdown |= flags;
        if flags & shutdown::RECEIVE != 0 {
            let dropped = self.from_guest.len();
            self.from_guest.clear();
            self.note_taken(dropped);
        }
    }

    /// Ends it; what was received stays readable, what was not sent is dropped.
    pub(super) fn end(&mut self, error: Option<StreamError>) {
        if !self.has_ended() {
            self.phase = Phase::Ended(error);
        }
        self.to_guest.clear();
        self.subscribers.notify();
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Bytes that can be read at once.
    pub(super) fn readable(&self) -> usize {
        self.from_guest.len()
    }

    /// Bytes written by the host that the guest has not been given yet.
    pub(super) fn unsent(&self) -> usize {
        self.to_guest.len()
    }

    // ---- the guest's side ----

    /// Takes over the guest's announcement of room. An error is a violation.
    pub(super) fn update_credit(&mut self, header: &Header) -> Result<(), &'static str> {
        let fwd_cnt = Wrapping(header.fwd_cnt);
        // What it has taken lies between what it had taken before and what it was sent.
        if (fwd_cnt - self.peer_fwd_cnt).0 > (self.sent - self.peer_fwd_cnt).0 {
            return Err("more bytes taken than were sent");
        }
        self.peer_fwd_cnt = fwd_cnt;
        // Half the counting range is more than anyone needs and keeps differences unambiguous.
        self.peer_buf_alloc = header.buf_alloc.min(1 << 31);
        if self.peer_room() > 0 {
            self.credit_request_due = false;
        }
        Ok(())
    }

    /// Bytes the guest has room for.
    fn peer_room(&self) -> usize {
        let in_flight = (self.sent - self.peer_fwd_cnt).0;
        self.peer_buf_alloc.saturating_sub(in_flight) as usize
    }

    /// Stores data from the guest. An error is a violation.
    pub(super) fn receive(&mut self, data: &[u8]) -> Result<(), &'static str> {
        if self.guest_shutdown & shutdown::SEND != 0 {
            return Err("data after shutting down its sending side");
        }
        if data.len() > (RECEIVE_BUFFER as usize).saturating_sub(self.from_guest.len()) {
            return Err("more data than it had credit for");
        }
        self.received += Wrapping(data.len() as u32);
        if self.host_shutdown & shutdown::RECEIVE != 0 {
            // The guest was told, or will be; this was on its way.
            self.note_taken(data.len());
        } else if !data.is_empty() {
            self.from_guest.push(data);
            self.subscribers.notify();
        }
        Ok(())
    }

    /// Notes directions that the guest has ended; true if it has ended both.
    pub(super) fn guest_shut_down(&mut self, flags: u32) -> bool {
        self.guest_shutdown |= flags & shutdown::BOTH;
        if self.guest_shutdown & shutdown::RECEIVE != 0 {
            self.to_guest.clear();
        }
        self.subscribers.notify();
        self.guest_shutdown == shutdown::BOTH
    }

    /// True if the guest announced that no more data comes.
    pub(super) fn guest_finished(&self) -> bool {
        self.guest_shutdown & shutdown::SEND != 0
    }

    /// The guest asked how much room there is.
    pub(super) fn credit_asked(&mut self) {
        self.credit_update_due = true;
    }

    // ---- packets to the guest ----

    /// True if [`Connection::next_packet`] has something to send to a guest with roomy buffers.
    pub(super) fn has_packet(&self) -> bool {
        match self.phase {
            Phase::Wanted | Phase::Accepted => true,
            Phase::Requested | Phase::Ended(_) => false,
            Phase::Established => {
                self.data_len() > 0
                    || self.shutdown_due()
                    || self.credit_update_due
                    || self.credit_request_due
            }
        }
    }

    fn data_len(&self) -> usize {
        self.to_guest.len().min(self.peer_room()).min(MAX_PAYLOAD)
    }

    fn shutdown_due(&self) -> bool {
        let unsent = self.host_shutdown & !self.host_shutdown_sent;
        // The end of sending follows the data, so it waits until all of that is gone.
        unsent != 0 && (self.to_guest.is_empty() || unsent & shutdown::SEND == 0)
    }

    /// The next packet; its data, at most `room` bytes, is put into `payload`.
    pub(super) fn next_packet(&mut self, room: usize, payload: &mut Vec<u8>) -> Option<Header> {
        payload.clear();
        match self.phase {
            Phase::Wanted => {
                self.phase = Phase::Requested;
                return Some(self.header(op::REQUEST, 0, 0));
            }
            Phase::Accepted => {
                self.phase = Phase::Established;
                return Some(self.header(op::RESPONSE, 0, 0));
            }
            Phase::Requested | Phase::Ended(_) => return None,
            Phase::Established => {}
        }
        let len = self.data_len().min(room);
        if len > 0 {
            return Some(self.data_packet(len, payload));
        }
        if self.shutdown_due() {
            self.host_shutdown_sent = self.host_shutdown;
            return Some(self.header(op::SHUTDOWN, 0, self.host_shutdown));
        }
        if self.credit_update_due {
            return Some(self.header(op::CREDIT_UPDATE, 0, 0));
        }
        if self.credit_request_due {
            self.credit_request_due = false;
            return Some(self.header(op::CREDIT_REQUEST, 0, 0));
        }
        None
    }

    fn data_packet(&mut self, len: usize, payload: &mut Vec<u8>) -> Header {
        payload.resize(len, 0);
        self.to_guest.pop(payload);
        // A payload is at most MAX_PAYLOAD.
        let len = len as u32;
        self.sent += Wrapping(len);
        // Whoever waits for credit asks once; a peer that answers 0 will say more by itself.
        self.credit_request_due = self.peer_room() == 0 && !self.to_guest.is_empty();
        if self.write_pending && self.to_guest.len() <= SEND_BUFFER / 2 {
            self.write_pending = false;
            self.subscribers.notify();
        }
        self.header(op::RW, len, 0)
    }

    /// A header with the current announcement of room, which thereby is made.
    fn header(&mut self, op: u16, len: u32, flags: u32) -> Header {
        self.announced = self.taken;
        self.credit_update_due = false;
        Header {
            len,
            flags,
            ..self.plain_header(op)
        }
    }

    fn plain_header(&self, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            kind: TYPE_STREAM,
            op,
            buf_alloc: RECEIVE_BUFFER,
            fwd_cnt: self.taken.0,
            ..Header::default()
        }
    }

    /// The packet that ends it at once.
    pub(super) fn reset_packet(&self) -> Header {
        self.plain_header(op::RST)
    }
}
