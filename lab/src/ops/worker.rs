//! Workers: forked agent processes, or threads of the agent (lua-api section 8).

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use provium_protocol::ops::{self, ProcStatus};

use super::{Guest, ProcessStatus};
use crate::error::{Error, Reason, Result};
use crate::session::{Class, Closable, Registration};
use crate::vm::{Connection, Since, VmCore};
use crate::wait::{Either, Limit, Pending, both};

/// A worker. It is a [`Guest`] of its own: every guest operation works on it (L-139). Clones are the same worker.
#[derive(Clone)]
pub struct Worker {
    guest: Guest,
    core: Arc<WorkerCore>,
}

pub(crate) struct WorkerCore {
    vm: String,
    h: u64,
    pid: i32,
    tid: i32,
    connection: Connection,
    ended: Since<()>,
    registration: Registration,
}

impl WorkerCore {
    pub(crate) fn resource(&self) -> String {
        format!("worker {} of {}", self.h, self.vm)
    }

    /// A connection on which operations of `guest`, which is this worker, can be made now.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        guest: &Guest,
        call: &'static str,
    ) -> Result<Connection> {
        if self.connection.undone(&self.ended) {
            // A restore has brought it back (L-012): its scope is to end it.
            self.registration.set(&Worker {
                guest: guest.clone(),
                core: self.clone(),
            });
        }
        if self.connection.recall(&self.ended).is_some() {
            return Err(Error::new(
                call,
                self.resource(),
                Reason::Closed("worker is closed"),
            ));
        }
        self.connection.renewed(call, &self.resource()).await
    }
}

/// How a process of a worker ended (L-142).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedProcess {
    /// Its handle.
    pub handle: u64,
    /// Its pid.
    pub pid: i32,
    /// Its state.
    pub status: ProcessStatus,
    /// Exit status; -1 if signalled.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Guest {
    /// Starts a worker: a forked process, or a thread of the agent (L-137, L-138).
    pub fn spawn_worker(&self, thread: bool) -> Result<Worker> {
        self.start_spawn_worker(thread).wait()
    }

    /// Starts [`Guest::spawn_worker`].
    pub fn start_spawn_worker(&self, thread: bool) -> Pending<Worker> {
        let call = "vm:spawn_worker";
        let guest = self.clone();
        self.start(call, async move {
            if guest.worker.is_some() {
                let text = "a worker starts no workers, ask its VM";
                return Err(Error::new(
                    call,
                    guest.resource(),
                    Reason::Refused(text.to_owned()),
                ));
            }
            let main = guest.connection(call).await?;
            let spawned = main
                .request(call, &guest.resource(), &ops::SpawnWorker { thread })
                .await?;
            let connection = main
                .open_worker(call, &guest.resource(), spawned.port, spawned.pid)
                .await?;
            Ok(Worker::new(&guest, connection, spawned))
        })
    }
}

impl Worker {
    fn new(parent: &Guest, connection: Connection, spawned: ops::WorkerSpawned) -> Self {
        let core = Arc::new(WorkerCore {
            vm: parent.vm.resource(),
            h: spawned.h,
            pid: spawned.pid,
            tid: spawned.tid,
            connection,
            ended: Since::default(),
            registration: parent.session().register(Class::Worker),
        });
        let guest = Guest {
            vm: parent.vm.clone(),
            worker: Some(core.clone()),
        };
        let worker = Self { guest, core };
        worker.core.registration.set(&worker);
        worker
    }

