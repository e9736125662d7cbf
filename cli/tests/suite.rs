//! A generated suite of 500 files and 3,000 tests, of which every outcome is known beforehand, run
//! in every way: one at a time, in parallel, in shards, repeated in random order (issue: the
//! runner; events-and-protocol E-031 to E-035).

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use support::{Place, Ran, stream};

const FILES: usize = 500;
const TESTS: usize = 6;

/// The file whose deadline passes.
const HANGING: usize = 123;

/// Deadline of files in these runs: long for a file that does nothing, also on a busy machine.
const DEADLINE: &str = "8s";

/// Outcomes by file and test.
type Outcomes = BTreeMap<(String, String), &'static str>;

/// The suite as files and as what must come of them: the one model of both.
struct Suite {
    files: Vec<(String, String)>,
    outcomes: Outcomes,
    failed: usize,
}

impl Suite {
    fn generate() -> Self {
        let mut suite = Self {
            files: Vec::new(),
            outcomes: Outcomes::new(),
            failed: 0,
        };
        for number in 0..FILES {
            let path = format!("{:02}/f{number:03}.test.lua", number % 20);
            let mut source = String::new();
            let mut failed = false;
            let broken = number % 100 == 41;
            if number % 50 == 7 {
                source.push_str("provium:claim{memory = \"64M\", cpus = 1}\n");
            }
            for index in 0..TESTS {
                let name = format!("t{index}");
                let (code, mut outcome) = test(number, index, &name);
                if broken || (number == HANGING && index > 2) {
                    outcome = "skipped";
                }
                failed |= outcome == "failed";
                source.push_str(&code);
                suite.outcomes.insert((path.clone(), name), outcome);
            }
            if broken {
                source.push_str("error('the file is broken')\n");
            }
            suite.failed += usize::from(failed || broken);
            suite.files.push((path, source));
        }
        suite
    }

    fn write(&self) -> Place {
        let files: Vec<(&str, &str)> = self
            .files
            .iter()
            .map(|(path, source)| (path.as_str(), source.as_str()))
            .collect();
        Place::with(&files)
    }

    fn count(&self, outcome: &str) -> usize {
        self.outcomes
            .values()
            .filter(|found| **found == outcome)
            .count()
    }
}

/// A test's code and its outcome.
fn test(file: usize, index: usize, name: &str) -> (String, &'static str) {
    if file == HANGING && index == 2 {
        return (
            format!("test('{name}', function() while true do end end)\n"),
            "failed",
        );
    }
    let (meta, body, outcome) = match (file * TESTS + index) % 97 {
        3 | 40 => ("", "t:assert_eq(1, 2)", "failed"),
        11 => ("", "error('raised')", "failed"),
        17 => ("", "t:skip('not today')", "skipped"),
        23 => ("{skip = 'declared'}, ", "error('must not run')", "skipped"),
        31 => ("{slow = true}, ", "error('must not run')", "skipped"),
        59 => ("{timeout = '50ms'}, ", "while true do end", "failed"),
        61 => (
            "",
            "local co = coroutine.wrap(function() error({}) end) co()",
            "failed",
        ),
        67 => (
            "{tags = {'x'}, n = 1.5}, ",
            "t:log(('long '):rep(100))",
            "passed",
        ),
        _ => ("", "t:assert(true)", "passed"),
    };
    (
        format!("test('{name}', {meta}function(t) {body} end)\n"),
        outcome,
    )
}

/// Runs the suite and compares text, JSON, JUnit and events with what must come.
fn outcomes_of(place: &Place, flags: &str) -> (Outcomes, Ran) {
    let line =
        format!("run {flags} --timeout {DEADLINE} --mem 2G --json --save-events ev --junit j.xml");
    let ran = place.run(&line).expect(1);
    let events = stream::read(&place.path().join("ev"));
    let outcomes = stream::check(&events);
    let mut from_json = Outcomes::new();
    for line in ran.stdout.lines() {
        let file: serde_json::Value = serde_json::from_str(line).unwrap();
        let path = file["path"].as_str().unwrap();
        for test in file["tests"].as_array().unwrap() {
            let status = match test["status"].as_str().unwrap() {
                "passed" => "passed",
                "failed" => "failed",
                _ => "skipped",
            };
            let name = test["name"].as_str().unwrap().to_owned();
            from_json.insert((path.to_owned(), name), status);
        }
    }
    assert_eq!(from_json, outcomes, "E-035: JSON and events differ");
    let junit = std::fs::read(place.path().join("j.xml")).unwrap();
    let junit = quick_junit::Report::deserialize(junit.as_slice()).unwrap();
    let failed = outcomes
        .values()
        .filter(|outcome| **outcome == "failed")
        .count();
    assert_eq!(junit.failures, failed, "E-035: JUnit and events differ");
    (outcomes, ran)
}

