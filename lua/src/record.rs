//! Records of the prelude, which say how a body ended, as the outcomes that reporters get.

use mlua::{Table, Value};

use crate::file::FileState;
use crate::report::{Failure, Outcome};
use crate::watch::Stop;

/// Reads the records of one file.
pub(crate) struct Records<'a> {
    /// The table that all prelude chunks share.
    pub(crate) prelude: &'a Table,
    pub(crate) file: &'a FileState,
}

impl Records<'_> {
    /// How a body ended.
    pub(crate) fn outcome(&self, record: &Table) -> Outcome {
        let status: String = record.get("status").unwrap_or_default();
        match status.as_str() {
            "passed" => Outcome::Passed,
            "skipped" => Outcome::Skipped(text_of(record, "message").unwrap_or_default()),
            _ => self.failed(self.failure(record), false),
        }
    }

    /// A failed test, with all there is to say about it; `hung` if it was stopped.
    pub(crate) fn failed(&self, failure: Failure, hung: bool) -> Outcome {
        Outcome::Failed(Box::new(self.complete(failure, hung)))
    }

    /// A failure record of the prelude.
    pub(crate) fn failure(&self, record: &Table) -> Failure {
        let values: Option<Table> = record.get("values").ok().flatten();
        let trace: Option<Table> = record.get("trace").ok().flatten();
        Failure {
            message: text_of(record, "message").unwrap_or_default(),
            file: text_of(record, "file"),
            line: record.get("line").ok(),
            values: values.and_then(|pair| Some((text_at(&pair, 1)?, text_at(&pair, 2)?))),
            trace: trace.as_ref().map(strings).unwrap_or_default(),
            ..Failure::default()
        }
    }

    /// Adds the line of code, and what the VMs' consoles said last; for a stopped test also where
    /// their vCPUs stand.
    pub(crate) fn complete(&self, failure: Failure, hung: bool) -> Failure {
        let mut failure = self.with_source(failure);
        failure.consoles = self.file.console_tails(hung);
        failure
    }

    /// Adds the line of code that the failure points at.
    pub(crate) fn with_source(&self, mut failure: Failure) -> Failure {
        if failure.file.is_none()
            && let Some((file, line)) = position(&failure.message)
        {
            failure.file = Some(file.to_owned());
            failure.line = Some(line);
        }
        let Some((file, line)) = failure.file.as_ref().zip(failure.line) else {
            return failure;
        };
        let sources: mlua::Result<Table> = self.prelude.get("sources");
        if let Some(source) = sources.ok().and_then(|sources| text_of(&sources, file)) {
            let index = usize::try_from(line).unwrap_or(0).wrapping_sub(1);
            failure.source_line = source.lines().nth(index).map(str::to_owned);
        }
        failure
    }
}

/// A failure of which only the message is known.
pub(crate) fn failure(message: String) -> Failure {
    Failure {
        message,
        ..Failure::default()
    }
}

/// The failure of a body that was stopped from outside.
pub(crate) fn stopped(stop: Stop, position: Option<String>) -> Failure {
    failure(match position {
        Some(position) => format!("{position}: {stop}"),
        None => stop.to_string(),
    })
}

/// What a body logged.
pub(crate) fn log_of(record: &Table) -> Vec<String> {
    let log: mlua::Result<Table> = record.get("log");
    log.map(|log| strings(&log)).unwrap_or_default()
}

/// `FILE:LINE: ` at the start of a message.
fn position(message: &str) -> Option<(&str, u32)> {
    let first = message.lines().next()?;
    first.match_indices(':').find_map(|(at, _)| {
        let digits = first[at + 1..].split(':').next()?;
        Some((&first[..at], digits.parse().ok()?))
    })
}

pub(crate) fn text_of(table: &Table, key: &str) -> Option<String> {
    let value: Value = table.raw_get(key).ok()?;
    value.as_string().map(|text| text.to_string_lossy())
}

fn text_at(table: &Table, index: i64) -> Option<String> {
    let value: Value = table.raw_get(index).ok()?;
    value.as_string().map(|text| text.to_string_lossy())
}

fn strings(table: &Table) -> Vec<String> {
    table
        .sequence_values::<mlua::LuaString>()
        .flatten()
        .map(|text| text.to_string_lossy())
        .collect()
}
