//! All connections of one device, between the machine's thread and the host's threads.
//!
//! One lock guards everything; it is held for table look-ups and copies only. Tables are ordered,
//! and connections with something to send take turns, so the order of packets depends on nothing
//! but the order of calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::HOST_CID;
use super::connection::{Connection, Key, Phase};
use super::packet::{Header, TYPE_STREAM, op, shutdown};
use crate::kick::Kick;
use crate::signal::Subscribers;
use crate::stream::StreamError;
use crate::sync::lock;

/// Names a connection for good; ports are used again, these numbers are not.
pub(super) type ConnectionId = u64;

/// First port given to the host end of a connection that the host opens.
const FIRST_HOST_PORT: u32 = 49152;
/// Connections opened by the guest that a listener keeps until the host accepts them.
const BACKLOG: usize = 128;
/// Connections there may be before the guest's requests are refused.
const MAX_CONNECTIONS: usize = 4096;
/// Resets waiting for receive buffers before the guest's packets have to wait too.
const MAX_RESETS: usize = 256;

/// The shared part of a device.
pub(super) struct Hub {
    state: Mutex<State>,
    kick: Arc<dyn Kick>,
}

/// What the lock guards.
#[derive(Default)]
pub(super) struct State {
    guest_cid: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The connections that exist for the guest.
    live: BTreeMap<Key, ConnectionId>,
    listeners: BTreeMap<u32, Listener>,
    /// Connections with packets to send, in turn.
    ready: VecDeque<ConnectionId>,
    resets: VecDeque<Header>,
    next_id: ConnectionId,
    next_port: u32,
    /// The guest is to be told that all its connections are gone.
    transport_reset: bool,
    machine_gone: bool,
}

#[derive(Default)]
struct Listener {
    backlog: VecDeque<ConnectionId>,
    subscribers: Subscribers,
}

impl Hub {
    pub(super) fn new(guest_cid: u64, kick: Arc<dyn Kick>) -> Arc<Self> {
        let state = State {
            guest_cid,
            next_port: FIRST_HOST_PORT,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            kick,
        })
    }

    /// Runs `f` under the lock; for the machine's thread.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut lock(&self.state))
    }

    /// Runs `f` under the lock and wakes the device if it left packets to send; for host threads.
    pub(super) fn with_kick<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let (result, kick) = self.with(|state| {
            let had = state.has_packet();
            let result = f(state);
            (
                result,
                state.transport_reset || (!had && state.has_packet()),
            )
        });
        if kick {
            self.kick.kick();
        }
        result
    }
}

/// The host's side.
impl State {
    pub(super) fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    pub(super) fn set_guest_cid(&mut self, cid: u64) {
        self.guest_cid = cid;
    }

    pub(super) fn connect(&mut self, guest_port: u32) -> Result<ConnectionId, StreamError> {
        if self.machine_gone {
            return Err(StreamError::MachineGone);
        }
        let key = self.free_key(guest_port);
        let id = self.insert(Connection::new(key, self.guest_cid, Phase::Wanted));
        self.enqueue(id);
        Ok(id)
    }

    fn free_key(&mut self, guest_port: u32) -> Key {
        loop {
            let host_port = self.next_port;
            self.next_port = host_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            let key = Key {
                host_port,
                guest_port,
            };
            if !self.live.contains_key(&key) {
                return key;
            }
        }
    }

    fn insert(&mut self, connection: Connection) -> ConnectionId {
        let id = self.next_id;
        self.next_id += 1;
        self.live.insert(connection.key, id);
        self.connections.insert(id, connection);
        id
    }

    /// False if the port is taken.
    pub(super) fn listen(&mut self, port: u32) -> bool {
        let free = !self.listeners.contains_key(&port);
        if free {
            self.listeners.insert(port, Listener::default());
        }
        free
    }

    /// Ends listening; what was not accepted is reset.
    pub(super) fn unlisten(&mut self, port: u32) {
        let listener = self.listeners.remove(&port).unwrap_or_default();
        for id in listener.backlog {
            self.abort(id, None);
            self.release(id);
        }
    }

