//! The Rust API against a real guest: the default one, on the software CPU.
//!
//! Most tests share one VM, from several threads at once, as files running in parallel would; those that end or
//! restart their VM have one of their own.

use std::sync::LazyLock;
use std::time::Duration;

use provium_lab::{
    BatchOp, BatchValue, BootOptions, Command, EntryType, ExitKind, FileContent, Harness,
    InjectedFile, Ioctl, IoctlData, Nested, OpenMode, ProcessStatus, Session, Syscall, TailStart,
    Vm, VmState, Whence,
};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);

fn session(name: &str) -> Session {
    Session::new(&Harness::for_tests().unwrap(), name)
}

/// A booted VM of its own, with the session that owns it.
fn own(name: &str, options: BootOptions) -> (Session, Vm) {
    let session = session(name);
    let vm = session
        .root()
        .declare_vm(Some("own"), "minimal", options)
        .unwrap();
    vm.boot(BootOptions::default()).unwrap();
    (session, vm)
}

/// The VM that most tests share.
fn shared() -> &'static Vm {
    static SHARED: LazyLock<(Session, Vm)> = LazyLock::new(|| {
        own(
            "shared",
            BootOptions {
                cpus: Some(2),
                ..BootOptions::default()
            },
        )
    });
    &SHARED.1
}

