//! Workers: further servers in processes or threads of their own (E-085, E-090 to E-092).
//!
//! A worker ends when the harness ends its connection. One that the transport took away, as every
//! restore of a snapshot does, it outlives for a while: the harness comes back for its handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak, mpsc};

use provium_protocol::Error;
use provium_protocol::ops::WorkerSpawned;

use crate::link::Link;
use crate::server::handles::Handle;
use crate::server::state::State;
use crate::server::token::{Kind, token};
use crate::server::{Identity, Role, Server};
use crate::sys::fd::Fd;
use crate::sys::poll::READABLE;
use crate::sys::{Errno, process, signal};

/// Stack of a worker's op thread.
const STACK: usize = 512 * 1024;

/// The workers that an agent has started.
#[derive(Default)]
pub(crate) struct Workers {
    live: BTreeMap<u64, Worker>,
}

enum Worker {
    /// A process, watched until its end.
    Process { pid: i32, _pidfd: Fd },
    /// A thread of this process.
    Thread(Weak<Server>),
}

impl State {
    /// A worker process has ended: it is reaped.
    pub(crate) fn worker_ended(&mut self, id: u64) {
        if let Some(Worker::Process { pid, .. }) = self.workers.live.get(&id)
            && process::try_wait(*pid).is_some()
        {
            self.workers.live.remove(&id);
            self.handles.remove(id);
        }
    }

    /// Ends all workers.
    pub(crate) fn end_workers(&mut self) {
        self.workers.live.retain(|_, worker| match worker {
            // Reaped when its end is reported.
            Worker::Process { pid, .. } => {
                let _ = signal::kill(*pid, libc::SIGKILL);
                true
            }
            Worker::Thread(server) => {
                if let Some(server) = server.upgrade() {
                    server.lock().quit();
                }
                false
            }
        });
    }

    fn add_worker(&mut self, worker: Worker) -> u64 {
        // Threads that have ended have nobody to report them.
        self.workers.live.retain(|_, worker| match worker {
            Worker::Thread(server) => server.strong_count() > 0,
            Worker::Process { .. } => true,
        });
        let h = self.handles.add(Handle::Worker);
        if let Worker::Process { _pidfd: pidfd, .. } = &worker {
            let _ = self.epoll.add(pidfd.raw(), token(Kind::Exit, h), READABLE);
        }
        self.workers.live.insert(h, worker);
        h
    }
}

/// `spawn_worker`, on the op thread, whose credentials the worker gets.
pub(crate) fn spawn(server: &Arc<Server>, thread: bool) -> Result<WorkerSpawned, Error> {
    let failed = |errno: Errno| Error::os("spawn a worker", errno);
    let (link, port) = server.link().another().map_err(failed)?;
    let identity = server.lock().identity.clone();
    if thread {
        spawn_thread(server, link, port, identity)
    } else {
        fork(server, link, port, identity)
    }
    .map_err(failed)
}

fn fork(
    server: &Arc<Server>,
    link: Link,
    port: u32,
    identity: Identity,
) -> Result<WorkerSpawned, Errno> {
    let pid = process::fork(&[link.raw()])?;
    if pid == 0 {
        process::die_with_parent();
        // Nothing of the parent's objects is used or dropped from here on.
        let worker = Server::new(Role::ForkWorker, link, identity);
        let served = worker.and_then(|worker| worker.run());
        process::exit_now(i32::from(served.is_err()));
    }
    let pidfd = process::pidfd(pid)?;
    let h = server
        .lock()
        .add_worker(Worker::Process { pid, _pidfd: pidfd });
    Ok(WorkerSpawned {
        h,
        port,
        pid,
        tid: pid,
    })
}

fn spawn_thread(
    server: &Arc<Server>,
    link: Link,
    port: u32,
    identity: Identity,
) -> Result<WorkerSpawned, Errno> {
    let (send, receive) = mpsc::channel();
    let run = move || match Server::new(Role::ThreadWorker, link, identity) {
        Ok(worker) => {
            let _ = send.send(Ok((Arc::downgrade(&worker), process::tid())));
            // It ends with its harness; there is nobody to tell of a failure to begin.
            let _ = worker.run();
        }
        Err(errno) => {
            let _ = send.send(Err(errno));
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    thread.map_err(|error| crate::sys::errno_of(&error))?;
    let (worker, tid) = receive.recv().map_err(|_| libc::ECHILD)??;
    let h = server.lock().add_worker(Worker::Thread(worker));
    Ok(WorkerSpawned {
        h,
        port,
        pid: process::pid(),
        tid,
    })
}
