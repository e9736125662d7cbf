//! Suites that boot guests, run by the built program with the default guest of this user's cache.
//!
//! A guest takes a while on the software CPU, so each test here is one run of many files.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use provium_protocol::EventKind;
use support::kitchen::{BOOTS, Kitchen};
use support::{Ran, program, repository, stream};

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

/// The documented API, section by section.
#[test]
fn the_api_is_as_documented() {
    run("run tests/api --timeout 900s").expect(0);
}

/// Taking the lab back in time (L-202..L-206), fixtures included.
#[test]
fn snapshots_clones_and_fixtures_are_right() {
    run_in("tests/snapshots", "run").expect(0);
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

#[test]
fn r107_r125_files_that_boot_vms_never_exceed_the_pool() {
    let files = ["a", "b", "c"].map(|name| format!("{name}.test.lua"));
    let source = BOOTS.replace("'minimal')", "'minimal', {memory = '256M'})");
    let files: Vec<(&str, &str)> = files.iter().map(|name| (&**name, &*source)).collect();
    let kitchen = Kitchen::with(&files);
    // Room for three files and one VM: 3 x 50 + 256 + 32 MiB.
    let mut command = kitchen.command("run -j 3 --mem 450M --cpus 3 --save-events ev");
    Ran::from(command.output().unwrap()).expect(0);
    let events = kitchen.events();
    stream::check(&events);
    let (mut up, mut most, mut together) = (0, 0, 0);
    let mut in_flight = 0;
    for event in &events {
        match &event.kind {
            EventKind::FileDispatched(_) => in_flight += 1,
            EventKind::FileCompleted(_) => in_flight -= 1,
            EventKind::VmSpawned(vm) => {
                assert_eq!(vm.memory_bytes, 256 << 20);
                up += 1;
            }
            EventKind::VmShutdown(_) => up -= 1,
            EventKind::PoolState(pool) => {
                assert!(pool.used.memory_bytes <= 450 << 20, "{pool:?}");
            }
            _ => {}
        }
        most = most.max(up);
        together = together.max(in_flight);
    }
    assert_eq!(
        (most, together),
        (1, 3),
        "files in parallel, VMs one at a time"
    );
}

/// The console of every VM that was up is in the event, and nothing of the file is left after it (L-229).
#[test]
fn l220_l229_e018_a_failure_comes_with_the_consoles_of_its_vms() {
    let source = "local a = provium:vm('a', 'minimal', { memory = '96M' }):boot()\n\
                  local b = provium:vm('b', 'minimal', { memory = '96M' })\n\
                  test('bad', function()\n\
                    a:run('echo the-last-words > /dev/kmsg')\n\
                    error('no')\n\
                  end)\n\
                  test('closing is never a failure', function()\n\
                    local f, p, w = a:open_file('/x', {write = true, create = true}), a:run_async('sleep 9'), a:spawn_worker()\n\
                    local s, c = p:stdout_stream(), a:console():read()\n\
                    a:close()\n\
                    for _, x in ipairs {s, c, f, p, w, a} do x:close() x:close() end\n\
                  end)\n";
    let kitchen = Kitchen::with(&[("a.test.lua", source)]);
    let ran = Ran::from(kitchen.command("run -v --save-events ev").output().unwrap()).expect(1);
    assert!(
        ran.stdout.contains("PASS closing is never a failure"),
        "{}",
        ran.stdout
    );
    let excerpt = kitchen
        .events()
        .into_iter()
        .find_map(|event| match event.kind {
            EventKind::TestFailed(end) => Some(end.console_excerpt),
            _ => None,
        });
    let excerpt = excerpt.unwrap();
    assert!(excerpt.starts_with("--- a ---\n"), "{excerpt}");
    assert!(excerpt.contains("the-last-words"), "{excerpt}");
    assert!(
        !excerpt.contains("--- b ---"),
        "b was never booted: {excerpt}"
    );
    assert!(excerpt.len() <= "--- a ---\n".len() + 4096 * 3);
}

/// What a VM is charged beyond its memory is what it takes: the growth of the process besides the
/// guests' own memory, booted and after some work.
#[test]
fn r125_the_overhead_of_a_vm_is_as_charged() {
    let source = "-- MiB of this process that are not the memory of a guest
        local function besides()
          local kib, counts = 0, true
          for line in io.lines('/proc/self/smaps') do
            local from, to = line:match('^(%x+)%-(%x+) ')
            if from then counts = tonumber(to, 16) - tonumber(from, 16) < 256 << 20 end
            kib = kib + (counts and tonumber(line:match('^Rss:%s+(%d+) kB') or 0) or 0)
          end
          return kib // 1024
        end
        provium:vm('warm', 'minimal', { cold = true }):boot():run('true')
        test('overhead', function(t)
          local before, vms = besides(), {}
          for i = 1, 3 do
            vms[i] = provium:vm('m' .. i, 'minimal', { cpus = i, cold = true }):boot()
            vms[i]:run('cat /proc/cpuinfo /proc/meminfo | sort | md5sum; dmesg | wc; ls -lR /etc')
          end
          t:log('each took ' .. (besides() - before) // #vms .. ' MiB')
        end)";
    let kitchen = Kitchen::with(&[("a.test.lua", source)]);
    let ran = Ran::from(kitchen.command("run -v").output().unwrap()).expect(0);
    let (_, rest) = ran.stdout.split_once("each took ").unwrap();
    let took: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    let charged = provium_lab::pool::VM_OVERHEAD >> 20;
    assert!(
        (charged / 4..=charged).contains(&took),
        "a VM takes {took} MiB, {charged} MiB are charged"
    );
}

/// Marked means that the kernel's flags of the guest's memory say so.
#[test]
fn r028_guest_memory_is_mergeable_unless_that_is_not_wanted() {
    let source = "provium:vm('a', 'minimal', { memory = '256M' }):boot()
        local mergeable, from, to = 0
        for line in io.lines('/proc/self/smaps') do
          local a, b = line:match('^(%x+)%-(%x+) ')
          if a then from, to = tonumber(a, 16), tonumber(b, 16) end
          if line:find('^VmFlags:.* mg') then mergeable = mergeable + (to - from >> 20) end
        end
        test('flags', function(t) t:log('mergeable ' .. tostring(mergeable > 200)) end)";
    let kitchen = Kitchen::with(&[("a.test.lua", source)]);
    for (flag, expected) in [("", "mergeable true"), ("--no-ksm", "mergeable false")] {
        let mut command = kitchen.command(&format!("run -v {flag}"));
        let ran = Ran::from(command.output().unwrap()).expect(0);
        assert!(ran.stdout.contains(expected), "{flag}: {}", ran.stdout);
        let told = ran.stderr.matches("equal pages of guests").count();
        assert!(told <= usize::from(flag.is_empty()), "{}", ran.stderr);
    }
}

#[test]
fn r048_vms_of_a_classic_run_share_its_budget() {
    let boots = "local vm = provium.create('minimal'):boot { memory = '256M' }\n\
                 assert_contains(vm:exec('echo hi').stdout, 'hi')";
    let kitchen = Kitchen::with(&[("t/a.lua", boots), ("t/b.lua", boots), ("t/c.lua", boots)]);
    for budget in ["--mem 511M", "--cpus 1"] {
        let mut command = kitchen.command(&format!("test t {budget} --save-events ev"));
        let ran = Ran::from(command.output().unwrap()).expect(0);
        assert!(ran.stdout.ends_with("ok: 3 passed\n"), "{}", ran.stdout);
        let (mut up, mut together, mut dispatched) = (0, 0, 0);
        let events = kitchen.events();
        stream::check(&events);
        for event in &events {
            match &event.kind {
                EventKind::FileDispatched(_) => dispatched += 1,
                EventKind::FileCompleted(_) if together == 0 => together = dispatched,
                EventKind::VmSpawned(_) => up += 1,
                EventKind::VmShutdown(_) => up -= 1,
                _ => {}
            }
            assert!(up <= 1, "{budget}: two VMs at once");
        }
        assert_eq!(together, 3, "{budget}: files wait where they boot");
    }
    let mut command = kitchen.command("test t/a.lua --mem 255M");
    let ran = Ran::from(command.output().unwrap()).expect(1);
    for part in ["256 MiB and 1 CPUs for this VM", "the budget of 255 MiB"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
}

#[test]
fn r125_a_boot_past_the_claim_or_the_pool_fails_with_the_numbers() {
    let claimed = format!("provium:claim{{memory = '300M'}}\n{BOOTS}");
    let kitchen = Kitchen::with(&[("a.test.lua", &claimed), ("b.test.lua", BOOTS)]);
    let ran = Ran::from(kitchen.command("run --mem 400M").output().unwrap()).expect(1);
    for part in [
        "544 MiB for this VM are more than is left of the file's claim: 0 MiB of 300 MiB",
        "544 MiB for this VM and 50 MiB that this file holds are more than the pool's 400 MiB",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
}

/// A fixture, and a file that uses it.
const BASE: &str = "local vm = provium:vm('v', 'minimal', {memory = '128M'}):boot()
    vm:write_file('/tmp/mark', 'made')
    return vm:snapshot()";
const USES_BASE: &str = "local vm = provium:vm_fixture('base')
    test('it is there', function(t) t:assert_eq(vm:read_file('/tmp/mark'), 'made') end)";

/// Two files want one fixture at the same time: one builds it, the other waits and is told for whom.
#[test]
fn e020_to_e027_vms_and_fixtures_are_told_with_all_fields() {
    let kitchen = Kitchen::with(&[
        (
            "provium.toml",
            "[provium]\nroots = ['.']\ncache_dir = 'cache'\n",
        ),
        ("base.fixture.lua", BASE),
        ("broken.fixture.lua", "error('never made')"),
        ("t/a.test.lua", USES_BASE),
        ("t/b.test.lua", USES_BASE),
        ("t/c.test.lua", "provium:vm_fixture('broken')"),
    ]);
    let run = |line: &str| {
        let mut command = kitchen.command(&format!("run {line} --save-events ev"));
        let ran = Ran::from(command.output().unwrap());
        let events = kitchen.events();
        stream::check(&events);
        (ran, events)
    };
    let (ran, events) = run("-j 2 t/a.test.lua t/b.test.lua");
    ran.expect(0);
    let (mut waiter, mut story) = (None, Vec::new());
    let mut up = std::collections::BTreeMap::new();
    for event in &events {
        match &event.kind {
            EventKind::FileDiscovered(file) => assert_eq!(file.fixture_refs, ["base"], "E-012"),
            EventKind::FixtureBuildStarted(build) => {
                assert_eq!(build.path, "base");
                story.push("started");
            }
            EventKind::FixtureBuildWaiting(wait) => {
                assert_eq!(wait.path, "base");
                waiter = Some(wait.held_by_file.clone());
                story.push("waiting");
            }
            EventKind::FixtureBuildDone(build) => {
                assert_eq!((build.path.as_str(), &build.error), ("base", &None));
                assert!(build.snapshot_bytes > 1 << 20 && build.duration_ns > 0);
                story.push("done");
            }
            EventKind::FixtureCacheHit(hit) => {
                assert_eq!(hit.path, "base");
                story.push("hit");
            }
            EventKind::VmSpawned(vm) => {
                assert_eq!(
                    (vm.profile.as_str(), vm.memory_bytes),
                    ("minimal", 128 << 20)
                );
                assert!(vm.cid >= 10, "L-117");
                *up.entry((vm.file.clone(), vm.vm_name.clone())).or_insert(0) += 1;
            }
            EventKind::VmShutdown(vm) => {
                *up.get_mut(&(vm.file.clone(), vm.vm_name.clone())).unwrap() -= 1;
                assert!(vm.duration_ns > 0);
            }
            _ => {}
        }
    }
    assert_eq!(story, ["started", "waiting", "done", "hit"], "{events:#?}");
    assert!(up.values().all(|left| *left == 0), "E-021: {up:?}");
    let holder = waiter.unwrap();
    assert!(
        ["t/a.test.lua", "t/b.test.lua"].contains(&&*holder),
        "E-026: {holder}"
    );

    let (ran, events) = run("t/a.test.lua");
    ran.expect(0);
    let names: Vec<_> = events.iter().map(|event| event.kind.name()).collect();
    assert!(names.contains(&"fixture_cache_hit") && !names.contains(&"fixture_build_started"));

    let (ran, events) = run("t/c.test.lua");
    let ran = ran.expect(1);
    assert!(ran.stdout.contains("never made"), "{}", ran.stdout);
    let done = events.iter().find_map(|event| match &event.kind {
        EventKind::FixtureBuildDone(build) => Some(build),
        _ => None,
    });
    let done = done.expect("E-025: a failed build ends, too");
    assert_eq!(done.snapshot_bytes, 0);
    assert!(
        done.error.as_ref().unwrap().contains("never made"),
        "{done:?}"
    );
}

/// Two runs of one suite share the cache: one builds the fixture, the other takes it.
#[test]
fn r126_several_runs_share_the_cache() {
    let kitchen = Kitchen::with(&[
        (
            "provium.toml",
            "[provium]\nroots = ['.']\ncache_dir = 'cache'\n",
        ),
        ("base.fixture.lua", BASE),
        ("a.test.lua", USES_BASE),
    ]);
    let start = |events: &str| {
        let line = format!("run a.test.lua --save-events {events}");
        kitchen.command(&line).spawn().unwrap()
    };
    let runs = [("one", start("one")), ("two", start("two"))];
    let (mut built, mut hits, mut holders) = (0, 0, Vec::new());
    for (events, run) in runs {
        Ran::from(run.wait_with_output().unwrap()).expect(0);
        let events = stream::read(&kitchen.0.path().join(events));
        stream::check(&events);
        for event in events {
            match event.kind {
                EventKind::FixtureBuildStarted(_) => built += 1,
                EventKind::FixtureCacheHit(_) => hits += 1,
                EventKind::FixtureBuildWaiting(wait) => holders.push(wait.held_by_file),
                _ => {}
            }
        }
    }
    assert_eq!((built, hits), (1, 1));
    assert!(
        holders.iter().all(|holder| holder.starts_with("pid:")),
        "E-026: {holders:?}"
    );
    let left: Vec<_> = std::fs::read_dir(kitchen.0.path().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // Beside fixtures lie the states that warm boots go on from.
        .filter(|name| {
            ![".lock", ".json", ".boot"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .collect();
    assert!(
        matches!(left.as_slice(), [one] if one.len() == 64 + ".snap".len() && one.ends_with(".snap")),
        "R-095: {left:?}"
    );
}

#[test]
fn r062_an_interrupt_during_a_boot_ends_the_run() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let kitchen = Kitchen::with(&[("a.test.lua", BOOTS), ("b.test.lua", BOOTS)]);
        let child = kitchen
            .command("run --cold -j 1 a.test.lua b.test.lua --save-events ev")
            .spawn()
            .unwrap();
        // Somewhere in the boot of the first file.
        while std::fs::metadata(kitchen.0.path().join("ev")).map_or(0, |data| data.len()) < 150 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(400));
        let sent = Instant::now();
        // SAFETY: sends a signal to a child of this process that has not been waited for.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
        let ran = Ran::from(child.wait_with_output().unwrap()).expect(2);
        assert!(
            sent.elapsed() < Duration::from_secs(10),
            "{:?}",
            sent.elapsed()
        );
        assert!(
            ran.stdout.contains("a.test.lua:1: interrupted"),
            "{}",
            ran.stdout
        );
        assert!(ran.stdout.contains("1 file(s); 0 passed"), "{}", ran.stdout);
        stream::check(&kitchen.events());
        assert_eq!(kitchen.temporary_files(), 0);
    }
}

/// All files below a directory.
fn listing(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_run_that_is_killed_anywhere_leaves_nothing_behind() {
    let kitchen = Kitchen::with(&[("a.test.lua", BOOTS), ("b.test.lua", BOOTS)]);
    let cache = provium_lab::config::Places::from_env().guests();
    // Also makes sure that the guest is there before anything is killed.
    Ran::from(kitchen.command("run").output().unwrap()).expect(0);
    // Other tests prepare their own guests meanwhile.
    let prepared = || -> Vec<_> {
        let files = listing(&cache).into_iter();
        let done = |path: &std::path::PathBuf| !path.to_string_lossy().contains("/preparing-");
        files.filter(done).collect()
    };
    let before = prepared();
    let mut chance = 7_u64;
    for round in 0..50 {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // A warm boot is over before much can happen in it.
        let cold = if round % 2 == 0 { "--cold" } else { "" };
        let mut child = kitchen
            .command(&format!("run {cold} -j 2 --junit j.xml --report r.html"))
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis((chance >> 33) % 1500));
        child.kill().unwrap();
        child.wait().unwrap();
        let marked = processes_with(kitchen.0.path().as_os_str().as_encoded_bytes());
        assert!(marked.is_empty(), "round {round}: {marked:?}");
        assert_eq!(kitchen.temporary_files(), 0, "round {round}");
        let now = prepared();
        let lost = before.iter().find(|path| !now.contains(path));
        assert_eq!(lost, None, "round {round}");
        let hidden = listing(kitchen.0.path()).into_iter().find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        });
        assert_eq!(hidden, None, "round {round}");
    }
    Ran::from(kitchen.command("run").output().unwrap()).expect(0);
}
