//! What the events of one or several runs amount to (cli-and-config R-116).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use provium_protocol::event::{BlockReason, FileStatus};
use provium_protocol::{Amount, Event, EventKind, Meta, Value};
use serde::Serialize;

/// The whole report.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The meta key by which tests were sorted.
    pub(crate) key: String,
    /// Identifiers in natural order, with their tests.
    pub(crate) identifiers: Vec<Identifier>,
    /// Tests that name none.
    pub(crate) without: Vec<Test>,
    /// Files in the order of their paths.
    pub(crate) files: Vec<File>,
    /// All tests.
    pub(crate) totals: Totals,
    /// What the run used.
    pub(crate) resources: Resources,
}

/// An identifier and who names it.
#[derive(Debug, Serialize)]
pub(crate) struct Identifier {
    pub(crate) id: String,
    pub(crate) totals: Totals,
    pub(crate) tests: Vec<Test>,
}

/// A test and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Test {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Counts of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Totals {
    fn of<'a>(tests: impl IntoIterator<Item = &'a Test>) -> Self {
        let mut totals = Self::default();
        for test in tests {
            match test.outcome {
                Outcome::Passed => totals.passed += 1,
                Outcome::Failed => totals.failed += 1,
                Outcome::Skipped => totals.skipped += 1,
            }
        }
        totals
    }

    /// One word for all of them: failed if one failed, passed if one passed, else skipped.
    pub(crate) fn verdict(self) -> Outcome {
        match self {
            Self { failed: 1.., .. } => Outcome::Failed,
            Self { passed: 1.., .. } => Outcome::Passed,
            _ => Outcome::Skipped,
        }
    }
}

/// A file and how it ended.
#[derive(Debug, Serialize)]
pub(crate) struct File {
    pub(crate) path: String,
    /// `not run` for a file that was discovered only.
    pub(crate) status: &'static str,
    pub(crate) seconds: f64,
}

/// What runs used of the host.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Resources {
    pub(crate) peak_files_in_flight: usize,
    pub(crate) peak_memory_bytes: u64,
    pub(crate) peak_cpus: u32,
    pub(crate) vms: usize,
    pub(crate) blocked_pool_full: usize,
    pub(crate) blocked_psi_pressure: usize,
    pub(crate) fixture_builds: usize,
    pub(crate) fixture_failures: usize,
    pub(crate) fixture_hits: usize,
}

/// Gathers events.
pub(crate) struct Collector {
    key: String,
    tests: Vec<(Test, Vec<String>)>,
    files: BTreeMap<String, (&'static str, f64)>,
    resources: Resources,
    in_flight: usize,
}

impl Collector {
    /// Sorts tests by the identifiers under `key` of their meta.
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            tests: Vec::new(),
            files: BTreeMap::new(),
            resources: Resources::default(),
            in_flight: 0,
        }
    }

    /// Another stream begins: of another run, or of another shard.
    pub(crate) fn begin_stream(&mut self) {
        self.in_flight = 0;
    }

    /// Takes note of an event.
    pub(crate) fn note(&mut self, event: &Event) {
        match &event.kind {
            EventKind::FileDiscovered(file) => {
                self.files
                    .entry(file.path.clone())
                    .or_insert(("not run", 0.0));
            }
            EventKind::FileBlocked(file) => match file.reason {
                BlockReason::PoolFull => self.resources.blocked_pool_full += 1,
                BlockReason::PsiPressure => self.resources.blocked_psi_pressure += 1,
            },
            EventKind::FileDispatched(_) => {
                self.in_flight += 1;
                let peak = &mut self.resources.peak_files_in_flight;
                *peak = self.in_flight.max(*peak);
            }
            EventKind::FileCompleted(file) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                let status = match file.status {
                    FileStatus::Passed => "passed",
                    FileStatus::Failed => "failed",
                    FileStatus::TimedOut => "timed out",
                    FileStatus::Crashed => "crashed",
                };
                let seconds = std::time::Duration::from_nanos(file.duration_ns).as_secs_f64();
                self.files.insert(file.path.clone(), (status, seconds));
            }
            EventKind::TestPassed(test) => {
                self.test(&test.path, &test.name, &test.meta, Outcome::Passed);
            }
            EventKind::TestFailed(test) => {
                self.test(&test.path, &test.name, &test.meta, Outcome::Failed);
            }
            EventKind::TestSkipped(test) => {
                self.test(&test.path, &test.name, &test.meta, Outcome::Skipped);
            }
            EventKind::PoolState(pool) => self.pool(pool.used),
            EventKind::VmSpawned(_) => self.resources.vms += 1,
            EventKind::FixtureBuildDone(fixture) => match fixture.error {
                Some(_) => self.resources.fixture_failures += 1,
                None => self.resources.fixture_builds += 1,
            },
            EventKind::FixtureCacheHit(_) => self.resources.fixture_hits += 1,
            _ => {}
        }
    }

    fn pool(&mut self, used: Amount) {
        let peaks = &mut self.resources;
        peaks.peak_memory_bytes = peaks.peak_memory_bytes.max(used.memory_bytes);
        peaks.peak_cpus = peaks.peak_cpus.max(used.cpus);
    }

    fn test(&mut self, path: &str, name: &str, meta: &Meta, outcome: Outcome) {
        let test = Test {
            path: path.to_owned(),
            name: name.to_owned(),
            outcome,
        };
        let identifiers = meta.get(&self.key).map(identifiers).unwrap_or_default();
        self.tests.push((test, identifiers));
    }

    /// The report of all that was noted.
    pub(crate) fn report(self) -> Report {
        let mut by_id: BTreeMap<&str, Vec<Test>> = BTreeMap::new();
        let mut without = Vec::new();
        for (test, identifiers) in &self.tests {
            if identifiers.is_empty() {
                without.push(test.clone());
            }
            for id in identifiers {
                by_id.entry(id).or_default().push(test.clone());
            }
        }
        let mut identifiers: Vec<Identifier> = by_id
            .into_iter()
            .map(|(id, tests)| Identifier {
                id: id.to_owned(),
                totals: Totals::of(&tests),
                tests,
            })
            .collect();
        identifiers.sort_by(|a, b| natural(&a.id, &b.id));
        let files = self.files.into_iter();
        Report {
            key: self.key,
            identifiers,
            without,
            files: files
                .map(|(path, (status, seconds))| File {
                    path,
                    status,
                    seconds,
                })
                .collect(),
            totals: Totals::of(self.tests.iter().map(|(test, _)| test)),
            resources: self.resources,
        }
    }
}

