//! Commands and processes (E-059 to E-066, E-077, E-086, L-084 to L-088, L-129 to L-136).

mod client;

use std::time::{Duration, Instant};

use client::{Agent, Client};
use provium_protocol::message::StreamFrame;
use provium_protocol::ops::*;
use provium_protocol::{Error, ErrorKind, MAX_FRAME};

fn exec(spec: ExecSpec) -> Exec {
    Exec {
        spec,
        timeout_ms: None,
    }
}

fn wait(h: u64, timeout_ms: Option<u64>, kill: bool) -> ProcWait {
    ProcWait {
        h,
        timeout_ms,
        kill,
    }
}

/// L-084, L-091: shell and direct form, output kept apart, exit codes.
#[test]
fn commands_run_in_both_forms() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let result = client.sh("echo out; echo err >&2; exit 3");
    assert_eq!((result.status, result.code), (ProcStatus::Exited, Some(3)));
    assert_eq!(
        (result.stdout, result.stderr),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );

    let argv = ExecSpec::argv(["printf", "%s|", "a b", "$HOME", ""]);
    assert_eq!(client.call(&exec(argv)).unwrap().stdout, b"a b|$HOME||");
    let argv = ExecSpec::argv(["/bin/cat", "/proc/self/comm"]);
    assert_eq!(client.call(&exec(argv)).unwrap().stdout, b"cat\n");
    let result = client.sh("kill -9 $$");
    assert_eq!(
        (result.status, result.signal),
        (ProcStatus::Signalled, Some(9))
    );
}

/// L-085: environment, working directory, input.
#[test]
fn commands_get_what_they_are_given() {
    let agent = Agent::start_with(|command| {
        command.env_clear().env("KEPT", "1").env("CHANGED", "1");
    });
    let mut client = agent.connect();
    let mut spec = ExecSpec::shell("echo $KEPT $CHANGED $NEW; pwd; cat");
    spec.env = Some(
        [("CHANGED", "2"), ("NEW", "3")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
    );
    spec.cwd = Some(b"/proc/self".to_vec());
    spec.stdin = Some(b"in\0put".as_slice().into());
    let result = client.call(&exec(spec)).unwrap();
    let lines: Vec<&[u8]> = result.stdout.splitn(3, |byte| *byte == b'\n').collect();
    assert_eq!(lines[0], b"1 2 3");
    assert!(lines[1].starts_with(b"/proc/"));
    assert_eq!(lines[2], b"in\0put");

    let mut spec = ExecSpec::argv(["env"]);
    spec.env_clear = Some(true);
    spec.env = Some([(b"ONLY".to_vec(), b"this".to_vec())].into());
    assert_eq!(client.call(&exec(spec)).unwrap().stdout, b"ONLY=this\n");
    // Absent input is /dev/null, and there is a usable PATH.
    assert_eq!(
        client.sh("cat; readlink /proc/self/fd/0").stdout,
        b"/dev/null\n"
    );
}

/// L-087: a missing program is the kernel's error, with program and number; a shell says 127.
#[test]
fn missing_programs_are_told() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let fail = |client: &mut Client, spec| client.call(&exec(spec)).unwrap_err();
    for name in ["no-such-program", "/no/such/program"] {
        let error = fail(&mut client, ExecSpec::argv([name]));
        assert_eq!(
            (error.kind, error.errno),
            (ErrorKind::Os, Some(libc::ENOENT))
        );
        assert_eq!(error.path.as_deref(), Some(name));
        assert_eq!(error.errno_name.as_deref(), Some("ENOENT"));
    }
    assert_eq!(
        fail(&mut client, ExecSpec::argv(["/"])).errno,
        Some(libc::EACCES)
    );
    let mut spec = ExecSpec::argv(["true"]);
    spec.cwd = Some(b"/no/such/dir".to_vec());
    let error = fail(&mut client, spec);
    assert_eq!(error.path.as_deref(), Some("/no/such/dir"));
    assert_eq!(client.sh("no-such-program").code, Some(127));
    let spawn = Spawn {
        spec: ExecSpec::argv(["no-such-program"]),
    };
    assert_eq!(client.kind(&spawn), ErrorKind::Os);
    let zero = ExecSpec::argv([b"true".as_slice(), b"a\0b"]);
    assert_eq!(fail(&mut client, zero).kind, ErrorKind::BadArgs);
}

/// L-086: the group is killed when the time is up, and the output so far stays.
#[test]
fn time_limits_kill_the_group() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let op = Exec {
        spec: ExecSpec::shell("echo early; sleep 1000 & sleep 1000"),
        timeout_ms: Some(300),
    };
    let start = Instant::now();
    let result = client.call(&op).unwrap();
    assert_eq!(result.status, ProcStatus::TimedOut);
    assert_eq!(result.stdout, b"early\n");
    assert!(start.elapsed() < Duration::from_secs(60));
    let quick = Exec {
        spec: ExecSpec::shell("echo done"),
        timeout_ms: Some(60_000),
    };
    assert_eq!(client.call(&quick).unwrap().status, ProcStatus::Exited);
}

