//! Warm boots from outside: which boots go on from an earlier one's state, what is then the VM's own, and what happens
//! when the state is damaged or many want it at once.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::Ran;
use support::here::Here;

/// The states that are kept.
fn states(here: &Here) -> Vec<PathBuf> {
    here.cached("boot")
}

/// How the VMs came up, in order: `a cold`, `b warm`.
fn boots(ran: &Ran) -> Vec<String> {
    let lines = ran
        .stdout
        .lines()
        .filter_map(|l| l.trim().strip_prefix("vm "));
    lines
        .filter_map(|line| {
            let (vm, how) = line.split_once(": ")?;
            let how = how.split([' ', ',']).next()?;
            Some(format!("{vm} {how}"))
        })
        .collect()
}

/// Does damage to a file.
type Damage<'a> = &'a dyn Fn(&File);

const ALIKE: &str = "require('own').tests()";

/// The first boot of a kind leaves its state, later ones go on from it, in this process and in others.
#[test]
fn l073_boots_go_on_from_the_first_one_and_say_so() {
    let here = Here::with(&[("a.test.lua", ALIKE)]);
    let first = here.run("run -v a.test.lua").expect(0);
    assert_eq!(
        boots(&first),
        ["a cold", "b warm", "b warm"],
        "{}",
        first.stdout
    );
    let kept = "vm a: cold (the first one; its state is kept, ";
    assert!(first.stdout.contains(kept), "{}", first.stdout);
    assert_eq!(states(&here).len(), 1);

    let second = here.run("run -v a.test.lua").expect(0);
    assert_eq!(
        boots(&second),
        ["a warm", "b warm", "b warm"],
        "{}",
        second.stdout
    );
    let quiet = here.run("run a.test.lua").expect(0);
    assert!(boots(&quiet).is_empty(), "{}", quiet.stdout);

    let cold = here.run("run -v --cold a.test.lua").expect(0);
    assert_eq!(
        boots(&cold),
        ["a cold", "b cold", "b cold"],
        "{}",
        cold.stdout
    );
    assert!(
        cold.stdout.contains("vm a: cold (--cold), "),
        "{}",
        cold.stdout
    );

    let list = here.run("fixture list").expect(0);
    assert!(list.stdout.contains("  boot  "), "{}", list.stdout);
    here.run("fixture clean").expect(0);
    assert!(states(&here).is_empty());
}

