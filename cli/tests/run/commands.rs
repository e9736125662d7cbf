//! The commands beside runs.

use crate::GOOD;
use crate::support::{Place, Ran};

#[test]
fn r001_a_word_that_is_neither_file_nor_command_is_told_as_such() {
    let place = Place::with(&[]);
    for (line, expected) in [
        (
            "lits",
            "lits: no such file or directory, nor a command; did you mean `provium list`?",
        ),
        ("qqqqqq", "`provium --help` lists the commands"),
        ("run lits", "provium: lits: no such file or directory\n"),
        ("./lits", "provium: ./lits: no such file or directory\n"),
    ] {
        let ran = place.run(line).expect(2);
        assert!(ran.stderr.contains(expected), "{line}: {}", ran.stderr);
    }
    // A file of that name is run, and a path named like a command needs `run` or `./`.
    place.write("list/a.test.lua", GOOD);
    assert!(
        place
            .run("run list")
            .expect(0)
            .stdout
            .starts_with("PASS list/")
    );
    assert!(
        place
            .run("./list")
            .expect(0)
            .stdout
            .starts_with("PASS list/")
    );
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
fn r114_coverage_reports_and_leaves_no_file() {
    let source = "test('x', {spec = {'A-10', 'A-9'}}, function() end) test('y', function() end)";
    let place = Place::with(&[("a.test.lua", source)]);
    std::fs::create_dir(place.path().join("tmp")).unwrap();
    let run = |line: &str| -> Ran {
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
    let coverage = |arguments: &[&str]| -> Ran {
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