/// L-088: children that hold the output delay the result a little, and are not harmed.
#[test]
fn lingering_children_delay_the_result_a_little() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let marker = agent.dir().join("marker");
    let script = format!(
        "(sleep 1.3; echo late; echo still here > {}) & echo now",
        marker.display()
    );
    assert_eq!(client.sh(&script).stdout, b"now\n");
    while std::fs::read(&marker).unwrap_or_default().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // A command that closes its output but goes on is waited for.
    let result = client.sh("exec >&- 2>&-; sleep 0.2; exit 7");
    assert_eq!(result.code, Some(7));
}

/// L-088, E-060: output beyond a frame is read on from where the answer ended.
#[test]
fn output_has_no_limit() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let count = 40 << 20;
    let result = client.sh(&format!("yes 0123456 | head -c {count}; echo err >&2"));
    assert_eq!(result.code, Some(0));
    let h = result.more.unwrap();
    let mut stdout = result.stdout;
    assert!(stdout.len() < MAX_FRAME);
    loop {
        let read = OutputRead {
            h,
            which: Which::Stdout,
            offset: stdout.len() as u64,
            max: u64::MAX,
        };
        match client.call(&read).unwrap() {
            part if part.is_empty() => break,
            part => stdout.extend(part),
        }
    }
    assert_eq!(stdout.len(), count);
    assert!(stdout.chunks(8).all(|line| line == b"0123456\n"));
    let stderr = OutputRead {
        h,
        which: Which::Stderr,
        offset: 0,
        max: 100,
    };
    assert_eq!(
        [result.stderr, client.call(&stderr).unwrap()].concat(),
        b"err\n"
    );
    client.call(&OutputRelease { h }).unwrap();
    assert_eq!(client.kind(&stderr), ErrorKind::Stale);
}

/// E-061 to E-065: a process of its own, its input, state and end.
#[test]
fn processes_run_on_their_own() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut spec = ExecSpec::shell("cat; exit 5");
    spec.stdin = Some("first ".into());
    let process = client.call(&Spawn { spec }).unwrap();
    let h = process.h;
    assert_eq!(client.call(&ProcPid { h }).unwrap(), process.pid);
    assert_eq!(
        client.call(&ProcStatusGet { h }).unwrap().status,
        ProcStatus::Running
    );
    let data = b"second".to_vec();
    assert_eq!(client.call(&ProcStdin { h, data }).unwrap(), 6);
    // Waiting a while without killing shows the output so far.
    let running = loop {
        let result = client.call(&wait(h, Some(50), false)).unwrap();
        if result.stdout.len() == 12 {
            break result;
        }
    };
    assert_eq!(running.status, ProcStatus::Running);
    client.call(&ProcCloseStdin { h }).unwrap();
    client.call(&ProcCloseStdin { h }).unwrap();
    let result = client.wait(h);
    assert_eq!(
        (result.code, result.stdout.as_slice()),
        (Some(5), &b"first second"[..])
    );
    assert_eq!(client.wait(h), result);
    assert_eq!(client.call(&ProcStatusGet { h }).unwrap().code, Some(5));
    let kill = ProcSignal {
        h,
        signal: 15,
        group: None,
    };
    assert!(!client.call(&kill).unwrap());
    let error = client
        .call(&ProcStdin {
            h,
            data: b"x".to_vec(),
        })
        .unwrap_err();
    assert_eq!(error.errno, Some(libc::EPIPE));
    client.call(&ProcRelease { h }).unwrap();
    assert_eq!(client.kind(&ProcPid { h }), ErrorKind::Stale);
}

/// L-129: a wait that ends in a kill, and every later one, is `timed_out`.
#[test]
fn waits_can_kill() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let h = client.spawn("echo x; sleep 1000").h;
    let other = client.start(&wait(h, None, false));
    let result = client.call(&wait(h, Some(200), true)).unwrap();
    assert_eq!(
        (result.status, result.stdout.as_slice()),
        (ProcStatus::TimedOut, &b"x\n"[..])
    );
    assert_eq!(client.finish::<ProcWait>(other).unwrap(), result);
    assert_eq!(client.wait(h), result);
}

