//! System calls, ioctls, memory, clocks, workers, and agents that do not survive (E-079 to E-092,
//! L-107 to L-111, L-137 to L-144, L-235 to L-237, C-024 to C-044).

mod client;

use std::time::Duration;

use client::{Agent, Client, call, call_with};
use provium_protocol::ops::*;
use provium_protocol::{ErrorKind, ToHost};

const GETPID: u32 = 39;

/// L-107: values and errors are the kernel's.
#[test]
fn values_and_errors_are_the_kernels() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let bad = client.syscall(3, &[-1]);
    assert_eq!((bad.ret, bad.errno, bad.out_bufs), (-1, libc::EBADF, None));
    assert_eq!(client.syscall(9999, &[]).errno, libc::ENOSYS);
    let null = call_with(257, &[-100, 0, 0], &[(1, b"/dev/null\0")]);
    let fd = client.call(&null).unwrap();
    assert!(fd.ret > 2);
    assert_eq!(fd.out_bufs.unwrap(), [b"/dev/null\0"]);
    assert_eq!(client.syscall(3, &[fd.ret]).ret, 0);
    let mapped = client.syscall(9, &[0, 4096, 3, 0x22, -1, 0]).ret;
    assert!(mapped > 0);
}

/// L-108, E-079: buffers go in and come out; slots beyond the arguments extend them.
#[test]
fn buffers_come_back_changed() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let uname = client.call(&call_with(63, &[], &[(0, &[0; 390])])).unwrap();
    let buffer = &uname.out_bufs.unwrap()[0];
    assert_eq!(buffer.len(), 390);
    assert!(buffer.starts_with(b"Linux\0"));
    // More buffers than slots, an empty one, and 16-byte alignment of all (C-029).
    let mut op = call_with(63, &[0; 6], &[(0, &[0; 390]), (1, b""), (2, b"x")]);
    op.slots.truncate(1);
    let result = client.call(&op).unwrap();
    assert_eq!(result.out_bufs.unwrap().len(), 3);
    let bad = |change: fn(&mut Syscall)| {
        let mut op = call_with(GETPID, &[0], &[(0, &[0; 16])]);
        change(&mut op);
        op
    };
    for (op, field) in [
        (bad(|op| op.slots[0].arg = 6), "slots[0].arg"),
        (bad(|op| op.slots[0].buf = 1), "slots[0].buf"),
        (
            bad(|op| {
                op.nested.push(Nested {
                    parent: 1,
                    child: 0,
                    offset: 0,
                })
            }),
            "nested[0].parent",
        ),
        (
            bad(|op| {
                op.nested.push(Nested {
                    parent: 0,
                    child: 9,
                    offset: 0,
                })
            }),
            "nested[0].child",
        ),
        (
            bad(|op| {
                op.nested.push(Nested {
                    parent: 0,
                    child: 0,
                    offset: 9,
                })
            }),
            "nested[0].offset",
        ),
        (bad(|op| op.args = vec![0; 7]), "args"),
    ] {
        let error = client.call(&op).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadArgs);
        assert!(
            error.message.contains(&format!("`{field}`")),
            "{}",
            error.message
        );
    }
}

/// L-236: nested buffers, one child in several places, children as parents.
#[test]
fn buffers_may_point_to_buffers() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = agent.path("out");
    let fd = client
        .call(&Open {
            path,
            mode: open_mode::WRITE | open_mode::CREATE,
            perm: None,
        })
        .unwrap()
        .fd;
    // writev of one piece of text twice, with the text's own address behind it.
    let iovec = |len: u64| [0u64.to_ne_bytes(), len.to_ne_bytes()].concat();
    let text = [b"hello ".as_slice(), &[0; 10]].concat();
    let op = Syscall {
        nr: 20,
        args: vec![i64::from(fd), 0, 2],
        bufs: vec![
            [iovec(6), iovec(6)].concat().into(),
            text.into(),
            b"leaf".as_slice().into(),
        ],
        slots: vec![Slot { arg: 1, buf: 0 }],
        nested: vec![
            Nested {
                parent: 0,
                child: 1,
                offset: 0,
            },
            Nested {
                parent: 0,
                child: 1,
                offset: 16,
            },
            Nested {
                parent: 1,
                child: 2,
                offset: 8,
            },
        ],
    };
    let result = client.call(&op).unwrap();
    assert_eq!(result.ret, 12);
    assert_eq!(
        std::fs::read(agent.dir().join("out")).unwrap(),
        b"hello hello "
    );
    let out = result.out_bufs.unwrap();
    let word = |buf: usize, at: usize| u64::from_ne_bytes(out[buf][at..at + 8].try_into().unwrap());
    assert_eq!(word(0, 0), word(0, 16));
    assert!(word(0, 0) % 16 == 0 && word(1, 8) % 16 == 0);

    // At least 1,024 buffers and links, and buffers of 1 MiB.
    let bufs: Vec<Blob> = (0..1025).map(|_| vec![1; 8 * 1024].into()).collect();
    let nested = (1..1025)
        .map(|child| Nested {
            parent: 0,
            child,
            offset: 0,
        })
        .collect();
    let op = Syscall {
        nr: GETPID,
        args: vec![],
        bufs,
        slots: vec![],
        nested,
    };
    assert_eq!(client.call(&op).unwrap().out_bufs.unwrap().len(), 1025);
    let zero = call_with(318, &[0, 1 << 20, 0], &[(0, &vec![0; 1 << 20])]);
    let random = client.call(&zero).unwrap();
    assert!(random.ret > 0 && random.out_bufs.unwrap()[0].iter().any(|byte| *byte != 0));
}

