//! Classic fixtures with real guests: where they are looked for, what of them is kept, and for how long (classic-api
//! section 9).

mod support;

use support::Ran;
use support::here::Here;

/// Leaves a mark on the host each time it runs.
const BASE: &str = r#"
io.open("built", "a"):write("x"):close()
local first = provium.create("minimal")
first:boot()
local vm = provium.create("minimal")
vm:boot({ memory = "112M", cpus = 2 })
vm:exec("echo base > /tmp/who")
vm:exec("(while :; do echo x >> /tmp/count; usleep 50000; done) > /dev/null 2>&1 &")
"#;

fn here(files: &[(&str, &str)]) -> Here {
    let here = Here::with(files);
    here.write(
        "provium.toml",
        "[provium]\ncache_dir = \"cache\"\nroots = [\"extra\"]\n",
    );
    here.write(
        "extra/fixtures/of_root.lua",
        "return provium.fixture('up/base')",
    );
    here
}

fn passes(ran: &Ran, files: usize) {
    let passed = ran.stdout.matches(" ... ok (").count();
    assert_eq!(passed, files, "{}", ran.stdout);
}

#[test]
fn c060_to_c063_c065_a_fixture_is_found_built_once_a_run_and_resumed_by_all() {
    let uses = |name: &str| {
        format!(
            r#"
local a, b = provium.fixture("{name}"), provium.fixture("{name}")
local function out(vm, command) return vm:exec(command).stdout:trim() end
test("the last VM, with its sizes", function()
  assert_eq(out(a, "cat /tmp/who"), "base")
  assert_eq(out(a, "nproc"), "2")
  local kib = tonumber(out(a, "awk '/MemTotal/ {{ print $2 }}' /proc/meminfo"))
  assert(kib > 60000 and kib < 112 * 1024, kib)
end)
test("what it left running runs, in each for itself", function()
  local function count() return tonumber(out(a, "wc -l < /tmp/count")) end
  local before = count()
  a:exec("sleep 0.5")
  assert(count() > before)
  a:exec("echo mine > /tmp/who")
  assert_eq(out(b, "cat /tmp/who"), "base")
  assert(a:cid() ~= b:cid(), "context ids")
end)
"#
        )
    };
    let here = here(&[
        ("t/fixtures/up/base.lua", BASE),
        ("fixtures/up/base.lua", "error('above PATH')"),
    ]);
    // C-060: beside the file, in a directory above it, in a root.
    for (file, name) in [
        ("t/a.lua", "up/base"),
        ("t/deep/er/b.lua", "up/base"),
        ("t/deep/c.lua", "up/base"),
    ] {
        here.write(file, &uses(name));
    }
    let ran = here.run("test t -p 2 --cpus 8").expect(0);
    passes(&ran, 3);
    assert_eq!(here.read("built"), "x", "C-062: once a run");
    here.run("test t/a.lua").expect(0);
    assert_eq!(here.read("built"), "xx", "C-063: not kept for the next");
}

#[test]
fn c060_c061_what_is_not_there_or_has_no_vm_is_told() {
    let here = here(&[
        ("fixtures/above.lua", "error('above PATH')"),
        ("t/fixtures/none.lua", "local x = 1"),
        ("t/fixtures/unborn.lua", "provium.create('minimal')"),
        (
            "t/fixtures/off.lua",
            "local vm = provium.create('minimal') vm:boot() vm:shutdown()",
        ),
        (
            "t/fixtures/chosen.lua",
            "local vm = provium.create('minimal') vm:boot() vm:exec('echo chosen > /tmp/who')\n\
             provium.create('minimal'):boot()\nreturn vm",
        ),
        (
            "t/fixtures/saved.lua",
            "local vm = provium.create('minimal') vm:boot() vm:exec('echo saved > /tmp/who')\n\
             local s = vm:snapshot() vm:exec('echo later > /tmp/who')\nreturn s",
        ),
        (
            "t/a.lua",
            r#"
local function refusal(name)
  local ok, why = pcall(provium.fixture, name)
  assert(not ok, name)
  return tostring(why)
end
test("what is told", function()
  local why = refusal("above")
  for _, place in ipairs { "fixtures/above.lua", "/t,", "/extra", "/tests" } do
    assert(why:find(place, 1, true), place .. ": " .. why)
  end
  assert(refusal("none"):find("fixture none: it made no VM", 1, true))
  local unborn = refusal("unborn")
  assert(unborn:find("fixture unborn: ", 1, true) and unborn:find("is created, it must be booted", 1, true), unborn)
  assert(refusal("off"):find("is shutdown, it must be booted", 1, true))
end)
test("what is returned comes first", function()
  assert_eq(provium.fixture("chosen"):exec("cat /tmp/who").stdout, "chosen\n")
  assert_eq(provium.fixture("saved"):exec("cat /tmp/who").stdout, "saved\n")
end)
"#,
        ),
    ]);
    passes(&here.run("test t").expect(0), 1);
}

