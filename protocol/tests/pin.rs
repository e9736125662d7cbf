//! The bytes of every wire structure are stored in `pin.txt` (E-002): a change that does not come
//! with a new `PROTOCOL_VERSION` fails here. After raising the version, run this test once with
//! `PROVIUM_PIN=write` to store the new bytes, and read the diff.

use std::fmt::Write as _;

use provium_protocol::event::*;
use provium_protocol::message::{
    StreamFrame, ToHost, cancel_frame, credit_frame, data_frame, eof_frame, err_frame, ok_frame,
};
use provium_protocol::ops::*;
use provium_protocol::wire::{Wire, to_vec};
use provium_protocol::{
    Error, ErrorKind, Event, Hello, HelloErr, HelloOk, Op, PROTOCOL_VERSION, RawValue, ToAgent,
    Value,
};

const STORED: &str = include_str!("pin.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn spec() -> ExecSpec {
    ExecSpec {
        command: Command::Argv(vec!["/bin/a".into(), Blob::Staged(300)]),
        env: Some([(b"K".to_vec(), b"v".to_vec())].into()),
        env_clear: Some(true),
        cwd: Some(b"/tmp".to_vec()),
        stdin: Some("in".into()),
    }
}

fn syscall() -> Syscall {
    Syscall {
        nr: 257,
        args: vec![-100, 0],
        bufs: vec!["/a\0".into()],
        slots: vec![Slot { arg: 1, buf: 0 }],
        nested: vec![Nested {
            parent: 0,
            child: 1,
            offset: 8,
        }],
    }
}

/// One request of every operation.
fn ops() -> Vec<Op> {
    let path = || b"/p".to_vec();
    vec![
        Ping {}.into(),
        Exec {
            spec: spec(),
            timeout_ms: Some(2000),
        }
        .into(),
        Exec {
            spec: ExecSpec::shell("true"),
            timeout_ms: None,
        }
        .into(),
        OutputRead {
            h: 1,
            which: Which::Buffers,
            offset: 2,
            max: 3,
        }
        .into(),
        OutputRelease { h: 1 }.into(),
        Spawn {
            spec: ExecSpec::shell("true"),
        }
        .into(),
        ProcWait {
            h: 1,
            timeout_ms: Some(0),
            kill: true,
        }
        .into(),
        ProcSignal {
            h: 1,
            signal: 15,
            group: Some(true),
        }
        .into(),
        ProcStatusGet { h: 1 }.into(),
        ProcPid { h: 1 }.into(),
        ProcStdin {
            h: 1,
            data: vec![0xff],
        }
        .into(),
        ProcCloseStdin { h: 1 }.into(),
        ProcRelease { h: 1 }.into(),
        ReadFile {
            path: path(),
            max: 4096,
        }
        .into(),
        WriteFile {
            path: path(),
            data: "x".into(),
            perm: Some(0o600),
        }
        .into(),
        Stat {
            path: path(),
            follow: false,
        }
        .into(),
        ListDir { path: path() }.into(),
        Mkdir {
            path: path(),
            parents: true,
            perm: None,
        }
        .into(),
        Unlink { path: path() }.into(),
        Rename {
            from: path(),
            to: path(),
        }
        .into(),
        Open {
            path: path(),
            mode: open_mode::ALL,
            perm: Some(0o644),
        }
        .into(),
        Read { h: 1, max: 65536 }.into(),
        Write {
            h: 1,
            data: vec![1],
        }
        .into(),
        Seek {
            h: 1,
            offset: -1,
            whence: Whence::Cur,
        }
        .into(),
        Close { h: 1 }.into(),
        TailOpen {
            path: path(),
            start: TailStart::End,
        }
        .into(),
        TailOpen {
            path: path(),
            start: TailStart::At(-200),
        }
        .into(),
        FdStreamOpen {
            fd: Some(3),
            h: None,
            offset: Some(9),
        }
        .into(),
        ProcStreamOpen {
            h: 1,
            which: Which::Stdout,
        }
        .into(),
        StreamClose { s: 1 }.into(),
        syscall().into(),
        SyscallAsync { call: syscall() }.into(),
        Ioctl {
            fd: 0,
            cmd: 0x5401,
            data: Some(IoctlData::Bytes("x".into())),
            bufs: vec!["y".into()],
            offsets: vec![8],
        }
        .into(),
        Ioctl {
            fd: 0,
            cmd: 1,
            data: Some(IoctlData::Int(-1)),
            bufs: vec![],
            offsets: vec![],
        }
        .into(),
        MemRead {
            addr: u64::MAX,
            len: 1,
        }
        .into(),
        MemWrite {
            addr: 1,
            data: vec![2],
        }
        .into(),
        ClockGet {}.into(),
        ClockSet { ns: i64::MIN }.into(),
        ClockAdvance { delta_ns: -129 }.into(),
        ClockSleep { ns: 1 }.into(),
        MountVfs {}.into(),
        Dmesg {}.into(),
        NetConfigure {
            nics: vec![NicConfig {
                mac: "02:00:00:00:00:01".into(),
                address: "10.0.0.10".into(),
                prefix: 24,
                routes: vec![Route {
                    address: "10.0.1.0".into(),
                    prefix: 24,
                    via: "10.0.0.1".into(),
                }],
                default: Some("10.0.0.1".into()),
                dns: Some(vec!["10.0.0.1".into()]),
            }],
            hosts: vec![HostEntry {
                address: "10.0.0.11".into(),
                names: vec!["b".into()],
            }],
        }
        .into(),
        BlockFind {
            serial: "data".into(),
        }
        .into(),
        SpawnWorker { thread: true }.into(),
        WorkerSignal { signal: 9 }.into(),
        WorkerJoin {}.into(),
        WorkerExit {}.into(),
        Quiesce {}.into(),
        Unquiesce {}.into(),
        Shutdown { sync: true }.into(),
        Batch {
            ops: vec![BatchItem::new(&ClockGet {})],
        }
        .into(),
        Stage {
            key: 1,
            data: vec![1, 2],
            last: true,
        }
        .into(),
    ]
}