#[test]
fn l084_commands_in_both_forms() {
    let vm = shared();
    let shell = vm.run("echo out; echo err >&2; exit 3").unwrap();
    assert_eq!((shell.exit_code, shell.status), (3, ExitKind::Exited));
    assert_eq!(
        (&shell.stdout[..], &shell.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let direct = vm
        .run(Command::exec(["printf", "%s|", "a b", "$HOME"]))
        .unwrap();
    assert_eq!(direct.stdout, b"a b|$HOME|");
}

#[test]
fn l085_surroundings_of_a_command() {
    let command = Command::shell("echo $A; pwd; cat")
        .env("A", "value")
        .cwd("/usr")
        .stdin(b"bytes\0\xff".to_vec());
    let result = shared().run(command).unwrap();
    assert_eq!(result.stdout, b"value\n/usr\nbytes\0\xff");
    let mut bare = Command::exec(["/bin/busybox", "env"]).env("ONLY", "1");
    bare.env_clear = true;
    assert_eq!(shared().run(bare).unwrap().stdout, b"ONLY=1\n");
}

#[test]
fn l086_a_timeout_kills_the_group_and_keeps_the_output() {
    let command = Command::shell("echo early; sleep 1000 & sleep 1000").timeout(SHORT);
    let result = shared().run(command).unwrap();
    assert!(result.timed_out());
    assert_eq!(
        (result.exit_code, &result.stdout[..]),
        (-2, &b"early\n"[..])
    );
}

#[test]
fn l087_missing_programs() {
    let error = shared().run(Command::exec(["/no/such"])).unwrap_err();
    assert_eq!(error.errno(), Some(2));
    assert!(error.to_string().starts_with("vm:run: vm own"), "{error}");
    assert!(error.to_string().contains("/no/such"), "{error}");
    assert_eq!(shared().run("/no/such").unwrap().exit_code, 127);
}

#[test]
fn l088_output_larger_than_a_frame() {
    let result = shared()
        .run("head -c 20000000 /dev/zero; echo end >&2")
        .unwrap();
    assert_eq!(result.stdout.len(), 20_000_000);
    assert_eq!(result.stderr, b"end\n");
}

#[test]
fn l091_a_signalled_command() {
    let result = shared().run("kill -KILL $$").unwrap();
    assert_eq!(
        (result.status, result.signal, result.exit_code),
        (ExitKind::Signalled, Some(9), -1)
    );
}

#[test]
fn l096_l103_files_by_path() {
    let vm = shared();
    vm.mkdir("/tmp/d/e", true, Some(0o700)).unwrap();
    vm.write_file("/tmp/d/e/f", b"content".to_vec()).unwrap();
    assert_eq!(vm.read_file("/tmp/d/e/f").unwrap(), b"content");
    let stat = vm.stat("/tmp/d/e/f", false).unwrap();
    assert_eq!(
        (stat.size, stat.perm, stat.entry_type),
        (7, 0o644, EntryType::File)
    );
    assert_eq!(vm.stat("/tmp/d/e", false).unwrap().perm, 0o700);
    vm.rename("/tmp/d/e/f", "/tmp/d/g").unwrap();
    let names: Vec<_> = vm
        .listdir("/tmp/d")
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, [b"e", b"g"]);
    let full = vm.unlink("/tmp/d").unwrap_err();
    assert!(full.to_string().contains("/tmp/d"), "{full}");
    vm.unlink("/tmp/d/g").unwrap();
    vm.unlink("/tmp/d/e").unwrap();
    vm.unlink("/tmp/d").unwrap();
    assert_eq!(vm.read_file("/tmp/d/g").unwrap_err().errno(), Some(2));
    assert!(
        vm.read_file("/proc/self/status")
            .unwrap()
            .starts_with(b"Name:")
    );
}

#[test]
fn l097_files_larger_than_a_frame() {
    let data: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    shared().write_file("/tmp/large", data.clone()).unwrap();
    assert!(shared().read_file("/tmp/large").unwrap() == data);
    shared().unlink("/tmp/large").unwrap();
}

#[test]
fn l121_l128_an_open_file() {
    let vm = shared();
    let mode = OpenMode {
        read: true,
        write: true,
        create: true,
        ..OpenMode::default()
    };
    let file = vm.open_file("/tmp/open", mode).unwrap();
    assert_eq!(file.write(b"0123456789").unwrap(), 10);
    assert_eq!(file.seek(-3, Whence::End).unwrap(), 7);
    assert_eq!(file.read(2).unwrap(), b"78");
    assert_eq!(file.tell().unwrap(), 9);
    assert_eq!(file.seek(2, Whence::Set).unwrap(), 2);
    assert_eq!(file.read_all().unwrap(), b"23456789");
    assert_eq!(file.read(10).unwrap(), b"");
    // The descriptor is real: fstat through it.
    assert_eq!(
        vm.syscall(Syscall::new(5, &[file.fd().into()]).buffer(1, [0; 144]))
            .unwrap()
            .ret,
        0
    );
    file.close().unwrap();
    file.close().unwrap();
    assert_eq!(file.fd(), 0);
    assert!(
        file.read(1)
            .unwrap_err()
            .to_string()
            .ends_with("file is closed")
    );
    let error = vm
        .open_file("/tmp/open", OpenMode::default())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("at least one of read, write and append"),
        "{error}"
    );
}

#[test]
fn l107_l108_raw_system_calls() {
    let vm = shared();
    let pid = vm.syscall(Syscall::new(39, &[])).unwrap();
    assert!(pid.ret > 1 && pid.errno == 0);
    let denied = vm
        .syscall(Syscall::new(257, &[-100, 0, 0]).buffer(1, b"/no\0".to_vec()))
        .unwrap();
    assert_eq!((denied.raw, denied.ret, denied.errno), (-2, -1, 2));
    let uname = vm
        .syscall(Syscall::new(63, &[]).buffer(0, [0; 390]))
        .unwrap();
    assert!(uname.out_bufs[0].starts_with(b"Linux\0"));
}