    pub(super) fn accept(&mut self, port: u32) -> Option<ConnectionId> {
        self.listeners.get_mut(&port)?.backlog.pop_front()
    }

    pub(super) fn listener_subscribers(&mut self, port: u32) -> Option<&mut Subscribers> {
        Some(&mut self.listeners.get_mut(&port)?.subscribers)
    }

    /// The connection of a stream; it exists as long as the stream.
    pub(super) fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// Puts the connection in line if it has something to send.
    pub(super) fn enqueue(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !connection.queued && connection.has_packet() {
            connection.queued = true;
            self.ready.push_back(id);
        }
    }

    /// The stream of a connection is gone: what it wrote is still delivered, then it ends.
    pub(super) fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.held = false;
        match connection.phase {
            Phase::Ended(_) => {
                self.connections.remove(&id);
            }
            // The guest does not know of it, and has no reason to.
            Phase::Wanted if connection.unsent() == 0 => self.abort(id, None),
            _ => {
                connection.shut_down(shutdown::BOTH);
                self.enqueue(id);
            }
        }
    }

    /// Ends a connection at once and tells the guest, if it knows of it.
    pub(super) fn abort(&mut self, id: ConnectionId, error: Option<StreamError>) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if !matches!(connection.phase, Phase::Wanted | Phase::Ended(_)) {
            self.resets.push_back(connection.reset_packet());
        }
        self.finish(id, error);
    }

    /// Ends a connection that the guest knows to be over.
    fn finish(&mut self, id: ConnectionId, error: Option<StreamError>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if self.live.get(&connection.key) == Some(&id) {
            self.live.remove(&connection.key);
        }
        connection.end(error);
        if !connection.held {
            self.connections.remove(&id);
        }
    }

    /// The guest's device was reset: every connection it knew is lost. Those it was not told of
    /// yet keep waiting for its driver.
    pub(super) fn device_reset(&mut self) {
        self.resets.clear();
        self.transport_reset = false;
        for id in self.connection_ids() {
            let waiting = self
                .connections
                .get(&id)
                .is_some_and(|c| c.phase == Phase::Wanted);
            if !waiting {
                self.finish(id, Some(StreamError::DeviceReset));
            }
        }
    }

    /// The guest was restored from a snapshot: it is told that its connections are lost.
    pub(super) fn restored(&mut self) {
        self.device_reset();
        self.transport_reset = true;
    }

    /// The machine is gone: nothing will move any more.
    pub(super) fn machine_gone(&mut self) {
        self.machine_gone = true;
        for id in self.connection_ids() {
            self.finish(id, Some(StreamError::MachineGone));
        }
        self.listeners
            .values()
            .for_each(|listener| listener.subscribers.notify());
    }

    pub(super) fn is_machine_gone(&self) -> bool {
        self.machine_gone
    }

    fn connection_ids(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// Connections in the tables, for leak checks.
    pub(super) fn connection_count(&self) -> usize {
        self.connections.len()
    }
}

/// Packets to the guest.
impl State {
    pub(super) fn has_packet(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// True if the guest has to take resets before more of its packets are looked at.
    pub(super) fn replies_full(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// The next packet to the guest, with at most `room` bytes of data, put into `payload`.
    pub(super) fn next_packet(&mut self, room: usize, payload: &mut Vec<u8>) -> Option<Header> {
        payload.clear();
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        // Each round takes one connection out of line; it comes back to the end of the line only
        // together with a packet.
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.queued = false;
            let packet = connection.next_packet(room, payload);
            if packet.is_some() {
                self.enqueue(id);
                return packet;
            }
        }
        None
    }

    /// True, once, if the guest is to be told that all its connections are gone.
    pub(super) fn take_transport_reset(&mut self) -> bool {
        std::mem::take(&mut self.transport_reset)
    }

    pub(super) fn has_transport_reset(&self) -> bool {
        self.transport_reset
    }
}

/// Packets from the guest.
impl State {
    /// Takes up one packet. `payload` is its data, `header.len` bytes of it.
    pub(super) fn receive(&mut self, header: &Header, payload: &[u8]) {
        if header.src_cid != self.guest_cid {
            return;
        }
        let key = Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        };
        let addressed = header.dst_cid == HOST_CID && header.kind == TYPE_STREAM;
        match self.live.get(&key).copied().filter(|_| addressed) {
            Some(id) => self.receive_for(id, header, payload),
            None if addressed && header.op == op::REQUEST => self.requested(key, header),
            None => self.reply_reset(header),
        }
    }

