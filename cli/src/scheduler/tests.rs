//! A panic inside of the harness while one file runs.
//!
//! No file is known that makes the harness panic, so what the harness is given does it here: the
//! function that names files, which it calls when it opens a file, and again, from deep inside of
//! a Lua callback, when the file loads another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use provium_lab::Harness;
use provium_lua::{FileStatus, Filter, Outcome, Setup};

use super::*;
use crate::discover::{Bases, Kind, discover};
use crate::news::{FileResult, Stamped};
use crate::plan::plan;
use crate::report::Reporter;

const FILES: usize = 60;

/// What becomes of a file of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Fails,
    PanicsWhenOpened,
    PanicsInACallback,
}

fn fate(number: usize) -> Fate {
    match number {
        17 => Fate::PanicsWhenOpened,
        31 | 44 => Fate::PanicsInACallback,
        _ if number % 10 == 3 => Fate::Fails,
        _ => Fate::Passes,
    }
}

fn name(number: usize) -> String {
    format!("f{number:02}.test.lua")
}

/// Writes the suite into `dir`.
fn generate(dir: &Path) {
    for number in 0..FILES {
        let mut source = String::from("test('before', function() end)\n");
        let body = match fate(number) {
            Fate::Fails => "t:fail('on purpose')",
            // Lua code that catches all errors does not catch this.
            Fate::PanicsInACallback => "pcall(require, 'cursed')",
            Fate::Passes | Fate::PanicsWhenOpened => "",
        };
        writeln!(source, "test('itself', function(t) {body} end)").unwrap();
        source.push_str("test('after', function() end)\n");
        std::fs::write(dir.join(name(number)), source).unwrap();
    }
    std::fs::write(dir.join("cursed.lua"), "return 1").unwrap();
}

/// Keeps the files that ended and counts the tests that started and ended.
#[derive(Default, Clone)]
struct Heard(Arc<Mutex<(BTreeMap<String, FileResult>, isize)>>);

impl Reporter for Heard {
    fn name(&self) -> &str {
        "the test"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        let (files, open) = &mut *locked(&self.0);
        match &stamped.news {
            News::Completed(result) => {
                let twice = files.insert(result.path.clone(), result.clone());
                assert!(twice.is_none(), "{} ended twice", result.path);
            }
            News::TestStarted { .. } => *open += 1,
            News::TestEnded { .. } => *open -= 1,
            _ => {}
        }
        Ok(())
    }
}

/// Runs the suite in `dir`; answers what was heard, and which files did not pass.
fn run_suite(dir: &Path, jobs: usize, retries: u32, classic: bool) -> (Heard, Vec<PathBuf>) {
    let bases = Bases {
        cwd: dir.to_path_buf(),
        config: None,
    };
    let files = discover(&[], &[], &bases, Kind::Test).unwrap();
    let files = plan(files, &crate::args::OrderArgs::plain(), 0);
    let display = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let cursed = [name_of(Fate::PanicsWhenOpened), "cursed.lua".to_owned()];
        assert!(!cursed.contains(&name), "an injected panic");
        name
    };
    let heard = Heard::default();
    let mut reporters = Reporters::default();
    reporters.add(heard.clone());
    let work = Work {
        files,
        jobs,
        filter: Filter::default(),
        timeout: Some(Duration::from_secs(60)),
        fail_fast: false,
        retries,
        classic,
        setup: Arc::new(Setup::new(
            Harness::for_tests().unwrap(),
            Box::new(display),
            false,
        )),
        pressure: Pressure::never(),
        wire: Wire::new(),
    };
    let ending = run(work, &mut reporters);
    assert!(!ending.interrupted);
    (heard, ending.failed)
}

fn name_of(wanted: Fate) -> String {
    (0..FILES)
        .find(|number| fate(*number) == wanted)
        .map(name)
        .unwrap()
}

#[track_caller]
fn check(dir: &Path, jobs: usize, retries: u32, classic: bool) {
    let (heard, failed) = run_suite(dir, jobs, retries, classic);
    let (files, open) = &*locked(&heard.0);
    assert_eq!(files.len(), FILES);
    assert_eq!(*open, 0, "every test that started has ended (E-032)");
    for number in 0..FILES {
        let file = &files[&name(number)];
        let outcomes: Vec<bool> = file
            .tests
            .iter()
            .map(|test| matches!(test.outcome, Outcome::Passed))
            .collect();
        let of = format!("{} -j {jobs}: {:?}", file.path, file.report);
        match fate(number) {
            Fate::Passes => {
                assert_eq!(file.report.status, FileStatus::Passed, "{of}");
                assert_eq!(outcomes, [true; 3], "{of}");
            }
            Fate::Fails => {
                assert_eq!(file.report.status, FileStatus::Failed, "{of}");
                assert_eq!(outcomes, [true, false, true], "{of}");
            }
            Fate::PanicsInACallback => {
                assert_eq!(file.report.status, FileStatus::Crashed, "{of}");
                // What it did before stands; a file of a classic run goes on by itself.
                assert_eq!(outcomes[..2], [true; 2], "{of}");
                assert_eq!(outcomes[2..], [classic], "{of}");
            }
            Fate::PanicsWhenOpened => {
                assert_eq!(file.report.status, FileStatus::Crashed, "{of}");
                let error = file.report.chunk_error.as_ref().unwrap();
                let expected = "the harness panicked while running this file: an injected panic";
                assert_eq!(error.message, expected);
            }
        }
    }
    let expected = (0..FILES).filter(|number| fate(*number) != Fate::Passes);
    assert_eq!(failed.len(), expected.count());
}

#[test]
fn r111_a_panic_fails_its_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path());
    for (jobs, retries, classic) in [(1, 0, false), (4, 0, false), (4, 1, false), (4, 0, true)] {
        check(dir.path(), jobs, retries, classic);
    }
}
