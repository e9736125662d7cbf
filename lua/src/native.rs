//! One native function: its entry in the table of functions, and its way into Lua.
//!
//! A native answers in one of three forms, which the prelude tells apart by the first value:
//!
//! ```text
//! true, results...     done
//! false, message       failed; the prelude raises the message at the author's line
//! nil, pending         started; the prelude waits, or suspends the task that called
//! ```
//!
//! So a native never unwinds through Lua frames, and a panic inside one poisons the file
//! (lua-api L-219) instead of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use crate::args::Args;
use crate::fault::Fault;
use crate::file::FileState;
use crate::handle::{Object, handle};
use crate::later::{Later, Then, Waiting};
use crate::watch::author_frame;

/// What a native hands back.
pub(crate) type Answer = Result<Done, Fault>;

/// A native that did not fail.
pub(crate) enum Done {
    /// It has ended with these results.
    Now(MultiValue),
    /// It was started.
    Later(Box<dyn Later>),
}

/// What a native works with.
pub(crate) struct Cx<'a> {
    /// The file's Lua state.
    pub(crate) lua: &'a Lua,
    /// The file that runs.
    pub(crate) file: &'a Arc<FileState>,
}

impl Cx<'_> {
    /// The results of a native.
    pub(crate) fn ok(&self, results: impl IntoLuaMulti) -> Answer {
        Ok(Done::Now(results.into_lua_multi(self.lua)?))
    }

    /// An operation that was started; `convert` makes its results.
    pub(crate) fn later<T: Send + 'static>(
        &self,
        pending: provium_lab::Pending<T>,
        convert: impl FnOnce(&Cx<'_>, T) -> Result<MultiValue, Fault> + Send + 'static,
    ) -> Answer {
        Ok(Done::Later(Box::new(Then::new(pending, convert))))
    }

    /// The handle of an object, inside `convert`.
    pub(crate) fn handle(&self, object: Object) -> Result<MultiValue, Fault> {
        let handle = handle(self.lua, object, || self.file.new_number())?;
        self.values(handle)
    }

    /// The handle of an object as the result of a native.
    pub(crate) fn ok_handle(&self, object: Object) -> Answer {
        Ok(Done::Now(self.handle(object)?))
    }

    /// Directory of the author's file that makes this call (L-007).
    pub(crate) fn calling_dir(&self) -> PathBuf {
        let position = author_frame(self.lua);
        self.file
            .dir_of(position.as_ref().map(|(file, _)| file.as_str()))
    }

    /// Results inside `convert`.
    pub(crate) fn values(&self, results: impl IntoLuaMulti) -> Result<MultiValue, Fault> {
        Ok(results.into_lua_multi(self.lua)?)
    }
}

/// An entry of the table of functions.
#[derive(Clone, Copy)]
pub(crate) struct Native {
    /// Handle type (`VM`), library (`json`) or, for what only the prelude calls, a name that
    /// starts with `_`.
    pub(crate) class: &'static str,
    /// The call as authors write it, `vm:run`; the part behind `:` or `.` is the function's name.
    pub(crate) call: &'static str,
    /// Parameters and results in the notation of Lua language servers.
    pub(crate) signature: &'static str,
    /// What it does, in a sentence or two.
    pub(crate) doc: &'static str,
    /// The function.
    pub(crate) run: fn(&Cx<'_>, &mut Args) -> Answer,
}

impl Native {
    /// The function's own name.
    pub(crate) fn name(&self) -> &'static str {
        self.call.rsplit([':', '.']).next().unwrap_or(self.call)
    }

    /// The table entry as the prelude reads it.
    pub(crate) fn entry(self, lua: &Lua, file: &Arc<FileState>) -> mlua::Result<Table> {
        let entry = lua.create_table()?;
        entry.raw_set("class", self.class)?;
        entry.raw_set("name", self.name())?;
        entry.raw_set("signature", self.signature)?;
        entry.raw_set("doc", self.doc)?;
        entry.raw_set("call", self.function(lua, file)?)?;
        Ok(entry)
    }

    /// How many arguments its signature has, a method's handle not counted; none if that is open, or if only the
    /// prelude calls it.
    fn most(&self) -> Option<usize> {
        let open = self.class.starts_with('_') || self.signature.contains("...");
        (!open).then(|| parameters(self.signature))
    }

    fn function(self, lua: &Lua, file: &Arc<FileState>) -> mlua::Result<Function> {
        let file = Arc::clone(file);
        let most = self.most();
        lua.create_function(move |lua, values: MultiValue| {
            let cx = Cx { lua, file: &file };
            let mut args = Args::new(self.call, values);
            let answer = guarded(&file, self.call, || {
                args.at_most(most, self.call.contains(':'))?;
                (self.run)(&cx, &mut args)
            });
            let form = match answer {
                Ok(Done::Now(results)) => form(lua, Ok(results)),
                Ok(Done::Later(later)) => (Value::Nil, Waiting::new(later)).into_lua_multi(lua),
                Err(fault) => form(lua, Err(fault)),
            };
            // A call that was broken off tells where the author's code stood.
            file.watch.observe(lua);
            form
        })
    }
}

/// The number of parameters between the outermost parentheses of a signature.
fn parameters(signature: &str) -> usize {
    let (mut depth, mut commas, mut empty) = (0, 0, true);
    for c in signature.chars() {
        match c {
            '(' | '{' | '<' => depth += 1,
            ')' | '}' | '>' => depth -= 1,
            ',' if depth == 1 => commas += 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        empty &= c == '(' || c == ' ';
    }
    if empty { 0 } else { commas + 1 }
}

/// Runs `work`; a panic in it becomes a fault and poisons the file.
pub(crate) fn guarded<T>(
    file: &FileState,
    call: &str,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        file.poison();
        Err(Fault(format!(
            "{call}: the harness panicked: {}",
            panic_text(&*panic)
        )))
    })
}

/// Results or fault as the prelude reads them.
pub(crate) fn form(lua: &Lua, result: Result<MultiValue, Fault>) -> mlua::Result<MultiValue> {
    match result {
        Ok(mut results) => {
            results.push_front(Value::Boolean(true));
            Ok(results)
        }
        Err(Fault(message)) => (false, lua.create_string(message)?).into_lua_multi(lua),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::parameters;

    #[test]
    fn a_signature_tells_how_many_arguments_a_call_takes() {
        for (signature, count) in [
            ("()", 0),
            ("(): {kind: string, name: string}[]", 0),
            ("(timeout?): RunResult", 1),
            ("(fn: fun(a, b)): table[]", 1),
            ("(opts?: {perm?: integer, auto_dep?: boolean})", 1),
            (
                "(host: string, guest: string, opts?: {a?: integer, b?: boolean})",
                3,
            ),
        ] {
            assert_eq!(parameters(signature), count, "{signature}");
        }
    }
}
