//! How connections begin and end (E-042, L-063).

use super::guest::{CID, EVENT, Guest, Ports, read_all};
use crate::mock::Buffer;
use crate::signal::Signal;
use crate::virtio::mmio::register;
use crate::virtio::vsock::device::VsockState;
use crate::virtio::vsock::host::ListenError;
use crate::virtio::vsock::packet::{op, shutdown};
use crate::virtio::vsock::{ConnectionState, HOST_CID};
use crate::virtio::{DeviceState, RestoreError, VirtioDevice};
use crate::{ByteStream, Progress, StreamError};

#[test]
fn the_guest_reads_its_cid() {
    let mut guest = Guest::new();
    assert_eq!(guest.driver.read(register::CONFIG), CID as u32);
    assert_eq!(guest.driver.read(register::CONFIG + 4), 0);
    assert_eq!(guest.host.guest_cid(), CID);
}

/// E-042
#[test]
fn the_host_connects_and_both_sides_talk() {
    let mut guest = Guest::new();
    let stream = guest.host.connect(5123).unwrap();
    assert_eq!(stream.connection(), ConnectionState::Connecting);
    let (request, _) = guest.receive_one();
    assert_eq!((request.src_cid, request.dst_cid), (HOST_CID, CID));
    let ports = Ports {
        guest: 5123,
        host: request.src_port,
    };
    assert_eq!(stream.ports(), (ports.host, ports.guest));
    guest.send(ports, op::RESPONSE, &[]);
    assert_eq!(stream.connection(), ConnectionState::Connected);
    assert_eq!(stream.try_write(b"hello"), Ok(Progress::Bytes(5)));
    let (header, data) = guest.receive_one();
    assert_eq!((header.op, data.as_slice()), (op::RW, &b"hello"[..]));
    guest.send(ports, op::RW, b"world");
    assert_eq!(read_all(&stream).unwrap(), b"world");
}

#[test]
fn bytes_written_before_the_answer_follow_it() {
    let mut guest = Guest::new();
    let stream = guest.host.connect(5123).unwrap();
    assert_eq!(stream.try_write(b"early"), Ok(Progress::Bytes(5)));
    let (request, _) = guest.receive_one();
    let ports = Ports {
        guest: 5123,
        host: request.src_port,
    };
    guest.send(ports, op::RESPONSE, &[]);
    assert_eq!(guest.receive_one().1, b"early");
}

#[test]
fn a_port_without_listener_refuses() {
    let mut guest = Guest::new();
    let stream = guest.host.connect(1).unwrap();
    let (request, _) = guest.receive_one();
    guest.send(
        Ports {
            guest: 1,
            host: request.src_port,
        },
        op::RST,
        &[],
    );
    assert_eq!(
        stream.connection(),
        ConnectionState::Ended(Some(StreamError::Refused))
    );
    assert_eq!(stream.try_read(&mut [0]), Err(StreamError::Refused));
    assert_eq!(stream.try_write(b"x"), Err(StreamError::Refused));
    drop(stream);
    assert_eq!(guest.host.connection_count(), 0);
}

#[test]
fn a_request_waits_for_the_driver_through_its_reset() {
    let mut guest = Guest::off();
    let stream = guest.host.connect(5123).unwrap();
    guest.run();
    guest.start();
    assert_eq!(stream.connection(), ConnectionState::Connecting);
    guest.post(4);
    assert_eq!(guest.receive_ops(), [op::REQUEST]);
}

/// L-063
#[test]
fn a_device_reset_ends_every_connection() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    guest.send(ports, op::RW, b"last words");
    let signal = Signal::new();
    stream.subscribe(&signal);
    let seen = signal.generation();
    guest.start();
    assert_ne!(signal.generation(), seen);
    assert_eq!(stream.try_write(b"x"), Err(StreamError::DeviceReset));
    assert_eq!(
        read_all(&stream),
        Err(StreamError::DeviceReset),
        "after what had arrived"
    );
    drop(stream);
    assert_eq!(guest.host.connection_count(), 0);
}

