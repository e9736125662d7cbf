//! How long files took in an earlier run, and shards balanced by it (cli-and-config R-014).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provium_protocol::EventKind;

use crate::stream::{EventStream, StreamError};

/// Why a record of an earlier run cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// As an event stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It begins like a JUnit report and is none.
    #[error("{}: not a JUnit report: {problem}", path.display())]
    Junit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Durations of files by their display paths.
pub(crate) type Timings = BTreeMap<String, Duration>;

/// Reads the durations from event files and JUnit reports; the longest of a file counts.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Timings, RecordError> {
    let mut timings = Timings::new();
    for path in paths {
        for (name, duration) in read_one(path)? {
            // Repetitions of a file take their time, too, but under its one name.
            let name = match name.rsplit_once('#') {
                Some((file, round)) if round.parse::<u32>().is_ok() => file.to_owned(),
                _ => name,
            };
            let known = timings.entry(name).or_default();
            *known = duration.max(*known);
        }
    }
    Ok(timings)
}

fn read_one(path: &Path) -> Result<Vec<(String, Duration)>, RecordError> {
    let bytes = std::fs::read(path).map_err(|source| StreamError::Read {
        name: path.display().to_string(),
        source,
    })?;
    if bytes.trim_ascii_start().starts_with(b"<") {
        return from_junit(path, &bytes);
    }
    let mut completed = Vec::new();
    for event in EventStream::new(path.display().to_string(), bytes.as_slice()) {
        if let EventKind::FileCompleted(file) = event?.kind {
            completed.push((file.path, Duration::from_nanos(file.duration_ns)));
        }
    }
    Ok(completed)
}

fn from_junit(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Duration)>, RecordError> {
    let report = quick_junit::Report::deserialize(bytes).map_err(|error| RecordError::Junit {
        path: path.to_path_buf(),
        problem: error.to_string(),
    })?;
    let suites = report.test_suites.into_iter();
    Ok(suites
        .map(|suite| (suite.name.into_string(), suite.time.unwrap_or_default()))
        .collect())
}

/// The shard, from 0, of each file: the longest first, each to the shard that has least to do. A
/// file of unknown duration counts as the median of the known ones. The same on every machine,
/// and every file is in exactly one shard.
#[must_use]
pub(crate) fn shards(files: &[&str], total: usize, timings: &Timings) -> Vec<usize> {
    let median = median(timings.values().copied().collect());
    let mut order: Vec<(Duration, usize)> = files
        .iter()
        .enumerate()
        .map(|(index, file)| (timings.get(*file).copied().unwrap_or(median), index))
        .collect();
    // Ties go by the position, which is that of the sorted path.
    order.sort_by_key(|&(duration, index)| (std::cmp::Reverse(duration), index));
    let mut loads = vec![(Duration::ZERO, 0_usize); total.max(1)];
    let mut shards = vec![0; files.len()];
    for (duration, index) in order {
        let least = (0..loads.len())
            .min_by_key(|&shard| loads[shard])
            .unwrap_or(0);
        loads[least].0 += duration;
        // Files that take no measurable time are spread, too.
        loads[least].1 += 1;
        shards[index] = least;
    }
    shards
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    let middle = durations.len() / 2;
    durations
        .get(middle)
        .copied()
        .unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(pairs: &[(&str, u64)]) -> Timings {
        pairs
            .iter()
            .map(|&(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)))
            .collect()
    }

    #[test]
    fn r014_shards_are_balanced_by_time() {
        let known = timings(&[("a", 10), ("b", 6), ("c", 5), ("d", 1)]);
        assert_eq!(shards(&["a", "b", "c", "d"], 2, &known), [0, 1, 1, 0]);
    }

    #[test]
    fn r014_unknown_files_count_as_the_median() {
        let known = timings(&[("a", 9), ("b", 3), ("c", 1)]);
        // 9 | 3 (x) 3 (b) 1 ... the unknown one joins the lighter shard.
        assert_eq!(shards(&["a", "b", "c", "x"], 2, &known), [0, 1, 1, 1]);
    }

    #[test]
    fn r014_without_durations_files_are_spread_evenly() {
        let zero = timings(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)]);
        assert_eq!(shards(&["a", "b", "c", "d"], 2, &zero), [0, 1, 0, 1]);
        assert_eq!(shards(&["a", "b", "c"], 5, &Timings::new()), [0, 1, 2]);
    }

    #[test]
    fn r014_durations_come_from_a_junit_report() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.xml");
        let xml = "<?xml version=\"1.0\"?><testsuites name=\"provium\" tests=\"0\" failures=\"0\" errors=\"0\">\
                   <testsuite name=\"a.test.lua\" tests=\"0\" disabled=\"0\" errors=\"0\" failures=\"0\" time=\"2.500\"></testsuite>\
                   <testsuite name=\"a.test.lua#2\" tests=\"0\" disabled=\"0\" errors=\"0\" failures=\"0\" time=\"3.500\"></testsuite></testsuites>";
        std::fs::write(&path, xml).unwrap();
        let read = read(std::slice::from_ref(&path)).unwrap();
        assert_eq!(read["a.test.lua"], Duration::from_millis(3500));
        std::fs::write(&path, "<nonsense").unwrap();
        let error = super::read(&[path]).unwrap_err().to_string();
        assert!(error.contains("j.xml"), "{error}");
    }
}
