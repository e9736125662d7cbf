//! One file of a classic run: no retries, no filter of tests, and names that may repeat.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use provium_lab::Share;
use provium_lua::{ClassicReport, FileJob, FileStatus, Observer, Outcome, TestEnd, run_classic};
use provium_protocol::Meta;

use super::attempt::crashed;
use super::teller::{Teller, Tests, Voice};
use super::{Planned, Shop, locked};
use crate::news::{ClassicEnd, FileResult, News};

impl Shop {
    /// Runs a file as `provium test` does and tells everything about it.
    pub(super) fn run_classic(&self, planned: &Planned, share: Share, tell: &Sender<News>) {
        let started = Instant::now();
        let teller = Arc::new(Teller::new(&planned.name, tell, Repeated::default()));
        let job = FileJob {
            path: planned.file.path.clone(),
            name: Some(planned.name.clone()),
            only: None,
            filter: self.filter.clone(),
            timeout: self.timeout,
            share: Some(share),
            interrupt: self.interrupt.clone(),
            setup: Arc::clone(&self.setup),
        };
        let observer = Arc::clone(&teller) as Arc<dyn Observer>;
        let ended = catch_unwind(AssertUnwindSafe(|| run_classic(job, observer)));
        let ended = ended.unwrap_or_else(|panic| ClassicReport {
            report: crashed(&*panic),
            todo: None,
            counted: true,
            consoles: Vec::new(),
        });
        if ended.report.status != FileStatus::Passed {
            locked(&self.failed).push(planned.file.path.clone());
            self.stop
                .fetch_or(self.fail_fast, std::sync::atomic::Ordering::AcqRel);
        }
        let tests = std::mem::take(&mut locked(&teller.tests.0).tests);
        let whole = (tests.is_empty() && ended.counted).then(|| {
            let end = whole(planned, &ended, started.elapsed());
            teller.voice.test_started(&end.name, &end.meta);
            teller.voice.test_ended(end.clone());
            end
        });
        // The desk outlives the files, so telling cannot fail.
        let _ = tell.send(News::Completed(FileResult {
            path: planned.name.clone(),
            again: planned.file.again.clone(),
            report: ended.report,
            tests,
            flaky: Vec::new(),
            duration: started.elapsed(),
            classic: Some(Box::new(ClassicEnd {
                name: planned.file.relative.clone(),
                todo: ended.todo,
                counted: ended.counted,
                whole,
                consoles: ended.consoles,
            })),
        }));
    }
}

/// Where every file has tests, one without is a test of its own name (E-041, C-053).
fn whole(planned: &Planned, ended: &ClassicReport, duration: Duration) -> TestEnd {
    let outcome = match (&ended.report.chunk_error, ended.report.status, &ended.todo) {
        (Some(failure), ..) => Outcome::Failed(Box::new(failure.clone())),
        (None, FileStatus::Passed, None) => Outcome::Passed,
        (None, FileStatus::Passed, Some(reason)) => Outcome::Skipped(reason.clone()),
        (None, ..) => Outcome::Failed(Box::default()),
    };
    TestEnd {
        name: planned.file.relative.clone(),
        meta: Meta::default(),
        outcome,
        duration,
        log: Vec::new(),
    }
}

/// The tests of a file, whose names may repeat.
#[derive(Default)]
struct Repeated(Mutex<State>);

#[derive(Default)]
struct State {
    tests: Vec<TestEnd>,
    /// How often each name has started.
    starts: BTreeMap<String, u32>,
    /// Names in the event stream of the bodies that run now, the innermost last.
    open: Vec<String>,
}

impl Tests for Repeated {
    fn started(&self, voice: &Voice, name: &str, meta: &Meta) {
        // In the event stream a name starts once (E-031), in the file it may repeat (C-048).
        let unique = {
            let mut state = locked(&self.0);
            let count = state.starts.entry(name.to_owned()).or_default();
            *count += 1;
            let unique = match *count {
                1 => name.to_owned(),
                n => format!("{name}#{n}"),
            };
            state.open.push(unique.clone());
            unique
        };
        voice.test_started(&unique, meta);
    }

    fn ended(&self, voice: &Voice, end: TestEnd) {
        let mut told = end.clone();
        {
            let mut state = locked(&self.0);
            told.name = state.open.pop().unwrap_or(told.name);
            state.tests.push(end);
        }
        voice.test_ended(told);
    }
}
