//! The text output (cli-and-config R-053..R-056): per file a line, under it what failed and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use provium_lua::{Failure, FileStatus, Outcome, TestEnd};

use super::consoles::Consoles;
use super::paint::Paint;
use super::{Reporter, Screen};
use crate::news::{Counts, FileResult, News, Stamped};

/// How much the text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Failures and the summary.
    Quiet,
    /// Every file.
    Normal,
    /// Every test.
    Verbose,
}

/// Values longer than this are shown on lines of their own.
const SHORT_VALUE: usize = 40;

/// Prints files as they end, and the summary.
pub(crate) struct Text {
    screen: Screen,
    verbosity: Verbosity,
    files: usize,
    counts: Counts,
    /// How many of the slowest tests are listed at the end.
    slowest: usize,
    durations: Vec<(Duration, String)>,
    /// How the VMs of files that run have come up, if that is to be said.
    boots: BTreeMap<String, Vec<String>>,
}

impl Text {
    /// A text report on `screen`.
    #[must_use]
    pub(crate) fn new(screen: Screen, verbosity: Verbosity, slowest: usize) -> Self {
        Self {
            screen,
            verbosity,
            files: 0,
            counts: Counts::default(),
            slowest,
            durations: Vec::new(),
            boots: BTreeMap::new(),
        }
    }
}

impl Text {
    fn note_durations(&mut self, result: &FileResult) {
        if self.slowest == 0 {
            return;
        }
        for test in &result.tests {
            let name = format!("{}: {}", result.path, one_line(&test.name));
            self.durations.push((test.duration, name));
        }
        self.durations
            .sort_by_key(|(duration, _)| std::cmp::Reverse(*duration));
        self.durations.truncate(self.slowest);
    }

    fn slowest(&self) -> String {
        if self.durations.is_empty() {
            return String::new();
        }
        let mut out = String::from("\nslowest tests:\n");
        for (duration, name) in &self.durations {
            let _ = writeln!(out, "{:>9.2}s {name}", duration.as_secs_f64());
        }
        out
    }
}

impl Reporter for Text {
    fn name(&self) -> &str {
        "text output"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        match &stamped.news {
            News::Completed(result) => {
                self.files += 1;
                self.counts.add(result.counts());
                self.note_durations(result);
                let boots = self.boots.remove(&result.path).unwrap_or_default();
                let block = file_block(result, &boots, self.verbosity, self.screen.colours());
                if block.is_empty() {
                    Ok(())
                } else {
                    self.screen.write(block.as_bytes())
                }
            }
            News::Booted { path, text } if self.verbosity == Verbosity::Verbose => {
                let boots = self.boots.entry(path.clone()).or_default();
                boots.push(text.clone());
                Ok(())
            }
            News::Printed { bytes } => self.screen.write(bytes),
            News::Note { text } => self.screen.note(text),
            News::Ended { elapsed } => {
                let mut line = summary(self.files, self.counts, elapsed.as_secs_f64());
                line.push_str(&self.slowest());
                self.screen.write(line.as_bytes())
            }
            _ => Ok(()),
        }
    }
}

/// The last lines of the report.
fn summary(files: usize, counts: Counts, seconds: f64) -> String {
    let Counts {
        passed,
        failed,
        skipped,
    } = counts;
    format!(
        "\n{files} file(s); {passed} passed, {failed} failed, {skipped} skipped; {seconds:.2}s\n"
    )
}

/// Everything that is said about one file; empty when there is nothing to say.
fn file_block(
    result: &FileResult,
    boots: &[String],
    verbosity: Verbosity,
    colours: bool,
) -> String {
    if verbosity == Verbosity::Quiet && result.passed() && result.flaky.is_empty() {
        return String::new();
    }
    let paint = Paint { colours };
    let Counts {
        passed,
        failed,
        skipped,
    } = result.counts();
    let status = match result.report.status {
        FileStatus::Passed => paint.green("PASS"),
        FileStatus::Failed | FileStatus::Crashed => paint.red("FAIL"),
        FileStatus::TimedOut => paint.red("TIME"),
    };
    let path = &result.path;
    let mut out =
        format!("{status} {path} ({passed} passed, {failed} failed, {skipped} skipped)\n");
    for boot in boots {
        let _ = writeln!(out, "    {}", paint.dim(boot));
    }
    let mut consoles = Consoles::default();
    for test in &result.tests {
        test_lines(&mut out, test, verbosity, &mut consoles, &paint);
    }
    if let Some(failure) = &result.report.chunk_error {
        indented(&mut out, 4, &failure.message);
        details(&mut out, 4, failure, &paint);
        consoles.show(&mut out, 4, failure, &paint);
    }
    for flaky in &result.flaky {
        let (name, attempts) = (one_line(&flaky.name), flaky.attempts);
        let label = paint.yellow("FLAKY");
        let _ = writeln!(out, "    {label} {name} (passed in attempt {attempts})");
        for failure in &flaky.failures {
            indented(&mut out, 8, failure);
        }
    }
    if !result.passed() {
        let _ = writeln!(
            out,
            "    run it again: provium run {}",
            result.again.display()
        );
    }
    out
}

fn test_lines(
    out: &mut String,
    test: &TestEnd,
    verbosity: Verbosity,
    consoles: &mut Consoles,
    paint: &Paint,
) {
    let name = one_line(&test.name);
    match &test.outcome {
        Outcome::Failed(failure) => {
            let _ = writeln!(out, "    {} {name}", paint.red("FAIL"));
            indented(out, 8, &failure.message);
            details(out, 8, failure, paint);
            log_lines(out, test);
            consoles.show(out, 8, failure, paint);
            return;
        }
        _ if verbosity != Verbosity::Verbose => return,
        Outcome::Passed => {
            let _ = writeln!(out, "    {} {name}", paint.green("PASS"));
        }
        Outcome::Skipped(reason) => {
            let _ = writeln!(
                out,
                "    {} {name} ({})",
                paint.yellow("SKIP"),
                one_line(reason)
            );
        }
    }
    log_lines(out, test);
}

