//! `--junit`: the run as a JUnit XML report (cli-and-config R-058).
//!
//! Written whole when the run has ended, to a file beside the target that then takes its place.
//! Bytes that XML cannot hold are left out by `quick_junit`.

use std::io;
use std::path::PathBuf;

use provium_lua::{Failure, FileStatus, Outcome, TestEnd};
use provium_protocol::Value;
use quick_junit::{
    FlakyOrRerun, NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite,
};

use super::Reporter;
use crate::atomic;
use crate::news::{FileResult, Flaky, News, Stamped};

/// Name of the extra test case of a file that failed outside its tests.
const FILE_CASE: &str = "(file)";

/// Collects files and writes the report at the end.
pub(crate) struct Junit {
    path: PathBuf,
    suites: Vec<TestSuite>,
}

impl Junit {
    /// A report at `path`, which must be writable.
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        atomic::check(&path)?;
        let suites = Vec::new();
        Ok(Self { path, suites })
    }
}

impl Reporter for Junit {
    fn name(&self) -> &str {
        "JUnit report"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        match &stamped.news {
            News::Completed(result) => self.suites.push(suite(result)),
            News::Ended { elapsed } => {
                let mut report = Report::new("provium");
                report.set_time(*elapsed);
                report.add_test_suites(std::mem::take(&mut self.suites));
                let mut xml = Vec::new();
                report.serialize(&mut xml).map_err(io::Error::other)?;
                atomic::write(&self.path, &xml)?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn suite(result: &FileResult) -> TestSuite {
    let mut suite = TestSuite::new(&result.path);
    suite.set_time(result.duration);
    let whole = result.classic.as_ref().and_then(|end| end.whole.as_ref());
    for test in result.tests.iter().chain(whole) {
        let flaky = result.flaky.iter().find(|flaky| flaky.name == test.name);
        suite.add_test_case(case(&result.path, test, flaky));
    }
    // What is wrong with a file that is one test is wrong with that test.
    let error = file_error(result).filter(|_| whole.is_none());
    if let Some((kind, message)) = error {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type(kind).set_message(first_line(&message));
        status.set_description(message);
        let mut case = TestCase::new(FILE_CASE, status);
        case.set_classname(&result.path).set_time(result.duration);
        if let Some(failure) = &result.report.chunk_error {
            add_consoles(&mut case, failure);
        }
        suite.add_test_case(case);
    }
    suite
}

/// What went wrong outside the tests.
fn file_error(result: &FileResult) -> Option<(&'static str, String)> {
    let said = |failure: &Failure| failure.message.clone();
    let chunk = result.report.chunk_error.as_ref().map(said);
    match result.report.status {
        FileStatus::TimedOut => {
            let text = chunk.unwrap_or_else(|| "the file timed out".to_owned());
            Some(("timeout", text))
        }
        FileStatus::Crashed => {
            let text = chunk.unwrap_or_else(|| "the harness panicked in this file".to_owned());
            Some(("crash", text))
        }
        FileStatus::Passed | FileStatus::Failed => chunk.map(|text| ("chunk", text)),
    }
}

fn case(path: &str, test: &TestEnd, flaky: Option<&Flaky>) -> TestCase {
    let status = match &test.outcome {
        Outcome::Passed => passed(flaky),
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason);
            status
        }
        Outcome::Failed(failure) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(first_line(&failure.message));
            status.set_description(&failure.message);
            status
        }
    };
    let mut case = TestCase::new(&test.name, status);
    case.set_classname(path).set_time(test.duration);
    for (key, value) in &test.meta {
        if let Value::Str(text) = value {
            case.add_property((key.as_str(), text.as_str()));
        }
    }
    if !test.log.is_empty() {
        case.set_system_out(test.log.join("\n"));
    }
    if let Outcome::Failed(failure) = &test.outcome {
        add_consoles(&mut case, failure);
    }
    case
}

/// A pass, with the failures before it.
fn passed(flaky: Option<&Flaky>) -> TestCaseStatus {
    let mut status = TestCaseStatus::success();
    for failure in flaky.iter().flat_map(|flaky| &flaky.failures) {
        let mut rerun = TestRerun::new(NonSuccessKind::Failure);
        rerun.set_message(first_line(failure));
        rerun.set_description(failure);
        status.add_rerun(rerun);
        status.set_rerun_kind(FlakyOrRerun::Flaky);
    }
    status
}

fn add_consoles(case: &mut TestCase, failure: &Failure) {
    if !failure.consoles.is_empty() {
        case.set_system_err(failure.console_excerpt());
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use provium_lua::{ConsoleTail, FileReport};
    use provium_protocol::Meta;

    use super::*;

    fn test(name: &str, outcome: Outcome) -> TestEnd {
        TestEnd {
            name: name.into(),
            meta: Meta::from([("area".to_owned(), Value::Str("net".to_owned()))]),
            outcome,
            duration: Duration::from_millis(1500),
            log: vec!["first\u{1}".into(), "<second>".into()],
        }
    }

    #[test]
    fn r058_the_report_holds_every_test_and_the_file() {
        let failure = Failure {
            message: "a.test.lua:3: 1 ~= 2\nmore \u{0}\u{ffff}".into(),
            consoles: vec![ConsoleTail {
                vm: "a".into(),
                text: "\u{1b}[31mpanic\u{1b}[0m".into(),
                notes: Vec::new(),
            }],
            ..Failure::default()
        };
        let result = FileResult {
            path: "a & b.test.lua".into(),
            again: "a".into(),
            report: FileReport {
                status: FileStatus::TimedOut,
                chunk_error: None,
            },
            tests: vec![
                test("good", Outcome::Passed),
                test("bad", Outcome::Failed(Box::new(failure))),
                test("later", Outcome::Skipped("todo".into())),
            ],
            flaky: vec![Flaky {
                name: "good".into(),
                attempts: 2,
                failures: vec!["a.test.lua:1: no".into()],
            }],
            duration: Duration::from_secs(5),
            classic: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/junit.xml");
        let mut junit = Junit::new(path.clone()).unwrap();
        let elapsed = Duration::from_secs(6);
        for news in [News::Completed(result), News::Ended { elapsed }] {
            junit.hear(&Stamped { ts: 0, news }).unwrap();
        }
        let xml = std::fs::read_to_string(&path).unwrap();
        let report = Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((report.tests, report.failures, report.errors), (4, 1, 1));
        let suite = &report.test_suites[0];
        assert_eq!(suite.name.as_str(), "a & b.test.lua");
        assert_eq!((suite.tests, suite.skipped), (4, 1));
        let bad = &suite.test_cases[1];
        assert_eq!(bad.system_out.as_ref().unwrap().as_str(), "first\n<second>");
        assert!(bad.system_err.as_ref().unwrap().as_str().contains("panic"));
        assert_eq!(bad.properties[0].value.as_str(), "net");
        assert!(xml.contains("flakyFailure"), "{xml}");
        assert_eq!(suite.test_cases[3].name.as_str(), FILE_CASE);
    }
}
