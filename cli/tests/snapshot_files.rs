//! Snapshot files and trouble: a writer that is killed, a disk that is full (lua-api L-079).

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::Ran;
use support::here::Here;

/// What lies in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Killed at whatever point, it leaves a whole snapshot or the one before, and nothing else.
#[test]
fn l079_a_killed_writer_leaves_whole_snapshots_only() {
    let here = Here::with(&[
        (
            "write.test.lua",
            r#"
local vm = provium:vm("a", "minimal", { memory = "96M" }):boot()
local base = vm:snapshot("out/base.snap")
local other = provium:vm("b", "minimal")
other:restore(base)
for n = 1, 1000000 do
  vm:write_file("/tmp/n", tostring(n))
  vm:snapshot("out/whole.snap")
  other:write_file("/tmp/n", tostring(n))
  other:snapshot("out/little.snap", base)
  io.open("rounds", "w"):write(n):close()
end
"#,
        ),
        (
            "read.test.lua",
            r#"
local function number(name)
  local vm = provium:vm(name, "minimal")
  vm:restore("out/" .. name .. ".snap")
  return tonumber(vm:read_file("/tmp/n"))
end
local whole, little = number("whole"), number("little")
assert(whole >= 1 and (little == whole or little == whole - 1), whole .. " and " .. little)
"#,
        ),
    ]);
    let out = here.path().join("out");
    for round in 0..8u64 {
        let _none_yet = std::fs::remove_dir_all(&out);
        let _none_yet = std::fs::remove_file(here.path().join("rounds"));
        std::fs::create_dir(&out).unwrap();
        let mut command = here.command("run --timeout 0 write.test.lua");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while !here.path().join("rounds").exists() {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(37 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = names(&out);
        let wanted = ["base.snap", "little.snap", "whole.snap"];
        assert!(
            wanted.iter().all(|name| left.contains(&(*name).to_owned())),
            "{left:?}"
        );
        let more: Vec<_> = left
            .iter()
            .filter(|name| !wanted.contains(&name.as_str()))
            .collect();
        assert!(more.is_empty(), "round {round}: {more:?}");
        here.run("run read.test.lua").expect(0);
    }
}

/// On a disk without room, whatever needs some says so and leaves nothing; the guest goes on, and with room again all
/// is well.
#[test]
fn l079_a_full_disk_is_told_and_leaves_nothing() {
    let here = Here::with(&[(
        "a.test.lua",
        r#"
local lab = provium:lab("l")
local vm = lab:vm("a", "minimal", { memory = "96M" }):boot()
vm:write_file("/tmp/mark", "here")

local function refused(t, what, ...)
  local ok, why = pcall(...)
  t:assert(not ok, what)
  t:assert(tostring(why):find("No space left on device", 1, true), what .. ": " .. tostring(why))
  t:assert_eq(vm:run("cat /tmp/mark"):assert_ok().stdout, "here", "the guest goes on")
end

test("without room", function(t)
  refused(t, "a file", vm.snapshot, vm, "small/a.snap")
  refused(t, "a temporary one", vm.snapshot, vm)
  refused(t, "a clone", vm.clone, vm)
  refused(t, "a lab", lab.snapshot, lab, "small/lab")
  t:assert_eq(io.popen("ls -A small | grep -v -e filler -e provium-"):read("a"), "")
end)

test("with room", function(t)
  os.remove("small/filler")
  local s = vm:snapshot("small/a.snap")
  local other = provium:vm("b", "minimal")
  other:restore("small/a.snap")
  t:assert_eq(other:read_file("/tmp/mark"), "here")
  t:assert_eq(vm:clone():read_file("/tmp/mark"), "here")
end)
"#,
    )]);
    let small = here.path().join("small");
    std::fs::create_dir(&small).unwrap();
    // A file system of its own, which an ordinary user may have where user namespaces are allowed.
    let mount = "mount -t tmpfs -o size=200m none small && head -c 185m /dev/zero > small/filler";
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command
    };
    let tried = inside(mount).current_dir(here.path()).output();
    let problem = match &tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        let insisted = std::env::var("PROVIUM_REQUIRE").is_ok_and(|all| all.contains("userns"));
        assert!(!insisted, "PROVIUM_REQUIRE asks for userns: {problem}");
        eprintln!("SKIPPED: no file system of its own to fill: {problem}");
        return;
    }
    let plain = here.command("run -v --cold a.test.lua");
    let mut command = inside(&format!("{mount} && exec \"$0\" \"$@\""));
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("TMPDIR", &small).current_dir(here.path());
    Ran::from(command.output().unwrap()).expect(0);
    assert!(names(&small).is_empty(), "{:?}", names(&small));
}