#[test]
fn the_guest_connects_to_a_listener() {
    let mut guest = Guest::new();
    let listener = guest.host.listen(7).unwrap();
    let signal = Signal::new();
    listener.subscribe(&signal);
    let seen = signal.generation();
    assert!(listener.try_accept().unwrap().is_none());
    let ports = Ports {
        guest: 1000,
        host: 7,
    };
    guest.send(ports, op::REQUEST, &[]);
    assert_eq!(guest.receive_ops(), [op::RESPONSE]);
    assert_ne!(signal.generation(), seen);
    let stream = listener.try_accept().unwrap().unwrap();
    assert_eq!(stream.ports(), (7, 1000));
    guest.send(ports, op::RW, b"hi");
    assert_eq!(read_all(&stream).unwrap(), b"hi");
}

#[test]
fn only_one_listener_per_port() {
    let guest = Guest::new();
    let first = guest.host.listen(7).unwrap();
    assert_eq!(guest.host.listen(7).err(), Some(ListenError::PortInUse(7)));
    drop(first);
    assert!(guest.host.listen(7).is_ok());
}

#[test]
fn without_listener_or_room_in_its_backlog_the_guest_is_refused() {
    let mut guest = Guest::new();
    let ports = |guest| Ports { guest, host: 7 };
    guest.send(ports(1), op::REQUEST, &[]);
    assert_eq!(guest.receive_ops(), [op::RST]);
    let listener = guest.host.listen(7).unwrap();
    for port in 0..128 {
        guest.send(ports(port), op::REQUEST, &[]);
        assert_eq!(guest.receive_ops(), [op::RESPONSE]);
    }
    guest.send(ports(128), op::REQUEST, &[]);
    assert_eq!(guest.receive_ops(), [op::RST]);
    drop(listener);
    let mut resets = guest.receive_ops();
    resets.extend(guest.receive_ops());
    assert_eq!(resets, [op::RST; 128], "those never accepted");
    assert_eq!(guest.host.connection_count(), 0);
}

#[test]
fn dropping_a_stream_delivers_its_data_and_then_ends_it() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    stream.try_write(b"bye").unwrap();
    drop(stream);
    let packets = guest.receive();
    let ops: Vec<u16> = packets.iter().map(|(header, _)| header.op).collect();
    assert_eq!(ops, [op::RW, op::SHUTDOWN]);
    assert_eq!(packets[1].0.flags, shutdown::BOTH);
    assert_eq!(guest.host.connection_count(), 1, "until the guest agrees");
    guest.send(ports, op::RST, &[]);
    assert_eq!(guest.host.connection_count(), 0);
    assert_eq!(guest.receive_ops(), [0; 0]);
}

#[test]
fn a_dropped_request_is_withdrawn() {
    let mut guest = Guest::off();
    drop(guest.host.connect(5123).unwrap());
    assert_eq!(guest.host.connection_count(), 0);
    guest.start();
    guest.post(4);
    assert_eq!(guest.receive_ops(), [0; 0]);
}

#[test]
fn a_dropped_request_with_data_is_still_delivered() {
    let mut guest = Guest::off();
    let stream = guest.host.connect(5123).unwrap();
    stream.try_write(b"fire and forget").unwrap();
    drop(stream);
    guest.start();
    guest.post(4);
    let (request, _) = guest.receive_one();
    let ports = Ports {
        guest: 5123,
        host: request.src_port,
    };
    guest.send(ports, op::RESPONSE, &[]);
    let packets = guest.receive();
    assert_eq!(packets[0].1, b"fire and forget");
    assert_eq!(packets[1].0.op, op::SHUTDOWN);
    guest.send(ports, op::RST, &[]);
    assert_eq!(guest.host.connection_count(), 0);
}

#[test]
fn a_request_dropped_after_it_was_sent_ends_when_answered() {
    let mut guest = Guest::new();
    drop(guest.host.connect(5123).unwrap());
    assert_eq!(guest.receive_ops(), [0; 0], "withdrawn in time");
    let stream = guest.host.connect(5123).unwrap();
    let (request, _) = guest.receive_one();
    drop(stream);
    let ports = Ports {
        guest: 5123,
        host: request.src_port,
    };
    guest.send(ports, op::RESPONSE, &[]);
    assert_eq!(guest.receive_ops(), [op::SHUTDOWN]);
    guest.send(ports, op::RST, &[]);
    assert_eq!(guest.host.connection_count(), 0);
}