#[test]
fn l108_nested_buffers() {
    let vm = shared();
    // writev to a pipe: two iovecs that point to two buffers.
    let pipe = vm.syscall(Syscall::new(22, &[]).buffer(0, [0; 8])).unwrap();
    let end = |at: usize| {
        let bytes: [u8; 4] = pipe.out_bufs[0][at..at + 4].try_into().unwrap();
        i64::from(i32::from_le_bytes(bytes))
    };
    let mut iovecs = vec![0u8; 32];
    iovecs[8] = 3;
    iovecs[24] = 2;
    let call = Syscall {
        nested: vec![
            Nested {
                parent: 0,
                child: 1,
                offset: 0,
            },
            Nested {
                parent: 0,
                child: 2,
                offset: 16,
            },
        ],
        bufs: vec![iovecs, b"abc".to_vec(), b"de".to_vec()],
        ptrs: vec![1],
        ..Syscall::new(20, &[end(4), 0, 2])
    };
    assert_eq!(vm.syscall(call).unwrap().ret, 5);
    let read = vm
        .syscall(Syscall::new(0, &[end(0), 0, 16]).buffer(1, [0; 16]))
        .unwrap();
    assert_eq!((read.ret, &read.out_bufs[0][..5]), (5, &b"abcde"[..]));
}

#[test]
fn l111_ioctl_with_a_buffer() {
    let vm = shared();
    vm.write_file("/tmp/ioctl", "12345").unwrap();
    let file = vm.open_file("/tmp/ioctl", OpenMode::read()).unwrap();
    let ioctl = Ioctl {
        fd: file.fd(),
        cmd: 0x541b, // FIONREAD
        data: Some(IoctlData::Bytes(vec![0; 4])),
        bufs: Vec::new(),
        ptr_offsets: Vec::new(),
    };
    let result = vm.ioctl(ioctl).unwrap();
    assert_eq!((result.ret, result.out_data), (0, Some(vec![5, 0, 0, 0])));
}

#[test]
fn l129_l136_a_process() {
    let vm = shared();
    let process = vm
        .run_async("read line; echo got $line; exec sleep 1000")
        .unwrap();
    assert_eq!(process.status().unwrap(), ProcessStatus::Running);
    let output = process.stdout_stream().unwrap();
    assert_eq!(process.stdin_write(b"input\n").unwrap(), 6);
    assert_eq!(output.read_until(b"\n", LONG).unwrap(), b"got input\n");
    process.signal(15).unwrap();
    let result = process.wait(Some(LONG)).unwrap();
    assert_eq!(
        (result.status, result.signal),
        (ExitKind::Signalled, Some(15))
    );
    assert_eq!(result.stdout, b"got input\n");
    assert_eq!(process.wait(None).unwrap(), result);
    process.close().unwrap();
}

#[test]
fn l105_a_followed_file() {
    let vm = shared();
    vm.write_file("/tmp/log", "one\n").unwrap();
    let tail = vm.tail_file("/tmp/log", TailStart::At(0)).unwrap();
    tail.expect(b"one\n", LONG).unwrap();
    vm.run("echo two >> /tmp/log").unwrap();
    assert_eq!(tail.read_until(b"two\n", LONG).unwrap(), b"two\n");
    assert_eq!(tail.next(Duration::from_millis(100)).unwrap(), None);
    assert!(!tail.eof());
    tail.close().unwrap();
    assert!(tail.eof());
    let error = tail.expect(b"x", SHORT).unwrap_err();
    assert!(error.to_string().ends_with("stream closed"), "{error}");
}

#[test]
fn l115_a_batch_goes_on_after_a_failure() {
    let ops = vec![
        BatchOp::WriteFile(b"/tmp/b".to_vec(), b"x".to_vec()),
        BatchOp::ReadFile(b"/tmp/none".to_vec()),
        BatchOp::ReadFile(b"/tmp/b".to_vec()),
        BatchOp::Syscall(39, Vec::new()),
        BatchOp::Run("echo hi".into()),
    ];
    let results = shared().batch(ops).unwrap();
    assert_eq!(results[0].as_ref().unwrap(), &BatchValue::Unit);
    assert_eq!(results[1].as_ref().unwrap_err().errno(), Some(2));
    assert_eq!(
        results[2].as_ref().unwrap(),
        &BatchValue::Bytes(b"x".to_vec())
    );
    assert!(matches!(&results[3], Ok(BatchValue::Syscall(result)) if result.ret > 0));
    assert!(matches!(&results[4], Ok(BatchValue::Run(result)) if result.stdout == b"hi\n"));
}

