//! Connections: hello, replacement, loss, malformed input (E-042 to E-057, E-093 to E-101).

mod client;

use std::time::Duration;

use client::{Agent, Client, call, call_with};
use proptest::prelude::*;
use provium_protocol::message::request_frame;
use provium_protocol::ops::*;
use provium_protocol::wire::to_vec;
use provium_protocol::{ErrorKind, Hello, Op, PROTOCOL_VERSION, Response, ToHost};

#[test]
fn hello_tells_who_the_agent_is() {
    let agent = Agent::start();
    let mut client = agent.link();
    let hello = client.hello(false).unwrap();
    assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
    assert_eq!(hello.guest_os, "Linux");
    assert!(!hello.worker && hello.previous_exit.is_none());
    assert_eq!(client.syscall(39, &[]).ret, i64::from(hello.pid));
    let release = client.sh("uname -r").stdout;
    assert_eq!(release.trim_ascii(), hello.kernel_release.as_bytes());
}

/// E-046: another version is refused with both versions and the way out.
#[test]
fn other_versions_are_refused() {
    let agent = Agent::start();
    let mut client = agent.link();
    let hello = Hello {
        protocol_version: 7,
        ..Hello::new("test", false)
    };
    client.send_raw(&hello.to_frame().unwrap());
    let Some(ToHost::HelloErr(error)) = client.receive() else {
        panic!()
    };
    assert_eq!(error.protocol_version, PROTOCOL_VERSION);
    assert!(error.message.contains("version 7") && error.message.contains("one build"));
    assert_eq!(client.receive(), None);
    agent.connect().call(&Ping {}).unwrap();
}

/// E-046: nothing goes before hello.
#[test]
fn the_first_frame_must_be_a_hello() {
    let agent = Agent::start();
    let mut client = agent.link();
    client.send_raw(&request_frame(1, &Ping {}).unwrap());
    assert!(matches!(client.receive(), Some(ToHost::HelloErr(_))));
    assert_eq!(client.receive(), None);
}

/// E-043: a new connection replaces the old one, and the agent outlives them all.
#[test]
fn a_new_connection_replaces_the_old_one() {
    let agent = Agent::start();
    let mut first = agent.connect();
    let pid = first.syscall(39, &[]).ret;
    let mut second = agent.connect();
    assert_eq!(second.syscall(39, &[]).ret, pid);
    assert_eq!(first.receive(), None);
    drop(second);
    for _ in 0..50 {
        drop(agent.connect());
    }
    assert_eq!(agent.connect().syscall(39, &[]).ret, pid);
}

/// E-043: also while the op thread sits in a system call of the old one.
#[test]
fn a_blocked_operation_does_not_keep_a_new_connection_out() {
    let agent = Agent::start();
    let mut first = agent.connect();
    let pid = first.syscall(39, &[]).ret;
    first.start(&call(34, &[]));
    let mut second = agent.connect();
    assert_eq!(second.syscall(39, &[]).ret, pid);
}

/// E-047: without `resume` files are closed and processes left running; with it both stay.
#[test]
fn resume_decides_about_handles() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let read = Open {
        path: b"/proc/version".to_vec(),
        mode: open_mode::READ,
        perm: None,
    };
    let file = client.call(&read).unwrap();
    let process = client.spawn("sleep 1000");
    let stream = client
        .call(&ProcStreamOpen {
            h: process.h,
            which: Which::Stdout,
        })
        .unwrap();

    let mut client = agent.resume(true);
    assert!(!client.call(&Read { h: file.h, max: 5 }).unwrap().is_empty());
    let status = client.call(&ProcStatusGet { h: process.h }).unwrap().status;
    assert_eq!(status, ProcStatus::Running);
    client.call(&StreamClose { s: stream }).unwrap();

    let mut client = agent.resume(false);
    assert_eq!(client.kind(&Read { h: file.h, max: 5 }), ErrorKind::Stale);
    assert_eq!(
        client.kind(&ProcStatusGet { h: process.h }),
        ErrorKind::Stale
    );
    assert_eq!(client.syscall(3, &[i64::from(file.fd)]).errno, libc::EBADF);
    // Signal 0 asks whether it is there.
    assert_eq!(client.syscall(62, &[i64::from(process.pid), 0]).ret, 0);
    client.syscall(62, &[-i64::from(process.pid), 9]);
}

/// E-055, E-056: requests are answered once each, and waits do not hold up the others.
#[test]
fn requests_are_multiplexed() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let slow = client.start(&Exec {
        spec: ExecSpec::shell("sleep 0.3; echo late"),
        timeout_ms: None,
    });
    let sleep = client.start(&ClockSleep { ns: 300_000_000 });
    let ids: Vec<u64> = (0..200).map(|_| client.start(&call(39, &[]))).collect();
    let answers: Vec<i64> = ids
        .into_iter()
        .map(|id| client.finish::<Syscall>(id).unwrap().ret)
        .collect();
    assert!(answers.iter().all(|pid| *pid == answers[0]));
    assert_eq!(client.finish::<Exec>(slow).unwrap().stdout, b"late\n");
    client.finish::<ClockSleep>(sleep).unwrap();
    assert!(client.is_silent(Duration::from_millis(50)));
}

