//! Data in bulk: credit, back-pressure, order, many connections at once.

use proptest::prelude::*;

use super::guest::{BUF_ALLOC, Guest, Ports, read_all};
use crate::signal::Signal;
use crate::virtio::vsock::VsockStream;
use crate::virtio::vsock::connection::{RECEIVE_BUFFER, SEND_BUFFER};
use crate::virtio::vsock::packet::{Header, op};
use crate::{ByteStream, Progress};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// A guest socket that keeps to the rules.
struct Peer {
    ports: Ports,
    stream: VsockStream,
    taken: u32,
    sent: u32,
    host_taken: u32,
    inbox: Vec<u8>,
}

impl Peer {
    fn new(guest: &mut Guest) -> Self {
        let (stream, ports) = guest.connected();
        Self {
            ports,
            stream,
            taken: 0,
            sent: 0,
            host_taken: 0,
            inbox: Vec::new(),
        }
    }

    fn header(&self, op: u16) -> Header {
        Header {
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.taken,
            ..self.ports.header(op)
        }
    }

    /// Takes up one packet, without announcing the room that it frees.
    fn take(&mut self, header: &Header, data: Vec<u8>) {
        self.host_taken = header.fwd_cnt;
        self.taken = self.taken.wrapping_add(header.len);
        self.inbox.extend(data);
    }

    fn announce(&self, guest: &mut Guest) {
        guest.send_raw(self.header(op::CREDIT_UPDATE), &[]);
    }

    /// Sends as much of `data` as there is credit for; returns how much.
    fn send(&mut self, guest: &mut Guest, data: &[u8]) -> usize {
        let room = RECEIVE_BUFFER - self.sent.wrapping_sub(self.host_taken);
        let len = data.len().min(room as usize);
        self.sent = self.sent.wrapping_add(len as u32);
        guest.send_raw(
            Header {
                len: len as u32,
                ..self.header(op::RW)
            },
            &data[..len],
        );
        len
    }
}

fn write_all(stream: &VsockStream, data: &[u8]) -> usize {
    let mut done = 0;
    while done < data.len() {
        match stream.try_write(&data[done..]).unwrap() {
            Progress::Bytes(count) => done += count,
            _ => break,
        }
    }
    done
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut guest = Guest::new();
    let mut peer = Peer::new(&mut guest);
    let data = pattern(SEND_BUFFER);
    assert_eq!(write_all(&peer.stream, &data), data.len());
    let mut asked = 0;
    for _ in 0..100 {
        for (header, data) in guest.receive() {
            asked += usize::from(header.op == op::CREDIT_REQUEST);
            peer.take(&header, data);
        }
    }
    assert_eq!(
        peer.inbox.len(),
        BUF_ALLOC as usize,
        "all it has announced room for"
    );
    assert_eq!(asked, 1);
    for _ in 0..1000 {
        peer.announce(&mut guest);
        guest
            .receive()
            .into_iter()
            .for_each(|(header, data)| peer.take(&header, data));
    }
    assert_eq!(peer.inbox, data);
}

#[test]
fn a_full_stream_pends_and_signals_when_there_is_room() {
    let mut guest = Guest::new();
    let mut peer = Peer::new(&mut guest);
    let data = pattern(SEND_BUFFER + 1);
    assert_eq!(write_all(&peer.stream, &data), SEND_BUFFER);
    assert_eq!(peer.stream.try_write(&[1]), Ok(Progress::Pending));
    let signal = Signal::new();
    peer.stream.subscribe(&signal);
    let seen = signal.generation();
    while signal.generation() == seen {
        for (header, data) in guest.receive() {
            peer.take(&header, data);
        }
        peer.announce(&mut guest);
    }
    let left = peer.stream.unsent();
    assert!(left > SEND_BUFFER / 4 && left <= SEND_BUFFER / 2, "{left}");
    assert_eq!(peer.stream.try_write(&[1]), Ok(Progress::Bytes(1)));
}

#[test]
fn a_host_that_does_not_read_stops_the_guest_by_credit() {
    let mut guest = Guest::new();
    let mut peer = Peer::new(&mut guest);
    let data = pattern(2 * RECEIVE_BUFFER as usize);
    let mut sent = 0;
    for chunk in data.chunks(0x8000) {
        if peer.send(&mut guest, chunk) < chunk.len() {
            break;
        }
        sent += chunk.len();
    }
    assert_eq!(sent, RECEIVE_BUFFER as usize);
    assert!(peer.stream.is_open());
    assert_eq!(read_all(&peer.stream).unwrap(), &data[..sent]);
    let update = guest.receive_one().0;
    assert_eq!(
        (update.op, update.fwd_cnt),
        (op::CREDIT_UPDATE, RECEIVE_BUFFER)
    );
}

/// Linux has at most its own receive buffer's size in flight, whatever room we announce.
#[test]
fn a_guest_with_a_small_buffer_is_told_early() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    let small = |op, len| Header {
        len,
        buf_alloc: 4000,
        ..ports.header(op)
    };
    guest.send_raw(small(op::RW, 999), &[1; 999]);
    assert_eq!(read_all(&stream).unwrap().len(), 999);
    assert_eq!(guest.receive_ops(), [0; 0]);
    guest.send_raw(small(op::RW, 1), &[1]);
    read_all(&stream).unwrap();
    assert_eq!(guest.receive_one().0.fwd_cnt, 1000);
}

