//! The commands beside runs.

use std::io::Read;

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

#[test]
fn r115_r116_coverage_reads_sockets_and_several_streams() {
    let slow = "test('x', {spec = 'A-1'}, function()\n\
                local till = os.clock() + 1 while os.clock() < till do end end)";
    let place = Place::with(&[
        ("a.test.lua", slow),
        (
            "b.test.lua",
            "test('y', {spec = 'A-2'}, function(t) t:fail('no') end)",
        ),
    ]);
    let mut run = place
        .command("run a.test.lua --events-socket sock --save-events one")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !place.path().join("sock").exists() {
        assert!(run.try_wait().unwrap().is_none(), "no socket came");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let coverage = |arguments: &[&str]| -> Ran {
        std::process::Command::new(env!("CARGO_BIN_EXE_provium-coverage"))
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap()
            .into()
    };
    let ran = coverage(&["--from-socket", "sock", "--format", "json"]).expect(0);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report.to_string().contains("A-1"), "{report:#}");
    place.run("run b.test.lua --save-events two").expect(1);
    let ran = coverage(&["--from", "one", "--from", "two", "--format", "text"]).expect(0);
    for part in ["A-1  passed", "A-2  failed"] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
}

#[test]
fn r003_prepare_builds_in_the_order_of_names_and_stops_at_the_first_failure() {
    let profile = |name: &str, command: &str| {
        format!("[profiles.{name}]\nkernel = 'k'\nbuild = \"{command}\"\n")
    };
    let toml = [
        profile("c", "echo c >> order"),
        profile("a", "echo a >> order; echo $PROVIUM_PROFILE $PROVIUM_OUT"),
        profile("b", "echo b >> order; exit 7"),
        "[profiles.d]\nkernel = 'k'\n".to_owned(),
    ];
    let place = Place::with(&[("provium.toml", &toml.concat())]);
    let mut command = place.command("prepare");
    command.env("PROVIUM_BUILD_DIR", place.path().join("out"));
    let ran = Ran::from(command.output().unwrap()).expect(2);
    let order = std::fs::read_to_string(place.path().join("order")).unwrap();
    assert_eq!(order, "a\nb\n");
    assert_eq!(ran.stdout, "", "what builds print goes to stderr");
    let out = place.path().join("out/a");
    assert!(
        ran.stderr.contains(&format!("a {}", out.display())) && out.is_dir(),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("profile b: build command failed (exit status: 7)"),
        "{}",
        ran.stderr
    );
    let silent = place.run("prepare d").expect(0);
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), ("", ""));
}

#[test]
fn a_slice_that_was_killed_is_not_merged_as_if_it_had_passed() {
    let slow = "test('x', function() print('now') while true do end end)";
    let place = Place::with(&[("a.test.lua", slow), ("b.test.lua", GOOD)]);
    let mut child = place
        .command("run -j 1 a.test.lua b.test.lua --save-events ev")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    place.run("run b.test.lua --save-events good").expect(0);
    let ran = place.run("merge -o whole ev").expect(2);
    assert!(
        ran.stderr
            .contains("ev: the run ended before these files did: a.test.lua, b.test.lua"),
        "{}",
        ran.stderr
    );
    place.write("empty", "");
    let ran = place.run("merge -o whole good empty").expect(2);
    assert!(
        ran.stderr.contains("empty: holds no events"),
        "{}",
        ran.stderr
    );
    place.run("merge -o whole good").expect(0);
}