/// One answer of every type.
fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let status = ProcStatus::Exited;
    let error = Error::os("open", 2).about(b"/x");
    vec![
        ("unit", to_vec(&())),
        ("bool", to_vec(&true)),
        ("uptime", to_vec(&Uptime { uptime_ns: 1 })),
        (
            "exec_result",
            to_vec(&ExecResult {
                status,
                code: Some(1),
                signal: Some(9),
                stdout: b"o".to_vec(),
                stderr: b"e".to_vec(),
                more: Some(7),
            }),
        ),
        ("spawned", to_vec(&Spawned { h: 1, pid: 2 })),
        (
            "proc_state",
            to_vec(&ProcState {
                status,
                code: Some(0),
                signal: None,
            }),
        ),
        (
            "file_data",
            to_vec(&FileData {
                data: vec![1],
                h: Some(2),
            }),
        ),
        (
            "file_stat",
            to_vec(&FileStat {
                size: 1,
                mtime_ns: -1,
                perm: 0o7777,
                entry_type: EntryType::File,
                uid: 2,
                gid: 3,
                ino: 4,
                dev: 5,
            }),
        ),
        (
            "dir_entry",
            to_vec(&DirEntry {
                name: b"a".to_vec(),
                entry_type: EntryType::Fifo,
            }),
        ),
        ("opened", to_vec(&Opened { h: 1, fd: 3 })),
        (
            "syscall_result",
            to_vec(&SyscallResult {
                ret: -1,
                errno: 2,
                out_bufs: Some(vec![vec![1]]),
                more: Some(3),
            }),
        ),
        (
            "ioctl_result",
            to_vec(&IoctlResult {
                ret: 0,
                errno: 0,
                out_data: Some(vec![]),
                out_bufs: Some(vec![vec![1]]),
                more: Some(3),
            }),
        ),
        (
            "nic_name",
            to_vec(&NicName {
                mac: "02".into(),
                ifname: "eth0".into(),
            }),
        ),
        (
            "worker_spawned",
            to_vec(&WorkerSpawned {
                h: 1,
                port: 2,
                pid: 3,
                tid: 4,
            }),
        ),
        (
            "joined_proc",
            to_vec(&JoinedProc {
                h: 1,
                pid: 2,
                status,
                code: Some(3),
                signal: Some(4),
            }),
        ),
        (
            "batch_entry_ok",
            to_vec(&BatchEntry {
                outcome: Ok(RawValue::of(&1u64)),
            }),
        ),
        (
            "batch_entry_err",
            to_vec(&BatchEntry {
                outcome: Err(error),
            }),
        ),
    ]
}

