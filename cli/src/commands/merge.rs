//! `provium merge`: the event streams or JUnit reports of shards as one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use provium_protocol::event::FileStatus;
use provium_protocol::{Event, EventKind};
use quick_junit::Report;

use crate::args::MergeArgs;
use crate::atomic;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::say::say;
use crate::stream::{EventStream, StreamError};
use crate::timings::RecordError;

/// Merges the inputs into the output. The exit code is that of one run of everything.
pub(crate) fn merge(args: &MergeArgs) -> Result<Exit, Problem> {
    let mut reports = Vec::new();
    let mut streams = Vec::new();
    for path in &args.inputs {
        match read(path)? {
            Input::Junit(report) => reports.push((path.clone(), *report)),
            Input::Events(events) => streams.push((path.clone(), events)),
        }
    }
    let (bytes, whole) = match (reports.is_empty(), streams.is_empty()) {
        (false, false) => return Err(Problem::Usage(mixed(&reports[0].0, &streams[0].0))),
        (false, true) => merged_reports(reports)?,
        _ => merged_events(streams)?,
    };
    let write = || {
        atomic::check(&args.output)?;
        atomic::write(&args.output, &bytes)
    };
    write().map_err(Problem::file("write", &args.output))?;
    say!("{}", whole.summary(args.inputs.len(), &args.output));
    for (path, files) in &whole.unfinished {
        let path = path.display();
        match files.as_slice() {
            [] => eprintln!("provium: {path}: holds no events: its run ended before it began"),
            files => eprintln!(
                "provium: {path}: the run ended before these files did: {}",
                files.join(", ")
            ),
        }
    }
    Ok(match (whole.unfinished.is_empty(), whole.failed) {
        (false, _) => Exit::Error,
        (true, 0) => Exit::Success,
        (true, _) => Exit::Failed,
    })
}

fn mixed(report: &Path, stream: &Path) -> String {
    format!(
        "{} is a JUnit report and {} is an event stream; merge one kind at a time",
        report.display(),
        stream.display()
    )
}

enum Input {
    Junit(Box<Report>),
    Events(Vec<Event>),
}

fn read(path: &Path) -> Result<Input, RecordError> {
    let bytes = std::fs::read(path).map_err(|source| StreamError::Read {
        name: path.display().to_string(),
        source,
    })?;
    if bytes.trim_ascii_start().starts_with(b"<") {
        let report = Report::deserialize(bytes.as_slice());
        return match report {
            Ok(report) => Ok(Input::Junit(Box::new(report))),
            Err(error) => Err(RecordError::Junit {
                path: path.to_path_buf(),
                problem: error.to_string(),
            }),
        };
    }
    let stream = EventStream::new(path.display().to_string(), bytes.as_slice());
    let events: Result<_, StreamError> = stream.collect();
    Ok(Input::Events(events?))
}

/// What the whole amounts to.
#[derive(Default)]
struct Whole {
    files: usize,
    failed: usize,
    /// Event streams of runs that were killed or interrupted, with the files that have no end.
    unfinished: Vec<(PathBuf, Vec<String>)>,
}

impl Whole {
    fn summary(&self, inputs: usize, output: &Path) -> String {
        format!(
            "{inputs} input(s), {} file(s), {} failed; {}",
            self.files,
            self.failed,
            output.display()
        )
    }
}

/// The same file in two inputs means that the slices overlap, which nobody wants unseen.
fn once(seen: &mut BTreeMap<String, PathBuf>, name: &str, input: &Path) -> Result<(), Problem> {
    match seen.insert(name.to_owned(), input.to_path_buf()) {
        Some(first) => Err(Problem::Usage(format!(
            "{name} is in {} and in {}: the same slice twice, or different --shard totals",
            first.display(),
            input.display()
        ))),
        None => Ok(()),
    }
}

/// All suites under one root, sorted by name.
fn merged_reports(reports: Vec<(PathBuf, Report)>) -> Result<(Vec<u8>, Whole), Problem> {
    let mut merged = Report::new("provium");
    let mut seen = BTreeMap::new();
    let mut suites = Vec::new();
    let mut time = std::time::Duration::ZERO;
    for (path, report) in reports {
        // Shards run side by side: the whole took as long as the longest.
        time = time.max(report.time.unwrap_or_default());
        for suite in report.test_suites {
            once(&mut seen, suite.name.as_str(), &path)?;
            suites.push(suite);
        }
    }
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    let failed = suites
        .iter()
        .filter(|suite| suite.failures + suite.errors > 0);
    let whole = Whole {
        files: suites.len(),
        failed: failed.count(),
        unfinished: Vec::new(),
    };
    merged.set_time(time).add_test_suites(suites);
    let mut xml = Vec::new();
    merged
        .serialize(&mut xml)
        .map_err(|error| Problem::Usage(format!("the merged report cannot be written: {error}")))?;
    Ok((xml, whole))
}

