//! Suites that boot guests, run by the built program with the default guest of this user's cache.
//!
//! A guest takes a while on the software CPU, so each test here is one run of many files.

mod support;

use std::process::Command;

use support::{Ran, program, repository};

/// The program in the repository, with the user's own cache.
fn run(arguments: &str) -> Ran {
    let mut command: Command = program();
    command
        .args(arguments.split_whitespace())
        .current_dir(repository());
    command.output().unwrap().into()
}

#[test]
fn the_examples_pass() {
    let ran = run("run examples").expect(0);
    let files = std::fs::read_dir(repository().join("examples"))
        .unwrap()
        .count();
    assert!(
        ran.stdout.contains(&format!("\n{files} file(s); ")),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains(" 0 failed, 0 skipped"),
        "{}",
        ran.stdout
    );
}

#[test]
fn the_lua_suites_pass() {
    run("run tests/lua").expect(0);
}

/// Guests that do their worst are reported within their deadlines, and the next test runs.
#[test]
fn hostile_guests_are_reported_and_do_not_stop_the_run() {
    let ran = run("run tests/hostile --json").expect(1);
    let report = |file: &str| {
        let path = format!("\"path\":\"tests/hostile/{file}.test.lua\"");
        let line = ran.stdout.lines().find(|line| line.contains(&path));
        serde_json::from_str::<serde_json::Value>(
            line.unwrap_or_else(|| panic!("no line for {file}\n{}\n{}", ran.stdout, ran.stderr)),
        )
        .unwrap()
    };
    for (file, reason) in [
        ("panic", "Kernel panic - not syncing"),
        ("triple_fault", "triple-faulted"),
        ("interrupts_off", "timed out after 5s"),
        ("console_flood", "timed out after 5s"),
    ] {
        let report = report(file);
        let tests = report["tests"].as_array().unwrap();
        assert_eq!(tests[0]["status"], "failed", "{file}: {report}");
        let message = tests[0]["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("tests/hostile/{file}.test.lua:")),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
        assert_eq!(tests[1]["status"], "passed", "{file}: {report}");
    }
    // The text, on stderr here, says where the CPU of the hung guest stood.
    assert!(
        ran.stderr.contains("vCPU 0: running at rip 0x"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("interrupts off"), "{}", ran.stderr);
}
