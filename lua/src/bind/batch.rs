//! `vm:batch`: operations queued by the prelude, sent in one round trip (lua-api L-115).
//!
//! Each `b:NAME(...)` is read like the call of that name on the VM and becomes a queued
//! operation; `vm:batch` sends the queue.

use mlua::{Lua, Table, UserData, Value};
use provium_lab::{BatchOp, BatchValue};

use crate::args::Args;
use crate::bind::convert;
use crate::bind::guest::on_guests;
use crate::bind::syscall;
use crate::command;
use crate::fault::Fault;
use crate::native::{Answer, Cx, Native};

/// A queued operation in Lua's hands.
struct Queued(BatchOp);

impl UserData for Queued {}

/// Declares the native that reads one kind of operation.
macro_rules! queued {
    ($($call:literal, $read:expr;)*) => {
        /// The readers of queued operations.
        pub(crate) const QUEUE: &[Native] = &[$(Native {
            class: "_batch",
            call: $call,
            signature: "(...)",
            doc: "Queues the operation.",
            run: |cx, args| {
                let read: fn(&mut Args) -> Result<BatchOp, Fault> = $read;
                let op = read(args)?;
                args.end()?;
                cx.ok(cx.lua.create_userdata(Queued(op))?)
            },
        },)*];
    };
}

queued! {
    "b:run", |args| Ok(BatchOp::Run(command::read(args, true)?));
    "b:read_file", |args| Ok(BatchOp::ReadFile(args.bytes("path")?));
    "b:write_file", |args| Ok(BatchOp::WriteFile(args.bytes("path")?, args.bytes("data")?));
    "b:stat", |args| {
        let path = args.bytes("path")?;
        Ok(BatchOp::Stat(path, args.options("opts", &["follow"])?.flag("follow")?))
    };
    "b:listdir", |args| Ok(BatchOp::ListDir(args.bytes("path")?));
    "b:mkdir", |args| {
        let path = args.bytes("path")?;
        let options = args.options("opts", &["parents", "perm"])?;
        Ok(BatchOp::Mkdir(path, options.flag("parents")?, options.perm("perm")?))
    };
    "b:unlink", |args| Ok(BatchOp::Unlink(args.bytes("path")?));
    "b:rename", |args| Ok(BatchOp::Rename(args.bytes("from")?, args.bytes("to")?));
    "b:syscall", |args| {
        let call = syscall::read_integers(args)?;
        Ok(BatchOp::Syscall(call.nr, call.args))
    };
}

on_guests! {
    /// Sends a queue.
    TABLE {
        "batch", "(fn: fun(b)): table[]",
        "Queues operations with `fn` and makes them all in one round trip, in order. Answers one \
         entry per operation: {ok = value} or {err = message}.",
        send;
    }
}

/// The prelude has called `fn`; what comes is the queue.
fn send(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let queue = args.table("queue")?;
    let mut ops = Vec::with_capacity(queue.raw_len());
    for item in queue.sequence_values::<mlua::AnyUserData>() {
        ops.push(item?.borrow::<Queued>()?.0.clone());
    }
    cx.later(guest.start_batch(ops), |cx, results| {
        let list = cx.lua.create_table_with_capacity(results.len(), 0)?;
        for result in results {
            list.raw_push(entry(cx.lua, result)?)?;
        }
        cx.values(list)
    })
}

fn entry(lua: &Lua, result: Result<BatchValue, provium_lab::Error>) -> mlua::Result<Table> {
    let entry = lua.create_table()?;
    match result {
        Ok(value) => entry.raw_set("ok", converted(lua, &value)?)?,
        Err(error) => entry.raw_set("err", error.to_string())?,
    }
    Ok(entry)
}

fn converted(lua: &Lua, value: &BatchValue) -> mlua::Result<Value> {
    Ok(match value {
        BatchValue::Unit => Value::Nil,
        BatchValue::Run(result) => Value::Table(convert::run_result(lua, result)?),
        BatchValue::Bytes(bytes) => Value::String(lua.create_string(bytes)?),
        BatchValue::Stat(stat) => Value::Table(convert::stat(lua, stat)?),
        BatchValue::Entries(entries) => Value::Table(convert::entries(lua, entries)?),
        BatchValue::Syscall(result) => Value::Table(convert::syscall_result(lua, result)?),
    })
}