/// E-055: a blocking system call holds the op thread's queue and nothing else.
#[test]
fn a_blocking_call_holds_only_its_queue() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let process = client.spawn("cat");
    let pause = client.start(&call(34, &[]));
    let queued = client.start(&call(39, &[]));
    client.call(&Ping {}).unwrap();
    client
        .call(&ProcStdin {
            h: process.h,
            data: b"x".to_vec(),
        })
        .unwrap();
    client.call(&ProcCloseStdin { h: process.h }).unwrap();
    assert_eq!(client.wait(process.h).stdout, b"x");
    client.cancel(pause);
    assert_eq!(
        client.finish::<Syscall>(pause).unwrap_err().kind,
        ErrorKind::Cancelled
    );
    assert!(client.finish::<Syscall>(queued).unwrap().ret > 0);
}

/// E-054: whatever is cancelled answers so, and nothing else is disturbed.
#[test]
fn operations_can_be_cancelled_wherever_they_are() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let process = client.spawn("sleep 1000");
    let exec = client.start(&Exec {
        spec: ExecSpec::shell("sleep 1000"),
        timeout_ms: None,
    });
    let wait = client.start(&ProcWait {
        h: process.h,
        timeout_ms: None,
        kill: true,
    });
    let sleep = client.start(&ClockSleep { ns: u64::MAX });
    let pause = client.start(&call(34, &[]));
    let queued = client.start(&call(39, &[]));
    for id in [queued, sleep, wait, exec, pause] {
        client.cancel(id);
        assert_eq!(
            client.finish::<Ping>(id).unwrap_err().kind,
            ErrorKind::Cancelled
        );
    }
    // Unknown and finished ids are nothing.
    client.cancel(999);
    client.cancel(exec);
    assert!(
        client
            .call(&ProcSignal {
                h: process.h,
                signal: 9,
                group: Some(true)
            })
            .unwrap()
    );
    assert_eq!(client.wait(process.h).status, ProcStatus::Signalled);
    assert!(client.is_silent(Duration::from_millis(50)));
}

/// E-054: the group of a cancelled command is killed.
#[test]
fn cancelling_a_command_kills_its_group() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let script = format!(
        "sleep 1000 & echo $! > {0}/pid.new; mv {0}/pid.new {0}/pid; wait",
        agent.dir().display()
    );
    let exec = client.start(&Exec {
        spec: ExecSpec::shell(script.as_str()),
        timeout_ms: None,
    });
    let file = agent.dir().join("pid");
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid: i64 = std::fs::read_to_string(file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    client.cancel(exec);
    assert_eq!(
        client.finish::<Exec>(exec).unwrap_err().kind,
        ErrorKind::Cancelled
    );
    // Signal 0 asks whether it is there; its new parent reaps it soon.
    while client.syscall(62, &[pid, 0]).ret == 0 && is_alive(pid) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_alive(pid: i64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// E-097.
#[test]
fn a_pending_id_is_not_used_twice() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let sleep = request_frame(5, &ClockSleep { ns: 200_000_000 }).unwrap();
    client.send_raw(&sleep);
    client.send_raw(&sleep);
    let Some(ToHost::Response(Response {
        id: 5,
        outcome: Err(error),
    })) = client.receive()
    else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::BadArgs);
    assert!(error.message.contains("id"));
    let Some(ToHost::Response(Response {
        id: 5,
        outcome: Ok(_),
    })) = client.receive()
    else {
        panic!()
    };
    client.send_raw(&request_frame(5, &Ping {}).unwrap());
    assert!(matches!(
        client.receive(),
        Some(ToHost::Response(Response { outcome: Ok(_), .. }))
    ));
}

/// E-095, E-096: mistakes inside a request are answered; the connection stays.
#[test]
fn mistakes_in_requests_are_answered() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let unknown = rewrite(&request_frame(1, &Ping {}).unwrap(), "ping", "pong");
    client.send_raw(&unknown);
    let Some(ToHost::Response(Response {
        outcome: Err(error),
        ..
    })) = client.receive()
    else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::UnknownOp);
    let error = client.call(&call(1 << 31, &[])).unwrap_err();
    assert!(error.kind == ErrorKind::BadArgs && error.message.contains("`nr`"));
    let error = client.call(&call(39, &[0; 7])).unwrap_err();
    assert!(error.message.contains("`args`"));
    // Only workers can be joined.
    assert_eq!(client.kind(&WorkerJoin {}), ErrorKind::UnknownOp);
    client.call(&Ping {}).unwrap();
}

fn rewrite(frame: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = frame
        .windows(from.len())
        .position(|part| part == from.as_bytes())
        .unwrap();
    [&frame[..at], to.as_bytes(), &frame[at + from.len()..]].concat()
}

