//! Every structure survives the wire, and an independent MessagePack implementation agrees about
//! what was written and may write it in any legal form (E-005, E-006).

use std::collections::BTreeMap;

use proptest::prelude::*;
use provium_protocol::event::ReadEvent;
use provium_protocol::frame::HEADER;
use provium_protocol::message::{StreamFrame, data_frame, eof_frame, err_frame, ok_frame};
use provium_protocol::ops::*;
use provium_protocol::{Error, ErrorKind, Event, RawValue, Request, ToAgent, ToHost, Value, event};

fn body(frame: &[u8]) -> &[u8] {
    &frame[HEADER..]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn blob() -> impl Strategy<Value = Blob> {
    prop_oneof![
        bytes().prop_map(Blob::Inline),
        any::<u64>().prop_map(Blob::Staged)
    ]
}

fn exec_spec() -> impl Strategy<Value = ExecSpec> {
    let command = prop_oneof![
        prop::collection::vec(blob(), 1..4).prop_map(Command::Argv),
        blob().prop_map(Command::Shell),
    ];
    let env = prop::option::of(prop::collection::btree_map(bytes(), bytes(), 0..3));
    (
        command,
        env,
        any::<Option<bool>>(),
        prop::option::of(bytes()),
        prop::option::of(blob()),
    )
        .prop_map(|(command, env, env_clear, cwd, stdin)| ExecSpec {
            command,
            env,
            env_clear,
            cwd,
            stdin,
        })
}

fn syscall() -> impl Strategy<Value = Syscall> {
    let slots = prop::collection::vec((any::<u32>(), any::<u32>()), 0..3);
    let nested = prop::collection::vec((any::<u32>(), any::<u32>(), any::<u64>()), 0..3);
    let args = prop::collection::vec(any::<i64>(), 0..7);
    (
        any::<u32>(),
        args,
        prop::collection::vec(blob(), 0..3),
        slots,
        nested,
    )
        .prop_map(|(nr, args, bufs, slots, nested)| Syscall {
            nr,
            args,
            bufs,
            slots: slots
                .into_iter()
                .map(|(arg, buf)| Slot { arg, buf })
                .collect(),
            nested: nested
                .into_iter()
                .map(|(parent, child, offset)| Nested {
                    parent,
                    child,
                    offset,
                })
                .collect(),
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Ping {}.into()),
        (exec_spec(), any::<Option<u64>>()).prop_map(|(spec, timeout_ms)| Exec {
            spec,
            timeout_ms
        }
        .into()),
        exec_spec().prop_map(|spec| Spawn { spec }.into()),
        syscall().prop_map(Op::from),
        syscall().prop_map(|call| SyscallAsync { call }.into()),
        (bytes(), blob(), any::<Option<u32>>()).prop_map(|(path, data, perm)| WriteFile {
            path,
            data,
            perm
        }
        .into()),
        (any::<u64>(), any::<i64>()).prop_map(|(h, offset)| Seek {
            h,
            offset,
            whence: Whence::End
        }
        .into()),
        (bytes(), any::<i64>()).prop_map(|(path, at)| TailOpen {
            path,
            start: TailStart::At(at)
        }
        .into()),
        (any::<i32>(), any::<u32>(), any::<i64>()).prop_map(|(fd, cmd, value)| Ioctl {
            fd,
            cmd,
            data: Some(IoctlData::Int(value)),
            bufs: vec![],
            offsets: vec![3],
        }
        .into()),
        (bytes(), exec_spec()).prop_map(|(path, spec)| Batch {
            ops: vec![
                BatchItem::new(&ReadFile { path, max: 7 }),
                BatchItem::new(&Exec {
                    spec,
                    timeout_ms: None
                }),
            ],
        }
        .into()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        // NaN is not equal to itself.
        any::<f64>()
            .prop_filter("a number", |f| !f.is_nan())
            .prop_map(Value::Float),
        ".*".prop_map(Value::Str),
        bytes().prop_map(Value::Bin),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(".*", inner, 0..4).prop_map(Value::Map),
        ]
    })
}

/// Writes a value in a legal but unusual form: maps backwards, with keys nobody knows, and
/// integers in their widest form.
fn unusual(value: &rmpv::Value, out: &mut Vec<u8>) {
    match value {
        rmpv::Value::Map(entries) => {
            out.push(0xdf);
            out.extend((entries.len() as u32 + 2).to_be_bytes());
            out.extend([
                0xa3, b'n', b'e', b'w', 0x92, 0xc0, 0x81, 0xa1, b'x', 0xc4, 1, 9,
            ]);
            for (key, value) in entries.iter().rev() {
                unusual(key, out);
                unusual(value, out);
            }
            out.extend([7, 0xc0]);
        }
        rmpv::Value::Array(values) => {
            out.push(0xdd);
            out.extend((values.len() as u32).to_be_bytes());
            values.iter().for_each(|value| unusual(value, out));
        }
        rmpv::Value::Integer(number) => match number.as_u64() {
            Some(number) => {
                out.push(0xcf);
                out.extend(number.to_be_bytes());
            }
            None => {
                out.push(0xd3);
                out.extend(number.as_i64().unwrap().to_be_bytes());
            }
        },
        rmpv::Value::String(text) => {
            out.push(0xdb);
            out.extend((text.as_bytes().len() as u32).to_be_bytes());
            out.extend(text.as_bytes());
        }
        rmpv::Value::Binary(bytes) => {
            out.push(0xc6);
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        }
        other => rmpv::encode::write_value(out, other).unwrap(),
    }
}