    /// A reset is never answered by one.
    fn reply_reset(&mut self, header: &Header) {
        if header.op != op::RST {
            self.resets.push_back(header.reset_reply());
        }
    }

    fn requested(&mut self, key: Key, header: &Header) {
        let has_room = self.connections.len() < MAX_CONNECTIONS;
        let listener = self.listeners.get(&key.host_port);
        if !has_room || listener.is_none_or(|listener| listener.backlog.len() >= BACKLOG) {
            return self.reply_reset(header);
        }
        let mut connection = Connection::new(key, self.guest_cid, Phase::Accepted);
        if connection.update_credit(header).is_err() {
            return self.reply_reset(header);
        }
        let id = self.insert(connection);
        self.enqueue(id);
        if let Some(listener) = self.listeners.get_mut(&key.host_port) {
            listener.backlog.push_back(id);
            listener.subscribers.notify();
        }
    }

    fn receive_for(&mut self, id: ConnectionId, header: &Header, payload: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.phase == Phase::Wanted {
            // The host's connection is not known to the guest: it means an older one of this name.
            return self.reply_reset(header);
        }
        match Self::step(connection, header, payload) {
            Ok(Step::Continue) => self.enqueue(id),
            Ok(Step::Finish(error)) => self.finish(id, error),
            Ok(Step::Abort) => self.abort(id, None),
            Err(violation) => self.abort(id, Some(StreamError::Violation(violation))),
        }
    }

    /// What one packet does to its connection; an error is a violation of the protocol.
    fn step(c: &mut Connection, header: &Header, payload: &[u8]) -> Result<Step, &'static str> {
        if header.op == op::RST {
            return Ok(Step::Finish(reset_meaning(c)));
        }
        c.update_credit(header)?;
        match (header.op, c.phase) {
            (op::RESPONSE, Phase::Requested) => {
                c.phase = Phase::Established;
                c.subscribers.notify();
            }
            // The driver may use its connection as soon as it has sent the request; ours is on the
            // way, unless it has to wait for buffers.
            (op::RW, Phase::Established | Phase::Accepted) => c.receive(payload)?,
            (op::CREDIT_UPDATE, Phase::Established | Phase::Accepted) => {}
            (op::CREDIT_REQUEST, Phase::Established | Phase::Accepted) => c.credit_asked(),
            (op::SHUTDOWN, Phase::Established | Phase::Accepted) => {
                if c.guest_shut_down(header.flags) {
                    return Ok(Step::Abort);
                }
            }
            (op::RESPONSE, _) => return Err("response without a request"),
            (op::REQUEST, _) => return Err("request for a connection that exists"),
            (_, Phase::Requested) => return Err("packet before the response"),
            _ => return Err("unknown operation"),
        }
        Ok(Step::Continue)
    }
}

enum Step {
    Continue,
    /// The guest knows that it is over.
    Finish(Option<StreamError>),
    /// The guest is to be told that it is over.
    Abort,
}

/// A reset ends a connection in order if one of both sides had announced the end.
fn reset_meaning(connection: &Connection) -> Option<StreamError> {
    match connection.phase {
        Phase::Requested => Some(StreamError::Refused),
        _ if connection.guest_finished() || !connection.held => None,
        _ => Some(StreamError::Reset),
    }
}
