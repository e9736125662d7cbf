//! Runs one v2 file: its chunk, then its tests one at a time (lua-api L-209, L-219..L-221).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, Table, Value};
use provium_lab::{Lab, LabSnapshot, Share};
use provium_protocol::Meta;

use crate::args;
use crate::fault::Fault;
use crate::file::{FileState, Setup};
use crate::filter::Filter;
use crate::handle::{self, Object};
use crate::meta;
use crate::record::{Records, failure, log_of, stopped};
use crate::report::{Failure, FileReport, FileStatus, Observer, Outcome, TestEnd};
use crate::state;
use crate::watch::{Interrupt, Stop};

/// A file to run.
pub struct FileJob {
    /// Canonical path.
    pub path: PathBuf,
    /// What events call it, where that is not its display path.
    pub name: Option<String>,
    /// Only tests of these names exist, if given: what a retry runs.
    pub only: Option<BTreeSet<String>>,
    /// Which of its tests run.
    pub filter: Filter,
    /// Deadline of the whole file.
    pub timeout: Option<Duration>,
    /// What it holds of the run's pool; without one, it takes what it needs.
    pub share: Option<Share>,
    /// Stops it from outside.
    pub interrupt: Interrupt,
    /// What all files of a run share.
    pub setup: Arc<Setup>,
}

/// Runs a file to its end. Everything it made is gone when this returns.
pub fn run_file(job: FileJob, observer: Arc<dyn Observer>) -> FileReport {
    let source = match std::fs::read(&job.path) {
        Ok(source) => source,
        Err(error) => return unreadable(&job, &error),
    };
    let file = FileState::new(&job, Arc::clone(&observer));
    let report = match Runner::new(&job, &file, &source) {
        Ok(runner) => runner.run(),
        Err(error) => FileReport {
            status: FileStatus::Crashed,
            chunk_error: Some(failure(format!("cannot set up the Lua state: {error}"))),
        },
    };
    file.watch.disarm();
    file.close();
    report
}

pub(crate) fn unreadable(job: &FileJob, error: &std::io::Error) -> FileReport {
    let message = format!(
        "{}: cannot read it: {error}",
        (job.setup.display)(&job.path)
    );
    FileReport {
        status: FileStatus::Failed,
        chunk_error: Some(failure(message)),
    }
}