/// The files of a stream that have not ended though their run was to run them: all of them, except
/// those that --fail-fast did not start.
fn unfinished(events: &[Event]) -> Vec<String> {
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    let mut failed = false;
    for event in events {
        match &event.kind {
            EventKind::FileDiscovered(file) => drop(open.insert(&file.path, false)),
            EventKind::FileDispatched(file) => drop(open.insert(&file.path, true)),
            EventKind::FileCompleted(file) => {
                open.remove(file.path.as_str());
                failed |= file.status != FileStatus::Passed;
            }
            _ => {}
        }
    }
    let left = open.into_iter().filter(|(_, started)| *started || !failed);
    left.map(|(path, _)| path.to_owned()).collect()
}

/// All events by their time; those of one input stay in their order, so that every promise about
/// the events of a file holds for the whole.
fn merged_events(streams: Vec<(PathBuf, Vec<Event>)>) -> Result<(Vec<u8>, Whole), Problem> {
    let mut seen = BTreeMap::new();
    let mut whole = Whole::default();
    for (path, events) in &streams {
        for event in events {
            match &event.kind {
                EventKind::FileDiscovered(file) => once(&mut seen, &file.path, path)?,
                EventKind::FileCompleted(file) => {
                    whole.files += 1;
                    whole.failed += usize::from(file.status != FileStatus::Passed);
                }
                _ => {}
            }
        }
        let files = unfinished(events);
        if !files.is_empty() || events.is_empty() {
            whole.unfinished.push((path.clone(), files));
        }
    }
    let mut queues: Vec<_> = streams
        .into_iter()
        .map(|(_, events)| events.into_iter().peekable())
        .collect();
    let mut bytes = Vec::new();
    loop {
        let next = queues
            .iter_mut()
            .filter_map(|queue| queue.peek().map(|event| event.ts).map(|ts| (ts, queue)))
            .min_by_key(|(ts, _)| *ts);
        let Some(event) = next.and_then(|(_, queue)| queue.next()) else {
            break;
        };
        let frame = event.to_frame().map_err(|size| {
            Problem::Usage(format!("an event of {size} bytes does not fit a frame"))
        })?;
        bytes.extend(frame);
    }
    Ok((bytes, whole))
}

#[cfg(test)]
mod tests {
    use provium_protocol::event;
    use quick_junit::TestSuite;

    use super::*;

    fn discovered(ts: i64, path: &str) -> Event {
        let kind = event::FileDiscovered {
            path: path.into(),
            fixture_refs: Vec::new(),
            declared_claim: None,
        };
        Event {
            ts,
            kind: kind.into(),
        }
    }

    #[test]
    fn events_are_merged_by_time() {
        let streams = vec![
            ("x".into(), vec![discovered(1, "a"), discovered(5, "b")]),
            ("y".into(), vec![discovered(2, "c"), discovered(2, "d")]),
        ];
        let (bytes, _) = merged_events(streams).unwrap();
        let merged = EventStream::new("m", bytes.as_slice());
        let times: Vec<i64> = merged.map(|event| event.unwrap().ts).collect();
        assert_eq!(times, [1, 2, 2, 5]);
    }

    #[test]
    fn a_stream_that_ends_too_early_is_told() {
        let at = |kind: EventKind| Event { ts: 9, kind };
        let started = |path: &str| {
            at(event::FileDispatched {
                path: path.into(),
                reservation: provium_protocol::Amount::default(),
            }
            .into())
        };
        let ended = |path: &str, status| {
            at(event::FileCompleted {
                path: path.into(),
                status,
                duration_ns: 1,
            }
            .into())
        };
        let whole = [
            discovered(1, "a"),
            started("a"),
            ended("a", FileStatus::Passed),
        ];
        assert!(unfinished(&whole).is_empty());
        let killed = [discovered(1, "a"), discovered(2, "b"), started("a")];
        assert_eq!(unfinished(&killed), ["a", "b"]);
        // --fail-fast leaves b out, and is no accident.
        let stopped = [
            discovered(1, "a"),
            discovered(2, "b"),
            started("a"),
            ended("a", FileStatus::Failed),
        ];
        assert!(unfinished(&stopped).is_empty());
        let streams = vec![("x".into(), killed.to_vec()), ("y".into(), Vec::new())];
        let (_, whole) = merged_events(streams).unwrap();
        assert_eq!(whole.unfinished.len(), 2);
    }

    #[test]
    fn overlapping_slices_are_refused() {
        let streams = vec![
            ("x".into(), vec![discovered(1, "a")]),
            ("y".into(), vec![discovered(2, "a")]),
        ];
        let error = merged_events(streams).map(drop).unwrap_err().to_string();
        assert!(error.contains("a is in x and in y"), "{error}");
        let report = || {
            let mut report = Report::new("provium");
            report.add_test_suite(TestSuite::new("a"));
            report
        };
        let reports = vec![("x".into(), report()), ("y".into(), report())];
        assert!(merged_reports(reports).is_err());
    }
}
