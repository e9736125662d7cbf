//! A guest that breaks the rules loses that connection, and nothing else happens.

use super::guest::{BUF_ALLOC, CID, Guest, Ports, RX, TX, read_all};
use crate::mock::Buffer;
use crate::virtio::vsock::connection::RECEIVE_BUFFER;
use crate::virtio::vsock::packet::{HEADER_SIZE, Header, op, shutdown};
use crate::virtio::vsock::{ConnectionState, HOST_CID};
use crate::{ByteStream, Progress, StreamError};

/// Sends what `packet` makes of a live connection, and checks that it costs just that.
fn violates(packet: impl FnOnce(Ports) -> (Header, Vec<u8>)) {
    let mut guest = Guest::new();
    let (bystander, other) = guest.connected();
    let (stream, ports) = guest.connected();
    let (header, data) = packet(ports);
    guest.send_raw(header, &data);
    assert!(
        matches!(
            stream.connection(),
            ConnectionState::Ended(Some(StreamError::Violation(_)))
        ),
        "{header:?}"
    );
    assert_eq!(guest.receive_ops(), [op::RST], "{header:?}");
    assert!(!guest.driver.needs_reset());
    guest.send(other, op::RW, b"still here");
    assert_eq!(read_all(&bystander).unwrap(), b"still here");
}

#[test]
fn violations_of_the_protocol() {
    violates(|ports| (ports.header(op::RESPONSE), vec![]));
    violates(|ports| (ports.header(op::REQUEST), vec![]));
    for unknown in [0, 8, 0xffff] {
        violates(|ports| (ports.header(unknown), vec![]));
    }
    violates(|ports| {
        (
            Header {
                fwd_cnt: 1,
                ..ports.header(op::CREDIT_UPDATE)
            },
            vec![],
        )
    });
    violates(|ports| {
        (
            Header {
                fwd_cnt: u32::MAX,
                ..ports.header(op::RW)
            },
            vec![],
        )
    });
    let too_much = RECEIVE_BUFFER as usize + 1;
    violates(|ports| {
        (
            Header {
                len: too_much as u32,
                ..ports.header(op::RW)
            },
            vec![0; too_much],
        )
    });
}

#[test]
fn data_after_the_end_of_data() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    guest.send_raw(
        Header {
            flags: shutdown::SEND,
            ..ports.header(op::SHUTDOWN)
        },
        &[],
    );
    guest.send(ports, op::RW, b"x");
    assert_eq!(guest.receive_ops(), [op::RST]);
    assert_eq!(stream.try_read(&mut [0]), Ok(Progress::Eof));
}

#[test]
fn anything_but_an_answer_to_a_request() {
    for operation in [op::RW, op::SHUTDOWN, op::CREDIT_UPDATE, op::REQUEST, 99] {
        let mut guest = Guest::new();
        let stream = guest.host.connect(5123).unwrap();
        let (request, _) = guest.receive_one();
        guest.send(
            Ports {
                guest: 5123,
                host: request.src_port,
            },
            operation,
            &[],
        );
        assert!(!stream.is_open());
        assert_eq!(guest.receive_ops(), [op::RST]);
    }
}

#[test]
fn packets_of_unknown_connections_are_reset_but_resets_are_not() {
    let mut guest = Guest::new();
    let ports = Ports { guest: 1, host: 2 };
    for operation in [op::RESPONSE, op::RW, op::SHUTDOWN, op::CREDIT_UPDATE, 99] {
        guest.send(ports, operation, &[]);
        let (answer, _) = guest.receive_one();
        assert_eq!(
            (answer.op, answer.src_port, answer.dst_port),
            (op::RST, 2, 1)
        );
    }
    guest.send(ports, op::RST, &[]);
    assert_eq!(guest.receive_ops(), [0; 0]);
}

#[test]
fn other_hosts_and_other_socket_types_are_reset() {
    let mut guest = Guest::new();
    let _listener = guest.host.listen(7).unwrap();
    let request = Ports { guest: 1, host: 7 }.header(op::REQUEST);
    guest.send_raw(
        Header {
            dst_cid: 77,
            ..request
        },
        &[],
    );
    assert_eq!(guest.receive_one().0.src_cid, 77);
    guest.send_raw(Header { kind: 2, ..request }, &[]);
    let (answer, _) = guest.receive_one();
    assert_eq!((answer.op, answer.kind), (op::RST, 2));
}

#[test]
fn a_forged_sender_is_ignored() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    for src_cid in [0, HOST_CID, CID + 1, u64::MAX] {
        guest.send_raw(
            Header {
                src_cid,
                ..ports.header(op::RST)
            },
            &[],
        );
        guest.send_raw(
            Header {
                src_cid,
                ..ports.header(op::REQUEST)
            },
            &[],
        );
    }
    assert_eq!(guest.receive_ops(), [0; 0]);
    assert!(stream.is_open());
}