/// A state that cannot be used is told, dropped and made anew; the test never sees it.
#[test]
fn r098_a_damaged_state_is_dropped_and_the_vm_boots_cold() {
    let here = Here::with(&[(
        "a.test.lua",
        "provium:vm('a', 'minimal'):boot():run('true'):assert_ok()",
    )]);
    here.run("run a.test.lua").expect(0);
    let [state] = &states(&here)[..] else {
        panic!("one state")
    };
    let flip = |file: &File| {
        // Holes of the file are no part of the guest.
        let mut byte = [0];
        let mut at = 0x100_0000;
        while byte == [0] {
            at += 1000;
            file.read_exact_at(&mut byte, at).unwrap();
        }
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    let damage: [(&str, Damage); 3] = [
        ("a byte of its memory", &flip),
        ("its length", &|file| file.set_len(100_000).unwrap()),
        ("all of it", &|file| file.set_len(0).unwrap()),
    ];
    for (what, damage) in damage {
        damage(
            &std::fs::File::options()
                .read(true)
                .write(true)
                .open(state)
                .unwrap(),
        );
        let ran = here.run("run -v a.test.lua").expect(0);
        let warning = "warning: a.test.lua: vm a: the state of an earlier boot is of no use: ";
        assert!(ran.stderr.contains(warning), "{what}: {}", ran.stderr);
        assert_eq!(boots(&ran), ["a cold"], "{what}");
        let after = here.run("run -v a.test.lua").expect(0);
        assert_eq!(boots(&after), ["a warm"], "{what}: {}", after.stderr);
        assert_eq!(after.stderr.lines().count(), 1, "{what}: {}", after.stderr);
    }
}

/// Whatever a test says about its boot that is more than sizes makes it a boot of its own.
#[test]
fn l064_what_sets_a_boot_apart_makes_it_cold() {
    let here = Here::with(&[(
        "a.test.lua",
        r#"
local function up(name, profile, opts)
  local vm = provium:vm(name, profile, opts):boot()
  vm:close()
end
local function sized(opts) opts.memory = "96M" return opts end
up("first", "minimal", sized {})
up("alike", "minimal", sized { boot_timeout = "100s" })
up("asked", "minimal", sized { cold = true })
up("seeded", "minimal", sized { rng_seed = 1 })
up("timed", "minimal", sized { initial_time = 1000000000 })
up("filed", "minimal", sized { files = { { path = "/x", content = "" } } })
up("worded", "minimal", sized { kernel_cmdline_append = "quiet" })
up("larger", "minimal", { memory = "128M" })
up("profile", "never", sized {})
"#,
    )]);
    for first in ["cold", "warm"] {
        let ran = here.run("run -v a.test.lua").expect(0);
        let how = |vm: &str| match vm {
            "first" | "larger" => first,
            "alike" => "warm",
            _ => "cold",
        };
        let vms = [
            "first", "alike", "asked", "seeded", "timed", "filed", "worded", "larger", "profile",
        ];
        assert_eq!(
            boots(&ran),
            vms.map(|vm| format!("{vm} {}", how(vm))),
            "{}",
            ran.stdout
        );
        let why = "vm profile: cold (warm = false in its profile), ";
        assert!(ran.stdout.contains(why), "{}", ran.stdout);
    }
    assert_eq!(states(&here).len(), 2);
}

/// Of many that want the same at once, in one process or in several, one boots and the others go on from it.
#[test]
fn r096_of_many_at_once_one_boots() {
    let here = Here::with(&[(
        "a.test.lua",
        r#"
local lab = provium:lab("many")
for n = 1, 3 do lab:vm("vm" .. n, "minimal", { memory = "96M" }) end
lab:boot()
for n = 1, 3 do lab:vm("vm" .. n):run("true"):assert_ok() end
"#,
    )]);
    let running: Vec<_> = (0..4)
        .map(|_| {
            let mut command = here.command("run -v a.test.lua");
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut all = Vec::new();
    for child in running {
        let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
        all.extend(boots(&ran));
    }
    assert_eq!(all.len(), 12, "{all:?}");
    let cold = all.iter().filter(|boot| boot.ends_with(" cold")).count();
    assert_eq!(cold, 1, "{all:?}");
    assert_eq!(states(&here).len(), 1);
}

/// However many files in however many processes want one fixture that nobody has built, it is built once.
#[test]
fn r096_many_files_of_many_processes_share_one_build() {
    const PROCESSES: usize = 8;
    const FILES: usize = 25;
    let here = Here::with(&[(
        "base.fixture.lua",
        r#"
io.open("built", "a"):write("x"):close()
local vm = provium:vm("base", "minimal", { memory = "96M" }):boot()
vm:write_file("/tmp/base", "from the fixture")
return vm:snapshot()
"#,
    )]);
    for process in 0..PROCESSES {
        let dir = here.path().join(process.to_string());
        std::fs::create_dir(&dir).unwrap();
        for file in 0..FILES {
            let test = r#"
local vm = provium:vm_fixture("base")
test("it is the fixture's", function(t) t:assert_eq(vm:read_file("/tmp/base"), "from the fixture") end)
"#;
            std::fs::write(dir.join(format!("f{file}.test.lua")), test).unwrap();
        }
    }
    let running: Vec<_> = (0..PROCESSES)
        .map(|process| {
            let mut command = here.command(&format!("run -j 2 {process}"));
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in running {
        let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
        let all = format!("\n{FILES} file(s); {FILES} passed, 0 failed, 0 skipped; ");
        assert!(ran.stdout.contains(&all), "{}", ran.stdout);
    }
    assert_eq!(std::fs::read(here.path().join("built")).unwrap(), b"x");
}

/// Where nothing more can be written, a boot leaves no state and a snapshot is refused; neither leaves anything behind,
/// and the guest goes on.
#[test]
fn l079_what_cannot_be_written_leaves_nothing_behind() {
    let here = Here::with(&[(
        "a.test.lua",
        r#"
local vm = provium:vm("a", "minimal", { memory = "96M" }):boot()
test("a snapshot is refused", function(t)
  local why = tostring(t:assert_raises(function() vm:snapshot("here.snap") end))
  t:assert_contains(why, "here.snap")
  t:assert_contains(why, "File too large")
  t:assert_eq(vm:run("echo on"):assert_ok().stdout, "on\n")
end)
"#,
    )]);
    // Files of this process and its children end at 10 MB; writing beyond is an error and no signal.
    let limited = "trap '' XFSZ; ulimit -f 20000; exec \"$0\" \"$@\"";
    let plain = here.command("run -v a.test.lua");
    let mut command = Command::new("sh");
    command.args(["-c", limited]).arg(plain.get_program());
    command.args(plain.get_args()).current_dir(here.path());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let ran = Ran::from(command.output().unwrap()).expect(0);
    assert!(
        ran.stdout
            .contains("vm a: cold (the first one; its state is not kept: "),
        "{}",
        ran.stdout
    );
    let left = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".lock"))
            .collect()
    };
    assert_eq!(left(&here.path().join("cache")), Vec::<String>::new());
    let mut files = left(here.path());
    files.sort();
    assert_eq!(files, ["a.test.lua", "cache", "provium.toml", "runs"]);
}
