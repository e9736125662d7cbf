//! `--report`: one self-contained page about a run: files and tests on a timeline, what waited
//! and what the pool held, and every failure with its console and log.
//!
//! The run is written as JSON into a page that draws it; both come from this program, so the page
//! needs no network and nothing beside it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use provium_lua::{FileStatus, Outcome, TestEnd};
use provium_protocol::event::BlockReason;
use provium_protocol::{EventKind, Value};
use serde::Serialize;

use super::Reporter;
use crate::atomic;
use crate::news::{FileResult, News, Stamped};

/// The page around the data.
const PAGE: &str = include_str!("html/page.html");

/// Where the data goes.
const SLOT: &str = "\"RUN\"";

/// Collects a run and writes the page at its end.
pub(crate) struct Html {
    path: PathBuf,
    run: Run,
    /// Start of what goes on now.
    open: BTreeMap<(String, String), i64>,
}

/// All times are milliseconds since the run began.
#[derive(Default, Serialize)]
struct Run {
    /// Nanoseconds since the epoch at the first news.
    began: i64,
    seconds: f64,
    files: Vec<File>,
    pool: Vec<Pool>,
    total_memory: u64,
}

#[derive(Default, Serialize)]
struct File {
    path: String,
    status: &'static str,
    waited: Option<(f64, &'static str)>,
    start: f64,
    end: f64,
    error: Option<String>,
    again: String,
    tests: Vec<Test>,
    vms: Vec<Span>,
}

#[derive(Serialize)]
struct Test {
    name: String,
    status: &'static str,
    start: f64,
    millis: f64,
    message: Option<String>,
    source: Option<String>,
    log: Vec<String>,
    consoles: Vec<(String, String)>,
    meta: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Span {
    name: String,
    start: f64,
    end: f64,
}

#[derive(Serialize)]
struct Pool {
    at: f64,
    memory: u64,
    cpus: u32,
}

impl Html {
    /// A page at `path`, which must be writable.
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        atomic::check(&path)?;
        Ok(Self {
            path,
            run: Run::default(),
            open: BTreeMap::new(),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one run")]
    fn millis(&self, ts: i64) -> f64 {
        (ts - self.run.began) as f64 / 1e6
    }

    fn file(&mut self, path: &str) -> Option<&mut File> {
        self.run.files.iter_mut().find(|file| file.path == path)
    }

    fn begin(&mut self, path: &str, what: &str, ts: i64) {
        self.open.insert((path.to_owned(), what.to_owned()), ts);
    }

    /// When something began that ends now.
    fn ended(&mut self, path: &str, what: &str, now: i64) -> f64 {
        let key = (path.to_owned(), what.to_owned());
        let began = self.open.remove(&key).unwrap_or(now);
        self.millis(began)
    }

    fn lab(&mut self, kind: &EventKind, ts: i64) {
        match kind {
            EventKind::VmSpawned(vm) => self.begin(&vm.file, &vm_key(&vm.vm_name), ts),
            EventKind::VmShutdown(vm) => {
                let start = self.ended(&vm.file, &vm_key(&vm.vm_name), ts);
                let end = self.millis(ts);
                let name = vm.vm_name.clone();
                if let Some(file) = self.file(&vm.file) {
                    file.vms.push(Span { name, start, end });
                }
            }
            EventKind::PoolState(pool) => {
                self.run.total_memory = pool.used.memory_bytes + pool.available.memory_bytes;
                let at = self.millis(ts);
                self.run.pool.push(Pool {
                    at,
                    memory: pool.used.memory_bytes,
                    cpus: pool.used.cpus,
                });
            }
            _ => {}
        }
    }

    fn test(&mut self, path: &str, end: &TestEnd, ts: i64) {
        let start = self.ended(path, &test_key(&end.name), ts);
        let test = test(end, start);
        if let Some(file) = self.file(path) {
            file.tests.push(test);
        }
    }

    fn completed(&mut self, result: &FileResult, ts: i64) {
        let end = self.millis(ts);
        let Some(file) = self.file(&result.path) else {
            return;
        };
        file.end = end;
        file.again = result.again.display().to_string();
        file.status = match result.report.status {
            FileStatus::Passed => "passed",
            FileStatus::Failed => "failed",
            FileStatus::TimedOut => "timed out",
            FileStatus::Crashed => "crashed",
        };
        let error = result.report.chunk_error.as_ref();
        file.error = error.map(|failure| failure.message.clone());
    }

    fn page(&self) -> io::Result<String> {
        // In a script element only `<` could end the data; as an escape it cannot.
        let data = serde_json::to_string(&self.run)?.replace('<', "\\u003c");
        Ok(PAGE.replacen(SLOT, &data, 1))
    }
}

fn vm_key(name: &str) -> String {
    format!("vm {name}")
}

fn test_key(name: &str) -> String {
    format!("test {name}")
}

fn test(end: &TestEnd, start: f64) -> Test {
    let mut test = Test {
        name: end.name.clone(),
        status: "passed",
        start,
        millis: end.duration.as_secs_f64() * 1e3,
        message: None,
        source: None,
        log: end.log.clone(),
        consoles: Vec::new(),
        meta: end
            .meta
            .iter()
            .map(|(key, value)| (key.clone(), shown(value)))
            .collect(),
    };
    match &end.outcome {
        Outcome::Passed => {}
        Outcome::Skipped(reason) => {
            test.status = "skipped";
            test.message = Some(reason.clone());
        }
        Outcome::Failed(failure) => {
            test.status = "failed";
            test.message = Some(failure.message.clone());
            test.source = failure
                .line
                .zip(failure.source_line.as_ref())
                .map(|(line, text)| format!("{line} | {text}"));
            let consoles = failure.consoles.iter();
            test.consoles = consoles
                .map(|tail| (tail.vm.clone(), tail.text.clone()))
                .collect();
        }
    }
    test
}

/// A meta value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Str(text) => text.clone(),
        Value::Bin(bytes) => format!("{} bytes", bytes.len()),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Map(map) => map
            .iter()
            .map(|(key, value)| format!("{key}: {}", shown(value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

impl Reporter for Html {
    fn name(&self) -> &str {
        "HTML report"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        let ts = stamped.ts;
        if self.run.began == 0 {
            self.run.began = ts;
        }
        let now = self.millis(ts);
        match &stamped.news {
            News::Discovered { path, .. } => self.run.files.push(File {
                path: path.clone(),
                status: "not run",
                ..File::default()
            }),
            News::Blocked { path, reason, .. } => {
                let why = match reason {
                    BlockReason::PoolFull => "the pool was full",
                    BlockReason::PsiPressure => "the CPUs were under pressure",
                };
                if let Some(file) = self.file(path) {
                    file.waited.get_or_insert((now, why));
                }
            }
            News::Dispatched { path, .. } => {
                if let Some(file) = self.file(path) {
                    file.start = now;
                }
            }
            News::TestStarted { path, name, .. } => self.begin(path, &test_key(name), ts),
            News::TestEnded { path, end } => self.test(path, end, ts),
            News::Completed(result) => self.completed(result, ts),
            News::Lab(kind) => self.lab(kind, ts),
            News::Ended { elapsed } => {
                self.run.seconds = elapsed.as_secs_f64();
                let page = self.page()?;
                atomic::write(&self.path, page.as_bytes())?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_place_for_the_data() {
        assert_eq!(PAGE.matches(SLOT).count(), 1);
    }

    #[test]
    fn data_cannot_leave_its_element() {
        let mut html = Html {
            path: "x".into(),
            run: Run::default(),
            open: BTreeMap::new(),
        };
        let path = "</script><script>alert(1)</script>".to_owned();
        html.run.files.push(File {
            path,
            ..File::default()
        });
        let page = html.page().unwrap();
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("\\u003c/script>\\u003cscript>alert"));
    }
}