#[test]
fn short_packets_are_dropped() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    let bytes = ports.header(op::RST).to_bytes();
    guest
        .driver
        .request(TX, &[Buffer::Readable(bytes[..HEADER_SIZE - 1].to_vec())]);
    let claims_more = Header {
        len: 10,
        ..ports.header(op::RW)
    }
    .to_bytes()
    .to_vec();
    guest.driver.request(
        TX,
        &[Buffer::Readable(claims_more), Buffer::Readable(vec![1; 9])],
    );
    guest.driver.request(TX, &[Buffer::Writable(64)]);
    guest.driver.notify(TX);
    assert_eq!(guest.driver.take_used(TX).len(), 3);
    assert!(stream.is_open());
    assert_eq!(stream.try_read(&mut [0]), Ok(Progress::Pending));
}

#[test]
fn a_packet_may_be_cut_into_buffers_anyhow() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    let mut bytes = Header {
        len: 5,
        ..ports.header(op::RW)
    }
    .to_bytes()
    .to_vec();
    bytes.extend(b"hello and more than was announced");
    let buffers: Vec<Buffer> = bytes
        .chunks(7)
        .map(|part| Buffer::Readable(part.into()))
        .collect();
    guest.driver.request(TX, &buffers);
    guest.driver.notify(TX);
    assert_eq!(read_all(&stream).unwrap(), b"hello");
}

#[test]
fn useless_receive_buffers_are_given_back() {
    let mut guest = Guest::off();
    guest.start();
    guest
        .driver
        .request(RX, &[Buffer::Writable(HEADER_SIZE as u32 - 1)]);
    guest.driver.request(RX, &[Buffer::Readable(vec![0; 100])]);
    let (_, good) = guest
        .driver
        .request(RX, &[Buffer::Writable(10), Buffer::Writable(34)]);
    let _stream = guest.host.connect(1).unwrap();
    guest.run();
    let lengths: Vec<u32> = guest
        .driver
        .take_used(RX)
        .iter()
        .map(|used| used.1)
        .collect();
    assert_eq!(lengths, [0, 0, 44]);
    assert_eq!(guest.driver.bytes(good[0], 1), [HOST_CID as u8]);
}

#[test]
fn a_flood_that_takes_no_answers_is_held_back() {
    let mut guest = Guest::off();
    guest.start();
    let header = Ports { guest: 1, host: 2 }
        .header(op::RW)
        .to_bytes()
        .to_vec();
    let mut completed = 0;
    for _ in 0..1000 {
        guest
            .driver
            .request(TX, &[Buffer::Readable(header.clone())]);
        guest.driver.notify(TX);
        completed += guest.driver.take_used(TX).len();
        if guest.driver.needs_reset() {
            panic!("the mock driver overran its ring after {completed}");
        }
        if completed >= 256 {
            break;
        }
    }
    assert_eq!(completed, 256);
    guest.driver.request(TX, &[Buffer::Readable(header)]);
    guest.driver.notify(TX);
    assert_eq!(
        guest.driver.take_used(TX),
        [],
        "waits for the guest to take answers"
    );
    guest.post(64);
    assert_eq!(guest.receive_keeping_buffers().len(), 64);
    assert_eq!(guest.driver.take_used(TX).len(), 1, "then goes on");
}

#[test]
fn lies_about_room_bring_no_more_than_a_stall() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    stream.try_write(&[1; 5000]).unwrap();
    guest.receive();
    guest.send_raw(
        Header {
            buf_alloc: 0,
            fwd_cnt: 10,
            ..ports.header(op::CREDIT_UPDATE)
        },
        &[],
    );
    stream.try_write(&[1; 5000]).unwrap();
    let ops = guest.receive_ops();
    assert!(!ops.contains(&op::RW), "{ops:?}");
    let all = Header {
        buf_alloc: u32::MAX,
        fwd_cnt: 5000,
        ..ports.header(op::CREDIT_UPDATE)
    };
    guest.send_raw(all, &[]);
    let bytes: usize = guest.receive().iter().map(|(_, data)| data.len()).sum();
    assert_eq!(bytes, 5000);
    assert!(stream.is_open());
}

#[test]
fn taken_cannot_go_backwards() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    stream.try_write(&[1; 100]).unwrap();
    guest.receive();
    let update = |fwd_cnt| Header {
        buf_alloc: BUF_ALLOC,
        fwd_cnt,
        ..ports.header(op::CREDIT_UPDATE)
    };
    guest.send_raw(update(100), &[]);
    assert!(stream.is_open());
    guest.send_raw(update(50), &[]);
    assert!(!stream.is_open());
}