#[test]
fn half_closing_keeps_the_other_direction() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    stream.try_write(b"request").unwrap();
    stream.shutdown_write();
    assert_eq!(stream.try_write(b"more"), Err(StreamError::ShutDown));
    let packets = guest.receive();
    assert_eq!(packets[0].1, b"request");
    assert_eq!(
        (packets[1].0.op, packets[1].0.flags),
        (op::SHUTDOWN, shutdown::SEND)
    );
    guest.send(ports, op::RW, b"answer");
    guest.send_raw(
        crate::virtio::vsock::packet::Header {
            flags: shutdown::SEND,
            ..ports.header(op::SHUTDOWN)
        },
        &[],
    );
    let mut buffer = [0; 16];
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Bytes(6)));
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Eof));
}

#[test]
fn the_guest_closing_in_order_is_eof_and_is_answered() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    guest.send(ports, op::RW, b"rest");
    guest.send_raw(
        crate::virtio::vsock::packet::Header {
            flags: shutdown::BOTH,
            ..ports.header(op::SHUTDOWN)
        },
        &[],
    );
    assert_eq!(guest.receive_ops(), [op::RST]);
    assert!(!stream.is_open());
    assert_eq!(
        stream.try_write(b"x"),
        Err(StreamError::GuestStoppedReading)
    );
    assert_eq!(read_all(&stream).unwrap(), b"rest");
    assert_eq!(stream.try_read(&mut [0]), Ok(Progress::Eof));
    assert_eq!(stream.connection(), ConnectionState::Ended(None));
}

#[test]
fn a_reset_by_the_guest_is_an_error_after_its_data() {
    let mut guest = Guest::new();
    let (stream, ports) = guest.connected();
    guest.send(ports, op::RW, b"rest");
    guest.send(ports, op::RST, &[]);
    let mut buffer = [0; 16];
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Bytes(4)));
    assert_eq!(stream.try_read(&mut buffer), Err(StreamError::Reset));
}

#[test]
fn a_reset_by_the_host_is_immediate() {
    let mut guest = Guest::new();
    let (stream, _) = guest.connected();
    stream.try_write(&[0; 10_000]).unwrap();
    stream.reset();
    assert_eq!(guest.receive_ops(), [op::RST]);
    assert_eq!(stream.try_write(b"x"), Err(StreamError::ShutDown));
}

#[test]
fn the_end_of_the_machine_ends_everything() {
    let mut guest = Guest::new();
    let (stream, _) = guest.connected();
    let listener = guest.host.listen(7).unwrap();
    let host = guest.host.clone();
    drop(guest);
    assert_eq!(stream.try_read(&mut [0]), Err(StreamError::MachineGone));
    assert_eq!(listener.try_accept().err(), Some(StreamError::MachineGone));
    assert_eq!(host.connect(1).err(), Some(StreamError::MachineGone));
}

/// L-250: a restored guest keeps the cid its driver knows, and learns that its connections ended.
#[test]
fn a_restore_resets_the_connections_of_both_sides() {
    let mut guest = Guest::new();
    let (stream, _) = guest.connected();
    let (_, event) = guest.driver.request(EVENT, &[Buffer::Writable(4)]);
    let saved = guest.driver.transport.save();
    guest.driver.transport.restore(&saved).unwrap();
    assert_eq!(
        stream.connection(),
        ConnectionState::Ended(Some(StreamError::DeviceReset))
    );
    guest.driver.memory_fill(event[0], 0xff, 4);
    guest.run();
    assert_eq!(guest.driver.take_used(EVENT), [(0, 4)]);
    assert_eq!(guest.driver.bytes(event[0], 4), [0; 4]);
    let stream = guest.host.connect(5123).unwrap();
    assert_eq!(guest.receive_ops(), [op::REQUEST]);
    drop(stream);
}

#[test]
fn a_foreign_state_is_refused() {
    let (mut device, _host) = crate::virtio::vsock::Vsock::new(3, guestless_kick());
    assert_eq!(
        device.save(),
        DeviceState::Vsock(VsockState { guest_cid: 3 })
    );
    let state = crate::virtio::rng::Rng::new(0).save();
    assert!(matches!(
        device.restore(&state),
        Err(RestoreError::WrongDevice(_))
    ));
}

fn guestless_kick() -> std::sync::Arc<dyn crate::Kick> {
    std::sync::Arc::new(crate::mock::Counter::default())
}
