//! Operations inside a guest, for VMs and workers alike (lua-api L-056, L-139).
//!
//! [`Guest`] is what both are to these operations: a place to run commands, touch files, make system calls. Every
//! operation has a `start_` form that gives a [`Pending`] and a plain form that waits for it.

mod batch;
mod clock;
mod command;
mod file;
mod files;
mod process;
mod raw;
mod signal;
mod stream;
mod syscall;
mod syscall_handle;
mod worker;

use std::future::Future;
use std::sync::Arc;

pub use batch::{BatchOp, BatchValue};
pub use clock::Clock;
pub use command::{Command, ExitKind, Program, RunResult};
pub use file::{File, OpenMode, Whence};
pub use files::{DirEntry, EntryType, Stat, TailStart};
pub use process::{Process, ProcessStatus};
pub use signal::{signal_by_name, signal_name};
pub(crate) use stream::{Reader, Source, find};
pub use stream::{StreamKind, Tail};
pub use syscall::{Ioctl, IoctlData, IoctlResult, Nested, Syscall, SyscallResult};
pub use syscall_handle::SyscallHandle;
pub use worker::{JoinedProcess, Worker};

use provium_protocol::Operation;

use crate::error::{Error, Reason, Result};
use crate::session::SessionCore;
use crate::state::Need;
use crate::vm::{Connection, VmCore};
use crate::wait::{Pending, World};
use worker::WorkerCore;

/// A place in which guest operations run: the main agent of a VM, or a worker of it.
#[derive(Clone)]
pub struct Guest {
    pub(crate) vm: Arc<VmCore>,
    pub(crate) worker: Option<Arc<WorkerCore>>,
}

impl Guest {
    pub(crate) fn of_vm(vm: &Arc<VmCore>) -> Self {
        Self {
            vm: vm.clone(),
            worker: None,
        }
    }

    /// As errors name it: `vm a`, or `worker 3 of vm a`.
    #[must_use]
    pub fn resource(&self) -> String {
        match &self.worker {
            None => self.vm.resource(),
            Some(worker) => worker.resource(),
        }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        self.vm.session.world()
    }

    pub(crate) fn session(&self) -> &Arc<SessionCore> {
        &self.vm.session
    }

    /// The call's name with the right kind of handle in front.
    fn call(&self, on_vm: &'static str, on_worker: &'static str) -> &'static str {
        if self.worker.is_some() {
            on_worker
        } else {
            on_vm
        }
    }

    /// A connection on which this guest's operations can be made now (L-056).
    pub(crate) async fn connection(&self, call: &'static str) -> Result<Connection> {
        let error = |reason: Reason| Error::new(call, self.resource(), reason);
        self.vm.state().check(Need::Booted).map_err(error)?;
        match &self.worker {
            None => self.vm.connection(call).await,
            Some(worker) => worker.connection(self, call).await,
        }
    }

    /// One request and its answer.
    pub(crate) async fn request<O: Operation + Sync>(
        &self,
        call: &'static str,
        op: &O,
    ) -> Result<O::Reply> {
        let connection = self.connection(call).await?;
        connection.request(call, &self.resource(), op).await
    }

    /// Starts an operation of this guest; a wrong state fails at once.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        call: &'static str,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        Pending::new(self.world(), call, self.resource(), operation)
    }

    /// Starts an operation that is one request.
    pub(crate) fn start_request<O, T>(
        &self,
        call: &'static str,
        op: O,
        convert: impl FnOnce(O::Reply) -> T + Send + 'static,
    ) -> Pending<T>
    where
        O: Operation + Send + Sync + 'static,
        O::Reply: Send,
        T: Send + 'static,
    {
        let guest = self.clone();
        self.start(
            call,
            async move { Ok(convert(guest.request(call, &op).await?)) },
        )
    }
}
