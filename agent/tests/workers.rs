//! Workers whose connection is not ended but taken away, as by a restore of the guest (E-047, E-091,
//! L-012).

mod client;

use std::path::Path;
use std::time::Duration;

use client::{Agent, Client, call, call_with};
use provium_protocol::ErrorKind;
use provium_protocol::ops::*;

const GETPID: u32 = 39;
const GETTID: u32 = 186;

fn open(client: &mut Client, path: Vec<u8>) -> Opened {
    let mode = open_mode::READ;
    let perm = None;
    client.call(&Open { path, mode, perm }).unwrap()
}

fn wait_for_the_end_of(pid: i32) {
    while Path::new(&format!("/proc/{pid}")).exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// L-012: a cut connection leaves a worker with all that it had, again and again, and the next one
/// finds it there. Only the end of a connection is the worker's end (E-091).
#[test]
fn a_worker_outlives_a_cut_connection() {
    let agent = Agent::start();
    let mut client = agent.connect();
    std::fs::write(agent.dir().join("file"), "0123456789").unwrap();
    for thread in [false, true] {
        let worker = client.call(&SpawnWorker { thread }).unwrap();
        let mut own = agent.worker(worker.port);
        let file = open(&mut own, agent.path("file"));
        let process = own.spawn("cat");
        own.call(&call_with(80, &[0], &[(0, b"/proc\0")])).unwrap();
        for (round, digit) in (0..3).zip(b"012") {
            own.cut();
            own = agent.worker_again(worker.port, true);
            assert_eq!(own.syscall(GETPID, &[]).ret, i64::from(worker.pid));
            assert_eq!(own.syscall(GETTID, &[]).ret, i64::from(worker.tid));
            let read = Read { h: file.h, max: 1 };
            assert_eq!(own.call(&read).unwrap(), [*digit], "round {round}");
            let status = own.call(&ProcStatusGet { h: process.h }).unwrap().status;
            assert_eq!(status, ProcStatus::Running);
            assert_eq!(own.sh("pwd").stdout, b"/proc\n");
        }
        drop(own);
        wait_for_the_end_of(process.pid);
        if !thread {
            wait_for_the_end_of(worker.pid);
        }
    }
    client.call(&Ping {}).unwrap();
}

/// L-012: also when the connection is cut while an operation runs, which is given up.
#[test]
fn a_busy_worker_outlives_a_cut_connection() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for thread in [false, true] {
        let worker = client.call(&SpawnWorker { thread }).unwrap();
        let mut own = agent.worker(worker.port);
        own.start(&call(34, &[]));
        own.cut();
        let mut own = agent.worker_again(worker.port, true);
        assert_eq!(own.syscall(GETTID, &[]).ret, i64::from(worker.tid));
        own.call(&WorkerExit {}).unwrap();
        assert_eq!(own.receive(), None);
    }
}

/// E-043, E-047: a new connection takes the place of the old one, which is not the worker's end; a
/// hello without `resume` wants nothing of what was opened before.
#[test]
fn a_workers_connection_is_replaced() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for thread in [false, true] {
        let worker = client.call(&SpawnWorker { thread }).unwrap();
        let mut first = agent.worker(worker.port);
        let file = open(&mut first, b"/proc/version".to_vec());
        let process = first.spawn("sleep 1000");
        let mut second = agent.worker_again(worker.port, true);
        assert_eq!(first.receive(), None);
        second.call(&Read { h: file.h, max: 1 }).unwrap();
        let mut third = agent.worker_again(worker.port, false);
        assert_eq!(third.kind(&Read { h: file.h, max: 1 }), ErrorKind::Stale);
        // Signal 0 asks whether it is there.
        assert_eq!(third.syscall(62, &[i64::from(process.pid), 0]).ret, 0);
        assert_eq!(third.syscall(GETTID, &[]).ret, i64::from(worker.tid));
        third.syscall(62, &[-i64::from(process.pid), 9]);
    }
}

/// E-047: an agent whose new harness wants nothing of the old one ends its workers, also those that
/// wait for a connection.
#[test]
fn workers_that_wait_end_with_their_agents_handles() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let worker = client.call(&SpawnWorker { thread: false }).unwrap();
    agent.worker(worker.port).cut();
    agent.resume(true).call(&Ping {}).unwrap();
    assert!(Path::new(&format!("/proc/{}", worker.pid)).exists());
    agent.resume(false).call(&Ping {}).unwrap();
    wait_for_the_end_of(worker.pid);
}