/// L-110: one thread, so what one call sets holds for the next, and for commands.
#[test]
fn calls_share_one_thread() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let tid = client.syscall(186, &[]).ret;
    assert_eq!(client.syscall(186, &[]).ret, tid);
    client
        .call(&call_with(157, &[15], &[(1, b"renamed\0")]))
        .unwrap();
    let name = client.sh("cat /proc/$PPID/comm").stdout;
    assert_eq!(name, b"renamed\n");
    assert_eq!(client.syscall(95, &[0o77]).ret, 0o22);
    client.sh(&format!("touch {}/private", agent.dir().display()));
    let path = agent.path("private");
    assert_eq!(
        client
            .call(&Stat {
                path,
                follow: false
            })
            .unwrap()
            .perm,
        0o600
    );
}

/// E-080, L-111.
#[test]
fn ioctls_take_numbers_and_buffers() {
    let agent = Agent::start();
    let mut client = agent.connect();
    std::fs::write(agent.dir().join("file"), "12345").unwrap();
    let path = agent.path("file");
    let fd = client
        .call(&Open {
            path,
            mode: open_mode::READ,
            perm: None,
        })
        .unwrap()
        .fd;
    let ioctl = |cmd, data| Ioctl {
        fd,
        cmd,
        data,
        bufs: vec![],
        offsets: vec![],
    };
    let waiting = ioctl(0x541b, Some(IoctlData::Bytes(vec![0; 4].into())));
    let result = client.call(&waiting).unwrap();
    assert_eq!(
        (result.ret, result.out_data.unwrap()),
        (0, 5i32.to_ne_bytes().to_vec())
    );
    assert_eq!(result.out_bufs, None);
    let result = client.call(&ioctl(0x5401, None)).unwrap();
    assert_eq!(
        (result.ret, result.errno, result.out_data),
        (-1, libc::ENOTTY, None)
    );
    let number = client
        .call(&ioctl(0x5451, Some(IoctlData::Int(0))))
        .unwrap();
    assert_eq!(number.errno, 0);
    let with_bufs = Ioctl {
        bufs: vec!["abc".into()],
        offsets: vec![0],
        ..ioctl(0x541b, Some(IoctlData::Bytes(vec![0; 8].into())))
    };
    let result = client.call(&with_bufs).unwrap();
    assert_eq!(result.out_bufs.unwrap(), [b"abc"]);
    let error = client
        .call(&Ioctl {
            offsets: vec![1],
            ..with_bufs.clone()
        })
        .unwrap_err();
    assert!(error.message.contains("offsets[0]"));
    assert_eq!(
        client.kind(&Ioctl {
            data: None,
            ..with_bufs
        }),
        ErrorKind::BadArgs
    );
}

/// L-237.
#[test]
fn memory_of_the_agent_can_be_read_and_written() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mapped = client.syscall(9, &[0, 8192, 3, 0x22, -1, 0]).ret;
    let addr = u64::try_from(mapped).unwrap();
    client
        .call(&MemWrite {
            addr: addr + 4090,
            data: b"over the edge".to_vec(),
        })
        .unwrap();
    let read = client
        .call(&MemRead {
            addr: addr + 4088,
            len: 17,
        })
        .unwrap();
    assert_eq!(read, b"\0\0over the edge\0\0");
    for op in [
        MemRead { addr: 8, len: 1 },
        MemRead {
            addr: addr + 8190,
            len: 4096 * 100,
        },
    ] {
        assert_eq!(client.call(&op).unwrap_err().errno, Some(libc::EFAULT));
    }
    let write = MemWrite {
        addr: u64::MAX - 2,
        data: vec![0; 9],
    };
    assert_eq!(client.call(&write).unwrap_err().errno, Some(libc::EFAULT));
    assert_eq!(
        client.kind(&MemRead {
            addr,
            len: u64::MAX
        }),
        ErrorKind::BadArgs
    );
}