/// L-133: writing to a process that does not read waits, without holding anything else up.
#[test]
fn input_waits_for_its_reader() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let h = client.spawn("sleep 0.5; wc -c").h;
    let data = vec![b'x'; 1 << 20];
    let write = client.start(&ProcStdin { h, data });
    let close = client.start(&ProcCloseStdin { h });
    client.call(&Ping {}).unwrap();
    assert_eq!(client.finish::<ProcStdin>(write).unwrap(), 1 << 20);
    client.finish::<ProcCloseStdin>(close).unwrap();
    assert_eq!(client.wait(h).stdout.trim_ascii(), b"1048576");

    // A process that ends without reading fails the write.
    let h = client.spawn("sleep 0.2").h;
    let data = vec![b'x'; 1 << 20];
    let error = client.call(&ProcStdin { h, data }).unwrap_err();
    assert_eq!(error.errno, Some(libc::EPIPE));
    // One that is cancelled leaves the rest unwritten.
    let h = client.spawn("sleep 1000").h;
    let write = client.start(&ProcStdin {
        h,
        data: vec![0; 1 << 20],
    });
    client.cancel(write);
    let error = client.finish::<ProcStdin>(write).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    client
        .call(&ProcSignal {
            h,
            signal: 9,
            group: Some(true),
        })
        .unwrap();
}

/// E-063: signals reach the process, or its group.
#[test]
fn signals_reach_processes() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let h = client
        .spawn("trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.05; done")
        .h;
    let stream = client
        .call(&ProcStreamOpen {
            h,
            which: Which::Stdout,
        })
        .unwrap();
    assert_eq!(client.stream_bytes(stream, 6), b"ready\n");
    let signal = |signal| ProcSignal {
        h,
        signal,
        group: None,
    };
    assert!(client.call(&signal(10)).unwrap());
    assert_eq!(client.stream_bytes(stream, 4), b"got\n");
    assert_eq!(client.wait(h).code, Some(4));
    assert_eq!(client.stream(stream), StreamFrame::Eof(None));
    let bad = client.spawn("sleep 1000").h;
    let op = ProcSignal {
        h: bad,
        signal: 999,
        group: None,
    };
    let Err(Error { errno, .. }) = client.call(&op) else {
        panic!()
    };
    assert_eq!(errno, Some(libc::EINVAL));
    client
        .call(&ProcSignal {
            signal: 9,
            group: Some(true),
            ..op
        })
        .unwrap();
}

/// L-135: output streams from the first byte, and the result still has all of it.
#[test]
fn output_can_be_streamed_from_its_first_byte() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let h = client.spawn("seq 1 200000; echo oops >&2").h;
    let result = client.wait(h);
    let stdout = client
        .call(&ProcStreamOpen {
            h,
            which: Which::Stdout,
        })
        .unwrap();
    let again = client
        .call(&ProcStreamOpen {
            h,
            which: Which::Stdout,
        })
        .unwrap();
    let stderr = client
        .call(&ProcStreamOpen {
            h,
            which: Which::Stderr,
        })
        .unwrap();
    assert!(client.stream_rest(stdout) == result.stdout);
    assert_eq!(client.stream_rest(stderr), b"oops\n");
    // A released process is streamed to its end.
    client.call(&ProcRelease { h }).unwrap();
    assert!(client.stream_rest(again) == result.stdout);
}

/// Many commands at once, each with its own output.
#[test]
fn commands_run_side_by_side() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ids: Vec<u64> = (0..64)
        .map(|n| {
            client.start(&exec(ExecSpec::shell(
                format!("sleep 0.1; echo {n}").as_str(),
            )))
        })
        .collect();
    for (n, id) in ids.into_iter().enumerate() {
        let result = client.finish::<Exec>(id).unwrap();
        assert_eq!(result.stdout, format!("{n}\n").into_bytes());
    }
}

/// Nothing is left of finished commands: no descriptors, no zombies, no memory of them.
#[test]
fn nothing_is_left_of_finished_commands() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pid = client.syscall(39, &[]).ret;
    let count = |client: &mut Client| {
        let script = format!("ls /proc/{pid}/fd | wc -l; ls /proc/{pid}/task | wc -l");
        let lines = client.sh(&script).stdout;
        let lines = String::from_utf8(lines).unwrap();
        lines
            .lines()
            .map(|line| line.parse().unwrap())
            .collect::<Vec<u32>>()
    };
    let before = count(&mut client);
    let deadline = Instant::now() + Duration::from_secs(60);
    for n in 0..200 {
        client.sh(&format!("echo {n}"));
        let h = client.spawn("true").h;
        client.wait(h);
        client.call(&ProcRelease { h }).unwrap();
    }
    // A count may still see the agent's ends of the counting command's own pipes.
    while count(&mut client) > before {
        assert!(Instant::now() < deadline, "left: {:?}", count(&mut client));
    }
    let zombies = client
        .sh(&format!("cat /proc/{pid}/task/*/children | wc -w"))
        .stdout;
    // The shell that counts, and maybe what it counts with.
    let zombies: u32 = String::from_utf8(zombies).unwrap().trim().parse().unwrap();
    assert!(zombies <= 2, "{zombies}");
}