#[test]
fn l151_l154_the_clock() {
    let (session, vm) = own(
        "clock",
        BootOptions {
            initial_time_ns: Some(1_000_000_000_000_000_000),
            ..BootOptions::default()
        },
    );
    let clock = vm.clock();
    let start = clock.get_ns().unwrap();
    assert!(
        (1_000_000_000..1_000_000_010).contains(&(start / 1_000_000_000)),
        "{start}"
    );
    clock.sleep(Duration::from_secs(3600)).unwrap();
    assert!(clock.get_ns().unwrap() - start >= 3_600_000_000_000);
    // Linux has no time of day before its own start: an hour has passed since.
    let error = clock.set_ns(5_000_000_000).unwrap_err();
    assert_eq!(error.errno(), Some(22), "{error}");
    clock.set_ns(5_000_000_000_000).unwrap();
    assert_eq!(clock.get_ns().unwrap() / 1_000_000_000, 5_000);
    clock.advance_ns(-2_000_000_000).unwrap();
    assert_eq!(clock.get_ns().unwrap() / 1_000_000_000, 4_998);
    assert!(session.finish().is_empty());
}

#[test]
fn l137_l144_workers() {
    let vm = shared();
    let (fork, thread) = (
        vm.spawn_worker(false).unwrap(),
        vm.spawn_worker(true).unwrap(),
    );
    let pid = |worker: &provium_lab::Worker| worker.syscall(Syscall::new(39, &[])).unwrap().ret;
    let main = vm.syscall(Syscall::new(39, &[])).unwrap().ret;
    assert_ne!(pid(&fork), main);
    assert_eq!(pid(&thread), main);
    assert_ne!(i64::from(thread.tid()), main);
    // Credentials are its own.
    assert_eq!(fork.syscall(Syscall::new(105, &[1000])).unwrap().ret, 0);
    assert_eq!(fork.run("id -u").unwrap().stdout, b"1000\n");
    assert_eq!(vm.run("id -u").unwrap().stdout, b"0\n");
    // A worker that blocks blocks nobody else: read on an empty pipe.
    let pipe = thread
        .syscall(Syscall::new(22, &[]).buffer(0, [0; 8]))
        .unwrap();
    let read_end = i64::from(pipe.out_bufs[0][0]);
    let blocked = thread.start_syscall(Syscall::new(0, &[read_end, 0, 1]).buffer(1, [0]));
    assert_eq!(vm.run("echo alive").unwrap().stdout, b"alive\n");
    drop(blocked);
    fork.close().unwrap();
    thread.close().unwrap();
    assert!(
        fork.run("true")
            .unwrap_err()
            .to_string()
            .contains("worker is closed")
    );
}

#[test]
fn l145_l149_the_console() {
    let (_session, vm) = own("console", BootOptions::default());
    let console = vm.console();
    console.expect(b"Linux version", LONG).unwrap();
    let stream = console.read();
    stream.expect(b"Linux version", LONG).unwrap();
    console.write(b"echo mark$((20+22))\n").unwrap();
    console.expect(b"mark42", LONG).unwrap();
    stream.expect(b"mark42", LONG).unwrap();
    let error = console.expect(b"never printed", SHORT).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("timed out waiting for \"never printed\""),
        "{error}"
    );
    vm.close();
    assert!(
        console
            .read_log()
            .windows(6)
            .any(|window| window == b"mark42")
    );
    assert!(stream.drain(SHORT).is_ok() && stream.eof());
}