/// L-235: many calls at once, each on a thread of its own, each interruptible.
#[test]
fn calls_can_run_on_their_own_threads() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let sleep = |ms: i64| {
        let time = [0i64.to_ne_bytes(), (ms * 1_000_000).to_ne_bytes()].concat();
        SyscallAsync {
            call: call_with(35, &[0, 0], &[(0, &time)]),
        }
    };
    let ids: Vec<u64> = (0..32).map(|_| client.start(&sleep(100))).collect();
    let forever = client.start(&SyscallAsync {
        call: call(34, &[]),
    });
    assert!(client.syscall(GETPID, &[]).ret > 0);
    for id in ids {
        assert_eq!(client.finish::<SyscallAsync>(id).unwrap().ret, 0);
    }
    client.cancel(forever);
    let result = client.finish::<SyscallAsync>(forever).unwrap();
    assert_eq!((result.ret, result.errno), (-1, libc::EINTR));
    // Its thread is not the op thread, but of the same process.
    let tid = client.syscall(186, &[]).ret;
    let pid = client.syscall(GETPID, &[]).ret;
    let other = client
        .call(&SyscallAsync {
            call: call(186, &[]),
        })
        .unwrap()
        .ret;
    assert_ne!(other, tid);
    assert_eq!(
        client
            .call(&SyscallAsync {
                call: call(GETPID, &[])
            })
            .unwrap()
            .ret,
        pid
    );
    let bad = SyscallAsync {
        call: call(GETPID, &[0; 7]),
    };
    assert_eq!(client.kind(&bad), ErrorKind::BadArgs);
}

/// A fork made by a bare system call does not become a second agent.
#[test]
fn bare_forks_end_at_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for (nr, args) in [(57, vec![]), (58, vec![]), (56, vec![0x11])] {
        let child = client.syscall(nr, &args).ret;
        assert!(child > 0);
        let waited = client
            .call(&call_with(61, &[child, 0, 0, 0], &[(1, &[0xff; 4])]))
            .unwrap();
        assert_eq!(
            (waited.ret, waited.out_bufs.unwrap()[0].as_slice()),
            (child, &[0; 4][..])
        );
    }
    client.call(&Ping {}).unwrap();
}

/// E-081, L-151, L-154.
#[test]
fn clocks_are_told_and_slept_by() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let before = client.call(&Ping {}).unwrap().uptime_ns;
    let now = client.call(&ClockGet {}).unwrap();
    let here = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!((i128::from(now) - here.as_nanos() as i128).abs() < 60_000_000_000);
    client.call(&ClockSleep { ns: 50_000_000 }).unwrap();
    let after = client.call(&Ping {}).unwrap().uptime_ns;
    assert!(after - before >= 50_000_000);
    client.call(&ClockSleep { ns: 0 }).unwrap();
}

/// L-152: what the kernel refuses surfaces with its number.
#[test]
fn refused_clocks_surface_with_their_number() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let error = client.call(&ClockSet { ns: i64::MIN }).unwrap_err();
    assert_eq!((error.kind, error.errno.is_some()), (ErrorKind::Os, true));
}

/// E-084: a disk that never appears is waited for without holding anything up, and cancelled.
#[test]
fn waiting_for_a_disk_can_be_cancelled() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let find = client.start(&BlockFind {
        serial: "no such disk".into(),
    });
    assert!(client.syscall(GETPID, &[]).ret > 0);
    assert!(client.is_silent(Duration::from_millis(60)));
    assert!(client.syscall(GETPID, &[]).ret > 0);
    client.cancel(find);
    assert_eq!(
        client.finish::<BlockFind>(find).unwrap_err().kind,
        ErrorKind::Cancelled
    );
    assert!(client.syscall(GETPID, &[]).ret > 0);
}