/// E-089, L-115: a batch runs in order, a failure does not stop it, and what has no place in it is
/// an error of its own entry.
#[test]
fn batches_run_in_order() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = agent.path("file");
    let dir = agent.path("dir");
    let write = WriteFile {
        path: path.clone(),
        data: "x".into(),
        perm: None,
    };
    let append = format!(
        "printf y >> {}; sleep 0.1; printf z >> {0}",
        agent.dir().join("file").display()
    );
    let missing = ReadFile {
        path: agent.path("missing"),
        max: 10,
    };
    let read = ReadFile {
        path: path.clone(),
        max: 10,
    };
    let mkdir = Mkdir {
        path: dir.clone(),
        parents: false,
        perm: Some(0o700),
    };
    let ops = vec![
        BatchItem::new(&write),
        BatchItem::new(&exec(ExecSpec::shell(append.as_str()))),
        BatchItem::new(&missing),
        BatchItem::new(&read),
        BatchItem::new(&Ping {}),
        BatchItem::new(&Batch { ops: vec![] }),
        BatchItem::new(&mkdir),
        BatchItem::new(&exec(ExecSpec::argv(["no-such-program"]))),
        BatchItem::new(&ListDir { path: dir.clone() }),
        BatchItem::new(&client::call(39, &[])),
        BatchItem::new(&client::call_with(39, &[], &[(0, b"x")])),
        BatchItem::new(&Rename {
            from: path.clone(),
            to: agent.path("other"),
        }),
        BatchItem::new(&Unlink {
            path: agent.path("other"),
        }),
        BatchItem::new(&Stat {
            path: dir,
            follow: true,
        }),
    ];
    let results = client.call(&Batch { ops }).unwrap();
    let kind = |index: usize| results[index].outcome.as_ref().unwrap_err().kind;
    let value = |index: usize| results[index].outcome.as_ref().unwrap();
    value(0).get::<()>().unwrap();
    assert_eq!(value(1).get::<ExecResult>().unwrap().code, Some(0));
    assert_eq!(kind(2), ErrorKind::Os);
    assert_eq!(value(3).get::<FileData>().unwrap().data, b"xyz");
    assert_eq!((kind(4), kind(5)), (ErrorKind::BadArgs, ErrorKind::BadArgs));
    assert_eq!(kind(7), ErrorKind::Os);
    assert!(value(8).get::<Vec<DirEntry>>().unwrap().is_empty());
    assert!(value(9).get::<SyscallResult>().unwrap().ret > 0);
    assert_eq!(kind(10), ErrorKind::BadArgs);
    value(12).get::<()>().unwrap();
    assert_eq!(value(13).get::<FileStat>().unwrap().perm, 0o700);
    assert_eq!(results.len(), 14);
}

/// E-055: a batch that waits for a command does not hold the op thread.
#[test]
fn a_waiting_batch_holds_nobody_up() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let slow = exec(ExecSpec::shell("sleep 1000"));
    let ops = vec![
        BatchItem::new(&slow),
        BatchItem::new(&client::call(39, &[])),
    ];
    let batch = client.start(&Batch { ops: ops.clone() });
    let other = client.start(&Batch {
        ops: vec![ops[1].clone()],
    });
    assert_eq!(client.finish::<Batch>(other).unwrap().len(), 1);
    assert!(client.syscall(39, &[]).ret > 0);
    client.cancel(batch);
    assert_eq!(
        client.finish::<Batch>(batch).unwrap_err().kind,
        ErrorKind::Cancelled
    );
    // After a command that really ends, the batch goes on though nobody sends anything.
    let quick = exec(ExecSpec::shell("sleep 0.1"));
    let ops = vec![
        BatchItem::new(&quick),
        BatchItem::new(&client::call(39, &[])),
    ];
    assert_eq!(client.call(&Batch { ops }).unwrap().len(), 2);
}

/// E-089: entries that do not fit the answer say so; the others stay.
#[test]
fn batch_entries_that_do_not_fit_say_so() {
    let agent = Agent::start();
    let mut client = agent.connect();
    std::fs::write(agent.dir().join("large"), vec![7; 9 << 20]).unwrap();
    let read = ReadFile {
        path: agent.path("large"),
        max: u64::MAX,
    };
    let ops = vec![
        BatchItem::new(&read),
        BatchItem::new(&read),
        BatchItem::new(&client::call(39, &[])),
    ];
    let results = client.call(&Batch { ops }).unwrap();
    assert_eq!(
        results[0]
            .outcome
            .as_ref()
            .unwrap()
            .get::<FileData>()
            .unwrap()
            .data
            .len(),
        9 << 20
    );
    assert_eq!(
        results[1].outcome.as_ref().unwrap_err().kind,
        ErrorKind::TooLarge
    );
    assert!(results[2].outcome.is_ok());
}
