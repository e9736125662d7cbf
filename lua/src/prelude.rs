//! The part of the API that is plain Lua, and how it gets into a file's state.

use mlua::{Lua, Table};

/// The chunks in load order. Each gets the shared table `P` and the native table `N`.
const CHUNKS: &[(&str, &str)] = &[
    ("errors", include_str!("prelude/errors.lua")),
    ("registry", include_str!("prelude/registry.lua")),
    ("values", include_str!("prelude/values.lua")),
    ("assert", include_str!("prelude/assert.lua")),
    ("context", include_str!("prelude/context.lua")),
    ("framework", include_str!("prelude/framework.lua")),
    ("inline", include_str!("prelude/inline.lua")),
    ("tasks", include_str!("prelude/tasks.lua")),
    ("pack", include_str!("prelude/pack.lua")),
    ("wait", include_str!("prelude/wait.lua")),
    ("classic", include_str!("prelude/classic.lua")),
    ("handles", include_str!("prelude/handles.lua")),
    ("interactive", include_str!("prelude/interactive.lua")),
    ("globals", include_str!("prelude/globals.lua")),
];

/// Runs all chunks; answers the table they share.
pub(crate) fn load(lua: &Lua, natives: &Table) -> mlua::Result<Table> {
    let shared = lua.create_table()?;
    for (name, source) in CHUNKS {
        // Names that begin with "=" are not author files, which is how positions skip them.
        let chunk = lua.load(*source).set_name(format!("=[provium.{name}]"));
        chunk.call::<()>((&shared, natives))?;
    }
    Ok(shared)
}
