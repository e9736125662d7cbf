//! The output of `provium test` (classic-api section 10).

use std::io::{self, Write};
use std::path::PathBuf;

use provium_lua::{ConsoleTail, FileStatus, Outcome};

use super::Reporter;
use crate::classic::RunDirectory;
use crate::news::{ClassicEnd, FileResult, News, Stamped};

/// Lines of each console under a failed file (C-070).
const CONSOLE_LINES: usize = 20;

/// Prints files as they end.
pub(crate) struct Classic<W: Write> {
    out: W,
    directory: RunDirectory,
    passed: usize,
    failed: usize,
    todo: usize,
    logs: Vec<(String, PathBuf)>,
}

impl<W: Write> Classic<W> {
    /// Prints the heading; `pool` is the line about a fixed budget.
    pub(crate) fn new(mut out: W, directory: RunDirectory, pool: Option<&str>) -> io::Result<Self> {
        writeln!(out, "provium test\n")?;
        if let Some(pool) = pool {
            writeln!(out, "resource pool: {pool}\n")?;
        }
        out.flush()?;
        Ok(Self {
            out,
            directory,
            passed: 0,
            failed: 0,
            todo: 0,
            logs: Vec::new(),
        })
    }

    fn file(&mut self, result: &FileResult, end: &ClassicEnd) -> io::Result<()> {
        let seconds = result.duration.as_secs_f64();
        let verdict = match (result.report.status, &end.todo) {
            (FileStatus::Passed, Some(reason)) => {
                self.todo += 1;
                todo(reason)
            }
            (FileStatus::Passed, None) if !end.counted => return Ok(()),
            (FileStatus::Passed, None) => {
                self.passed += 1;
                match result.tests.len() {
                    0 => format!("ok ({seconds:.1}s)"),
                    1 => format!("ok (1 test, {seconds:.1}s)"),
                    n => format!("ok ({n} tests, {seconds:.1}s)"),
                }
            }
            _ => {
                self.failed += 1;
                format!("FAIL ({seconds:.1}s)")
            }
        };
        writeln!(self.out, "  {} ... {verdict}", end.name)?;
        for test in &result.tests {
            let verdict = match &test.outcome {
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed(failure) => {
                    format!("FAIL: {}", failure.message.replace('\n', "\n      "))
                }
                Outcome::Skipped(reason) => todo(reason),
            };
            writeln!(self.out, "    \u{b7} {} ... {verdict}", test.name)?;
        }
        if result.report.status != FileStatus::Passed {
            self.details(result)?;
            let path = self.directory.keep(&end.name, &end.consoles)?;
            self.logs.push((end.name.clone(), path));
        }
        self.out.flush()
    }

    /// The error of the file itself, and what the VMs said last.
    fn details(&mut self, result: &FileResult) -> io::Result<()> {
        let whole = result.report.chunk_error.as_ref();
        if let Some(failure) = whole {
            writeln!(self.out, "    {}", failure.message.replace('\n', "\n    "))?;
        } else if result.report.status == FileStatus::TimedOut {
            writeln!(self.out, "    the file timed out")?;
        }
        let last_failed = result
            .tests
            .iter()
            .rev()
            .find_map(|test| match &test.outcome {
                Outcome::Failed(failure) => Some(&**failure),
                _ => None,
            });
        let consoles = whole
            .or(last_failed)
            .map_or(&[][..], |failure| &failure.consoles);
        for console in consoles {
            self.console(console, consoles.len() > 1)?;
        }
        Ok(())
    }

    fn console(&mut self, console: &ConsoleTail, several: bool) -> io::Result<()> {
        let of = if several {
            format!("console of vm {}", console.vm)
        } else {
            "console".to_owned()
        };
        writeln!(self.out, "    --- {of} (last {CONSOLE_LINES} lines) ---")?;
        let lines: Vec<&str> = console.text.lines().collect();
        for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
            writeln!(self.out, "    {line}")?;
        }
        for note in &console.notes {
            writeln!(self.out, "    vm {}: {note}", console.vm)?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.logs.is_empty() {
            let width = self.logs.iter().map(|(name, _)| name.chars().count()).max();
            let width = width.unwrap_or(0);
            writeln!(self.out, "\nFailed test logs:")?;
            for (name, path) in &self.logs {
                writeln!(self.out, "  {name:width$} \u{2192} {}", path.display())?;
            }
        }
        let mut line = match self.failed {
            0 => format!("ok: {} passed", self.passed),
            failed => format!("FAIL: {} passed, {failed} failed", self.passed),
        };
        if self.todo > 0 {
            line.push_str(&format!(", {} todo", self.todo));
        }
        writeln!(self.out, "\n{line}")?;
        self.out.flush()
    }
}

fn todo(reason: &str) -> String {
    match reason {
        "todo" | "" => "todo".to_owned(),
        reason => format!("todo: {reason}"),
    }
}

impl<W: Write> Reporter for Classic<W> {
    fn name(&self) -> &str {
        "the report on stdout"
    }

    fn hear(&mut self, news: &Stamped) -> io::Result<()> {
        match &news.news {
            News::Completed(result) => match &result.classic {
                Some(end) => self.file(result, end),
                None => Ok(()),
            },
            News::Printed { bytes } => {
                self.out.write_all(bytes)?;
                self.out.flush()
            }
            News::Note { text } => {
                eprintln!("{text}");
                Ok(())
            }
            News::Ended { .. } => self.end(),
            _ => Ok(()),
        }
    }
}
