//! The port as a guest's driver uses it (L-145, L-147, L-149).

use std::sync::{Arc, Mutex};

use super::*;
use crate::bus::BusDevice;
use crate::mock::Counter;
use crate::signal::Signal;
use crate::stream::{ByteStream, Progress, StreamError};
use crate::sync::lock;

const IER_RECEIVE: u8 = 1;
const IER_TRANSMIT: u8 = 2;
const LSR_DATA_READY: u8 = 1;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl ConsoleSink for Log {
    fn output(&mut self, bytes: &[u8]) {
        lock(&self.0).extend(bytes);
    }
}

fn read(serial: &mut Serial, register: u64) -> u8 {
    let mut data = [0xee];
    serial.read(register, &mut data);
    data[0]
}

fn write(serial: &mut Serial, register: u64, value: u8) {
    serial.write(register, &[value]);
}

/// Reads as an interrupt handler does: while data is ready, at most `limit` bytes.
fn drain(serial: &mut Serial, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < limit && read(serial, 5) & LSR_DATA_READY != 0 {
        bytes.push(read(serial, 0));
    }
    bytes
}

struct Console {
    serial: Serial,
    handle: SerialHandle,
    log: Log,
    line: Arc<Counter>,
    kick: Arc<Counter>,
}

fn console() -> Console {
    let (log, line, kick) = <(Log, Arc<Counter>, Arc<Counter>)>::default();
    let (serial, handle) = Serial::new(Box::new(log.clone()), line.clone(), kick.clone());
    Console {
        serial,
        handle,
        log,
        line,
        kick,
    }
}

/// L-147
#[test]
fn what_the_guest_writes_reaches_the_sink_in_order() {
    let mut console = console();
    b"hello\n"
        .iter()
        .for_each(|&byte| write(&mut console.serial, 0, byte));
    assert_eq!(*lock(&console.log.0), b"hello\n");
    assert_eq!(console.line.count(), 0, "no interrupt was enabled");
}

/// L-149
#[test]
fn input_waits_for_the_driver_and_then_follows_without_loss() {
    let mut console = console();
    let input: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
    console.handle.write(&input);
    assert_eq!(console.kick.count(), 1);
    console.serial.poll();
    // A driver being set up reads the receive register to clear it.
    assert_eq!(
        (
            read(&mut console.serial, 5) & LSR_DATA_READY,
            read(&mut console.serial, 0)
        ),
        (0, 0)
    );
    assert_eq!(console.handle.pending(), 1000);
    write(&mut console.serial, 1, IER_RECEIVE);
    assert!(console.line.take() > 0);
    let mut got: Vec<u8> = Vec::new();
    // Handlers give up after 256 bytes and rely on another interrupt.
    while got.len() < 1000 {
        let part = drain(&mut console.serial, 256);
        got.extend(&part);
        assert!(
            got.len() == 1000 || console.line.take() > 0,
            "stuck at {}",
            got.len()
        );
    }
    assert_eq!(got, input);
    assert_eq!(console.handle.pending(), 0);
}

#[test]
fn input_for_a_listening_guest_interrupts_it() {
    let mut console = console();
    write(&mut console.serial, 1, IER_RECEIVE);
    console.handle.write(b"x");
    console.serial.poll();
    assert_eq!(console.line.take(), 1);
    assert_eq!(
        read(&mut console.serial, 2) & 0xf,
        4,
        "received data available"
    );
    assert_eq!(drain(&mut console.serial, 9), b"x");
}

/// L-149
#[test]
fn a_write_can_be_taken_back_and_signals_when_read() {
    let mut console = console();
    console.handle.write(b"abcdef");
    assert_eq!(console.handle.take_back(4), 4);
    assert_eq!(console.handle.take_back(4), 2);
    console.handle.write(b"gh");
    let signal = Signal::new();
    console.handle.subscribe(&signal);
    let seen = signal.generation();
    write(&mut console.serial, 1, IER_RECEIVE);
    assert_ne!(signal.generation(), seen);
    assert_eq!(drain(&mut console.serial, 9), b"gh");
}

#[test]
fn loopback_does_not_eat_input() {
    let mut console = console();
    write(&mut console.serial, 1, IER_RECEIVE);
    write(&mut console.serial, 4, 1 << 4);
    console.handle.write(b"input");
    console.serial.poll();
    write(&mut console.serial, 0, b'!');
    assert_eq!(drain(&mut console.serial, 9), b"!");
    assert!(lock(&console.log.0).is_empty());
    write(&mut console.serial, 4, 0);
    console.serial.poll();
    assert_eq!(drain(&mut console.serial, 9), b"input");
}

#[test]
fn wide_and_outlying_accesses_are_harmless() {
    let mut console = console();
    let mut data = [0; 8];
    console.serial.read(0, &mut data);
    console.serial.read(7, &mut data);
    console.serial.read(1 << 40, &mut data);
    console.serial.write(6, &[0; 8]);
    console.serial.write(u64::MAX - 8, &[0; 8]);
}

#[test]
fn a_reset_keeps_input_and_forgets_the_rest() {
    let mut console = console();
    console.handle.write(b"later");
    write(&mut console.serial, 1, IER_TRANSMIT);
    write(&mut console.serial, 3, 0x80);
    console.serial.reset();
    assert_eq!(read(&mut console.serial, 1), 0);
    write(&mut console.serial, 1, IER_RECEIVE);
    assert_eq!(drain(&mut console.serial, 9), b"later");
}

