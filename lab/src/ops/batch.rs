//! Several operations in one round trip (lua-api L-115).

use provium_protocol::Operation;
use provium_protocol::ops::{self, BatchEntry, BatchItem};

use super::files::show;
use super::{Command, DirEntry, Guest, RunResult, Stat, SyscallResult};
use crate::agent::LinkError;
use crate::error::{Error, Reason, Result};
use crate::vm::Connection;
use crate::wait::{Pending, nanos_to_millis};

/// An operation of a batch: those that `vm:batch` offers.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchOp {
    /// `b:run`.
    Run(Command),
    /// `b:read_file`.
    ReadFile(Vec<u8>),
    /// `b:write_file`.
    WriteFile(Vec<u8>, Vec<u8>),
    /// `b:stat`.
    Stat(Vec<u8>, bool),
    /// `b:listdir`.
    ListDir(Vec<u8>),
    /// `b:mkdir`: path, parents, perm.
    Mkdir(Vec<u8>, bool, Option<u32>),
    /// `b:unlink`.
    Unlink(Vec<u8>),
    /// `b:rename`.
    Rename(Vec<u8>, Vec<u8>),
    /// `b:syscall`, integers only.
    Syscall(u32, Vec<i64>),
}

/// What an operation of a batch gave, as the VM call of that name returns.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchValue {
    /// Nothing.
    Unit,
    /// Of `run`.
    Run(RunResult),
    /// Of `read_file`.
    Bytes(Vec<u8>),
    /// Of `stat`.
    Stat(Stat),
    /// Of `listdir`.
    Entries(Vec<DirEntry>),
    /// Of `syscall`.
    Syscall(SyscallResult),
}

/// Most file data in one answer of a batch; longer files are read on afterwards.
const READ_MAX: u64 = 1 << 20;

impl BatchOp {
    fn item(
        &self,
        call: &'static str,
        resource: &str,
        connection: &Connection,
    ) -> Result<BatchItem> {
        Ok(match self {
            Self::Run(command) => {
                let timeout_ms = command.timeout.map(nanos_to_millis);
                let spec = command.clone().into_spec(call, resource, connection)?;
                BatchItem::new(&ops::Exec { spec, timeout_ms })
            }
            Self::ReadFile(path) => BatchItem::new(&ops::ReadFile {
                path: path.clone(),
                max: READ_MAX,
            }),
            Self::WriteFile(path, data) => BatchItem::new(&ops::WriteFile {
                path: path.clone(),
                data: data.clone().into(),
                perm: None,
            }),
            Self::Stat(path, follow) => BatchItem::new(&ops::Stat {
                path: path.clone(),
                follow: *follow,
            }),
            Self::ListDir(path) => BatchItem::new(&ops::ListDir { path: path.clone() }),
            Self::Mkdir(path, parents, perm) => BatchItem::new(&ops::Mkdir {
                path: path.clone(),
                parents: *parents,
                perm: *perm,
            }),
            Self::Unlink(path) => BatchItem::new(&ops::Unlink { path: path.clone() }),
            Self::Rename(from, to) => BatchItem::new(&ops::Rename {
                from: from.clone(),
                to: to.clone(),
            }),
            Self::Syscall(nr, args) => BatchItem::new(&ops::Syscall {
                nr: *nr,
                args: args.clone(),
                bufs: Vec::new(),
                slots: Vec::new(),
                nested: Vec::new(),
            }),
        })
    }

    /// Name and subject, for messages.
    fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Run(command) => ("b:run", format!("command `{}`", command.display())),
            Self::ReadFile(path) => ("b:read_file", show(path)),
            Self::WriteFile(path, _) => ("b:write_file", show(path)),
            Self::Stat(path, _) => ("b:stat", show(path)),
            Self::ListDir(path) => ("b:listdir", show(path)),
            Self::Mkdir(path, ..) => ("b:mkdir", show(path)),
            Self::Unlink(path) => ("b:unlink", show(path)),
            Self::Rename(from, to) => ("b:rename", format!("{} -> {}", show(from), show(to))),
            Self::Syscall(nr, _) => ("b:syscall", format!("syscall {nr}")),
        }
    }

    /// The value of its entry; outputs that did not fit are read on.
    async fn value(
        &self,
        connection: &Connection,
        resource: &str,
        entry: BatchEntry,
    ) -> Result<BatchValue> {
        let (call, subject) = self.describe();
        let resource = format!("{resource}: {subject}");
        let raw = entry
            .outcome
            .map_err(|error| connection.error(call, &resource, LinkError::Agent(error)))?;
        let bad = |op| {
            move |error: provium_protocol::wire::DecodeError| LinkError::Answer {
                op,
                problem: error.to_string(),
            }
        };
        let decode_error = |error| connection.error(call, &resource, error);
        Ok(match self {
            Self::Run(command) => {
                let result = raw
                    .get()
                    .map_err(bad(ops::Exec::NAME))
                    .map_err(decode_error)?;
                let result =
                    super::command::whole_output(connection, call, &resource, result).await?;
                BatchValue::Run(RunResult::from_wire(&command.display(), result))
            }
            Self::ReadFile(_) => {
                let first: ops::FileData = raw
                    .get()
                    .map_err(bad(ops::ReadFile::NAME))
                    .map_err(decode_error)?;
                let Some(h) = first.h else {
                    return Ok(BatchValue::Bytes(first.data));
                };
                let all =
                    super::files::read_rest(connection, call, &resource, h, first.data).await?;
                connection.link().request(&ops::Close { h }).detach();
                BatchValue::Bytes(all)
            }
            Self::Stat(..) => BatchValue::Stat(
                raw.get()
                    .map_err(bad(ops::Stat::NAME))
                    .map_err(decode_error)?,
            ),
            Self::ListDir(_) => {
                let mut entries: Vec<DirEntry> = raw
                    .get()
                    .map_err(bad(ops::ListDir::NAME))
                    .map_err(decode_error)?;
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                BatchValue::Entries(entries)
            }
            Self::Syscall(..) => {
                let result: ops::SyscallResult = raw
                    .get()
                    .map_err(bad(ops::Syscall::NAME))
                    .map_err(decode_error)?;
                BatchValue::Syscall(SyscallResult::new(result.ret, result.errno, Vec::new()))
            }
            Self::WriteFile(..) | Self::Mkdir(..) | Self::Unlink(_) | Self::Rename(..) => {
                BatchValue::Unit
            }
        })
    }
}

impl Guest {
    /// Runs operations one after the other in one round trip; one result each, a failure does not stop the rest.
    pub fn batch(&self, ops: Vec<BatchOp>) -> Result<Vec<Result<BatchValue>>> {
        self.start_batch(ops).wait()
    }

    /// Starts [`Guest::batch`].
    pub fn start_batch(&self, batch: Vec<BatchOp>) -> Pending<Vec<Result<BatchValue>>> {
        let call = self.call("vm:batch", "worker:batch");
        let guest = self.clone();
        self.start(call, async move {
            let resource = guest.resource();
            let connection = guest.connection(call).await?;
            let items = batch.iter().map(|op| op.item(call, &resource, &connection));
            let items = items.collect::<Result<Vec<_>>>()?;
            let entries = connection
                .request(call, &resource, &ops::Batch { ops: items })
                .await?;
            if entries.len() != batch.len() {
                let text = format!("{} results for {} operations", entries.len(), batch.len());
                return Err(Error::new(call, resource, Reason::Protocol(text)));
            }
            let mut results = Vec::new();
            for (op, entry) in batch.iter().zip(entries) {
                results.push(op.value(&connection, &resource, entry).await);
            }
            Ok(results)
        })
    }
}