/// Everything that is a string on the wire.
fn names() -> Vec<(&'static str, Vec<&'static str>)> {
    fn all<T: Copy>(values: &[T], name: fn(T) -> &'static str) -> Vec<&'static str> {
        values.iter().map(|value| name(*value)).collect()
    }
    vec![
        ("error_kind", all(ErrorKind::ALL, ErrorKind::as_str)),
        ("proc_status", all(ProcStatus::ALL, ProcStatus::as_str)),
        ("which", all(Which::ALL, Which::as_str)),
        ("entry_type", all(EntryType::ALL, EntryType::as_str)),
        ("whence", all(Whence::ALL, Whence::as_str)),
        ("file_status", all(FileStatus::ALL, FileStatus::as_str)),
        ("block_reason", all(BlockReason::ALL, BlockReason::as_str)),
    ]
}

/// One event of every kind.
fn events() -> Vec<EventKind> {
    let path = || "a.test.lua".to_owned();
    let name = || "works".to_owned();
    let amount = Amount {
        memory_bytes: 1 << 29,
        cpus: 1,
    };
    let values = [
        Value::Nil,
        Value::Bool(true),
        Value::Int(-5),
        Value::Float(0.5),
    ];
    let meta = Meta::from([
        ("array".to_owned(), Value::Array(values.to_vec())),
        ("bin".to_owned(), Value::from_bytes(b"\xff")),
        (
            "map".to_owned(),
            Value::Map([("k".to_owned(), Value::from_bytes(b"v"))].into()),
        ),
    ]);
    let log = Some(vec!["line".to_owned()]);
    vec![
        FileDiscovered {
            path: path(),
            fixture_refs: vec!["f".into()],
            declared_claim: Some(amount),
        }
        .into(),
        FileBlocked {
            path: path(),
            waiting_for: amount,
            reason: BlockReason::PoolFull,
        }
        .into(),
        FileDispatched {
            path: path(),
            reservation: amount,
        }
        .into(),
        FileCompleted {
            path: path(),
            status: FileStatus::Passed,
            duration_ns: 9,
        }
        .into(),
        TestStarted {
            path: path(),
            name: name(),
            meta: meta.clone(),
        }
        .into(),
        TestPassed {
            path: path(),
            name: name(),
            duration_ns: 1,
            meta: Meta::new(),
            log: log.clone(),
        }
        .into(),
        TestFailed {
            path: path(),
            name: name(),
            duration_ns: 1,
            reason: "r".into(),
            console_excerpt: "c".into(),
            meta: Meta::new(),
            log: log.clone(),
        }
        .into(),
        TestSkipped {
            path: path(),
            name: name(),
            reason: "r".into(),
            meta,
            log,
        }
        .into(),
        VmSpawned {
            file: path(),
            vm_name: "a".into(),
            profile: "minimal".into(),
            memory_bytes: 1 << 29,
            cid: 10,
        }
        .into(),
        VmShutdown {
            file: path(),
            vm_name: "a".into(),
            duration_ns: 1,
        }
        .into(),
        PoolState {
            used: amount,
            available: amount,
        }
        .into(),
        ClaimAcquired {
            path: path(),
            amount,
        }
        .into(),
        ClaimReleased {
            path: path(),
            amount,
        }
        .into(),
        FixtureBuildStarted { path: path() }.into(),
        FixtureBuildDone {
            path: path(),
            duration_ns: 1,
            snapshot_bytes: 0,
            error: Some("e".into()),
        }
        .into(),
        FixtureBuildWaiting {
            path: path(),
            held_by_file: "pid:7".into(),
        }
        .into(),
        FixtureCacheHit { path: path() }.into(),
    ]
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let error = Error::new(ErrorKind::Cancelled, "stopped");
    let hello_ok = HelloOk {
        protocol_version: PROTOCOL_VERSION,
        agent_version: "0.1.0".into(),
        guest_os: "Linux".into(),
        agent_features: vec!["workers".into()],
        pid: 77,
        kernel_release: "6.1.0".into(),
        boot_id: "b".into(),
        worker: false,
        previous_exit: Some("signal 11".into()),
    };
    let hello_err = HelloErr {
        protocol_version: PROTOCOL_VERSION,
        message: "no".into(),
    };
    vec![
        ("hello", Hello::new("0.1.0", true).to_frame().unwrap()),
        ("hello_ok", hello_ok.to_frame().unwrap()),
        ("hello_err", hello_err.to_frame().unwrap()),
        ("credit", credit_frame(1, 1 << 18).unwrap()),
        ("cancel", cancel_frame(4).unwrap()),
        ("data", data_frame(1, b"d").unwrap()),
        ("eof", eof_frame(1, Some(&error)).unwrap()),
        ("ok", ok_frame(1, &0u64)),
        ("err", err_frame(1, &error)),
    ]
}

/// Every structure on a line of its own, below the version.
fn current() -> String {
    let mut out = format!("version {PROTOCOL_VERSION}\n");
    let mut line = |kind: &str, name: &str, value: &str| {
        let _ = writeln!(out, "{kind} {name} {value}");
    };
    for (name, frame) in messages() {
        line("message", name, &hex(&frame));
    }
    for op in ops() {
        line("op", op.name(), &hex(&op.request_frame(1).unwrap()));
    }
    for (name, bytes) in answers() {
        line("answer", name, &hex(&bytes));
    }
    for kind in events() {
        let name = kind.name();
        line(
            "event",
            name,
            &hex(&Event { ts: 1, kind }.to_frame().unwrap()),
        );
    }
    for (name, values) in names() {
        line("enum", name, &values.join(","));
    }
    out
}

/// E-002.
#[test]
fn stored_bytes_and_version_move_together() {
    let current = current();
    if std::env::var("PROVIUM_PIN").as_deref() == Ok("write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pin.txt");
        std::fs::write(path, current).unwrap();
        return;
    }
    for (now, stored) in current.lines().zip(STORED.lines()) {
        assert_eq!(
            now, stored,
            "the wire changed: raise PROTOCOL_VERSION and store the new bytes"
        );
    }
    assert_eq!(current.lines().count(), STORED.lines().count());
}

