//! `provium test`: classic runs, without a guest (classic-api sections 8 and 10).

mod support;

use std::io::Read;
use std::process::Stdio;

use support::Place;

const OK: &str = "test('one', function() end)\ntest('two', function() end)\n";

/// Runs in a place whose logs go below it.
fn run(place: &Place, line: &str) -> support::Ran {
    let mut command = place.command(line);
    command.env("PROVIUM_RUNS_DIR", place.path().join("runs"));
    command.output().unwrap().into()
}

/// The output with durations made the same.
fn steady(text: &str) -> String {
    let mut steady = String::new();
    for line in text.lines() {
        let line = match (line.rfind('('), line.ends_with("s)")) {
            (Some(at), true) => {
                let inner = &line[at + 1..line.len() - 1];
                let cut = inner.rfind(' ').map_or(0, |cut| cut + 1);
                format!("{}({}DUR)", &line[..at], &inner[..cut])
            }
            _ => line.to_owned(),
        };
        steady.push_str(&line);
        steady.push('\n');
    }
    steady
}

#[test]
fn c067_to_c072_the_output_of_a_run() {
    let place = Place::with(&[
        ("t/a.lua", OK),
        ("t/b/plain.lua", "assert_eq('\\1', provium.pack('u8', 1))"),
        ("t/c.lua", "todo('no kernel has it')"),
        (
            "t/lib/helper.lua",
            "return { twice = function(x) return 2 * x end }",
        ),
        ("t/fixtures/not_a_test.lua", "error('never run')"),
        (
            "t/d.lua",
            "test('good', function() end)\ntest('bad', function() assert_eq('x', 'y', 'names') end)\n\
             test('later', { skip = 'waits' }, function() end)\nassert(false, 'and the file')",
        ),
    ]);
    let ran = run(&place, "test t -p 1");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let output = steady(&ran.stdout);
    let (before, logs) = output.split_once("\nFailed test logs:\n").unwrap();
    assert_eq!(
        before,
        "provium test\n\n  \
         a.lua ... ok (2 tests, DUR)\n    · one ... ok\n    · two ... ok\n  \
         b/plain.lua ... ok (DUR)\n  \
         c.lua ... todo: no kernel has it\n  \
         d.lua ... FAIL (DUR)\n    · good ... ok\n    \
         · bad ... FAIL: t/d.lua:2: names: expected \"x\", got \"y\"\n    \
         · later ... todo: waits\n    \
         t/d.lua:4: and the file\n"
    );
    assert!(logs.starts_with("  d.lua \u{2192} "), "{logs}");
    assert!(logs.contains("/d.lua.log\n"), "{logs}");
    assert!(
        logs.ends_with("\n\nFAIL: 2 passed, 1 failed, 1 todo\n"),
        "{logs}"
    );
}

#[test]
fn c072_to_c074_a_run_that_passes() {
    let place = Place::with(&[("t/a.lua", OK)]);
    let ran = run(&place, "test t/a.lua");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.ends_with("\nok: 1 passed\n"), "{}", ran.stdout);
    // Nothing failed, so there is nothing to keep (C-073).
    assert!(!place.path().join("runs").exists());
}

#[test]
fn c074_whatever_is_wrong_the_code_is_1() {
    let place = Place::with(&[("t/a.lua", OK), ("empty/x.txt", "")]);
    for line in [
        "test",
        "test --nope t",
        "test nowhere",
        "test empty",
        "test empty/x.txt",
    ] {
        let ran = run(&place, line);
        assert_eq!(ran.code, 1, "{line}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{line}");
    }
    place.write("provium.toml", "profils = 3\n[");
    assert_eq!(run(&place, "test t").code, 1);
}