fn log_lines(out: &mut String, test: &TestEnd) {
    for line in &test.log {
        indented(out, 8, &format!("log: {line}"));
    }
}

/// What helps to understand a failure: the code, the values, the way there.
fn details(out: &mut String, indent: usize, failure: &Failure, paint: &Paint) {
    if let Some((code, line)) = failure.source_line.as_ref().zip(failure.line) {
        indented(
            out,
            indent,
            &paint.dim(&format!("{line:>5} | {}", code.trim_end())),
        );
    }
    if let Some((left, right)) = &failure.values
        && (left.len() > SHORT_VALUE || right.len() > SHORT_VALUE)
    {
        indented(out, indent, &format!(" left: {left}\nright: {right}"));
        if let Some(at) = first_difference(left, right) {
            indented(
                out,
                indent,
                &format!("       {}^ first difference", " ".repeat(at)),
            );
        }
    }
    for place in failure.trace.iter().skip(1) {
        indented(out, indent, &paint.dim(&format!("called from {place}")));
    }
}

/// Column of the first character in which two literals differ, if it is near enough to point at.
fn first_difference(left: &str, right: &str) -> Option<usize> {
    let same = left
        .chars()
        .zip(right.chars())
        .take_while(|(a, b)| a == b)
        .count();
    (same < 80).then_some(same)
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Appends `text`, every line indented.
pub(super) fn indented(out: &mut String, indent: usize, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "{:indent$}{line}", "");
    }
}

#[cfg(test)]
mod tests {
    use provium_lua::FileReport;

    use provium_lua::ConsoleTail;

    use super::*;

    fn test(name: &str, outcome: Outcome) -> TestEnd {
        TestEnd {
            name: name.into(),
            meta: provium_protocol::Meta::new(),
            outcome,
            duration: Duration::ZERO,
            log: vec!["first".into()],
        }
    }

    fn sample() -> FileResult {
        let failure = Failure {
            message: "t/a.test.lua:3: name: A ~= B".into(),
            file: Some("t/a.test.lua".into()),
            line: Some(3),
            source_line: Some("  t:assert_eq(a, b, \"name\")".into()),
            values: Some(("\"A\"".into(), "\"B\"".into())),
            trace: vec!["t/a.test.lua:3".into(), "t/a.test.lua:9 in helper".into()],
            consoles: vec![ConsoleTail {
                vm: "a".into(),
                text: "one\r\nKernel panic - not syncing: x\x1b[2J\n".into(),
                notes: vec!["state is dead".into()],
            }],
        };
        FileResult {
            path: "t/a.test.lua".into(),
            again: "t/a.test.lua".into(),
            report: FileReport {
                status: FileStatus::Failed,
                chunk_error: None,
            },
            tests: vec![
                test("good", Outcome::Passed),
                test("bad", Outcome::Failed(Box::new(failure))),
                test("later", Outcome::Skipped("todo".into())),
            ],
            flaky: Vec::new(),
            duration: Duration::from_secs(1),
            classic: None,
        }
    }

    #[test]
    fn r053_a_failed_file_says_what_and_why() {
        let expected = "\
FAIL t/a.test.lua (1 passed, 1 failed, 1 skipped)
    FAIL bad
        t/a.test.lua:3: name: A ~= B
            3 |   t:assert_eq(a, b, \"name\")
        called from t/a.test.lua:9 in helper
        log: first
        vm a: state is dead
        --- console of vm a (last 2 lines) ---
        one
        Kernel panic - not syncing: x\u{fffd}[2J
    run it again: provium run t/a.test.lua
";
        assert_eq!(
            file_block(&sample(), &[], Verbosity::Normal, false),
            expected
        );
        assert_eq!(
            file_block(&sample(), &[], Verbosity::Quiet, false),
            expected
        );
    }

    #[test]
    fn r055_verbose_shows_every_test() {
        let block = file_block(&sample(), &[], Verbosity::Verbose, false);
        assert!(
            block.contains("    PASS good\n        log: first\n"),
            "{block}"
        );
        assert!(block.contains("    SKIP later (todo)\n"), "{block}");
    }

    #[test]
    fn r056_quiet_says_nothing_about_what_passed() {
        let mut result = sample();
        result.report.status = FileStatus::Passed;
        result.tests.remove(1);
        assert_eq!(file_block(&result, &[], Verbosity::Quiet, false), "");
        let line = "PASS t/a.test.lua (1 passed, 0 failed, 1 skipped)\n";
        assert_eq!(file_block(&result, &[], Verbosity::Normal, false), line);
    }

    #[test]
    fn long_values_get_lines_of_their_own() {
        let failure = Failure {
            values: Some((
                format!("\"{}x\"", "a".repeat(40)),
                format!("\"{}y\"", "a".repeat(40)),
            )),
            ..Failure::default()
        };
        let mut out = String::new();
        details(&mut out, 0, &failure, &Paint { colours: false });
        let column = out.lines().nth(2).unwrap().find('^').unwrap();
        assert_eq!(
            out.lines().next().unwrap().as_bytes()[column],
            b'x',
            "{out}"
        );
    }

    #[test]
    fn r054_the_summary_counts_everything() {
        let counts = Counts {
            passed: 2,
            failed: 1,
            skipped: 0,
        };
        assert_eq!(
            summary(3, counts, 1.234),
            "\n3 file(s); 2 passed, 1 failed, 0 skipped; 1.23s\n"
        );
    }
}