#[track_caller]
fn assert_same(outcomes: &Outcomes, expected: &Outcomes) {
    for (test, outcome) in expected {
        assert_eq!(outcomes.get(test), Some(outcome), "{test:?}");
    }
    assert_eq!(outcomes.len(), expected.len());
}

#[track_caller]
fn assert_summary(ran: &Ran, suite: &Suite) {
    let mut summary = String::new();
    let (passed, failed, skipped) = (
        suite.count("passed"),
        suite.count("failed"),
        suite.count("skipped"),
    );
    write!(
        summary,
        "{FILES} file(s); {passed} passed, {failed} failed, {skipped} skipped"
    )
    .unwrap();
    assert!(
        ran.stderr.contains(&summary),
        "{summary} is not in\n{}",
        ran.stderr
    );
    let fails = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("FAIL ") || line.starts_with("TIME "));
    assert_eq!(fails.count(), suite.failed);
}

#[test]
fn the_suite_gives_exactly_the_expected_outcomes_one_at_a_time_and_in_parallel() {
    let suite = Suite::generate();
    assert_eq!(suite.outcomes.len(), FILES * TESTS);
    let place = suite.write();
    for flags in ["-j 1", "-j 4"] {
        let (outcomes, ran) = outcomes_of(&place, flags);
        assert_same(&outcomes, &suite.outcomes);
        assert_summary(&ran, &suite);
    }
}

#[test]
fn the_shards_together_are_the_suite() {
    let suite = Suite::generate();
    let place = suite.write();
    let mut all = Outcomes::new();
    for shard in 1..=3 {
        let (outcomes, _) = outcomes_of(&place, &format!("-j 4 --shard {shard}/3"));
        for (test, outcome) in outcomes {
            assert!(all.insert(test, outcome).is_none(), "a test in two shards");
        }
        std::fs::rename(
            place.path().join("ev"),
            place.path().join(format!("ev{shard}")),
        )
        .unwrap();
        std::fs::rename(
            place.path().join("j.xml"),
            place.path().join(format!("j{shard}.xml")),
        )
        .unwrap();
    }
    assert_same(&all, &suite.outcomes);
    // What the shards left behind is put together, and is the record of one run.
    let ran = place.run("merge -o whole ev1 ev2 ev3").expect(1);
    assert!(
        ran.stdout
            .contains(&format!("{FILES} file(s), {} failed", suite.failed)),
        "{}",
        ran.stdout
    );
    let merged = stream::read(&place.path().join("whole"));
    let names: Vec<_> = merged.iter().map(|event| event.kind.name()).collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| **name == "file_completed")
            .count(),
        FILES
    );
    place
        .run("merge -o whole.xml j1.xml j2.xml j3.xml")
        .expect(1);
    let junit = std::fs::read(place.path().join("whole.xml")).unwrap();
    let junit = quick_junit::Report::deserialize(junit.as_slice()).unwrap();
    assert_eq!(junit.failures, suite.count("failed"));
    assert_eq!(junit.test_suites.len(), FILES);
    // The durations balance the next run's shards: still disjoint, still everything.
    let mut listed: Vec<String> = Vec::new();
    for shard in 1..=3 {
        let line = format!("list --shard {shard}/3 --timings whole --timings whole.xml");
        listed.extend(place.run(&line).expect(0).stdout.lines().map(str::to_owned));
    }
    listed.sort();
    let expected: Vec<String> = suite.files.iter().map(|(path, _)| path.clone()).collect();
    let mut expected = expected;
    expected.sort();
    assert_eq!(listed, expected);
    place.run("merge -o x ev1 ev1").expect(2);
    place.run("merge -o x ev1 j1.xml").expect(2);
}

#[test]
fn repetitions_in_random_order_give_the_same_outcomes() {
    let suite = Suite::generate();
    let place = suite.write();
    let (outcomes, _) = outcomes_of(&place, "-j 4 --repeat 2 --order random --seed 5");
    let mut expected = suite.outcomes.clone();
    for ((path, test), outcome) in &suite.outcomes {
        expected.insert((format!("{path}#2"), test.clone()), outcome);
    }
    assert_same(&outcomes, &expected);
}
