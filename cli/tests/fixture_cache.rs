//! Fixtures from outside, with real guests: what builds, keeps, explains, repairs and forgets them (cli-and-config
//! section 8).

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::Ran;
use support::here::Here;

/// Leaves a mark on the host each time it runs.
const BASE: &str = r#"
io.open("built", "a"):write("x"):close()
local vm = provium:vm("base", "minimal", { memory = "96M" }):boot()
vm:push_file("payload.txt", "/tmp/payload")
return vm:snapshot()
"#;

const PAIR: &str = r#"
provium:vm("a", "minimal", { memory = "96M" }):boot()
return provium:snapshot()
"#;

const USES: &str = r#"
local vm = provium:vm_fixture("base")
test("it holds what was pushed", function(t)
  t:assert_eq(vm:read_file("/tmp/payload"), io.open("payload.txt"):read("a"))
end)
"#;

fn here() -> Here {
    let here = Here::with(&[
        ("base.fixture.lua", BASE),
        ("pair.fixture.lua", PAIR),
        ("payload.txt", "first"),
        ("a.test.lua", USES),
    ]);
    // One root only: the suite of warm boots is none of this.
    let config = here.read("provium.toml");
    let (_, rest) = config.split_once("\", ").unwrap();
    here.write("provium.toml", &format!("[provium]\nroots = [{rest}"));
    here
}

fn says(ran: &Ran, text: &str) {
    assert!(ran.stdout.contains(text), "{text:?} in:\n{}", ran.stdout);
}

#[test]
fn r089_r101_to_r104_the_life_of_a_fixture() {
    let here = here();
    let stale = here.run("fixture stale").expect(0);
    assert_eq!(stale.stdout, "  base\n  pair\n\n2 stale fixture(s)\n");
    says(&here.run("fixture why base").expect(0), "never built");
    assert_eq!(
        here.run("fixture build base").expect(0).stdout,
        "built: base\n"
    );
    let again = here.run("fixture build base").expect(0);
    assert_eq!(again.stdout, "already built: base\n");
    assert_eq!(here.read("built"), "x");
    assert_eq!(
        here.run("fixture rebuild base").expect(0).stdout,
        "built: base\n"
    );
    assert_eq!(here.read("built"), "xx");
    here.run("fixture build pair").expect(0);
    // R-095: what is where.
    let [vm] = &here.cached("snap")[..] else {
        panic!("one VM")
    };
    let [lab] = &here.cached("lab")[..] else {
        panic!("one lab")
    };
    assert!(lab.join("lab.json").is_file() && lab.join("a.snap").is_file());
    let key = vm.file_stem().unwrap().to_str().unwrap();
    assert!(
        key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()),
        "{key}"
    );
    let list = here.run("fixture list").expect(0).stdout;
    let line = list.lines().find(|line| line.contains(key)).unwrap();
    assert!(
        line.contains("MiB  vm    ") && line.ends_with("  base"),
        "{line}"
    );
    assert!(
        list.lines()
            .any(|line| line.ends_with("  pair") && line.contains("  lab   ")),
        "{list}"
    );
    // R-093: what it pushes is part of it.
    says(&here.run("fixture why base").expect(0), "built, as a vm");
    here.write("payload.txt", "second");
    let why = here.run("fixture why base").expect(0);
    says(&why, "stale; since it was last built:\n  changed: file ");
    says(
        &here.run("fixture stale").expect(0),
        "  base\n\n1 stale fixture(s)",
    );
    says(&here.run("run a.test.lua").expect(0), "1 passed");
    assert_eq!(here.read("built"), "xxx");
    let clean = here.run("fixture clean").expect(0);
    assert!(clean.stdout.starts_with("removed "), "{}", clean.stdout);
    assert_eq!(
        here.cached("snap").len() + here.cached("lab").len() + here.cached("boot").len(),
        0
    );
}

/// Does damage to a file.
type Damage<'a> = &'a dyn Fn(&fs::File);

