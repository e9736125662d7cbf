//! Runs one file of a classic run (classic-api section 8): top to bottom, once; `test` runs its body
//! where it is called.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mlua::{Function, Lua, LuaString, Table, Value};
use provium_protocol::Meta;

use crate::file::FileState;
use crate::meta;
use crate::record::{Records, failure, log_of};
use crate::report::{Failure, FileReport, FileStatus, Observer, Outcome, TestEnd};
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
    let open = Arc::default();
    let report = match Runner::new(&job, &file, &source).and_then(|runner| {
        install_hooks(&runner.lua, &runner.prelude, &file, &open).map(|()| runner)
    }) {
        Ok(runner) => run(runner, &file, &open),
        Err(error) => broken(FileReport {
            status: FileStatus::Crashed,
            chunk_error: Some(failure(format!("cannot set up the Lua state: {error}"))),
        }),
    };
    file.watch.disarm();
    file.close();
    report
}

fn run(mut runner: Runner<'_>, file: &FileState, open: &Mutex<Vec<Body>>) -> ClassicReport {
    let mut chunk_error = runner.run_chunk();
    let failed_inside = end_open(file, open, chunk_error.as_ref());
    let flag = |name: &str| runner.prelude.get(name).unwrap_or(false);
    let status = match () {
        () if file.is_poisoned() => FileStatus::Crashed,
        () if matches!(file.watch.stop(), Some(Stop::File(_))) => FileStatus::TimedOut,
        () if chunk_error.is_some() || flag("inline_failed") => FileStatus::Failed,
        () if file.watch.stop() == Some(Stop::Interrupted) => FileStatus::Failed,
        () => FileStatus::Passed,
    };
    if failed_inside {
        // It is the tests' failure, and told with them.
        chunk_error = None;
    }
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

/// A body that has started and not ended.
struct Body {
    name: String,
    meta: Meta,
    start: Instant,
}

/// Ends the bodies that were left for good, by a deadline or an interruption, with what the file
/// failed with (E-032, R-112). Answers whether there were any.
fn end_open(file: &FileState, open: &Mutex<Vec<Body>>, error: Option<&Failure>) -> bool {
    let bodies = std::mem::take(&mut *locked(open));
    let any = !bodies.is_empty();
    for body in bodies.into_iter().rev() {
        let error = error.cloned();
        let failure = error.unwrap_or_else(|| failure("the test did not end".to_owned()));
        file.observer.test_ended(TestEnd {
            name: body.name,
            meta: body.meta,
            outcome: Outcome::Failed(Box::new(failure)),
            duration: body.start.elapsed(),
            log: Vec::new(),
        });
    }
    any
}

/// Gives the prelude what it calls when a body starts and ends. Bodies may be nested: those that
/// have not ended are in `open`, the innermost last.
fn install_hooks(
    lua: &Lua,
    prelude: &Table,
    file: &Arc<FileState>,
    open: &Arc<Mutex<Vec<Body>>>,
) -> mlua::Result<()> {
    let hooks = lua.create_table()?;
    let (told, begun) = (Arc::clone(file), Arc::clone(open));
    let started = lua.create_function(move |_, (name, meta): (LuaString, Table)| {
        let name = name.to_string_lossy();
        let meta = meta_of(&told, &name, &meta);
        told.observer.test_started(&name, &meta);
        locked(&begun).push(Body {
            start: Instant::now(),
            name,
            meta,
        });
        Ok(())
    })?;
    hooks.raw_set("started", started)?;

    let (told, records, begun) = (Arc::clone(file), prelude.clone(), Arc::clone(open));
    let ended =
        lua.create_function(move |_, (name, meta, record): (LuaString, Table, Table)| {
            let duration = locked(&begun).pop().map(|body| body.start.elapsed());
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

fn locked(open: &Mutex<Vec<Body>>) -> MutexGuard<'_, Vec<Body>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn meta_of(file: &FileState, name: &str, table: &Table) -> Meta {
    let warn = |problem: String| {
        file.observer
            .warn(&format!("test `{name}`: meta: {problem}"));
    };
    meta::convert(table, &warn)
}