#[test]
fn a_saved_port_goes_on_where_it_was() {
    let mut first = console();
    write(&mut first.serial, 1, IER_RECEIVE);
    first.handle.write(&[7; 100]);
    first.serial.poll();
    let saved = first.serial.save();
    let mut second = console();
    second.serial.restore(&saved).unwrap();
    assert_eq!(second.serial.save(), saved);
    assert!(
        second.line.count() > 0,
        "the pending interrupt is raised again"
    );
    assert_eq!(drain(&mut second.serial, 999), [7; 100]);
}

#[test]
fn a_state_with_an_overfull_fifo_is_refused() {
    let mut console = console();
    let mut saved = console.serial.save();
    saved.overfill();
    assert!(matches!(
        console.serial.restore(&saved),
        Err(SerialRestoreError::FifoTooLong(65))
    ));
}

struct Link {
    serial: Serial,
    host: SerialHost,
    line: Arc<Counter>,
    kick: Arc<Counter>,
}

fn link() -> Link {
    let (line, kick) = <(Arc<Counter>, Arc<Counter>)>::default();
    let (serial, host) = Serial::with_stream(line.clone(), kick.clone());
    Link {
        serial,
        host,
        line,
        kick,
    }
}

#[test]
fn a_stream_carries_bytes_both_ways() {
    let mut link = link();
    write(&mut link.serial, 0, b'?');
    let stream = link.host.open();
    write(&mut link.serial, 1, IER_RECEIVE);
    assert_eq!(stream.try_write(b"ping"), Ok(Progress::Bytes(4)));
    link.serial.poll();
    assert_eq!(drain(&mut link.serial, 9), b"ping");
    b"pong"
        .iter()
        .for_each(|&byte| write(&mut link.serial, 0, byte));
    let mut buffer = [0; 9];
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Bytes(4)));
    assert_eq!(
        &buffer[..4],
        b"pong",
        "what came before the stream was opened is gone"
    );
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Pending));
}

#[test]
fn a_host_that_does_not_read_makes_the_transmitter_busy() {
    let mut link = link();
    let stream = link.host.open();
    write(&mut link.serial, 1, IER_TRANSMIT);
    let mut sent = 0;
    while read(&mut link.serial, 5) & LSR_TRANSMITTER_EMPTY != 0 {
        write(&mut link.serial, 0, sent as u8);
        sent += 1;
    }
    assert_eq!(sent, 1 << 20);
    assert_ne!(read(&mut link.serial, 2) & 2, 0, "the handler acknowledges");
    link.line.take();
    link.kick.take();
    let mut buffer = vec![0; sent];
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Bytes(sent)));
    assert_eq!(link.kick.count(), 1);
    link.serial.poll();
    assert_eq!(link.line.count(), 1, "transmitter empty");
    assert_ne!(read(&mut link.serial, 5) & LSR_TRANSMITTER_EMPTY, 0);
    assert!(buffer.iter().enumerate().all(|(i, &byte)| byte == i as u8));
}

#[test]
fn a_guest_that_ignores_a_busy_transmitter_loses_bytes() {
    let mut link = link();
    let stream = link.host.open();
    (0..3 << 20).for_each(|_| write(&mut link.serial, 0, 1));
    let mut buffer = vec![0; 4 << 20];
    assert_eq!(stream.try_read(&mut buffer), Ok(Progress::Bytes(2 << 20)));
}

#[test]
fn a_guest_that_does_not_read_makes_the_stream_pend() {
    let mut link = link();
    let stream = link.host.open();
    let data = vec![1; 3 << 20];
    assert_eq!(stream.try_write(&data), Ok(Progress::Bytes(1 << 20)));
    assert_eq!(stream.try_write(&data), Ok(Progress::Pending));
    let signal = Signal::new();
    stream.subscribe(&signal);
    let seen = signal.generation();
    write(&mut link.serial, 1, IER_RECEIVE);
    assert_eq!(drain(&mut link.serial, 1 << 20).len(), 1 << 20);
    assert_ne!(signal.generation(), seen);
    assert_eq!(stream.try_write(&data), Ok(Progress::Bytes(1 << 20)));
}

#[test]
fn opening_anew_and_a_reset_end_the_stream_before() {
    let mut link = link();
    let first = link.host.open();
    first.try_write(b"old").unwrap();
    let second = link.host.open();
    assert_eq!(first.try_read(&mut [0]), Err(StreamError::DeviceReset));
    assert!(!first.is_open() && second.is_open());
    drop(first);
    assert!(second.is_open());
    link.host.machine_reset();
    assert_eq!(second.try_write(b"x"), Err(StreamError::DeviceReset));
    write(&mut link.serial, 1, IER_RECEIVE);
    assert_eq!(
        drain(&mut link.serial, 9),
        b"",
        "the next guest does not see what was for the last"
    );
}

#[test]
fn the_end_of_the_machine_ends_the_stream_after_its_data() {
    let mut link = link();
    let stream = link.host.open();
    write(&mut link.serial, 0, b'!');
    drop(link.serial);
    assert_eq!(stream.try_read(&mut [0; 4]), Ok(Progress::Bytes(1)));
    assert_eq!(stream.try_read(&mut [0; 4]), Err(StreamError::MachineGone));
    assert_eq!(stream.try_write(b"x"), Err(StreamError::MachineGone));
}