#[test]
fn l070_injected_files_are_there_before_init() {
    let file = |path: &str, text: &str, mode| InjectedFile {
        path: path.into(),
        content: FileContent::Bytes(text.into()),
        mode,
    };
    let files = vec![
        file("/etc/deep/er/x", "inside", Some(0o600)),
        file("/etc/hosts", "replaced\n", None),
    ];
    let (_session, vm) = own(
        "inject",
        BootOptions {
            files,
            ..BootOptions::default()
        },
    );
    assert_eq!(vm.read_file("/etc/deep/er/x").unwrap(), b"inside");
    assert_eq!(vm.stat("/etc/deep/er/x", false).unwrap().perm, 0o600);
    assert_eq!(vm.read_file("/etc/hosts").unwrap(), b"replaced\n");
}

#[test]
fn l047_l053_the_life_of_a_vm() {
    let (session, vm) = own("life", BootOptions::default());
    assert!(
        vm.boot(BootOptions::default())
            .unwrap_err()
            .to_string()
            .contains("state is booted")
    );
    let file = vm.open_file("/etc/hosts", OpenMode::read()).unwrap();
    vm.pause().unwrap();
    assert_eq!(vm.state(), VmState::Paused);
    let error = vm.run("true").unwrap_err().to_string();
    assert_eq!(
        error,
        "vm:run: vm own: state is paused, needs booted; call vm:resume first"
    );
    vm.resume().unwrap();
    vm.reset().unwrap();
    assert_eq!(vm.state(), VmState::Booted);
    let stale = file.read(1).unwrap_err().to_string();
    assert!(stale.contains("stale handle: the VM was reset"), "{stale}");
    file.close().unwrap();
    assert!(vm.run("true").unwrap().ok());
    vm.shutdown().unwrap();
    vm.shutdown().unwrap();
    assert_eq!(vm.state(), VmState::Shutdown);
    vm.boot(BootOptions::default()).unwrap();
    assert!(vm.power_button().unwrap());
    assert_eq!(vm.state(), VmState::Shutdown);
    assert!(session.finish().is_empty());
}

#[test]
fn l243_the_guest_powers_off_during_an_operation() {
    let (_session, vm) = own("poweroff", BootOptions::default());
    let error = vm.run("poweroff -f; sleep 1000").unwrap_err().to_string();
    assert!(error.contains("the guest powered off"), "{error}");
    assert_eq!(vm.state(), VmState::Shutdown);
}

#[test]
fn l061_l251_a_panic_makes_the_vm_dead() {
    let (_session, vm) = own("panic", BootOptions::default());
    let error = vm
        .run("echo c > /proc/sysrq-trigger; sleep 1000")
        .unwrap_err()
        .to_string();
    assert!(error.contains("the guest kernel panicked: "), "{error}");
    assert!(error.contains("sysrq"), "{error}");
    assert_eq!(vm.state(), VmState::Dead);
    assert!(
        vm.run("true")
            .unwrap_err()
            .to_string()
            .contains("state is dead")
    );
}

#[test]
fn l062_the_guest_reboots_itself() {
    let (_session, vm) = own("reboot", BootOptions::default());
    vm.write_file("/tmp/gone", "x").unwrap();
    assert!(vm.run("reboot -f; sleep 1000").is_err());
    assert_eq!(vm.state(), VmState::Booted);
    assert_eq!(vm.read_file("/tmp/gone").unwrap_err().errno(), Some(2));
}

#[test]
fn l221_an_interrupted_operation_is_cancelled_in_the_guest() {
    let (session, vm) = own("interrupt", BootOptions::default());
    let deadline = std::time::Instant::now() + Duration::from_millis(300);
    session
        .world()
        .set_deadline(Some((deadline, "timed out after 0.3s".into())));
    // Guest time leaps over a sleep, so the command works.
    let error = vm.run("while :; do :; done").unwrap_err();
    assert!(error.is_interrupted(), "{error}");
    session.world().calm();
    let left = vm.run("ps | grep -c '[w]hile :' || true").unwrap();
    assert_eq!(left.stdout, b"0\n");
}