/// A file in the middle of its run.
pub(crate) struct Runner<'a> {
    job: &'a FileJob,
    file: &'a Arc<FileState>,
    pub(crate) lua: Lua,
    /// The table that all prelude chunks share.
    pub(crate) prelude: Table,
    chunk: mlua::Result<Function>,
    failed: bool,
    /// What the lab is put back to after each test (L-011).
    baseline: Option<LabSnapshot>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(
        job: &'a FileJob,
        file: &'a Arc<FileState>,
        source: &[u8],
    ) -> mlua::Result<Self> {
        let (lua, prelude) = state::open(file)?;
        let display = file.display_path(&job.path);
        let source = without_shebang(source);
        let text = lua.create_string(&source)?;
        prelude
            .get::<Table>("sources")?
            .raw_set(display.as_str(), text)?;
        let chunk = lua
            .load(&*source)
            .set_name(format!("@{display}"))
            .into_function();
        Ok(Self {
            job,
            file,
            lua,
            prelude,
            chunk,
            failed: false,
            baseline: None,
        })
    }

    fn records(&self) -> Records<'_> {
        Records {
            prelude: &self.prelude,
            file: self.file,
        }
    }

    fn run(mut self) -> FileReport {
        let mut chunk_error = self.run_chunk();
        if chunk_error.is_none() && self.file.resets_between_tests() {
            chunk_error = self.take_baseline();
        }
        let mut unreached = chunk_error
            .as_ref()
            .map(|_| "not run: the file's code failed".to_owned());
        let mut timed_out = false;
        for test in self.tests() {
            let stopped = match (&unreached, self.file.watch.stop()) {
                (Some(why), _) => Some(why.clone()),
                (None, Some(stop)) => Some(format!("not run: {stop}")),
                (None, None) => None,
            };
            timed_out |= matches!(self.file.watch.stop(), Some(Stop::File(_)));
            match (stopped, self.file.is_poisoned()) {
                (_, true) => self.poisoned(&test),
                (Some(why), _) => {
                    self.skip(&test, why.clone());
                    unreached = Some(why);
                }
                (None, _) => {
                    self.run_test(&test);
                    if let Err(why) = self.back_to_baseline() {
                        self.failed = true;
                        self.file.observer.warn(&format!(
                            "putting the lab back after `{}`: {why}",
                            test.name
                        ));
                        unreached = Some(format!("not run: the lab could not be put back: {why}"));
                    }
                }
            }
        }
        timed_out |= matches!(self.file.watch.stop(), Some(Stop::File(_)));
        let status = match () {
            () if self.file.is_poisoned() => FileStatus::Crashed,
            () if timed_out => FileStatus::TimedOut,
            () if self.failed || chunk_error.is_some() => FileStatus::Failed,
            () if self.file.watch.stop() == Some(Stop::Interrupted) => FileStatus::Failed,
            () => FileStatus::Passed,
        };
        FileReport {
            status,
            chunk_error,
        }
    }

    /// Saves what the file's code has set up, for its tests to start from (L-011).
    fn take_baseline(&mut self) -> Option<Failure> {
        match self.file.session.root().snapshot(None) {
            Ok(baseline) => {
                self.baseline = Some(baseline);
                None
            }
            Err(error) => Some(failure(format!("provium.reset_between_tests: {error}"))),
        }
    }

    /// Puts the lab back after a test, unless the file is over.
    fn back_to_baseline(&self) -> Result<(), String> {
        match &self.baseline {
            Some(baseline) if self.file.watch.stop().is_none() => {
                let restored = self.file.session.root().restore(baseline);
                restored.map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Runs the file's own code; answers its error.
    pub(crate) fn run_chunk(&mut self) -> Option<Failure> {
        self.file.watch.begin_test(None);
        let result = match &self.chunk {
            Ok(chunk) => self
                .prelude
                .get::<Function>("run_chunk")
                .and_then(|run| run.call::<Option<Table>>(chunk)),
            Err(error) => return Some(self.syntax_error(error)),
        };
        let hit = self.file.watch.end_test();
        let hung = hit.is_some();
        let record = match (hit, result) {
            (Some((stop, position)), _) => Some(stopped(stop, position)),
            (None, Ok(None)) => None,
            (None, Ok(Some(record))) => Some(self.records().failure(&record)),
            (None, Err(error)) => Some(failure(Fault::from(error).0)),
        };
        record.map(|record| self.records().complete(record, hung))
    }

    fn syntax_error(&self, error: &mlua::Error) -> Failure {
        let mut message = Fault::from(error.clone()).0;
        if let Some(text) = message.strip_prefix("syntax error: ") {
            message = text.to_owned();
        }
        self.records().with_source(failure(message))
    }

    /// The registered tests in order.
    fn tests(&self) -> Vec<Test> {
        let Ok(tests) = self.prelude.get::<Table>("tests") else {
            return Vec::new();
        };
        tests
            .sequence_values::<Table>()
            .flatten()
            .map(|record| self.test(record))
            .filter(|test| {
                let only = self.job.only.as_ref();
                only.is_none_or(|names| names.contains(&test.name))
            })
            .collect()
    }

    fn test(&self, record: Table) -> Test {
        let name: mlua::Result<mlua::LuaString> = record.get("name");
        let name = name.map(|name| name.to_string_lossy()).unwrap_or_default();
        let warn = |problem: String| {
            self.file
                .observer
                .warn(&format!("test `{name}`: meta: {problem}"));
        };
        let table: mlua::Result<Table> = record.get("meta");
        let meta = table
            .map(|table| meta::convert(&table, &warn))
            .unwrap_or_default();
        Test { name, meta, record }
    }

    fn todo(&self) -> Option<String> {
        let todo: Value = self.prelude.get("file_todo").ok()?;
        todo.as_string().map(|text| text.to_string_lossy())
    }

    fn run_test(&mut self, test: &Test) {
        if let Some(reason) = self.job.filter.skip(self.todo().as_deref(), &test.meta) {
            return self.skip(test, reason);
        }
        self.file.observer.test_started(&test.name, &test.meta);
        let started = Instant::now();
        let (outcome, log) = match self.deadline(test) {
            Ok(deadline) => self.run_body(test, deadline),
            Err(Fault(message)) => (Outcome::Failed(Box::new(failure(message))), Vec::new()),
        };
        self.failed |= matches!(outcome, Outcome::Failed(_));
        self.end(test, outcome, started.elapsed(), log);
    }

    /// The test's deadline: `meta.timeout`, else the file's default (L-213, L-225).
    fn deadline(&self, test: &Test) -> Result<Option<Duration>, Fault> {
        let meta: Table = test.record.get("meta")?;
        let value: Value = meta.raw_get("timeout")?;
        if value.is_nil() {
            return Ok(self.file.test_timeout());
        }
        let place = || -> Result<String, Fault> {
            let file: String = test.record.get("file")?;
            let line: i64 = test.record.get("line")?;
            Ok(format!("{file}:{line}: test: meta.timeout"))
        };
        let wrong = || Fault(format!("must be a duration, got {}", args::kind(&value)));
        match args::duration(&value, wrong) {
            Ok(limit) => Ok(Some(limit)),
            Err(Fault(problem)) => Err(Fault(format!("{}: {problem}", place()?))),
        }
    }

    fn run_body(&self, test: &Test, deadline: Option<Duration>) -> (Outcome, Vec<String>) {
        let scope = self.file.begin_scope(&test.name);
        if let Err(error) = self.set_scope(scope) {
            return (
                self.records().failed(failure(Fault::from(error).0), false),
                Vec::new(),
            );
        }
        self.file.watch.begin_test(deadline);
        let result = self
            .prelude
            .get::<Function>("run_body")
            .and_then(|run| run.call::<Table>(&test.record));
        let hit = self.file.watch.end_test();
        let log = result.as_ref().map(log_of).unwrap_or_default();
        let outcome = match (hit, result) {
            (Some((stop, position)), _) => self.records().failed(stopped(stop, position), true),
            (None, Ok(record)) => self.records().outcome(&record),
            (None, Err(error)) => self.records().failed(failure(Fault::from(error).0), false),
        };
        self.leave_scope();
        (outcome, log)
    }

    /// Lets `provium` mean this lab (L-010).
    fn set_scope(&self, lab: Lab) -> mlua::Result<()> {
        let lab = handle::handle(&self.lua, Object::Lab(lab), || self.file.new_number())?;
        self.prelude.get::<Function>("set_scope")?.call(lab)
    }

    /// Closes what the test declared; `provium` means the root again.
    fn leave_scope(&self) {
        let dropped = self
            .prelude
            .get::<Function>("drop_tasks")
            .and_then(|drop| drop.call::<()>(()));
        let back = self.set_scope(self.file.session.root().clone());
        if let Err(error) = dropped.and(back) {
            self.file
                .observer
                .warn(&format!("ending the test: {error}"));
        }
        self.file.end_scope();
    }

    fn skip(&self, test: &Test, reason: String) {
        self.file.observer.test_started(&test.name, &test.meta);
        self.end(test, Outcome::Skipped(reason), Duration::ZERO, Vec::new());
    }

    fn poisoned(&mut self, test: &Test) {
        self.failed = true;
        self.file.observer.test_started(&test.name, &test.meta);
        let why = failure("failed-due-to-poisoned-state".to_owned());
        self.end(
            test,
            Outcome::Failed(Box::new(why)),
            Duration::ZERO,
            Vec::new(),
        );
    }

    fn end(&self, test: &Test, outcome: Outcome, duration: Duration, log: Vec<String>) {
        let (name, meta) = (test.name.clone(), test.meta.clone());
        self.file.observer.test_ended(TestEnd {
            name,
            meta,
            outcome,
            duration,
            log,
        });
    }
}

impl Drop for Runner<'_> {
    /// Collects what the file left behind while its objects still exist.
    fn drop(&mut self) {
        self.file.watch.disarm();
        // Finalisers of the file may raise; that is no failure of anything (L-229).
        let _ = self.lua.gc_collect();
    }
}

/// A registered test.
struct Test {
    name: String,
    meta: Meta,
    record: Table,
}

/// A first line that starts with `#` is for the host's shell; its line number stays taken.
pub(crate) fn without_shebang(source: &[u8]) -> Vec<u8> {
    if source.first() != Some(&b'#') {
        return source.to_vec();
    }
    let end = source
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(source.len());
    source[end..].to_vec()
}