/// E-093, E-094: a broken frame is named, the connection ends, the agent goes on.
#[test]
fn broken_frames_end_the_connection() {
    let agent = Agent::start();
    let deep = [vec![0, 0, 0, 41], vec![0x91; 40], vec![0xc0]].concat();
    for bytes in [
        vec![0, 0, 0, 0],
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 1, 0xc1],
        vec![0, 0, 0, 2, 0xc0, 0xc0],
        vec![0, 0, 0, 1, 0xc0],
        vec![0, 0, 0, 1, 0x80],
        vec![0, 0, 0, 5, 0xdd, 0xff, 0xff, 0xff, 0xff],
        deep,
        Hello::new("again", false).to_frame().unwrap(),
    ] {
        let mut client = agent.connect();
        client.send_raw(&bytes);
        let Some(ToHost::Response(Response {
            id: 0,
            outcome: Err(error),
        })) = client.receive()
        else {
            panic!("{bytes:02x?}")
        };
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert_eq!(client.receive(), None);
    }
    agent.connect().call(&Ping {}).unwrap();
}

/// E-102: data is uploaded in pieces and used once, in every operation that takes bytes.
#[test]
fn staged_data_replaces_bytes() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let stage = |client: &mut Client, key: u64, bytes: &[u8]| {
        for piece in bytes.chunks(1 << 20) {
            client
                .call(&Stage {
                    key,
                    data: piece.to_vec(),
                    last: false,
                })
                .unwrap();
        }
        client
            .call(&Stage {
                key,
                data: vec![],
                last: true,
            })
            .unwrap();
        Blob::Staged(key)
    };
    let large: Vec<u8> = (0..40 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let data = stage(&mut client, 1, &large);
    let path = agent.path("large");
    client
        .call(&WriteFile {
            path: path.clone(),
            data,
            perm: None,
        })
        .unwrap();
    assert!(std::fs::read(agent.dir().join("large")).unwrap() == large);
    let again = WriteFile {
        path,
        data: Blob::Staged(1),
        perm: None,
    };
    assert_eq!(client.kind(&again), ErrorKind::BadArgs);

    let stdin = stage(&mut client, 2, &large);
    let shell = stage(&mut client, 3, b"wc -c");
    let mut spec = ExecSpec::shell("");
    spec.command = provium_protocol::ops::Command::Shell(shell);
    spec.stdin = Some(stdin);
    let result = client
        .call(&Exec {
            spec,
            timeout_ms: None,
        })
        .unwrap();
    assert_eq!(
        result.stdout.trim_ascii(),
        (40 << 20).to_string().as_bytes()
    );

    let mut write = call_with(1, &[1, 0, 0], &[(1, b"")]);
    write.bufs = vec![stage(&mut client, 4, &large)];
    // Writing nothing is enough to see that the buffer comes back, in pieces.
    let result = client.call(&write).unwrap();
    let more = result.more.unwrap();
    assert!(result.out_bufs.is_none());
    let mut back = Vec::new();
    loop {
        let read = OutputRead {
            h: more,
            which: Which::Buffers,
            offset: back.len() as u64,
            max: 1 << 23,
        };
        match client.call(&read).unwrap() {
            part if part.is_empty() => break,
            part => back.extend(part),
        }
    }
    assert!(back == large);
    client.call(&OutputRelease { h: more }).unwrap();
    assert_eq!(client.kind(&OutputRelease { h: more }), ErrorKind::Stale);
}

fn ops() -> Vec<Op> {
    vec![
        Ping {}.into(),
        Stat {
            path: b"/".to_vec(),
            follow: true,
        }
        .into(),
        Read { h: 3, max: 10 }.into(),
        call(39, &[1, 2]).into(),
        ProcWait {
            h: 9,
            timeout_ms: Some(1),
            kill: true,
        }
        .into(),
        ReadFile {
            path: b"/proc/version".to_vec(),
            max: 100,
        }
        .into(),
        StreamClose { s: 77 }.into(),
        Batch {
            ops: vec![BatchItem::new(&Ping {}), BatchItem::new(&call(39, &[]))],
        }
        .into(),
    ]
}

/// Requests that the agent must survive, most of them nearly right.
fn damaged_stream(damage: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = Hello::new("fuzz", false).to_frame().unwrap();
    for (op, id) in ops().iter().zip(1..) {
        bytes.extend(op.request_frame(id).unwrap());
    }
    for (at, byte) in damage {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes
}

/// E-101: hostile bytes on the dispatcher of a real agent: same process before and after.
#[test]
fn hostile_requests_are_survived() {
    let agent = Agent::start();
    let pid = agent.connect().syscall(39, &[]).ret;
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    };
    proptest!(config, |(damage in damage, cut in any::<prop::sample::Index>())| {
        let bytes = damaged_stream(&damage);
        let mut client = agent.link();
        client.send_raw(&bytes[..=cut.index(bytes.len())]);
        drop(client);
        let mut client = agent.connect();
        prop_assert_eq!(client.syscall(39, &[]).ret, pid);
    });
}

/// An answer takes no detour through a table of types: what is sent is what is declared.
#[test]
fn void_operations_answer_nil() {
    assert_eq!(to_vec(&()), [0xc0]);
}
