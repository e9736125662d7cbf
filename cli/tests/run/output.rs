//! How a run is reported: text, JSON, events, the page, exit codes (cli-and-config section 5).

use std::os::unix::fs::FileTypeExt;

use crate::support::{Place, Ran, stream};
use crate::{BAD, GOOD};

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
fn r061_no_other_code_when_nobody_reads_or_nothing_can_be_written() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    for command in ["list", "version", "run", "doctor", "events ev"] {
        let program = env!("CARGO_BIN_EXE_provium");
        place.run("run --save-events ev").expect(0);
        // The reader is gone before anything is written.
        let script = format!("{{ sleep 0.2; {program} {command}; echo $? >&2; }} | true");
        let output = place.shell(&script).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.ends_with("0\n") && !errors.contains("panicked"),
            "{command}: {errors}"
        );
        let mut full = place.shell(&format!("{program} {command} > /dev/full"));
        let ran = Ran::from(full.output().unwrap());
        let expected = if command == "run" { 0 } else { 2 };
        assert_eq!(ran.code, expected, "{command}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("No space left on device"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn e036_a_failing_sink_is_told_once_and_the_run_goes_on() {
    let place = Place::with(&[("a.test.lua", GOOD), ("b.test.lua", GOOD)]);
    for sink in ["--save-events", "--junit", "--report"] {
        let ran = place.run(&format!("run {sink} /dev/full")).expect(0);
        assert_eq!(
            ran.stderr.matches("No space left on device").count(),
            1,
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.contains("2 file(s); 4 passed"), "{}", ran.stdout);
        let kind = std::fs::metadata("/dev/full").unwrap().file_type();
        assert!(kind.is_char_device(), "{sink} replaced a device");
    }
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
    let outcomes = stream::check(&stream::read(&place.path().join("ev")));
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

#[test]
fn r035_e039_events_have_stdout_for_themselves() {
    let source = "print('noise') test('x', function() end)";
    let place = Place::with(&[("a.test.lua", source)]);
    let output = place.command("run --events-stdout").output().unwrap();
    let events = stream::parse(&output.stdout);
    assert_eq!(events.last().unwrap().kind.name(), "file_completed");
    let errors = String::from_utf8(output.stderr).unwrap();
    for part in ["noise", "PASS a.test.lua", "1 file(s); 1 passed"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn r059_r060_files_are_printed_whole_and_without_colours_where_there_is_no_terminal() {
    let loud = "for i = 1, 20 do print('a line of its own') end\n\
                test('x', function(t) t:log('logged') t:fail('on purpose') end)";
    let names = ["a", "b", "c", "d"].map(|name| format!("{name}.test.lua"));
    let files: Vec<(&str, &str)> = names.iter().map(|name| (&**name, loud)).collect();
    let place = Place::with(&files);
    let ran = place.run("run -j 4").expect(1);
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'));
    let lines: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| !line.contains("a line"))
        .collect();
    for name in names {
        let start = format!("FAIL {name} (0 passed, 1 failed, 0 skipped)");
        let at = lines.iter().position(|line| **line == start).unwrap();
        let block = &lines[at + 1..at + 5];
        assert_eq!(block[0], "    FAIL x");
        assert!(block[1].contains(&name), "{block:?}");
        assert_eq!(block[3], "        log: logged", "{block:?}");
    }
}

#[test]
fn r009_doctor_and_preflight_are_the_same_report() {
    let place = Place::with(&[]);
    let doctor = place.run("doctor").expect(0).stdout;
    assert_eq!(place.run("preflight").expect(0).stdout, doctor);
    for part in ["config none", "vmm soft (asked for)", "profile minimal: "] {
        assert!(doctor.contains(part), "{part}: {doctor}");
    }
    place.write("provium.toml", "[profiles.p]\nkernel = 'nowhere'\n");
    let ran = place.run("doctor").expect(2);
    assert!(
        ran.stdout.contains("profile p: kernel: ")
            && ran.stdout.contains("pass --profile p --kernel PATH"),
        "{}",
        ran.stdout
    );
}
