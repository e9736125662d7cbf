//! Feeds damaged streams to everything that reads bytes of a peer: frames, requests, answers, events, and the greeting
//! on the serial line.
//!
//! ```text
//! cargo run --release -p provium-protocol --example fuzz -- [COUNT] [SEED]
//! ```
//!
//! Stream N of a seed is a function of both, so a failure is repeated by giving its number as seed and 1 as count.
//! With a file name instead of COUNT the file is the stream, for fuzzers that write their input into files.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::process::ExitCode;

use provium_protocol::event::{ReadEvent, TestStarted};
use provium_protocol::frame::HEADER;
use provium_protocol::ops::{Exec, ExecSpec, Nested, Slot, Syscall};
use provium_protocol::{Event, FrameReader, Hello, Op, ToAgent, ToHost, Value, message, serial};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map_or("100000", String::as_str);
    let seed = arguments.get(1).map_or(Ok(0), |seed| seed.parse());
    match (first.parse::<u64>(), seed) {
        (Ok(count), Ok(seed)) => run_seeds(seed, count),
        (Err(_), _) => match std::fs::read(first) {
            Ok(stream) => {
                read(&stream, 1 + stream.len() / 3);
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("cannot read {first}: {error}")),
        },
        (_, Err(error)) => fail(&format!("the seed is not a number: {error}")),
    }
}

fn run_seeds(first: u64, count: u64) -> ExitCode {
    let (mut streams, mut frames) = (0u64, 0);
    for seed in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let stream = stream(&mut random);
        let step = random.random_range(1..=stream.len().max(1));
        match catch_unwind(|| read(&stream, step)) {
            Ok(read) => frames += read,
            Err(_) => return fail(&format!("failed, repeat with: 1 {seed}")),
        }
        streams += 1;
    }
    println!("{streams} streams from seed {first}, {frames} frames read, no failure");
    ExitCode::SUCCESS
}

/// Good frames of every kind, then a few injuries.
fn stream(random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.random_range(1..6) {
        stream.extend(frame(random));
    }
    for _ in 0..random.random_range(0..5) {
        injure(&mut stream, random);
    }
    stream
}

fn frame(random: &mut ChaCha8Rng) -> Vec<u8> {
    let id = random.next_u64() >> random.random_range(0..64);
    let frame = match random.random_range(0..7) {
        0 => Hello::new("fuzz", random.random()).to_frame(),
        1 => Op::from(Exec {
            spec: ExecSpec::shell("true"),
            timeout_ms: random.random::<bool>().then(|| random.next_u64()),
        })
        .request_frame(id),
        2 => Op::from(Syscall {
            nr: random.next_u32(),
            args: (0..random.random_range(0..8))
                .map(|_| random.random())
                .collect(),
            bufs: vec![vec![7; random.random_range(0..40)].into()],
            slots: vec![Slot {
                arg: random.random_range(0..8),
                buf: random.random_range(0..3),
            }],
            nested: vec![Nested {
                parent: 0,
                offset: random.next_u64(),
                child: random.random_range(0..3),
            }],
        })
        .request_frame(id),
        3 => message::credit_frame(id, random.next_u64()),
        4 => message::cancel_frame(id),
        5 => message::data_frame(id, &[9; 50]),
        _ => {
            let pairs = BTreeMap::from([("spec".to_owned(), Value::Str("x".to_owned()))]);
            let value = Value::Array(vec![Value::Map(pairs), Value::Float(0.5), Value::Nil]);
            let meta = BTreeMap::from([("deep".to_owned(), value)]);
            let started = TestStarted {
                path: "a.test.lua".to_owned(),
                name: "one".to_owned(),
                meta,
            };
            let event = Event {
                ts: id.cast_signed(),
                kind: started.into(),
            };
            return event.to_frame().expect("it is small");
        }
    };
    frame.expect("it is small")
}

fn injure(stream: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    if stream.is_empty() {
        return;
    }
    let at = random.random_range(0..stream.len());
    let end = (at + random.random_range(0..20)).min(stream.len());
    match random.random_range(0..6) {
        0 => stream[at] ^= 1 << random.random_range(0..8),
        1 => stream[at] = [0, 0x7f, 0x80, 0xc1, 0xdf, 0xdd, 0xff][random.random_range(0..7)],
        2 => drop(stream.drain(at..end)),
        3 => {
            let piece = stream[at..end].to_vec();
            stream.splice(at..at, piece);
        }
        4 => stream.truncate(at),
        _ => stream.insert(at, random.random()),
    }
}

/// Reads a stream as each of its readers would; gives how many frames came out.
fn read(stream: &[u8], step: usize) -> usize {
    let mut count = 0;
    for mut reader in [
        FrameReader::new(),
        serial::agent_reader(),
        serial::host_reader(3),
    ] {
        'stream: for chunk in stream.chunks(step) {
            reader.push(chunk);
            loop {
                match reader.next_frame() {
                    Ok(Some(body)) => {
                        if let Ok(ReadEvent::Known(event)) = Event::from_body(body) {
                            written_as_read(&event);
                        }
                        drop(ToAgent::from_body(body));
                        drop(ToHost::from_body(body));
                        count += 1;
                    }
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
        let _end = reader.finish();
    }
    count
}

/// An event that was read is written so that it reads as the same event.
fn written_as_read(event: &Event) {
    let Ok(frame) = event.to_frame() else { return };
    match Event::from_body(&frame[HEADER..]) {
        Ok(ReadEvent::Known(again)) => assert_eq!(again.to_frame().ok(), Some(frame)),
        other => panic!("{event:?} was written and read as {other:?}"),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
