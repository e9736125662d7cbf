//! Runs one file of a classic run (classic-api section 8): top to bottom, once; `test` runs its body
//! where it is called.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mlua::{Function, Lua, LuaString, Table, Value};
use provium_protocol::Meta;

use crate::file::FileState;
use crate::meta;
use crate::record::{Records, failure, log_of};
use crate::report::{FileReport, FileStatus, Observer, TestEnd};
use crate::runner::{FileJob, Runner, unreadable};
use crate::watch::Stop;

/// How a file of a classic run ended.
#[derive(Debug, Clone)]
pub struct ClassicReport {
    /// Status, and the error of the file's own code.
    pub report: FileReport,
    /// It ended itself as something yet to be done, with the reason (C-050).
    pub todo: Option<String>,
    /// It used `provium`, `test` or `todo`; otherwise it is a library of other files (C-055).
    pub counted: bool,
    /// All that its VMs wrote, if it failed (C-073).
    pub consoles: Vec<ConsoleLog>,
}

/// What a VM wrote on its console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLog {
    /// The VM.
    pub vm: String,
    /// From its first boot on.
    pub bytes: Vec<u8>,
}

/// Runs a file to its end. Everything it made is gone when this returns.
pub fn run_classic(job: FileJob, observer: Arc<dyn Observer>) -> ClassicReport {
    let broken = |report| ClassicReport {
        report,
        todo: None,
        counted: true,
        consoles: Vec::new(),
    };
    let source = match std::fs::read(&job.path) {
        Ok(source) => source,
        Err(error) => return broken(unreadable(&job, &error)),
    };
    let file = FileState::new(&job, observer);
    let report = match Runner::new(&job, &file, &source)
        .and_then(|runner| install_hooks(&runner.lua, &runner.prelude, &file).map(|()| runner))
    {
        Ok(runner) => run(runner, &file),
        Err(error) => broken(FileReport {
            status: FileStatus::Crashed,
            chunk_error: Some(failure(format!("cannot set up the Lua state: {error}"))),
        }),
    };
    file.watch.disarm();
    file.close();
    report
}

fn run(mut runner: Runner<'_>, file: &FileState) -> ClassicReport {
    let chunk_error = runner.run_chunk();
    let flag = |name: &str| runner.prelude.get(name).unwrap_or(false);
    let status = match () {
        () if file.is_poisoned() => FileStatus::Crashed,
        () if matches!(file.watch.stop(), Some(Stop::File(_))) => FileStatus::TimedOut,
        () if chunk_error.is_some() || flag("inline_failed") => FileStatus::Failed,
        () if file.watch.stop() == Some(Stop::Interrupted) => FileStatus::Failed,
        () => FileStatus::Passed,
    };
    let todo: Option<LuaString> = runner.prelude.get("file_todo").ok().flatten();
    ClassicReport {
        todo: todo
            .filter(|_| status == FileStatus::Passed)
            .map(|reason| reason.to_string_lossy()),
        counted: flag("used") || status != FileStatus::Passed,
        consoles: match status {
            FileStatus::Passed => Vec::new(),
            _ => file.console_logs(),
        },
        report: FileReport {
            status,
            chunk_error,
        },
    }
}

/// Gives the prelude what it calls when a body starts and ends.
fn install_hooks(lua: &Lua, prelude: &Table, file: &Arc<FileState>) -> mlua::Result<()> {
    let hooks = lua.create_table()?;
    // Bodies may be nested, so starts are a stack.
    let starts: Arc<Mutex<Vec<Instant>>> = Arc::default();

    let (told, begun) = (Arc::clone(file), Arc::clone(&starts));
    let started = lua.create_function(move |_, (name, meta): (LuaString, Table)| {
        let name = name.to_string_lossy();
        let meta = meta_of(&told, &name, &meta);
        told.observer.test_started(&name, &meta);
        locked(&begun).push(Instant::now());
        Ok(())
    })?;
    hooks.raw_set("started", started)?;

    let (told, records) = (Arc::clone(file), prelude.clone());
    let ended =
        lua.create_function(move |_, (name, meta, record): (LuaString, Table, Table)| {
            let duration = locked(&starts).pop().map(|start| start.elapsed());
            let records = Records {
                prelude: &records,
                file: &told,
            };
            let name = name.to_string_lossy();
            told.observer.test_ended(TestEnd {
                meta: meta_of(&told, &name, &meta),
                outcome: records.outcome(&record),
                duration: duration.unwrap_or_default(),
                log: log_of(&record),
                name,
            });
            Ok(Value::Nil)
        })?;
    hooks.raw_set("ended", ended)?;
    prelude.get::<Function>("run_inline")?.call(hooks)
}

fn locked(starts: &Mutex<Vec<Instant>>) -> MutexGuard<'_, Vec<Instant>> {
    starts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn meta_of(file: &FileState, name: &str, table: &Table) -> Meta {
    let warn = |problem: String| {
        file.observer
            .warn(&format!("test `{name}`: meta: {problem}"));
    };
    meta::convert(table, &warn)
}