#[test]
fn r098_a_damaged_fixture_is_told_dropped_and_built_again() {
    let here = here();
    says(&here.run("run a.test.lua").expect(0), "1 passed");
    let [entry] = &here.cached("snap")[..] else {
        panic!("one VM")
    };
    let good = fs::metadata(entry).unwrap().len();
    let damage: [(&str, &str, Damage); 5] = [
        ("its version", "format version 77", &|f| {
            f.write_all_at(&[77], 8).unwrap()
        }),
        ("its CPU model", "damaged", &|f| {
            f.write_all_at(&[1, 2, 3], 12).unwrap()
        }),
        ("its state", "damaged", &|f| {
            f.write_all_at(b"damage", 4300).unwrap()
        }),
        ("its end", "damaged", &|f| f.set_len(good - 4096).unwrap()),
        ("all of it", "not a snapshot", &|f| {
            f.write_all_at(b"nothing like it", 0).unwrap()
        }),
    ];
    for (round, (what, told, damage)) in (2..).zip(damage) {
        damage(&fs::File::options().write(true).open(entry).unwrap());
        let ran = here.run("run a.test.lua").expect(0);
        says(&ran, "1 passed");
        let warning = ran
            .stderr
            .lines()
            .find(|line| line.contains("fixture base: "))
            .unwrap_or_default();
        assert!(
            warning.contains(told) && warning.ends_with("it is built anew"),
            "{what}: {}",
            ran.stderr
        );
        assert_eq!(here.read("built").len(), round, "{what}");
        let after = here.run("run a.test.lua").expect(0);
        assert!(
            !after.stderr.contains("built anew"),
            "{what}: {}",
            after.stderr
        );
        assert_eq!(here.read("built").len(), round, "{what}");
    }
}

#[test]
fn r099_r100_use_keeps_an_entry_and_the_limit_drops_the_others() {
    let here = here();
    here.run("fixture build base").expect(0);
    here.run("fixture build pair").expect(0);
    let [entry] = &here.cached("snap")[..] else {
        panic!("one VM")
    };
    let lock = entry.with_extension("snap.lock");
    let used = || lock.metadata().unwrap().mtime();
    let long_ago = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options()
        .write(true)
        .open(&lock)
        .unwrap()
        .set_times(long_ago)
        .unwrap();
    assert_eq!(used(), 0);
    here.run("run a.test.lua").expect(0);
    assert!(used() > 1_000_000_000, "used at {}", used());
    // Room for one of the VMs' images, not for two and the states that boots left.
    let config = here
        .read("provium.toml")
        .replace("cache_dir", "cache_max_size = \"100M\"\ncache_dir");
    here.write("provium.toml", &config);
    says(&here.run("run a.test.lua").expect(0), "1 passed");
    assert_eq!(
        (here.cached("snap").len(), here.cached("lab").len()),
        (1, 0)
    );
    assert_eq!(here.read("built"), "x");
}

/// A builder that is killed leaves nothing behind, and nobody waits for it.
#[test]
fn r096_a_builder_that_is_killed_holds_nobody_up() {
    let here = here();
    here.write(
        "slow.fixture.lua",
        r#"
io.open("slow", "a"):write("x"):close()
local vm = provium:vm("slow", "minimal", { memory = "96M" }):boot()
if #io.open("slow"):read("a") == 1 then vm:run("sleep 100000", { timeout = "200000s" }) end
return vm:snapshot()
"#,
    );
    let mut command = here.command("fixture build slow");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    while !here.path().join("slow").exists() {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "the build does not begin"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(here.cached("snap").is_empty());
    assert_eq!(
        here.run("fixture build slow").expect(0).stdout,
        "built: slow\n"
    );
    assert_eq!(here.read("slow"), "xx");
    assert_eq!(here.cached("snap").len(), 1);
    // What the dead builder had begun is gone, at the latest with the next run.
    let begun = |name: &str| name.starts_with(".build-");
    let left = fs::read_dir(here.path().join("cache")).unwrap().flatten();
    let left = left
        .filter(|entry| begun(&entry.file_name().to_string_lossy()))
        .count();
    assert_eq!(left, 0);
}