    /// The stable handle (L-143).
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.core.h
    }

    /// Its process (L-143).
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.core.pid
    }

    /// Its thread (L-143).
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.core.tid
    }

    /// Signals every process started under it; gives how many there were (L-141).
    pub fn signal(&self, signal: i32) -> Result<u64> {
        self.start_signal(signal).wait()
    }

    /// Starts [`Worker::signal`].
    pub fn start_signal(&self, signal: i32) -> Pending<u64> {
        self.guest
            .start_request("worker:kill", ops::WorkerSignal { signal }, |count| count)
    }

    /// Waits for all processes it ever started, in start order (L-142).
    pub fn join(&self) -> Result<Vec<JoinedProcess>> {
        self.start_join().wait()
    }

    /// Starts [`Worker::join`].
    pub fn start_join(&self) -> Pending<Vec<JoinedProcess>> {
        self.guest
            .start_request("worker:join", ops::WorkerJoin {}, |all| {
                all.iter().map(JoinedProcess::from_wire).collect()
            })
    }

    /// Ends it at once; its processes are killed (classic-api C-043).
    pub fn start_exit(&self) -> Pending<()> {
        let worker = self.clone();
        let call = "worker:kill";
        self.guest.start(call, async move {
            if let Some(connection) = worker.begin_end(call).await {
                let resource = worker.core.resource();
                // It may have gone by the first signal, when it has no processes.
                let _killed = connection
                    .request(call, &resource, &ops::WorkerSignal { signal: 9 })
                    .await;
                worker.exit(&connection).await;
            }
            Ok(())
        })
    }

    /// TERM to its processes, up to 2 s, KILL, then its own end (L-144).
    pub fn close(&self) -> Result<()> {
        self.start_close().wait()
    }

    /// Starts [`Worker::close`].
    pub fn start_close(&self) -> Pending<()> {
        let worker = self.clone();
        let (call, world) = ("worker:close", self.guest.world().clone());
        Pending::new(&world, call, self.core.resource(), async move {
            const GRACE: Duration = Duration::from_secs(2);
            let Some(connection) = worker.begin_end(call).await else {
                return Ok(());
            };
            let resource = worker.core.resource();
            let signal = |signal| ops::WorkerSignal { signal };
            if connection
                .request(call, &resource, &signal(15))
                .await
                .is_ok_and(|count| count > 0)
            {
                let joined = connection.request(call, &resource, &ops::WorkerJoin {});
                let limit = Limit::new(worker.guest.world(), &connection.machine(), GRACE);
                if let Either::Second(_) = both(joined, limit).await {
                    let _gone_is_fine = connection.request(call, &resource, &signal(9)).await;
                }
            }
            worker.exit(&connection).await;
            Ok(())
        })
    }

    /// Marks it ended; the connection to end it over, unless there is nothing to end or nobody to ask.
    async fn begin_end(&self, call: &'static str) -> Option<Connection> {
        self.core.registration.done();
        let connection = &self.core.connection;
        if !connection.note(&self.core.ended, ()) {
            return None;
        }
        let renewed = connection.renewed(call, &self.core.resource()).await;
        if renewed.is_err() {
            connection.end_worker();
        }
        renewed.ok()
    }

    async fn exit(&self, connection: &Connection) {
        let limit = Limit::new(
            self.guest.world(),
            &connection.machine(),
            Duration::from_secs(2),
        );
        let exit = connection.link().request(&ops::WorkerExit {});
        // The end of its connection ends it as well (E-091).
        let _either_way = both(exit, limit).await;
        connection.end_worker();
    }
}

impl JoinedProcess {
    fn from_wire(process: &ops::JoinedProc) -> Self {
        let status = match process.status {
            ProcStatus::Running => ProcessStatus::Running,
            ProcStatus::Exited => ProcessStatus::Exited,
            ProcStatus::Signalled | ProcStatus::TimedOut => ProcessStatus::Signalled,
        };
        Self {
            handle: process.h,
            pid: process.pid,
            status,
            exit_code: process.code.unwrap_or(-1),
            signal: process.signal,
        }
    }
}

impl Deref for Worker {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl PartialEq for Worker {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl Closable for Worker {
    fn describe(&self) -> String {
        self.core.resource()
    }

    fn vm(&self) -> &Arc<VmCore> {
        &self.guest.vm
    }

    fn start_close(&self) -> Pending<()> {
        Worker::start_close(self)
    }

    fn abandon(&self) {
        self.core.registration.done();
        self.core.connection.note(&self.core.ended, ());
        self.core.connection.end_worker();
    }
}