#[test]
fn a_credit_request_is_answered() {
    let mut guest = Guest::new();
    let (_stream, ports) = guest.connected();
    guest.send(ports, op::CREDIT_REQUEST, &[]);
    let (answer, _) = guest.receive_one();
    assert_eq!(
        (answer.op, answer.buf_alloc),
        (op::CREDIT_UPDATE, RECEIVE_BUFFER)
    );
}

#[test]
fn packets_wait_for_receive_buffers() {
    let mut guest = Guest::new();
    let (stream, _) = guest.connected();
    let data = pattern(100 * 4096);
    write_all(&stream, &data);
    let first = guest.receive_keeping_buffers();
    assert_eq!(first.len(), 64, "all buffers there are");
    assert!(guest.receive_keeping_buffers().is_empty());
    let wish = guest.driver.notification_wish(0);
    assert_ne!(wish.1, 0, "the guest is asked to tell when it has more");
    guest.post(1);
    assert_eq!(guest.receive_keeping_buffers().len(), 1);
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::new();
    let streams: Vec<_> = (0..4).map(|_| guest.connected()).collect();
    for (stream, _) in &streams {
        write_all(stream, &pattern(3 * 4096));
    }
    let order: Vec<u32> = guest
        .receive()
        .iter()
        .map(|(header, _)| header.src_port)
        .collect();
    let ports: Vec<u32> = streams.iter().map(|(_, ports)| ports.host).collect();
    assert_eq!(order, [ports.clone(), ports.clone(), ports].concat());
}

#[test]
fn the_host_may_kick_once_for_many_writes() {
    let mut guest = Guest::new();
    let (stream, _) = guest.connected();
    guest.kicks.take();
    (0..10).for_each(|_| assert_eq!(stream.try_write(b"x"), Ok(Progress::Bytes(1))));
    assert_eq!(guest.kicks.count(), 1);
    assert_eq!(guest.receive_one().1, [b'x'; 10]);
}

#[derive(Clone, Debug)]
enum Action {
    HostWrites(usize, usize),
    HostReads(usize, usize),
    GuestSends(usize, usize),
    GuestReceives,
    GuestAnnounces(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let (who, len) = (0..3usize, 1..100_000usize);
    prop_oneof![
        (who.clone(), len.clone()).prop_map(|(who, len)| Action::HostWrites(who, len)),
        (who.clone(), len.clone()).prop_map(|(who, len)| Action::HostReads(who, len)),
        (who.clone(), len).prop_map(|(who, len)| Action::GuestSends(who, len)),
        Just(Action::GuestReceives),
        who.prop_map(Action::GuestAnnounces),
    ]
}

/// What each direction of a connection has carried, as sent and as received.
#[derive(Default)]
struct Ledger {
    to_guest: usize,
    to_host: usize,
    got_by_host: Vec<u8>,
}

fn receive(guest: &mut Guest, peers: &mut [Peer]) {
    for (header, data) in guest.receive() {
        let peer = peers
            .iter_mut()
            .find(|peer| peer.ports.host == header.src_port);
        peer.unwrap().take(&header, data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However reading and writing interleave on several connections, every byte arrives, once and
    /// in order.
    #[test]
    fn every_byte_arrives_in_order(actions in prop::collection::vec(action(), 1..80)) {
        let mut guest = Guest::new();
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::new(&mut guest)).collect();
        let mut ledgers: Vec<Ledger> = peers.iter().map(|_| Ledger::default()).collect();
        let source = pattern(10_000_000);
        for action in actions {
            match action {
                Action::HostWrites(who, len) => {
                    let from = ledgers[who].to_guest;
                    ledgers[who].to_guest += write_all(&peers[who].stream, &source[from..from + len]);
                }
                Action::HostReads(who, len) => {
                    let mut buffer = vec![0; len];
                    if let Progress::Bytes(n) = peers[who].stream.try_read(&mut buffer).unwrap() {
                        ledgers[who].got_by_host.extend(&buffer[..n]);
                    }
                }
                Action::GuestSends(who, len) => {
                    receive(&mut guest, &mut peers);
                    let from = ledgers[who].to_host;
                    ledgers[who].to_host += peers[who].send(&mut guest, &source[from..from + len]);
                }
                Action::GuestReceives => receive(&mut guest, &mut peers),
                Action::GuestAnnounces(who) => peers[who].announce(&mut guest),
            }
        }
        for _ in 0..100 {
            receive(&mut guest, &mut peers);
            peers.iter().for_each(|peer| peer.announce(&mut guest));
        }
        for (peer, ledger) in peers.iter().zip(&mut ledgers) {
            ledger.got_by_host.extend(read_all(&peer.stream).unwrap());
            prop_assert_eq!(&peer.inbox, &source[..ledger.to_guest]);
            prop_assert_eq!(&ledger.got_by_host, &source[..ledger.to_host]);
        }
    }
}