#[test]
fn c062_a_failed_build_fails_all_who_wait_with_the_same_message() {
    let uses = "provium.fixture('broken')";
    let here = here(&[
        (
            "t/fixtures/broken.lua",
            "io.open('built', 'a'):write('x'):close()\nlocal vm = provium.create('minimal') vm:boot()\n\
             vm:exec('sleep 1')\nerror('no luck')",
        ),
        ("t/a.lua", uses),
        ("t/b.lua", uses),
    ]);
    let ran = here.run("test t -p 2 --cpus 8").expect(1);
    let all = format!("{}{}", ran.stdout, ran.stderr);
    let told = "fixture broken: t/fixtures/broken.lua:4: no luck";
    for file in ["a.lua", "b.lua"] {
        let logs = walk(&here.path().join("runs"));
        let log = logs
            .iter()
            .find(|(name, _)| name.contains(file.trim_end_matches(".lua")));
        let text = log.map_or(String::new(), |(_, text)| text.clone());
        assert!(
            text.contains(told) || all.matches(told).count() >= 2,
            "{file}: {all}\n{logs:?}"
        );
    }
    assert_eq!(here.read("built"), "x");
}

/// All files below, with their content.
fn walk(dir: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => {
                let text = std::fs::read(&path).unwrap_or_default();
                let name = path.display().to_string();
                found.push((name, String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    found
}

#[test]
fn c064_fixtures_stand_on_fixtures_and_a_circle_is_told_however_it_is_met() {
    let here = here(&[
        ("t/fixtures/up/base.lua", BASE),
        (
            "t/fixtures/derived.lua",
            "local vm = provium.fixture('up/base') vm:exec('echo derived >> /tmp/who')",
        ),
        (
            "t/fixtures/a.lua",
            "io.open('a', 'w'):close() return provium.fixture('b')",
        ),
        (
            "t/fixtures/b.lua",
            "io.open('b', 'w'):close() return provium.fixture('a')",
        ),
        (
            "t/one.lua",
            r#"
assert_eq(provium.fixture("derived"):exec("cat /tmp/who").stdout, "base\nderived\n")
local ok, why = pcall(provium.fixture, "a")
assert(not ok and tostring(why):find("in a circle: ", 1, true), tostring(why))
"#,
        ),
        (
            // Two files that begin at two places of the circle wait for each other.
            "t/two.lua",
            r#"
local ok, why = pcall(provium.fixture, "b")
assert(not ok and tostring(why):find("in a circle: ", 1, true), tostring(why))
"#,
        ),
    ]);
    passes(&here.run("test t -p 2 --cpus 8").expect(0), 2);
}

#[test]
fn c066_a_resumed_vm_takes_its_memory_and_cpus_of_the_pool() {
    let uses = |meanwhile: &str| {
        format!(
            "local vm = provium.fixture('wide')\n\
             local function mark(sign) io.open('log', 'a'):write(sign):close() end\n\
             mark('+') {meanwhile} mark('-')\nvm:shutdown()"
        )
    };
    let here = here(&[
        (
            "t/fixtures/wide.lua",
            "provium.create('minimal'):boot({ cpus = 2 })",
        ),
        ("t/a.lua", &uses("vm:exec('sleep 2')")),
        ("t/b.lua", &uses("vm:exec('sleep 2')")),
    ]);
    // Of two CPUs, one VM takes all: the files take turns.
    here.run("test t -p 2 --cpus 2").expect(0);
    assert_eq!(here.read("log"), "+-+-");
    // Of four, both have theirs at once.
    std::fs::remove_file(here.path().join("log")).unwrap();
    let both = uses("while io.open('log'):read('a'):sub(1, 2) ~= '++' do vm:exec('sleep 0.1') end");
    here.write("t/a.lua", &both);
    here.write("t/b.lua", &both);
    here.run("test t -p 2 --cpus 4").expect(0);
    assert_eq!(here.read("log"), "++--");
}
