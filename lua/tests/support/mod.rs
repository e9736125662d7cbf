//! Runs Lua sources as test files and collects what an observer hears.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use provium_lab::config::{Config, Places};
use provium_lab::guest::{Guests, Silent};
use provium_lab::{Backend, Harness};
use provium_lua::{
    FileJob, FileReport, Filter, Interactive, Interrupt, Observer, Outcome, Setup, TestEnd,
    run_file,
};
use provium_protocol::Meta;

/// Everything a run told.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) started: Vec<String>,
    pub(crate) ends: Vec<TestEnd>,
    pub(crate) printed: String,
    pub(crate) warnings: Vec<String>,
}

#[derive(Default)]
struct Collector(Mutex<Record>);

impl Observer for Collector {
    fn test_started(&self, name: &str, _: &Meta) {
        self.0.lock().unwrap().started.push(name.to_owned());
    }

    fn test_ended(&self, end: TestEnd) {
        self.0.lock().unwrap().ends.push(end);
    }

    fn print(&self, bytes: &[u8]) {
        self.0
            .lock()
            .unwrap()
            .printed
            .push_str(&String::from_utf8_lossy(bytes));
    }

    fn warn(&self, text: &str) {
        self.0.lock().unwrap().warnings.push(text.to_owned());
    }

    fn phase(&self, _: &str) {}

    fn lab(&self, _: provium_protocol::EventKind) {}
}

/// A run of one source.
pub(crate) struct Run {
    pub(crate) report: FileReport,
    pub(crate) record: Record,
}

/// How to run a source.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) filter: Filter,
    pub(crate) timeout: Option<Duration>,
    pub(crate) interrupt: Interrupt,
}

/// Runs `source` as `a.test.lua`.
pub(crate) fn run(source: &str) -> Run {
    run_with(source, Options::default())
}

/// Runs `source` as `a.test.lua` beside `files`.
pub(crate) fn run_among(source: &str, files: &[(&str, &str)]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    run_in(dir.path(), source, Options::default())
}

pub(crate) fn run_with(source: &str, options: Options) -> Run {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), source, options)
}

fn run_in(dir: &std::path::Path, source: &str, options: Options) -> Run {
    let job = job(dir, "a.test.lua", source, options);
    let collector = Arc::new(Collector::default());
    let report = run_file(job, Arc::clone(&collector) as Arc<dyn Observer>);
    let record = std::mem::take(&mut *collector.0.lock().unwrap());
    Run { report, record }
}

/// The job of running `source` as the file `name` in `dir`, whose files go by their paths below it.
fn job(dir: &std::path::Path, name: &str, source: &str, options: Options) -> FileJob {
    let path = dir.join(name);
    std::fs::write(&path, source).unwrap();
    let base = dir.to_path_buf();
    let display = move |path: &std::path::Path| {
        path.strip_prefix(&base)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let setup = Setup::new(harness(dir), Box::new(display), false);
    FileJob {
        path,
        name: None,
        only: None,
        filter: options.filter,
        timeout: options.timeout,
        share: None,
        interrupt: options.interrupt,
        setup: Arc::new(setup),
    }
}

/// Runs `source` as the file of a classic run.
pub(crate) fn run_classic(source: &str) -> (provium_lua::ClassicReport, Record) {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path(), "a.lua", source, Options::default());
    let collector = Arc::new(Collector::default());
    let report = provium_lua::run_classic(job, Arc::clone(&collector) as Arc<dyn Observer>);
    let record = std::mem::take(&mut *collector.0.lock().unwrap());
    (report, record)
}

/// A state for typing into.
pub(crate) fn interactive() -> Interactive {
    let dir = tempfile::tempdir().unwrap();
    let display = |path: &std::path::Path| path.display().to_string();
    let harness = harness(dir.path());
    let setup = Setup::new(harness, Box::new(display), false);
    Interactive::new(Arc::new(setup), Arc::new(Collector::default())).unwrap()
}

/// A harness without a configuration file, on the software CPU. It finds no prepared guest, so a
/// test that boots something by accident fails.
fn harness(dir: &std::path::Path) -> Arc<Harness> {
    let places = Places {
        home: None,
        cache: dir.join("cache"),
        build_dir: None,
    };
    let guests = Guests::new(places.guests(), Arc::new(Silent));
    Arc::new(Harness::new(
        Config::builtin(dir, &places),
        Backend::Soft,
        guests,
    ))
}

impl Run {
    /// The end of the test called `name`.
    pub(crate) fn end(&self, name: &str) -> &TestEnd {
        self.record
            .ends
            .iter()
            .find(|end| end.name == name)
            .unwrap_or_else(|| panic!("no test {name}; chunk error: {:?}", self.report.chunk_error))
    }

    /// The failure message of the test called `name`.
    pub(crate) fn failure(&self, name: &str) -> &str {
        match &self.end(name).outcome {
            Outcome::Failed(failure) => &failure.message,
            other => panic!("{name} did not fail: {other:?}"),
        }
    }

    /// The skip reason of the test called `name`.
    pub(crate) fn reason(&self, name: &str) -> &str {
        match &self.end(name).outcome {
            Outcome::Skipped(reason) => reason,
            other => panic!("{name} was not skipped: {other:?}"),
        }
    }

    /// Panics unless every test passed and the chunk did.
    pub(crate) fn all_passed(&self) {
        assert_eq!(self.report.chunk_error, None);
        for end in &self.record.ends {
            assert_eq!(end.outcome, Outcome::Passed, "{}", end.name);
        }
        assert!(!self.record.ends.is_empty(), "no test ran");
    }

    /// The message of the chunk error.
    pub(crate) fn chunk_error(&self) -> &str {
        &self
            .report
            .chunk_error
            .as_ref()
            .expect("the chunk ran through")
            .message
    }
}