#[test]
fn l236_many_operations_at_once() {
    let vm = shared();
    let mut pending: Vec<_> = (0..64)
        .map(|n| vm.start_run(&*format!("echo {n}")))
        .collect();
    for (n, pending) in pending.drain(..).enumerate() {
        assert_eq!(
            pending.wait().unwrap().stdout,
            format!("{n}\n").into_bytes()
        );
    }
    std::thread::scope(|scope| {
        for n in 0..8 {
            scope.spawn(move || {
                for round in 0..4 {
                    let path = format!("/tmp/t{n}");
                    vm.write_file(&path, format!("{n} {round}")).unwrap();
                    assert_eq!(
                        vm.read_file(&path).unwrap(),
                        format!("{n} {round}").into_bytes()
                    );
                }
            });
        }
    });
}

#[test]
fn l020_l021_scopes_close_what_they_declare() {
    let session = session("scopes");
    let root = session.root().clone();
    let file_vm = root
        .declare_vm(Some("a"), "minimal", BootOptions::default())
        .unwrap();
    let scope = session.enter_scope();
    assert!(scope.vm("a").unwrap() == file_vm);
    let shadow = scope
        .declare_vm(Some("a"), "minimal", BootOptions::default())
        .err()
        .unwrap();
    assert!(
        shadow
            .to_string()
            .contains("already declared at parent scope"),
        "{shadow}"
    );
    let inner = scope
        .declare_vm(Some("b"), "minimal", BootOptions::default())
        .unwrap();
    inner.boot(BootOptions::default()).unwrap();
    inner.run_async("sleep 1000").unwrap();
    assert!(session.leave_scope().is_empty());
    assert_eq!(inner.state(), VmState::Shutdown);
    assert!(root.vm("b").is_err());
    assert!(
        session
            .enter_scope()
            .declare_vm(Some("b"), "minimal", BootOptions::default())
            .is_ok()
    );
}

#[test]
fn l036_a_lab_boots_its_vms_together() {
    let session = session("lab");
    let lab = session.root().lab(Some("pair")).unwrap();
    for name in ["a", "b"] {
        lab.declare_vm(Some(name), "minimal", BootOptions::default())
            .unwrap();
    }
    lab.boot(false).unwrap();
    let (a, b) = (lab.vm("a").unwrap(), lab.vm("b").unwrap());
    assert_ne!(a.cid(), b.cid());
    let (one, two) = (a.start_run("echo a"), b.start_run("echo b"));
    assert_eq!(two.wait().unwrap().stdout, b"b\n");
    assert_eq!(one.wait().unwrap().stdout, b"a\n");
    lab.pause(false).unwrap();
    lab.resume(false).unwrap();
    lab.shutdown(false).unwrap();
    assert_eq!(
        (a.state(), b.state()),
        (VmState::Shutdown, VmState::Shutdown)
    );
}

#[test]
fn l242_a_boot_without_an_agent_ends_with_the_console() {
    let session = session("no agent");
    let options = BootOptions {
        kernel_cmdline: Some("panic=0 rdinit=/sbin/provium-agent provium.init=/none".into()),
        boot_timeout: Some(Duration::from_secs(60)),
        ..BootOptions::default()
    };
    let vm = session
        .root()
        .declare_vm(Some("x"), "minimal", options)
        .unwrap();
    let error = vm.boot(BootOptions::default()).unwrap_err();
    assert!(error.to_string().contains("boot failed: "), "{error}");
    assert!(!error.console().unwrap().is_empty());
    assert_eq!(vm.state(), VmState::Dead);
    assert!(!vm.console().read_log().is_empty());
}

#[test]
fn l068_equal_seeds_give_equal_random_bytes() {
    let bytes = |name: &str| {
        let (session, vm) = own(
            name,
            BootOptions {
                rng_seed: Some(42),
                ..BootOptions::default()
            },
        );
        let bytes = vm.run("head -c 64 /dev/urandom").unwrap().stdout;
        session.finish();
        bytes
    };
    assert_eq!(bytes("seed"), bytes("seed"));
}