/// Nothing is forgotten here, and what is stored can be read.
#[test]
fn every_operation_and_event_is_stored() {
    let ops = ops();
    for name in Op::NAMES {
        assert!(
            ops.iter().any(|op| op.name() == *name),
            "operation {name} is not pinned"
        );
    }
    for op in ops {
        let frame = op.request_frame(1).unwrap();
        let Ok(ToAgent::Request(request)) = ToAgent::from_body(&frame[4..]) else {
            panic!()
        };
        assert_eq!(request.op, Ok(op));
    }
    let events = events();
    for name in EventKind::NAMES {
        assert!(
            events.iter().any(|kind| kind.name() == *name),
            "event {name} is not pinned"
        );
    }
    for kind in events {
        let event = Event { ts: 1, kind };
        let read = Event::from_body(&event.to_frame().unwrap()[4..]);
        assert_eq!(read, Ok(ReadEvent::Known(event)));
    }
    for (name, frame) in messages() {
        let to_host = ToHost::from_body(&frame[4..]);
        let to_agent = ToAgent::from_body(&frame[4..]);
        assert!(to_host.is_ok() || to_agent.is_ok(), "{name}");
    }
    let (_, eof) = messages().swap_remove(6);
    let Ok(ToHost::Stream {
        stream: 1,
        frame: StreamFrame::Eof(Some(_)),
    }) = ToHost::from_body(&eof[4..])
    else {
        panic!()
    };
}

/// Answers decode as what they were.
#[test]
fn answers_decode() {
    fn check<T: Wire + PartialEq + std::fmt::Debug>(value: T) {
        assert_eq!(
            provium_protocol::wire::from_slice::<T>(&to_vec(&value)),
            Ok(value)
        );
    }
    check(ExecResult {
        status: ProcStatus::TimedOut,
        code: None,
        signal: Some(9),
        stdout: vec![0; 300],
        stderr: vec![],
        more: None,
    });
    check(vec![DirEntry {
        name: vec![0xff],
        entry_type: EntryType::Socket,
    }]);
    check(SyscallResult {
        ret: i64::MIN,
        errno: 0,
        out_bufs: None,
        more: None,
    });
    check(BatchEntry {
        outcome: Err(Error::os("x", 13)),
    });
}