/// The identifiers that a meta value names: a string, an integer, or an array of them.
fn identifiers(value: &Value) -> Vec<String> {
    let one = |value: &Value| match value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    };
    let all: BTreeSet<String> = match value {
        Value::Array(items) => items.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    };
    all.into_iter().collect()
}

/// Compares as people sort: runs of digits by their value, so `A-9` comes before `A-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (pieces(a), pieces(b));
    loop {
        return match (left.next(), right.next()) {
            // The same but for leading zeros.
            (None, None) => (a.len(), a).cmp(&(b.len(), b)),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match piece_order(left, right) {
                Ordering::Equal => continue,
                order => order,
            },
        };
    }
}

fn piece_order(a: &str, b: &str) -> Ordering {
    let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    if digits(a) && digits(b) {
        let (x, y) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
        // Of two numbers without leading zeros the longer is the larger, however long they are.
        return (x.len(), x).cmp(&(y.len(), y));
    }
    a.cmp(b)
}

/// Runs of digits and runs of others.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != first);
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use provium_protocol::event;

    use super::*;

    fn passed(name: &str, spec: Value) -> Event {
        let meta = Meta::from([("spec".to_owned(), spec)]);
        let kind = event::TestPassed {
            path: "a.test.lua".into(),
            name: name.into(),
            duration_ns: 1,
            meta,
            log: None,
        };
        Event {
            ts: 0,
            kind: kind.into(),
        }
    }

    fn kind(kind: impl Into<EventKind>) -> Event {
        let kind = kind.into();
        Event { ts: 0, kind }
    }

    /// A report with a bit of everything.
    pub(crate) fn sample() -> Report {
        let mut collector = Collector::new("spec");
        let text = |text: &str| Value::Str(text.to_owned());
        let path = || String::from("a.test.lua");
        let amount = Amount {
            memory_bytes: 5 << 20,
            cpus: 2,
        };
        for event in [
            kind(event::FileDiscovered {
                path: "z.test.lua".into(),
                fixture_refs: Vec::new(),
                declared_claim: None,
            }),
            kind(event::FileBlocked {
                path: path(),
                waiting_for: amount,
                reason: BlockReason::PoolFull,
            }),
            kind(event::FileDispatched {
                path: path(),
                reservation: amount,
            }),
            passed(
                "one",
                Value::Array(vec![text("A-10"), text("A-9"), text("A-9")]),
            ),
            passed("two", text("A-10")),
            passed("three <&>", Value::Bool(true)),
            kind(event::TestFailed {
                path: path(),
                name: "four".into(),
                duration_ns: 1,
                reason: "no".into(),
                console_excerpt: String::new(),
                meta: Meta::from([("spec".to_owned(), text("A-9"))]),
                log: None,
            }),
            kind(event::PoolState {
                used: amount,
                available: amount,
            }),
            kind(event::FileCompleted {
                path: path(),
                status: FileStatus::Failed,
                duration_ns: 1_500_000_000,
            }),
        ] {
            collector.note(&event);
        }
        collector.report()
    }

    #[test]
    fn r116_identifiers_are_sorted_naturally_with_their_tests() {
        let report = sample();
        let ids: Vec<&str> = report.identifiers.iter().map(|id| &*id.id).collect();
        assert_eq!(ids, ["A-9", "A-10"]);
        let nine = &report.identifiers[0];
        assert_eq!((nine.totals.passed, nine.totals.failed), (1, 1));
        assert_eq!(nine.totals.verdict(), Outcome::Failed);
        assert_eq!(report.identifiers[1].tests.len(), 2);
        assert_eq!(report.without.len(), 1);
        assert_eq!(
            report.totals,
            Totals {
                passed: 3,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn r116_files_and_resources_are_told() {
        let report = sample();
        let files: Vec<_> = report
            .files
            .iter()
            .map(|file| (&*file.path, file.status))
            .collect();
        assert_eq!(files, [("a.test.lua", "failed"), ("z.test.lua", "not run")]);
        assert_eq!(report.resources.peak_files_in_flight, 1);
        assert_eq!(report.resources.peak_memory_bytes, 5 << 20);
        assert_eq!(report.resources.blocked_pool_full, 1);
    }

    #[test]
    fn natural_order_is_total() {
        for (a, b) in [
            ("a2", "a10"),
            ("a", "a1"),
            ("1", "a"),
            ("a1b", "a1c"),
            ("01", "1x"),
            ("1", "01"),
        ] {
            assert_eq!(natural(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(natural(b, a), Ordering::Greater, "{a} {b}");
        }
        assert_eq!(natural("x-7", "x-7"), Ordering::Equal);
    }
}
