//! One file's run: its attempts, and what of them is told.
//!
//! A failed file is tried again as often as `--retries` says, each time with the tests that have
//! not passed yet. What is told keeps the promises of the event stream (E-031, E-032): every test
//! starts once and ends once. So the failure of a test that will be tried again is held back; its
//! end is that of the last attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use provium_lab::Share;
use provium_lua::{Failure, FileJob, FileReport, FileStatus, Observer, Outcome, TestEnd, run_file};
use provium_protocol::Meta;
use provium_protocol::event::ClaimReleased;

use super::teller::{Teller, Tests, Voice};
use super::{Planned, Shop, locked};
use crate::news::{FileResult, Flaky, News};

impl Shop {
    /// Runs a file to its end and tells everything about it.
    pub(super) fn run(&self, planned: &Planned, share: Share, tell: &Sender<News>) {
        if self.classic {
            return self.run_classic(planned, share, tell);
        }
        let started = Instant::now();
        let teller = Arc::new(Teller::new(&planned.name, tell, Attempts::default()));
        let (voice, attempts) = (&teller.voice, &teller.tests);
        let mut left = self.retries;
        let mut report = loop {
            attempts.begin(left > 0);
            let report = self.attempt(planned, &share, &teller);
            if report.status == FileStatus::Passed || left == 0 || self.no_more_files() {
                break report;
            }
            left -= 1;
            attempts.note_failed(voice, &report, self.retries - left, self.retries);
        };
        let (tests, flaky) = attempts.finish(voice);
        let failed = |test: &TestEnd| matches!(test.outcome, Outcome::Failed(_));
        if report.status == FileStatus::Passed && tests.iter().any(failed) {
            report.status = FileStatus::Failed;
        }
        if report.status != FileStatus::Passed {
            locked(&self.failed).push(planned.file.path.clone());
            self.stop
                .fetch_or(self.fail_fast, std::sync::atomic::Ordering::AcqRel);
        }
        // The desk outlives the files, so telling cannot fail.
        let _ = tell.send(News::Completed(FileResult {
            path: planned.name.clone(),
            again: planned.file.again.clone(),
            report,
            tests,
            flaky,
            duration: started.elapsed(),
            classic: None,
        }));
        if let Some(amount) = share.claimed() {
            let path = planned.name.clone();
            let _ = tell.send(News::Lab(ClaimReleased { path, amount }.into()));
        }
    }

    fn attempt(
        &self,
        planned: &Planned,
        share: &Share,
        teller: &Arc<Teller<Attempts>>,
    ) -> FileReport {
        let job = FileJob {
            path: planned.file.path.clone(),
            name: Some(planned.name.clone()),
            only: teller.tests.still_to_run(),
            filter: self.filter.clone(),
            timeout: self.timeout,
            share: Some(share.clone()),
            interrupt: self.interrupt.clone(),
            setup: Arc::clone(&self.setup),
        };
        let observer = Arc::clone(teller) as Arc<dyn Observer>;
        catch_unwind(AssertUnwindSafe(|| run_file(job, observer)))
            .unwrap_or_else(|panic| crashed(&*panic))
    }
}

/// The report of a file in which the harness itself failed.
pub(super) fn crashed(panic: &(dyn std::any::Any + Send)) -> FileReport {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let message = format!("the harness panicked while running this file: {text}");
    FileReport {
        status: FileStatus::Crashed,
        chunk_error: Some(Failure {
            message,
            ..Failure::default()
        }),
    }
}

/// The tests of a file over all attempts at it.
#[derive(Default)]
struct Attempts(Mutex<State>);

#[derive(Default)]
struct State {
    /// A failure now will be tried again.
    may_retry: bool,
    attempt: u32,
    /// Tests in the order in which they started.
    order: Vec<(String, Meta)>,
    /// The attempt before this one ended in a panic: which tests there are is not known.
    crashed: bool,
    /// Ends that have been told.
    ended: BTreeMap<String, TestEnd>,
    /// Ends of this attempt that are held back.
    held: BTreeMap<String, TestEnd>,
    /// Failures of earlier attempts.
    failures: BTreeMap<String, Vec<String>>,
}

impl Attempts {
    fn begin(&self, may_retry: bool) {
        let mut state = locked(&self.0);
        state.may_retry = may_retry;
        state.attempt += 1;
    }

