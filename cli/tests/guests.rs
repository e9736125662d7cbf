//! Suites that boot guests, run by the built program with the default guest of this user's cache.
//!
//! A guest takes a while on the software CPU, so each test here is one run of many files.

mod support;

use std::process::Command;

use support::{Ran, program, repository};

/// The program in the repository, with the user's own cache.
fn run(arguments: &str) -> Ran {
    run_in("", arguments)
}

/// The same in a folder of the repository, whose `provium.toml` then counts.
fn run_in(folder: &str, arguments: &str) -> Ran {
    let mut command: Command = program();
    command
        .args(arguments.split_whitespace())
        .current_dir(repository().join(folder));
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

/// A classic run (classic-api section 8).
#[test]
fn c053_c057_classic_files_pass() {
    let ran = run("test tests/classic -p 1").expect(0);
    assert!(ran.stdout.ends_with("\nok: 2 passed\n"), "{}", ran.stdout);
}

/// More than 200 system calls with what they give and the errors they refuse with.
#[test]
fn system_calls_do_what_linux_says() {
    run("run tests/syscalls").expect(0);
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

/// Small and large machines, one processor and several, and the kernel for any PC.
#[test]
fn stock_kernels_boot_in_every_size() {
    run_in("tests/kernels", "run sizes.test.lua generic.test.lua").expect(0);
}

/// Distributions without that kernel skip it, unless told not to.
#[test]
fn a_newer_kernel_boots() {
    let ran = run_in("tests/kernels", "run newer.test.lua");
    let required = std::env::var("PROVIUM_REQUIRE").is_ok_and(|list| list.contains("newer-kernel"));
    let package = "linux-image-6.12-cloud-amd64";
    if ran.code == 2 && ran.stderr.contains(package) && !required {
        eprintln!(
            "skipped: this distribution has no {package}:\n{}",
            ran.stderr
        );
        return;
    }
    ran.expect(0);
}

/// What ordinary programs compute on the software CPU is what they compute anywhere.
#[test]
fn ordinary_programs_compute_the_same() {
    run_in("tests/userland", "run programs.test.lua").expect(0);
}

/// A fifth of what the suite does by itself, which would take most of the time of all tests.
#[test]
fn stress_ng_verifies() {
    let mut command: Command = program();
    command
        .args(["run", "--timeout", "0", "stress.test.lua"])
        .current_dir(repository().join("tests/userland"))
        .env("PROVIUM_STRESS_SECONDS", "12");
    Ran::from(command.output().unwrap()).expect(0);
}

/// Killed at any point, a run leaves no process and no file, and nothing that hinders the next one.
#[test]
fn a_killed_run_leaves_nothing() {
    for delay_ms in [100, 700, 1_500, 3_000] {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = program();
        command
            .args(["run", "examples/two_vms.test.lua", "--events-stdout"])
            .current_dir(repository())
            .env("TMPDIR", scratch.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let left: Vec<_> = std::fs::read_dir(scratch.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "after {delay_ms} ms: {left:?}");
        let marked = processes_with(scratch.path().as_os_str().as_encoded_bytes());
        assert!(marked.is_empty(), "after {delay_ms} ms: {marked:?}");
    }
    run("run examples/smoke.test.lua").expect(0);
}

/// Processes whose environment contains `marker`.
fn processes_with(marker: &[u8]) -> Vec<std::path::PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            std::fs::read(path.join("environ"))
                .is_ok_and(|text| text.windows(marker.len()).any(|window| window == marker))
        })
        .collect()
}