fn reread(body: &[u8]) -> rmpv::Value {
    let mut rest = body;
    let value = rmpv::decode::read_value(&mut rest).unwrap();
    assert!(rest.is_empty());
    value
}

proptest! {
    #[test]
    fn requests_survive(id in any::<u64>(), op in op()) {
        let frame = op.request_frame(id).unwrap();
        let expected = ToAgent::Request(Request { id, op: Ok(op) });
        prop_assert_eq!(ToAgent::from_body(body(&frame)), Ok(expected));
    }

    /// E-005: what we write is what an independent encoder writes for the same value.
    #[test]
    fn writing_uses_the_shortest_form(op in op()) {
        let frame = op.request_frame(300).unwrap();
        let mut again = Vec::new();
        rmpv::encode::write_value(&mut again, &reread(body(&frame))).unwrap();
        prop_assert_eq!(body(&frame), &again);
    }

    /// E-006: any key order, any integer width, unknown keys.
    #[test]
    fn reading_takes_any_legal_form(id in any::<u64>(), op in op()) {
        // An environment is no structure: unknown names in it would be variables.
        prop_assume!(!matches!(&op, Op::Exec(Exec { spec, .. }) | Op::Spawn(Spawn { spec })
            if spec.env.is_some()));
        // The entries of a batch keep their arguments as they were written.
        prop_assume!(!matches!(op, Op::Batch(_)));
        let frame = op.request_frame(id).unwrap();
        let mut other = Vec::new();
        unusual(&reread(body(&frame)), &mut other);
        let expected = ToAgent::Request(Request { id, op: Ok(op) });
        prop_assert_eq!(ToAgent::from_body(&other), Ok(expected));
    }

    #[test]
    fn metadata_survives(meta in prop::collection::btree_map(".*", value(), 0..4)) {
        let kind = event::TestStarted { path: "a".into(), name: "b".into(), meta }.into();
        let sent = Event { ts: -1, kind };
        let frame = sent.to_frame().unwrap();
        prop_assert_eq!(Event::from_body(body(&frame)), Ok(ReadEvent::Known(sent)));
    }

    #[test]
    fn stream_frames_survive(stream in any::<u64>(), data in bytes()) {
        let frame = data_frame(stream, &data).unwrap();
        let expected = ToHost::Stream { stream, frame: StreamFrame::Data(data) };
        prop_assert_eq!(ToHost::from_body(body(&frame)), Ok(expected));
    }
}

#[test]
fn answers_survive() {
    let entries = vec![DirEntry {
        name: b"a\xff".to_vec(),
        entry_type: EntryType::Fifo,
    }];
    let ToHost::Response(answer) = ToHost::from_body(body(&ok_frame(5, &entries))).unwrap() else {
        panic!("no response")
    };
    assert_eq!(answer.id, 5);
    assert_eq!(
        answer.outcome.unwrap().get::<Vec<DirEntry>>().unwrap(),
        entries
    );

    let error = Error::os("open", 2).about(b"/x");
    let ToHost::Response(answer) = ToHost::from_body(body(&err_frame(6, &error))).unwrap() else {
        panic!("no response")
    };
    assert_eq!(answer.outcome, Err(error.clone()));
    assert_eq!(
        error.to_string(),
        "/x: open: No such file or directory (ENOENT, 2)"
    );

    let frame = eof_frame(9, Some(&error)).unwrap();
    let expected = ToHost::Stream {
        stream: 9,
        frame: StreamFrame::Eof(Some(error)),
    };
    assert_eq!(ToHost::from_body(body(&frame)), Ok(expected));
}

/// E-099: an answer that does not fit is an error that does.
#[test]
fn an_answer_beyond_a_frame_becomes_too_large() {
    let large = vec![0u8; provium_protocol::MAX_FRAME];
    let ToHost::Response(answer) = ToHost::from_body(body(&ok_frame(1, &large))).unwrap() else {
        panic!("no response")
    };
    assert_eq!(answer.outcome.unwrap_err().kind, ErrorKind::TooLarge);
    let path = vec![b'x'; provium_protocol::MAX_FRAME];
    let error = Error::new(ErrorKind::Os, "x").about(&path);
    let ToHost::Response(answer) = ToHost::from_body(body(&err_frame(1, &error))).unwrap() else {
        panic!("no response")
    };
    assert_eq!(answer.outcome.unwrap_err().kind, ErrorKind::TooLarge);
}

/// E-116 of the events: kinds that this version does not know are told apart.
#[test]
fn unknown_event_kinds_are_named() {
    let value = rmpv::Value::Map(vec![
        ("ts".into(), 1.into()),
        ("kind".into(), "moon_phase".into()),
        ("payload".into(), rmpv::Value::Map(vec![])),
    ]);
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, &value).unwrap();
    assert_eq!(
        Event::from_body(&body),
        Ok(ReadEvent::Unknown("moon_phase".into()))
    );
}

#[test]
fn a_batch_entry_is_decoded_when_its_turn_comes() {
    let item = BatchItem::new(&Unlink {
        path: b"/a".to_vec(),
    });
    assert_eq!(
        item.decode_op(),
        Ok(Op::Unlink(Unlink {
            path: b"/a".to_vec()
        }))
    );
    let bad = BatchItem {
        op: "unlink".into(),
        args: RawValue::of(&BTreeMap::<String, i64>::new()),
    };
    assert_eq!(
        bad.decode_op().unwrap_err().message,
        "field `path`: missing"
    );
}