    /// The tests of a further attempt: those that have started and not ended for good. None
    /// started: all, because the file failed before its first test.
    fn still_to_run(&self) -> Option<BTreeSet<String>> {
        let state = locked(&self.0);
        if state.attempt == 1 || state.order.is_empty() || state.crashed {
            return None;
        }
        let names = state.order.iter().map(|(name, _)| name);
        let open = names.filter(|name| !state.ended.contains_key(*name));
        Some(open.cloned().collect())
    }

    fn note_failed(&self, voice: &Voice, report: &FileReport, attempt: u32, retries: u32) {
        let mut state = locked(&self.0);
        let mut failed = Vec::new();
        for (name, end) in std::mem::take(&mut state.held) {
            if let Outcome::Failed(failure) = end.outcome {
                failed.push(name.clone());
                state
                    .failures
                    .entry(name)
                    .or_default()
                    .push(failure.message);
            }
        }
        state.crashed = report.status == FileStatus::Crashed;
        drop(state);
        let what = match (failed.as_slice(), &report.chunk_error, report.status) {
            (_, Some(failure), _) => failure.message.clone(),
            (_, _, FileStatus::TimedOut) => "the file timed out".to_owned(),
            (names, ..) => names.join(", "),
        };
        voice.note(&format!(
            "failed, trying again ({attempt} of {retries}): {what}"
        ));
    }

    /// Tells what is still held back; answers all tests in order, and which of them are flaky.
    fn finish(&self, voice: &Voice) -> (Vec<TestEnd>, Vec<Flaky>) {
        let mut state = locked(&self.0);
        let held = std::mem::take(&mut state.held);
        for (name, meta) in state.order.clone() {
            if state.ended.contains_key(&name) {
                continue;
            }
            let end = match held.get(&name) {
                Some(end) => end.clone(),
                None => lost(name, meta, &state.failures),
            };
            told_end(voice, &mut state, end);
        }
        let State {
            order,
            mut ended,
            mut failures,
            attempt,
            ..
        } = std::mem::take(&mut *state);
        let mut flaky = Vec::new();
        let mut tests = Vec::new();
        for (name, _) in order {
            let Some(end) = ended.remove(&name) else {
                continue;
            };
            if let (Outcome::Passed, Some(failures)) = (&end.outcome, failures.remove(&name)) {
                flaky.push(Flaky {
                    name,
                    attempts: attempt,
                    failures,
                });
            }
            tests.push(end);
        }
        (tests, flaky)
    }
}

fn told_end(voice: &Voice, state: &mut State, end: TestEnd) {
    state.ended.insert(end.name.clone(), end.clone());
    voice.test_ended(end);
}

/// The end of a test that the last attempt did not have any more.
fn lost(name: String, meta: Meta, failures: &BTreeMap<String, Vec<String>>) -> TestEnd {
    let outcome = match failures.get(&name).and_then(|failures| failures.last()) {
        Some(failure) => Outcome::Failed(Box::new(Failure {
            message: format!("{failure}\nthen: the next attempt did not register this test"),
            ..Failure::default()
        })),
        None => Outcome::Skipped("not run: the next attempt did not register it".to_owned()),
    };
    TestEnd {
        name,
        meta,
        outcome,
        duration: std::time::Duration::ZERO,
        log: Vec::new(),
    }
}

/// A test that was not reached, for a reason that a further attempt may remove.
fn not_reached(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Skipped(reason) if reason.starts_with("not run: "))
}

impl Tests for Attempts {
    fn started(&self, voice: &Voice, name: &str, meta: &Meta) {
        let mut state = locked(&self.0);
        if state.order.iter().any(|(known, _)| known == name) {
            return;
        }
        state.order.push((name.to_owned(), meta.clone()));
        voice.test_started(name, meta);
    }

    fn ended(&self, voice: &Voice, mut end: TestEnd) {
        let mut state = locked(&self.0);
        if state.ended.contains_key(&end.name) {
            return;
        }
        let failed = matches!(end.outcome, Outcome::Failed(_));
        if state.may_retry && (failed || not_reached(&end.outcome)) {
            state.held.insert(end.name.clone(), end);
            return;
        }
        if let (Outcome::Passed, Some(before)) = (&end.outcome, state.failures.get(&end.name)) {
            let attempt = state.attempt;
            let earlier = before.iter().map(|failure| first_line(failure));
            let text = format!("flaky: passed in attempt {attempt}; before that: ");
            end.log.push(text + &earlier.collect::<Vec<_>>().join("; "));
        }
        told_end(voice, &mut state, end);
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