/// E-085, E-091, E-092, L-137: a worker process has what the agent had at the fork, and its own
/// from there on.
#[test]
fn worker_processes_are_apart() {
    let agent = Agent::start();
    let mut client = agent.connect();
    std::fs::write(agent.dir().join("file"), "shared").unwrap();
    let path = agent.path("file");
    let file = client
        .call(&Open {
            path,
            mode: open_mode::READ,
            perm: None,
        })
        .unwrap();
    let process = client.spawn("cat");
    let worker = client.call(&SpawnWorker { thread: false }).unwrap();
    let mut own = agent.worker(worker.port);
    assert_eq!(own.syscall(GETPID, &[]).ret, i64::from(worker.pid));
    assert_ne!(client.syscall(GETPID, &[]).ret, i64::from(worker.pid));
    // Descriptors that a test opened are there under their numbers; handles are not.
    let read = call_with(0, &[i64::from(file.fd), 0, 3], &[(1, &[0; 3])]);
    assert_eq!(own.call(&read).unwrap().out_bufs.unwrap(), [b"sha"]);
    assert_eq!(
        own.kind(&Read { h: file.h, max: 1 }),
        ErrorKind::UnknownHandle
    );
    assert_eq!(
        own.kind(&ProcPid { h: process.h }),
        ErrorKind::UnknownHandle
    );
    // Closing in one leaves the other's.
    client.call(&Close { h: file.h }).unwrap();
    assert_eq!(own.call(&read).unwrap().ret, 3);
    // The agent's own pipes were not copied: the end of this input arrives.
    client.call(&ProcCloseStdin { h: process.h }).unwrap();
    assert_eq!(client.wait(process.h).code, Some(0));
    // Directory, umask and the like are its own.
    own.call(&call_with(80, &[0], &[(0, b"/proc\0")])).unwrap();
    assert_eq!(own.sh("pwd").stdout, b"/proc\n");
    assert_ne!(client.sh("pwd").stdout, b"/proc\n");
    for op in [
        Op::from(SpawnWorker { thread: false }),
        Shutdown { sync: false }.into(),
        Quiesce {}.into(),
    ] {
        let frame = op.request_frame(9000).unwrap();
        own.send_raw(&frame);
        let Some(ToHost::Response(response)) = own.receive() else {
            panic!()
        };
        assert_eq!(response.outcome.unwrap_err().kind, ErrorKind::UnknownOp);
    }
    // The end of its connection is its end, and it is reaped.
    drop(own);
    while std::path::Path::new(&format!("/proc/{}", worker.pid)).exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    client.call(&Ping {}).unwrap();
}

use provium_protocol::Op;

/// L-138: a worker thread shares descriptors and memory, and has credentials of its own.
#[test]
fn worker_threads_share_memory_and_descriptors() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pid = client.syscall(GETPID, &[]).ret;
    let worker = client.call(&SpawnWorker { thread: true }).unwrap();
    assert_eq!(i64::from(worker.pid), pid);
    let mut own = agent.worker(worker.port);
    assert_eq!(own.syscall(GETPID, &[]).ret, pid);
    assert_eq!(own.syscall(186, &[]).ret, i64::from(worker.tid));
    let mapped = own.syscall(9, &[0, 4096, 3, 0x22, -1, 0]).ret;
    let addr = u64::try_from(mapped).unwrap();
    own.call(&MemWrite {
        addr,
        data: b"seen".to_vec(),
    })
    .unwrap();
    assert_eq!(client.call(&MemRead { addr, len: 4 }).unwrap(), b"seen");
    let fd = own
        .call(&call_with(257, &[-100, 0, 0], &[(1, b"/dev/null\0")]))
        .unwrap()
        .ret;
    assert_eq!(client.syscall(3, &[fd]).ret, 0);
    // Credentials are per thread, and commands inherit them.
    if own.syscall(102, &[]).ret == 0 {
        assert_eq!(own.syscall(117, &[1234, 1234, 1234]).ret, 0);
        assert_eq!(own.sh("id -u").stdout, b"1234\n");
        assert_eq!(client.sh("id -u").stdout, b"0\n");
    }
    // Its `exit` is its own end, not the agent's (C-044).
    assert_eq!(own.kind(&call(60, &[0])), ErrorKind::Stale);
    assert_eq!(own.receive(), None);
    assert_eq!(client.syscall(GETPID, &[]).ret, pid);
}

