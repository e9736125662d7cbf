//! Workers across restores, through the Rust API, in a real guest on the software CPU (L-012, L-206, L-250).

use std::time::Duration;

use provium_lab::{
    BootOptions, Harness, OpenMode, ProcessStatus, RestoreFrom, Session, Syscall, Vm, Worker,
};

const GETTID: u32 = 186;

fn booted(name: &str) -> (Session, Vm) {
    let session = Session::new(&Harness::for_tests().unwrap(), name);
    let vm = session
        .root()
        .declare_vm(Some("w"), "minimal", BootOptions::default())
        .unwrap();
    vm.boot(BootOptions::default()).unwrap();
    (session, vm)
}

fn tid(worker: &Worker) -> i32 {
    let result = worker.syscall(Syscall::new(GETTID, &[])).unwrap();
    i32::try_from(result.ret).unwrap()
}

/// L-250: handles of a worker, and of what is open in it, are good after a restore, whether the VM was down in between
/// or its lab went back in place.
#[test]
fn l250_workers_live_on_across_restores() {
    let (session, vm) = booted("restores");
    vm.write_file("/tmp/digits", "0123456789").unwrap();
    let workers = [false, true].map(|thread| vm.spawn_worker(thread).unwrap());
    let furnished: Vec<_> = workers
        .iter()
        .map(|worker| {
            let file = worker.open_file("/tmp/digits", OpenMode::read()).unwrap();
            file.read(2).unwrap();
            (worker, file, worker.run_async("sleep 100000").unwrap())
        })
        .collect();
    let as_before = || {
        for (worker, file, process) in &furnished {
            assert_eq!(tid(worker), worker.tid());
            assert_eq!(file.read(3).unwrap(), b"234");
            assert_eq!(process.status().unwrap(), ProcessStatus::Running);
        }
    };
    let snapshot = vm.snapshot(None).unwrap();
    let lab = session.root().snapshot(None).unwrap();
    as_before();
    vm.shutdown().unwrap();
    vm.restore(RestoreFrom::Snapshot(snapshot)).unwrap();
    as_before();
    for _ in 0..2 {
        session.root().restore(&lab).unwrap();
        as_before();
    }
    for (worker, _, process) in &furnished {
        let pid = process.pid().unwrap();
        worker.close().unwrap();
        assert!(vm.stat(format!("/proc/{pid}"), true).is_err());
    }
}

/// L-206: what a worker is about counts, and so does its rest.
#[test]
fn l206_a_busy_worker_is_not_saved() {
    let (_session, vm) = booted("busy");
    let worker = vm.spawn_worker(false).unwrap();
    let mut sleep = worker.start_run("sleep 1; echo over");
    assert!(sleep.poll().is_none());
    let refused = vm.snapshot(None).err().unwrap().to_string();
    assert!(refused.contains("1 under way on vm w"), "{refused}");
    assert_eq!(sleep.wait().unwrap().stdout, b"over\n");
    vm.snapshot(None).unwrap();
}

/// L-063: a worker of after the snapshot does not exist any more. Nor does one that has waited for its connection for
/// too long, with what it had started (E-091).
#[test]
fn l063_workers_that_a_restore_ends() {
    let (_session, vm) = booted("ends");
    let dropped = vm.spawn_worker(false).unwrap();
    let snapshot = vm.snapshot(None).unwrap();
    let later = vm.spawn_worker(false).unwrap();
    let pid = dropped.pid();
    dropped.close().unwrap();
    drop(dropped);
    vm.close();
    vm.restore(RestoreFrom::Snapshot(snapshot)).unwrap();
    let stale = later.run("true").unwrap_err().to_string();
    assert!(
        stale.contains("the VM was restored to an earlier snapshot since it was opened"),
        "{stale}"
    );
    let is_there = || vm.stat(format!("/proc/{pid}"), true).is_ok();
    assert!(is_there());
    vm.clock().sleep(Duration::from_secs(31)).unwrap();
    assert!(!is_there());
}
