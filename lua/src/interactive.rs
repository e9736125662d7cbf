//! Lua typed line by line, for the prompt of `provium repl` (cli-and-config R-004).

use std::path::PathBuf;
use std::sync::Arc;

use mlua::{Function, Lua, Table};

use crate::fault::Fault;
use crate::file::{FileState, Setup};
use crate::filter::Filter;
use crate::report::Observer;
use crate::runner::FileJob;
use crate::state;
use crate::watch::Interrupt;

/// What became of typed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluated {
    /// It ran; its values, if any, as they are shown.
    Done(Option<String>),
    /// More has to be typed.
    Incomplete,
    /// It failed.
    Failed(String),
}

/// An entry of the table of functions: the source of the reference and of editor stubs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Handle type (`VM`), library (`json`), or empty for globals.
    pub class: String,
    /// The function's name.
    pub name: String,
    /// Parameters and results in the notation of Lua language servers.
    pub signature: String,
    /// What it does.
    pub doc: String,
}

/// A Lua state that outlives what is typed into it.
pub struct Interactive {
    file: Arc<FileState>,
    interrupt: Interrupt,
    lua: Lua,
    prelude: Table,
}

impl Interactive {
    /// A state with all globals.
    pub fn new(setup: Arc<Setup>, observer: Arc<dyn Observer>) -> Result<Self, String> {
        let interrupt = Interrupt::default();
        let job = FileJob {
            path: PathBuf::from("repl"),
            name: None,
            only: None,
            filter: Filter::default(),
            timeout: None,
            share: None,
            interrupt: interrupt.clone(),
            setup,
        };
        let file = FileState::new(&job, observer);
        let (lua, prelude) = state::open(&file).map_err(|error| Fault::from(error).0)?;
        Ok(Self {
            file,
            interrupt,
            lua,
            prelude,
        })
    }

    /// What stops the evaluation that goes on, from another thread.
    #[must_use]
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Names that may follow `path` and `mark` in what is being typed, sorted: globals after
    /// nothing, members after `.`, methods after `:`. Nothing is called to find them.
    #[must_use]
    pub fn complete(&self, path: &str, mark: &str) -> Vec<String> {
        let complete = || {
            let complete: Function = self.prelude.get("complete")?;
            complete.call::<Vec<String>>((path, mark))
        };
        // A table that cannot be looked through has nothing to offer.
        complete().unwrap_or_default()
    }

    /// Runs `source`: as an expression if it is one, else as statements.
    pub fn evaluate(&self, source: &str) -> Evaluated {
        let load = |text: String| self.lua.load(text).set_name("@repl").into_function();
        let chunk = match load(format!("return {source}")) {
            Ok(chunk) => chunk,
            Err(_) => match load(source.to_owned()) {
                Ok(chunk) => chunk,
                Err(mlua::Error::SyntaxError {
                    incomplete_input: true,
                    ..
                }) => {
                    return Evaluated::Incomplete;
                }
                Err(error) => return Evaluated::Failed(Fault::from(error).0),
            },
        };
        self.run(&chunk)
            .unwrap_or_else(|error| Evaluated::Failed(Fault::from(error).0))
    }

    /// Every function that an author can call, natives first, in the order of registration.
    pub fn reference(&self) -> Result<Vec<Entry>, String> {
        let read = || {
            let entries: Table = self.prelude.get("entries")?;
            entries
                .sequence_values::<Table>()
                .map(|entry| entry.and_then(|entry| read_entry(&entry)))
                .collect::<mlua::Result<_>>()
        };
        read().map_err(|error: mlua::Error| Fault::from(error).0)
    }

    fn run(&self, chunk: &Function) -> mlua::Result<Evaluated> {
        let evaluate: Function = self.prelude.get("evaluate")?;
        let result = evaluate.call(chunk);
        // An interrupt ends one evaluation; the next starts afresh.
        let stopped = self.file.watch.end_test();
        self.interrupt.clear();
        if let Some((stop, _)) = stopped {
            return Ok(Evaluated::Failed(stop.to_string()));
        }
        let (ok, text): (bool, Option<mlua::LuaString>) = result?;
        let text = text.map(|text| text.to_string_lossy());
        Ok(if ok {
            Evaluated::Done(text)
        } else {
            Evaluated::Failed(text.unwrap_or_default())
        })
    }
}

fn read_entry(entry: &Table) -> mlua::Result<Entry> {
    Ok(Entry {
        class: entry.get("class")?,
        name: entry.get("name")?,
        signature: entry.get("signature")?,
        doc: entry.get("doc")?,
    })
}

impl Drop for Interactive {
    fn drop(&mut self) {
        self.file.close();
    }
}