/// L-140, L-141, L-142: workers run concurrently; their processes are signalled and joined.
#[test]
fn workers_have_their_own_processes() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for thread in [false, true] {
        let worker = client.call(&SpawnWorker { thread }).unwrap();
        let mut own = agent.worker(worker.port);
        let blocked = own.start(&call(34, &[]));
        assert!(client.syscall(GETPID, &[]).ret > 0);
        own.cancel(blocked);
        assert_eq!(
            own.finish::<Syscall>(blocked).unwrap_err().kind,
            ErrorKind::Cancelled
        );
        let first = own.spawn("exit 3");
        let second = own.spawn("sleep 1000");
        own.wait(first.h);
        own.call(&ProcRelease { h: first.h }).unwrap();
        assert_eq!(own.call(&WorkerSignal { signal: 15 }).unwrap(), 1);
        let ends = own.call(&WorkerJoin {}).unwrap();
        let ends: Vec<_> = ends
            .iter()
            .map(|end| (end.pid, end.code, end.signal))
            .collect();
        assert_eq!(
            ends,
            [(first.pid, Some(3), None), (second.pid, None, Some(15))]
        );
        let left = own.spawn("sleep 1000");
        own.call(&WorkerExit {}).unwrap();
        assert_eq!(own.receive(), None);
        while client.syscall(62, &[i64::from(left.pid), 0]).ret == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Twenty workers at once, used, and gone without a trace.
#[test]
fn twenty_workers_come_and_go() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pid = client.syscall(GETPID, &[]).ret;
    let count = |client: &mut Client| {
        client
            .sh(&format!(
                "ls /proc/{pid}/fd | wc -l; ls /proc/{pid}/task | wc -l"
            ))
            .stdout
    };
    let before = count(&mut client);
    for thread in [false, true] {
        let workers: Vec<_> = (0..20)
            .map(|_| {
                let worker = client.call(&SpawnWorker { thread }).unwrap();
                agent.worker(worker.port)
            })
            .collect();
        for mut worker in workers {
            worker.call(&call(GETPID, &[])).unwrap();
            assert_eq!(worker.sh("echo hi").stdout, b"hi\n");
            worker.call(&WorkerExit {}).unwrap();
        }
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while count(&mut client) != before {
        assert!(
            std::time::Instant::now() < deadline,
            "left: {:?}",
            count(&mut client)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An agent that does not survive its test is replaced, and the next one says how it ended.
#[test]
fn a_dead_agent_is_replaced() {
    let agent = Agent::start();
    for (nr, args, expected) in [
        (231, vec![9], "exited with code 9"),
        (60, vec![4], "exited with code 4"),
        (62, vec![0, 11], "was killed by signal 11"),
    ] {
        let mut client = agent.connect();
        let pid = client.syscall(GETPID, &[]).ret;
        // `kill` of itself rather than of its group.
        let args = if nr == 62 { vec![pid, 11] } else { args };
        let h = client.spawn("true").h;
        client.start(&call(nr, &args));
        assert_eq!(client.receive(), None);
        let mut client = agent.link();
        let hello = loop {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.hello(true))) {
                Ok(hello) => break hello.unwrap(),
                // Caught the old agent's socket.
                Err(_) => client = agent.link(),
            }
        };
        assert_eq!(
            hello.previous_exit.unwrap(),
            format!("agent {pid} {expected}")
        );
        assert_ne!(i64::from(hello.pid), pid);
        assert_eq!(client.kind(&ProcPid { h }), ErrorKind::UnknownHandle);
    }
}

/// Ten thousand operations leave nothing behind.
#[test]
fn ten_thousand_operations_leave_nothing_behind() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pid = client.syscall(GETPID, &[]).ret;
    let memory = |client: &mut Client| {
        let text = client
            .sh(&format!("grep VmRSS /proc/{pid}/status | tr -dc 0-9"))
            .stdout;
        String::from_utf8(text).unwrap().parse::<u64>().unwrap()
    };
    let work = |client: &mut Client, rounds: usize| {
        for _ in 0..rounds {
            let ids: Vec<u64> = (0..64)
                .map(|n| match n % 4 {
                    0 => client.start(&call(GETPID, &[])),
                    1 => client.start(&Stat {
                        path: b"/".to_vec(),
                        follow: true,
                    }),
                    2 => client.start(&call_with(63, &[], &[(0, &[0; 390])])),
                    _ => client.start(&Ping {}),
                })
                .collect();
            for (n, id) in ids.into_iter().enumerate() {
                match n % 4 {
                    0 | 2 => drop(client.finish::<Syscall>(id).unwrap()),
                    1 => drop(client.finish::<Stat>(id).unwrap()),
                    _ => drop(client.finish::<Ping>(id).unwrap()),
                }
            }
        }
    };
    work(&mut client, 20);
    let before = memory(&mut client);
    work(&mut client, 160);
    let after = memory(&mut client);
    assert!(after < before + 2048, "{before} KiB became {after} KiB");
}
