//! `--json`: one object per file and line on stdout (cli-and-config R-057).

use std::io::{self, Write};

use provium_lua::{FileStatus, Outcome, TestEnd};
use serde::Serialize;

use super::Reporter;
use crate::news::{FileResult, News, Stamped};

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    timeout: &'static str,
    passed: bool,
    chunk_error: Option<&'a str>,
    tests: Vec<Test<'a>>,
}

#[derive(Serialize)]
struct Test<'a> {
    name: &'a str,
    status: &'static str,
    message: Option<&'a str>,
    log: &'a [String],
}

/// Writes results as JSON lines.
pub(crate) struct Json<W> {
    out: W,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Reporter for Json<W> {
    fn name(&self) -> &str {
        "JSON output"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        let News::Completed(result) = &stamped.news else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(&file(result))?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

fn file(result: &FileResult) -> File<'_> {
    let timed_out = result.report.status == FileStatus::TimedOut;
    File {
        path: &result.path,
        timeout: if timed_out { "timed_out" } else { "in_time" },
        passed: result.passed(),
        chunk_error: result
            .report
            .chunk_error
            .as_ref()
            .map(|failure| failure.message.as_str()),
        tests: result.tests.iter().map(test).collect(),
    }
}

fn test(end: &TestEnd) -> Test<'_> {
    let (status, message) = match &end.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(failure) => ("failed", Some(failure.message.as_str())),
        Outcome::Skipped(reason) => ("skipped", Some(reason.as_str())),
    };
    Test {
        name: &end.name,
        status,
        message,
        log: &end.log,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use provium_lua::FileReport;

    use super::*;

    #[test]
    fn r057_a_line_per_file() {
        let result = FileResult {
            path: "a.test.lua".into(),
            again: "a.test.lua".into(),
            report: FileReport {
                status: FileStatus::TimedOut,
                chunk_error: None,
            },
            tests: vec![TestEnd {
                name: "x".into(),
                meta: provium_protocol::Meta::new(),
                outcome: Outcome::Skipped("why".into()),
                duration: Duration::ZERO,
                log: vec!["l".into()],
            }],
            flaky: Vec::new(),
            classic: None,
            duration: Duration::ZERO,
        };
        let mut out = Vec::new();
        let stamped = Stamped {
            ts: 0,
            news: News::Completed(result),
        };
        Json::new(&mut out).hear(&stamped).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"path\":\"a.test.lua\",\"timeout\":\"timed_out\",\"passed\":false,\"chunk_error\":null,\
             \"tests\":[{\"name\":\"x\",\"status\":\"skipped\",\"message\":\"why\",\"log\":[\"l\"]}]}\n"
        );
    }
}
