//! Results of the library as Lua values.

use mlua::{Lua, Table};
use provium_lab::{DirEntry, RunResult, Stat, SyscallResult, signal_name};

/// Registry key of the metatable of run results, which the prelude sets.
pub(crate) const RUN_RESULT: &str = "provium.RunResult";

/// `RunResult` (L-091..L-093).
pub(crate) fn run_result(lua: &Lua, result: &RunResult) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("exit_code", result.exit_code)?;
    table.raw_set("stdout", lua.create_string(&result.stdout)?)?;
    table.raw_set("stderr", lua.create_string(&result.stderr)?)?;
    table.raw_set("timed_out", result.timed_out())?;
    table.raw_set("status", result.status.name())?;
    table.raw_set("signal", result.signal)?;
    table.raw_set("signal_name", result.signal.and_then(signal_name))?;
    table.raw_set("command", result.command.as_str())?;
    let metatable: Option<Table> = lua.named_registry_value(RUN_RESULT)?;
    table.set_metatable(metatable)?;
    Ok(table)
}

/// `stat` (L-099).
pub(crate) fn stat(lua: &Lua, stat: &Stat) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("size", stat.size)?;
    #[expect(clippy::cast_precision_loss, reason = "mtime is documented as a float")]
    table.raw_set("mtime", stat.mtime_ns as f64 / 1e9)?;
    table.raw_set("mtime_ns", stat.mtime_ns)?;
    table.raw_set("perm", stat.perm)?;
    table.raw_set("entry_type", stat.entry_type.as_str())?;
    table.raw_set("uid", stat.uid)?;
    table.raw_set("gid", stat.gid)?;
    table.raw_set("ino", stat.ino.cast_signed())?;
    table.raw_set("dev", stat.dev.cast_signed())?;
    Ok(table)
}

/// `listdir` (L-100).
pub(crate) fn entries(lua: &Lua, entries: &[DirEntry]) -> mlua::Result<Table> {
    let list = lua.create_table_with_capacity(entries.len(), 0)?;
    for entry in entries {
        let table = lua.create_table()?;
        table.raw_set("name", lua.create_string(&entry.name)?)?;
        table.raw_set("entry_type", entry.entry_type.as_str())?;
        list.raw_push(table)?;
    }
    Ok(list)
}

/// `syscall` (L-107).
pub(crate) fn syscall_result(lua: &Lua, result: &SyscallResult) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("ret", result.ret)?;
    table.raw_set("result", result.ret)?;
    table.raw_set("errno", result.errno)?;
    table.raw_set("raw", result.raw)?;
    table.raw_set("out_bufs", strings(lua, &result.out_bufs)?)?;
    Ok(table)
}

/// An array of byte strings.
pub(crate) fn strings<T: AsRef<[u8]>>(lua: &Lua, items: &[T]) -> mlua::Result<Table> {
    let list = lua.create_table_with_capacity(items.len(), 0)?;
    for item in items {
        list.raw_push(lua.create_string(item)?)?;
    }
    Ok(list)
}
