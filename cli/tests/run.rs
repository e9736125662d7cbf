//! `provium run` seen from outside, with files that boot nothing: output, exit codes, selection
//! (cli-and-config sections 1 to 5).

mod support;

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use support::Place;

const GOOD: &str = "test('one', function() end)\ntest('two', {tags='x'}, function() end)\n";
const BAD: &str =
    "test('sum', function(t)\n  t:log('trying')\n  t:assert_eq(1 + 1, 3, 'sum')\nend)\n";

#[test]
fn r053_r054_r061_a_run_in_text() {
    let place = Place::with(&[("a.test.lua", GOOD), ("sub/b.test.lua", BAD)]);
    let ran = place.run("run -j 1").expect(1);
    let expected = "\
PASS a.test.lua (2 passed, 0 failed, 0 skipped)
FAIL sub/b.test.lua (0 passed, 1 failed, 0 skipped)
    FAIL sum
        sub/b.test.lua:3: sum: 2 ~= 3
            3 |   t:assert_eq(1 + 1, 3, 'sum')
        log: trying
    run it again: provium run sub/b.test.lua

2 file(s); 2 passed, 1 failed, 0 skipped; TIME
";
    assert_eq!(ran.text(), expected);
    place.run("a.test.lua").expect(0);
}

#[test]
fn r055_r056_verbose_and_quiet() {
    let place = Place::with(&[(
        "a.test.lua",
        "test('x', {skip='why'}, print) test('y', function() end)",
    )]);
    let ran = place.run("run -v").expect(0);
    assert!(
        ran.stdout
            .contains("    SKIP x (skipped: why)\n    PASS y\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stderr.contains("vmm soft ("), "{}", ran.stderr);
    let ran = place.run("run -q").expect(0);
    assert_eq!(
        ran.text(),
        "\n1 file(s); 1 passed, 0 failed, 1 skipped; TIME\n"
    );
}

#[test]
fn r057_json_has_stdout_for_itself() {
    let source = "print('noise') io.write('more noise\\n') test('x', function() end)";
    let place = Place::with(&[("a.test.lua", source)]);
    let ran = place.run("run --json").expect(0);
    assert_eq!(
        ran.stdout,
        "{\"path\":\"a.test.lua\",\"timeout\":\"in_time\",\"passed\":true,\"chunk_error\":null,\
         \"tests\":[{\"name\":\"x\",\"status\":\"passed\",\"message\":null,\"log\":[]}]}\n"
    );
    assert!(
        ran.stderr.contains("noise") && ran.stderr.contains("more noise"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r043_nothing_found_is_an_error_and_nothing_selected_is_none() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    let ran = place.run("run --filter nothing").expect(0);
    assert!(
        ran.stderr
            .contains("none of the 1 file(s) found is selected"),
        "{}",
        ran.stderr
    );
    let empty = Place::with(&[]);
    let ran = empty.run("run").expect(2);
    assert!(
        ran.stderr
            .contains("no *.test.lua file in the current directory"),
        "{}",
        ran.stderr
    );
    let ran = empty.run("run missing").expect(2);
    assert_eq!(ran.stderr, "provium: missing: no such file or directory\n");
}

#[test]
fn r061_usage_errors_are_two() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    for line in [
        "--nonsense",
        "-v -q",
        "--timeout x",
        "--tag-meta novalue",
        "--profile nosuch",
    ] {
        let ran = place.run(line).expect(2);
        assert!(!ran.stderr.is_empty(), "{line}");
    }
}

#[test]
fn r029_the_file_deadline_stops_a_file_and_the_next_runs() {
    let place = Place::with(&[
        (
            "a.test.lua",
            "test('loop', function() while true do end end) test('after', print)",
        ),
        ("b.test.lua", GOOD),
    ]);
    let ran = place.run("run -j 1 -v --timeout 200ms").expect(1);
    assert!(
        ran.stdout
            .starts_with("TIME a.test.lua (0 passed, 1 failed, 1 skipped)"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("a.test.lua:1: file timed out after 0.2s"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("SKIP after (not run: file timed out after 0.2s)"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("PASS b.test.lua"), "{}", ran.stdout);
}

#[test]
fn r030_fail_fast_starts_no_new_file() {
    let place = Place::with(&[("a.test.lua", BAD), ("b.test.lua", GOOD)]);
    let ran = place.run("run -j 1 --fail-fast").expect(1);
    assert!(
        ran.text()
            .ends_with("1 file(s); 0 passed, 1 failed, 0 skipped; TIME\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r007_r013_r014_list_selects_without_running() {
    let place = Place::with(&[
        ("a.test.lua", "error()"),
        ("b.test.lua", ""),
        ("c/net.test.lua", ""),
    ]);
    assert_eq!(
        place.run("list").expect(0).stdout,
        "a.test.lua\nb.test.lua\nc/net.test.lua\n"
    );
    assert_eq!(
        place.run("list --filter net").expect(0).stdout,
        "c/net.test.lua\n"
    );
    assert_eq!(
        place.run("list --shard 1/2").expect(0).stdout,
        "a.test.lua\nc/net.test.lua\n"
    );
    assert_eq!(
        place.run("list --shard 2/2").expect(0).stdout,
        "b.test.lua\n"
    );
}

#[test]
fn r015_r044_failed_files_are_remembered() {
    let place = Place::with(&[("a.test.lua", GOOD), ("b.test.lua", BAD)]);
    let ran = place.run("run --rerun-failed").expect(0);
    assert!(
        ran.stderr.contains("no failed run is remembered"),
        "{}",
        ran.stderr
    );
    place.run("run").expect(1);
    assert_eq!(
        place.run("list --rerun-failed").expect(0).stdout,
        "b.test.lua\n"
    );
    place.run("run a.test.lua").expect(0);
    assert_eq!(
        place.run("list --rerun-failed").expect(0).stdout,
        "b.test.lua\n"
    );
}

#[test]
fn r018_r041_tags_filter_tests() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    let ran = place.run("run -v --tag x").expect(0);
    assert!(
        ran.stdout
            .contains("SKIP one (filtered: --tag x)\n    PASS two"),
        "{}",
        ran.stdout
    );
    let ran = place.run("run -v --no-tag x").expect(0);
    assert!(
        ran.stdout
            .contains("PASS one\n    SKIP two (filtered: --no-tag x)"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r034_e031_e032_events_are_saved_in_order() {
    let place = Place::with(&[("a.test.lua", GOOD), ("b.test.lua", BAD)]);
    place.run("run -j 1 --save-events ev").expect(1);
    let bytes = std::fs::read(place.path().join("ev")).unwrap();
    let mut reader = provium_protocol::FrameReader::new();
    reader.push(&bytes);
    let mut kinds = Vec::new();
    while let Some(body) = reader.next_frame().unwrap() {
        match provium_protocol::event::Event::from_body(body).unwrap() {
            provium_protocol::event::ReadEvent::Known(event) => kinds.push(event.kind.name()),
            provium_protocol::event::ReadEvent::Unknown(kind) => panic!("unknown kind {kind}"),
        }
    }
    assert_eq!(
        kinds.join(" "),
        "file_discovered file_discovered file_dispatched test_started test_passed test_started \
         test_passed file_completed file_dispatched test_started test_failed file_completed"
    );
}

#[test]
fn r062_an_interrupt_ends_the_run_in_order() {
    let place = Place::with(&[
        (
            "a.test.lua",
            "print('running') test('loop', function() while true do end end) test('x', print)",
        ),
        ("b.test.lua", GOOD),
    ]);
    let mut child = place
        .command("run -j 1 -v")
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
    std::thread::sleep(Duration::from_millis(50));
    // SAFETY: sends a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(rest.contains("a.test.lua:1: interrupted"), "{rest}");
    assert!(rest.contains("SKIP x (not run: interrupted)"), "{rest}");
    assert!(
        rest.contains("1 file(s); 0 passed, 1 failed, 1 skipped"),
        "{rest}"
    );
}

#[test]
fn r070_config_errors_name_the_file_and_the_line() {
    let place = Place::with(&[
        ("a.test.lua", GOOD),
        ("provium.toml", "[provium]\nroots = 3\n"),
    ]);
    let ran = place.run("run").expect(2);
    assert!(
        ran.stderr.contains("provium.toml") && ran.stderr.contains("line 2"),
        "{}",
        ran.stderr
    );
    place.write("provium.toml", "[provium]\nrots = []\n");
    let ran = place.run("run").expect(0);
    assert!(
        ran.stderr.contains("rots") && ran.stderr.contains("roots"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r039_r072_roots_give_names_and_modules() {
    let place = Place::with(&[
        ("provium.toml", "[provium]\nroots = [\"suite\"]\n"),
        ("suite/lib/help.lua", "return { value = 7 }"),
        (
            "suite/net/a.test.lua",
            "test('x', function(t) t:assert_eq(require('lib.help').value, 7) end)",
        ),
        ("elsewhere/b.test.lua", "error('not selected')"),
    ]);
    let ran = place.run("run").expect(0);
    assert!(
        ran.stdout
            .starts_with("PASS suite/net/a.test.lua (1 passed"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r086_build_commands_run_first_and_may_fail_the_run() {
    let toml =
        "[profiles.p]\nkernel = \"{out}/k\"\nbuild = \"echo built $PROVIUM_PROFILE; exit 3\"\n";
    let place = Place::with(&[("a.test.lua", GOOD), ("provium.toml", toml)]);
    let ran = place.run("run").expect(2);
    assert!(ran.stderr.contains("built p"), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("profile p: build command failed (exit status: 3)"),
        "{}",
        ran.stderr
    );
    assert!(
        place.run("run --no-build").code != 2,
        "the build was skipped"
    );
    assert!(
        place
            .run("prepare p")
            .expect(2)
            .stderr
            .contains("build command failed")
    );
    assert!(
        place
            .run("prepare q")
            .expect(2)
            .stderr
            .contains("no profile `q`")
    );
}

#[test]
fn r065_wrong_guest_files_are_named_before_anything_runs() {
    let source = "local vm = provium:vm('a', 'p'):boot()";
    let toml = "[profiles.p]\nkernel = \"k\"\n";
    let place = Place::with(&[("a.test.lua", source), ("provium.toml", toml)]);
    let ran = place.run("run").expect(2);
    assert!(
        ran.stderr.contains("profile p: kernel") && ran.stderr.contains("No such file"),
        "{}",
        ran.stderr
    );
    place.write("k", "this is not a kernel at all");
    let ran = place.run("run").expect(2);
    assert!(ran.stderr.contains("profile p: kernel"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--kernel"), "{}", ran.stderr);
    // A profile that no file names is only a warning.
    place.write("a.test.lua", GOOD);
    let ran = place.run("run").expect(0);
    assert!(
        ran.stderr.contains("warning: profile p: kernel"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r010_version_and_help() {
    let place = Place::with(&[]);
    let version = format!("provium {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(place.run("version").expect(0).stdout, version);
    assert_eq!(place.run("--version").expect(0).stdout, version);
    let help = place.run("--help").expect(0).stdout;
    for part in ["Usage:", "doctor", "--filter", "Exit codes", "A first test"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

/// The lines of a child's output as they come.
fn lines(input: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    use std::io::BufRead;
    let (tell, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(input).lines() {
            let Ok(line) = line else { break };
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

#[track_caller]
fn wait_for(lines: &std::sync::mpsc::Receiver<String>, part: &str) {
    let mut seen = String::new();
    loop {
        match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) if line.contains(part) => return,
            Ok(line) => seen += &(line + "\n"),
            Err(_) => panic!("no `{part}` in\n{seen}"),
        }
    }
}

#[test]
fn r105_watch_runs_again_what_a_change_concerns() {
    let place = Place::with(&[
        ("provium.toml", "[provium]\nroots = [\".\"]\n"),
        (
            "a.test.lua",
            "require('lib.help') test('a', function() end)",
        ),
        ("b.test.lua", GOOD),
        ("lib/help.lua", "return 1"),
    ]);
    let mut child = place
        .command("run -j 1 --watch --save-events ev")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = lines(child.stdout.take().unwrap());
    let err = lines(child.stderr.take().unwrap());
    let child = Reaped(child);
    wait_for(&out, "2 file(s); 3 passed");
    wait_for(&err, "waiting for changes");
    place.write("lib/help.lua", "return 2");
    wait_for(&err, "changed: help.lua");
    wait_for(&out, "1 file(s); 1 passed");
    wait_for(&err, "waiting for changes");
    let events = support::stream::read(&place.path().join("ev"));
    assert_eq!(
        support::stream::check(&events).len(),
        1,
        "R-106: the file holds the last run"
    );
    place.write("c.test.lua", BAD);
    wait_for(&err, "changed: c.test.lua");
    wait_for(&out, "1 file(s); 0 passed, 1 failed");
    wait_for(&err, "waiting for changes");
    // SAFETY: sends a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.0.id().cast_signed(), libc::SIGINT) };
    let code = child.wait();
    assert_eq!(code, Some(1), "the last run's code");
}

/// A child that does not outlive its test.
struct Reaped(std::process::Child);

impl Reaped {
    fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn retries_run_what_has_not_passed_and_name_flaky_tests() {
    // The first attempt leaves a file behind, by which the second knows better.
    let source = "local first = not io.open('seen') io.open('seen', 'w'):close()\n\
                  test('steady', function() io.open('runs', 'a'):write('x'):close() end)\n\
                  test('flaky', function(t) t:assert(not first, 'no luck') end)\n\
                  test('broken', function(t) t:fail('never') end)";
    let place = Place::with(&[("a.test.lua", source)]);
    let ran = place
        .run("run --retries 3 --save-events ev --junit j.xml")
        .expect(1);
    let outcomes = support::stream::check(&support::stream::read(&place.path().join("ev")));
    let ended: Vec<_> = outcomes
        .iter()
        .map(|((_, test), end)| (test.as_str(), *end))
        .collect();
    assert_eq!(
        ended,
        [
            ("broken", "failed"),
            ("flaky", "passed"),
            ("steady", "passed")
        ]
    );
    assert_eq!(
        std::fs::read_to_string(place.path().join("runs")).unwrap(),
        "x"
    );
    assert!(
        ran.stdout.contains("FLAKY flaky (passed in attempt"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("1 file(s); 2 passed, 1 failed"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.contains("trying again (3 of 3): broken"),
        "{}",
        ran.stderr
    );
    let junit = std::fs::read_to_string(place.path().join("j.xml")).unwrap();
    assert!(junit.contains("flakyFailure"), "{junit}");
}

#[test]
fn r108_r109_a_claim_blocks_those_behind_it_and_a_run_says_so() {
    let busy = "provium:claim{memory = '300M'}\ntest('x', function() local till = os.clock() + 0.3 while os.clock() < till do end end)";
    let place = Place::with(&[
        ("a.test.lua", busy),
        ("b.test.lua", busy),
        ("c.test.lua", GOOD),
    ]);
    place.run("run -j 3 --mem 500M --save-events ev").expect(0);
    let events = support::stream::read(&place.path().join("ev"));
    support::stream::check(&events);
    let names: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.kind {
            provium_protocol::EventKind::FileDispatched(e) => Some(format!("+{}", &e.path[..1])),
            provium_protocol::EventKind::FileCompleted(e) => Some(format!("-{}", &e.path[..1])),
            provium_protocol::EventKind::FileBlocked(e) => {
                assert_eq!(e.reason, provium_protocol::event::BlockReason::PoolFull);
                assert_eq!(e.waiting_for.memory_bytes, 350 << 20);
                Some(format!("?{}", &e.path[..1]))
            }
            _ => None,
        })
        .collect();
    let text = names.join(" ");
    // b waits for a, and c, which would fit, waits behind b.
    assert!(text.starts_with("+a ?b -a +b +c"), "{text}");
}

#[test]
fn r108_a_claim_beyond_the_pool_fails_its_file_at_once() {
    let source = "provium:claim{memory = '4G', cpus = 1}\ntest('x', function() end)";
    let place = Place::with(&[("a.test.lua", source), ("b.test.lua", GOOD)]);
    let ran = place
        .run("run --mem 1G --cpus 4 --save-events ev")
        .expect(1);
    for part in [
        "a.test.lua:1: lab:claim",
        "4096 MiB and 1 CPUs",
        "1024 MiB and 4 CPUs",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains("PASS b.test.lua"), "{}", ran.stdout);
    support::stream::check(&support::stream::read(&place.path().join("ev")));
}

#[test]
fn e022_e113_the_state_of_the_pool_is_told_every_second() {
    let slow =
        "test('x', function() local till = os.clock() + 2.5 while os.clock() < till do end end)";
    let place = Place::with(&[("a.test.lua", slow)]);
    place
        .run("run --mem 1G --cpus 2 --save-events ev")
        .expect(0);
    let events = support::stream::read(&place.path().join("ev"));
    let states: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            provium_protocol::EventKind::PoolState(state) => Some(state),
            _ => None,
        })
        .collect();
    assert!(states.len() >= 2, "{}", states.len());
    assert_eq!(states[0].used.memory_bytes, 50 << 20);
    assert_eq!(states[0].available.memory_bytes, (1024 - 50) << 20);
}

#[test]
fn e040_a_socket_serves_the_run_and_is_gone_afterwards() {
    let slow =
        "test('x', function() local till = os.clock() + 1 while os.clock() < till do end end)";
    let place = Place::with(&[("a.test.lua", slow)]);
    let mut child = place
        .command("run --events-socket sock")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = place.path().join("sock");
    let mut client = loop {
        if let Ok(client) = std::os::unix::net::UnixStream::connect(&path) {
            break client;
        }
        assert!(child.try_wait().unwrap().is_none(), "no socket came");
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let events = support::stream::parse(&bytes);
    assert_eq!(events.last().unwrap().kind.name(), "file_completed");
    assert!(!path.exists());
    place.write("sock", "a file");
    let ran = place.run("run --events-socket sock").expect(2);
    assert!(ran.stderr.contains("is no socket"), "{}", ran.stderr);
}

#[test]
fn init_gives_a_suite_that_lists_and_checks() {
    let place = Place::with(&[]);
    let ran = place.run("init").expect(0);
    assert!(
        ran.stdout
            .contains("wrote provium.toml\nwrote tests/first.test.lua\n"),
        "{}",
        ran.stdout
    );
    assert_eq!(place.run("list").expect(0).stdout, "tests/first.test.lua\n");
    place.write("provium.toml", "# mine\n");
    assert!(
        place
            .run("init")
            .expect(0)
            .stdout
            .contains("kept  provium.toml")
    );
    assert_eq!(
        std::fs::read_to_string(place.path().join("provium.toml")).unwrap(),
        "# mine\n"
    );
}

#[test]
fn r008_lsp_setup_leaves_a_foreign_luarc_alone() {
    let place = Place::with(&[]);
    place.run("lsp-setup").expect(0);
    let stubs = std::fs::read_to_string(place.path().join(".provium-meta/types.lua")).unwrap();
    assert!(
        stubs.contains("function VM:run(") && stubs.contains("---@meta"),
        "{stubs}"
    );
    place.run("lsp-setup").expect(0);
    place.write(".luarc.json", "{\"mine\": true}");
    let ran = place.run("lsp-setup").expect(1);
    assert!(ran.stderr.contains("workspace.library"), "{}", ran.stderr);
    place.run("lsp-setup --force").expect(0);
    assert!(
        std::fs::read_to_string(place.path().join(".luarc.json"))
            .unwrap()
            .contains("provium-meta")
    );
}

#[test]
fn completions_and_man_pages_are_made() {
    let place = Place::with(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&format!("completions {shell}")).expect(0).stdout;
        assert!(script.contains("rerun-failed"), "{shell}");
    }
    let page = place.run("man").expect(0).stdout;
    assert!(
        page.contains(".TH provium") && page.contains("fail"),
        "{page}"
    );
    place.run("man pages").expect(0);
    assert!(place.path().join("pages/provium-run.1").is_file());
}

#[test]
fn r070_a_config_error_points_at_its_place() {
    let place = Place::with(&[("provium.toml", "[provium]\nroots = 3\n")]);
    let ran = place.run("list").expect(2);
    assert!(ran.stderr.contains("line 2, column 9"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("  2 | roots = 3\n    |         ^"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r114_coverage_reports_and_leaves_no_file() {
    let source = "test('x', {spec = {'A-10', 'A-9'}}, function() end) test('y', function() end)";
    let place = Place::with(&[("a.test.lua", source)]);
    std::fs::create_dir(place.path().join("tmp")).unwrap();
    let run = |line: &str| -> support::Ran {
        let mut command = place.command(line);
        command.env("TMPDIR", place.path().join("tmp"));
        command.output().unwrap().into()
    };
    let ran = run("run --coverage").expect(0);
    for part in ["<b>A-9</b>", "<b>A-10</b>", "Without an identifier"] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    let left = std::fs::read_dir(place.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0);
    run("run --coverage --save-events mine").expect(0);
    assert!(place.path().join("mine").is_file(), "a user's file stays");
}

#[test]
fn r117_coverage_says_where_a_stream_is_damaged() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    place.run("run --save-events ev").expect(0);
    let mut bytes = std::fs::read(place.path().join("ev")).unwrap();
    bytes.pop();
    std::fs::write(place.path().join("ev"), &bytes).unwrap();
    let coverage = |arguments: &[&str]| -> support::Ran {
        std::process::Command::new(env!("CARGO_BIN_EXE_provium-coverage"))
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap()
            .into()
    };
    let ran = coverage(&["--from", "ev"]).expect(1);
    let place_of_end = format!("byte {}", bytes.len());
    assert!(ran.stderr.contains(&place_of_end), "{}", ran.stderr);
    coverage(&[]).expect(2);
    coverage(&["--from", "missing"]).expect(1);
    let ran = place.run("events ev").expect(2);
    assert!(ran.stdout.contains("test_passed") && ran.stderr.contains(&place_of_end));
}

#[test]
fn the_page_about_a_run_holds_all_of_it() {
    let place = Place::with(&[("a.test.lua", GOOD), ("b.test.lua", BAD)]);
    place.run("run --report out/page.html").expect(1);
    let page = std::fs::read_to_string(place.path().join("out/page.html")).unwrap();
    let data = page
        .lines()
        .find_map(|line| line.strip_prefix("const run = "))
        .unwrap();
    let run: serde_json::Value = serde_json::from_str(data.trim_end_matches(';')).unwrap();
    assert_eq!(run["files"][0]["status"], "passed");
    let test = &run["files"][1]["tests"][0];
    assert_eq!(
        (&test["name"], &test["status"]),
        (&"sum".into(), &"failed".into())
    );
    assert_eq!(test["log"][0], "trying");
    assert!(
        !page.contains("http://")
            || page.matches("http://").count() == page.matches("http://www.w3.org").count()
    );
    assert!(
        !page.contains("https://"),
        "it needs nothing from elsewhere"
    );
}
