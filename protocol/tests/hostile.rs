//! Bytes from an enemy: nothing panics, nothing hangs, and every answer names what was wrong
//! (E-093 to E-096, E-101).

use proptest::prelude::*;
use provium_protocol::frame::HEADER;
use provium_protocol::ops::*;
use provium_protocol::wire::Malformed;
use provium_protocol::{
    ErrorKind, Event, FrameReader, Hello, MAX_DEPTH, Op, Request, ToAgent, ToHost,
};

fn valid_frames() -> Vec<Vec<u8>> {
    let exec = Exec {
        spec: ExecSpec::shell("true"),
        timeout_ms: Some(9),
    };
    let call = Syscall {
        nr: 257,
        args: vec![-100, 0, 0],
        bufs: vec!["/etc/passwd\0".into()],
        slots: vec![Slot { arg: 1, buf: 0 }],
        nested: vec![],
    };
    vec![
        Hello::new("0.1.0", false).to_frame().unwrap(),
        Op::from(exec).request_frame(1).unwrap(),
        Op::from(call).request_frame(u64::MAX).unwrap(),
        provium_protocol::message::credit_frame(3, 1000).unwrap(),
        provium_protocol::message::cancel_frame(3).unwrap(),
    ]
}

/// Reads frames as both sides would, until the stream breaks; gives how many came out.
fn read_all(bytes: &[u8], step: usize) -> usize {
    let mut reader = FrameReader::new();
    let mut count = 0;
    for chunk in bytes.chunks(step.max(1)) {
        reader.push(chunk);
        loop {
            match reader.next_frame() {
                Ok(Some(body)) => {
                    let _ = ToAgent::from_body(body);
                    let _ = ToHost::from_body(body);
                    let _ = Event::from_body(body);
                    count += 1;
                }
                Ok(None) => break,
                Err(_) => return count,
            }
        }
    }
    let _ = reader.finish();
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..50,
    ) {
        read_all(&bytes, step);
        let _ = ToAgent::from_body(&bytes);
        let _ = ToHost::from_body(&bytes);
        let _ = Event::from_body(&bytes);
    }

    /// Mostly valid input: a stream of good frames with a few bytes changed.
    #[test]
    fn damaged_frames_are_survived(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        step in 1usize..50,
    ) {
        let mut stream = valid_frames().concat();
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        prop_assert!(read_all(&stream, step) <= stream.len());
    }

    /// Every prefix of a valid body is incomplete, never misread.
    #[test]
    fn cut_bodies_are_malformed(which in 0usize..5, cut in any::<prop::sample::Index>()) {
        let frame = valid_frames().swap_remove(which);
        let body = &frame[HEADER..];
        prop_assert!(ToAgent::from_body(&body[..cut.index(body.len())]).is_err());
    }
}

#[test]
fn a_valid_stream_is_read_whole() {
    let frames = valid_frames();
    assert_eq!(read_all(&frames.concat(), 7), frames.len());
}

fn map(entries: &[(&str, rmpv::Value)]) -> Vec<u8> {
    let entries = entries
        .iter()
        .map(|(key, value)| ((*key).into(), value.clone()))
        .collect();
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &rmpv::Value::Map(entries)).unwrap();
    out
}

fn request(op: &str, args: rmpv::Value) -> provium_protocol::Error {
    let body = map(&[("id", 4.into()), ("op", op.into()), ("args", args)]);
    match ToAgent::from_body(&body) {
        Ok(ToAgent::Request(Request {
            id: 4,
            op: Err(error),
        })) => error,
        other => panic!("{other:?}"),
    }
}

/// E-093: frames that cannot be routed break the connection.
#[test]
fn frames_without_a_usable_key_are_malformed() {
    for body in [
        vec![0x90],
        vec![0xc0],
        vec![0x80],
        map(&[("id", "one".into())]),
        map(&[("id", (-1).into())]),
        map(&[("stream", 1.into())]),
        map(&[("cancel", rmpv::Value::Nil)]),
        map(&[("type", "hello".into())]),
        map(&[("type", "goodbye".into())]),
        [map(&[("cancel", 1.into())]), vec![0]].concat(),
    ] {
        assert!(ToAgent::from_body(&body).is_err(), "{body:02x?}");
        assert!(ToHost::from_body(&body).is_err(), "{body:02x?}");
    }
}

/// E-094: depth and counts.
#[test]
fn depth_and_counts_are_refused() {
    let mut deep = vec![0x91; MAX_DEPTH + 1];
    deep.push(0xc0);
    assert_eq!(
        ToAgent::from_body(&deep),
        Err(Malformed::TooDeep(MAX_DEPTH))
    );
    assert_eq!(
        ToAgent::from_body(&[0xdf, 0xff, 0xff, 0xff, 0xff]),
        Err(Malformed::Count(0))
    );
}

/// E-095: an unknown operation is an answer, not the end of the connection.
#[test]
fn unknown_operations_are_answered() {
    let error = request("dance", rmpv::Value::Map(vec![]));
    assert_eq!(error.kind, ErrorKind::UnknownOp);
    assert!(error.message.contains("dance"));
}

/// E-096: bad arguments are answered with the name of the field.
#[test]
fn bad_arguments_name_their_field() {
    let nil = rmpv::Value::Nil;
    for (op, args, expected) in [
        (
            "stat",
            vec![("follow", true.into())],
            "field `path`: missing",
        ),
        (
            "stat",
            vec![("path", "/".into())],
            "field `path`: expected bytes, got text",
        ),
        (
            "read",
            vec![("h", nil.clone())],
            "field `h`: expected a non-negative integer, got nil",
        ),
        (
            "proc_signal",
            vec![("h", 1.into()), ("signal", (1u64 << 40).into())],
            "field `signal`: 1099511627776 is outside -2147483648 to 2147483647",
        ),
        ("exec", vec![], "field `argv`: missing, as is `shell`"),
        (
            "exec",
            vec![("argv", rmpv::Value::Array(vec![]))],
            "field `argv`: empty",
        ),
        (
            "exec",
            vec![(
                "argv",
                rmpv::Value::Array(vec![rmpv::Value::Binary(vec![]), 1.into()]),
            )],
            "field `argv[1]`: expected bytes or a staged key, got an integer",
        ),
        (
            "proc_stream_open",
            vec![("h", 1.into()), ("which", "both".into())],
            "field `which`: `both` is none of stdout, stderr, buffers",
        ),
    ] {
        let entries = args
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect();
        let error = request(op, rmpv::Value::Map(entries));
        assert_eq!(error.kind, ErrorKind::BadArgs);
        assert_eq!(error.message, expected);
    }
    assert_eq!(request("ping", nil).message, "expected a map, got nil");
}

/// E-101: a small frame cannot stand for a large value.
#[test]
fn values_larger_than_their_frame_are_refused() {
    let count = 1_000_000u32;
    let mut body = vec![0x83, 0xa2, b'i', b'd', 1, 0xa2, b'o', b'p', 0xa5];
    body.extend(b"batch");
    body.extend([
        0xa4, b'a', b'r', b'g', b's', 0x81, 0xa3, b'o', b'p', b's', 0xdd,
    ]);
    body.extend(count.to_be_bytes());
    body.resize(body.len() + count as usize, 0x80);
    let Ok(ToAgent::Request(Request { op: Err(error), .. })) = ToAgent::from_body(&body) else {
        panic!("accepted")
    };
    assert!(error.message.contains("more memory"), "{}", error.message);
}