#[test]
fn r046_r047_selection_and_what_failed_last() {
    let place = Place::with(&[
        ("t/a.lua", OK),
        ("t/sub/bad.lua", "error('always')"),
        ("t/sub/good.lua", OK),
    ]);
    let ran = run(&place, "test t -f goo -f a.lua");
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert!(ran.stdout.ends_with("ok: 2 passed\n"), "{}", ran.stdout);

    let ran = run(&place, "test t -f nothing");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert!(
        ran.stderr
            .contains("none of the 3 file(s) found is selected"),
        "{}",
        ran.stderr
    );

    let ran = run(&place, "test t --rerun-failed");
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("no failed files"), "{}", ran.stderr);

    assert_eq!(run(&place, "test t").code, 1);
    let ran = run(&place, "test t --rerun-failed");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout.ends_with("FAIL: 0 passed, 1 failed\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("  sub/bad.lua ... FAIL"),
        "{}",
        ran.stdout
    );

    let ran = run(&place, "test t --fail-fast -p 1 -f bad -f good");
    assert!(
        ran.stdout.contains("FAIL: 0 passed, 1 failed"),
        "{}",
        ran.stdout
    );
}

#[test]
fn c056_require_finds_what_lies_below_path() {
    let place = Place::with(&[
        ("t/lib/tools.lua", "return { answer = 42 }"),
        (
            "t/deep/er/a.lua",
            "assert_eq(42, require('lib.tools').answer)\ntest('x', function() end)",
        ),
    ]);
    let ran = run(&place, "test t");
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("ok: 1 passed\n"), "{}", ran.stdout);
}

#[test]
fn c058_a_deadline_only_if_asked_for() {
    let place = Place::with(&[("t/a.lua", "test('spins', function() while true do end end)")]);
    let ran = run(&place, "test t --timeout 300ms");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout.contains("timed out after 0.3s"),
        "{}",
        ran.stdout
    );
}

#[test]
fn c067_a_fixed_budget_is_told() {
    let place = Place::with(&[("t/a.lua", OK)]);
    let ran = run(&place, "test t --mem 2G --cpus 3");
    assert!(
        ran.stdout
            .starts_with("provium test\n\nresource pool: 2048M memory, 3 CPUs\n\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r051_junit_and_events_of_a_classic_run() {
    let place = Place::with(&[(
        "t/a.lua",
        "test('same', function() end)\ntest('same', function() end)",
    )]);
    let ran = run(&place, "test t --junit out.xml --save-events out.events");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let xml = std::fs::read_to_string(place.path().join("out.xml")).unwrap();
    assert!(xml.contains("tests=\"2\""), "{xml}");
    let shown = run(&place, "events out.events");
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains("same#2"), "{}", shown.stdout);
}

#[test]
fn e041_c053_a_file_without_tests_is_one_test_of_its_name() {
    let place = Place::with(&[
        ("t/a/good.lua", "assert_eq(1, 1)\nlocal _ = provium"),
        ("t/a/bad.lua", "assert_eq(1, 2)\nlocal _ = provium"),
        ("t/a/later.lua", "todo('soon')"),
        ("t/a/library.lua", "return {}"),
        ("t/a/tested.lua", OK),
    ]);
    let ran = run(&place, "test t --save-events ev --junit j.xml");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let outcomes = support::stream::check(&support::stream::read(&place.path().join("ev")));
    let outcomes: Vec<_> = outcomes
        .iter()
        .map(|((file, test), outcome)| (file.as_str(), test.as_str(), *outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("t/a/bad.lua", "a/bad.lua", "failed"),
            ("t/a/good.lua", "a/good.lua", "passed"),
            ("t/a/later.lua", "a/later.lua", "skipped"),
            ("t/a/tested.lua", "one", "passed"),
            ("t/a/tested.lua", "two", "passed"),
        ]
    );
    let junit = std::fs::read_to_string(place.path().join("j.xml")).unwrap();
    for name in ["a/bad.lua", "a/good.lua", "a/later.lua"] {
        assert!(
            junit.contains(&format!("<testcase name=\"{name}\"")),
            "{junit}"
        );
    }
}

#[test]
fn c074_r062_an_interrupt_ends_a_classic_run_in_order() {
    let place = Place::with(&[
        (
            "t/a.lua",
            "print('running')\ntest('loop', function() while true do end end)",
        ),
        ("t/b.lua", OK),
    ]);
    let mut child = place
        .command("test t -p 1 --save-events ev")
        .env("PROVIUM_RUNS_DIR", place.path().join("runs"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"running\n") {
        stdout.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    // SAFETY: sends a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    assert!(rest.ends_with("FAIL: 0 passed, 1 failed\n"), "{rest}");
    support::stream::check(&support::stream::read(&place.path().join("ev")));
}
