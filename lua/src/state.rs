//! A fresh Lua state and the native table that the prelude starts from.

use std::sync::Arc;

use mlua::{Lua, LuaOptions, StdLib, Table};

use crate::file::FileState;
use crate::{bind, handle, prelude};

/// A state for `file` with the whole API in it, and the table that its prelude chunks share.
pub(crate) fn open(file: &Arc<FileState>) -> mlua::Result<(Lua, Table)> {
    let lua = new_lua();
    handle::install(&lua)?;
    let natives = natives(&lua, file)?;
    let prelude = prelude::load(&lua, &natives)?;
    file.watch.install(&lua)?;
    file.watch_positions_of(&lua);
    Ok((lua, prelude))
}

/// A Lua 5.4 state with the whole standard library (L-001, L-246).
fn new_lua() -> Lua {
    // Without this option mlua puts a pcall of its own in place that no coroutine can yield
    // across; natives catch their panics themselves, so Lua's pcall never sees one.
    let options = LuaOptions::new().catch_rust_panics(true);
    // SAFETY: a test file is the project's own code and trusted like any program its author
    // runs; "unsafe" here means that such code may use `debug` and load C modules. No other
    // state shares memory with this one.
    unsafe { Lua::unsafe_new_with(StdLib::ALL, options) }
}

/// The table `N`: every native function's entry, and the facts that the prelude needs.
fn natives(lua: &Lua, file: &Arc<FileState>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let entries = lua.create_table()?;
    for native in bind::all() {
        entries.raw_push(native.entry(lua, file)?)?;
    }
    table.raw_set("table", entries)?;
    table.raw_set("package_path", file.package_path())?;
    table.raw_set("stdout_is_data", file.stdout_is_data())?;
    Ok(table)
}
