//! What going back in time costs: `NAME VALUE UNIT` lines for `benches/restore.sh`.
//!
//! `cargo run --release -p provium-lab --example restore -- [CYCLES] [CLONES] [SNAPSHOT]`; the snapshot is kept there.
//! With `first SNAPSHOT` instead: a single restore, as a new process finds it.

use std::time::{Duration, Instant};

use provium_lab::{BootOptions, Harness, Lab, LabSnapshot, RestoreFrom, Session, Vm};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let since = Instant::now();
    run()?;
    Ok(since.elapsed())
}

fn declare(lab: &Lab, name: &str) -> Result<Vm> {
    let options = BootOptions {
        cold: true,
        ..BootOptions::default()
    };
    Ok(lab.declare_vm(Some(name), "minimal", options)?)
}

/// Memory of this process: its own pages, and those it shares with files, in KiB.
fn memory() -> Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0)
    };
    Ok((field("RssAnon:"), field("RssFile:")))
}

fn main() -> Result<()> {
    let number = |at: usize, default: usize| {
        let given = std::env::args().nth(at).and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let harness = Harness::for_tests()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, path] = &words[..]
        && word == "first"
    {
        let took = restore_once(&Session::new(&harness, "first"), path.as_ref())?;
        println!("{:.1}", took.as_secs_f64() * 1e3);
        return Ok(());
    }
    let (cycles, clones) = (number(1, 50), number(2, 50));
    let dir = tempfile::tempdir()?;
    let kept = words.get(2).map(std::path::PathBuf::from);
    let path = kept.unwrap_or_else(|| dir.path().join("a.snap"));
    let mut boots = Vec::new();
    for round in 0..3 {
        let session = Session::new(&harness, "boot");
        let vm = declare(session.root(), "a")?;
        boots.push(timed(|| {
            vm.boot(BootOptions::default())?;
            vm.run("true")?.assert_ok()?;
            Ok(())
        })?);
        if round == 0 {
            // What the boot has begun is ended before, or every restore would have to end it.
            vm.run("sleep 0.1")?.assert_ok()?;
            let saving = timed(|| Ok(vm.snapshot(Some(&path)).map(drop)?))?;
            println!("snapshot-durable {:.1} ms", saving.as_secs_f64() * 1e3);
        }
        session.finish();
    }
    let boot = median(boots);
    println!("cold-boot {boot:.1} ms");

    // As another process would find it: opened and checked anew each time.
    let mut firsts = Vec::new();
    for _ in 0..5 {
        let harness = Harness::for_tests()?;
        let session = Session::new(&harness, "first");
        firsts.push(restore_once(&session, &path)?);
    }
    let first = median(firsts);
    println!("restore-first {first:.1} ms");

    let session = Session::new(&harness, "again");
    let mut again = Vec::new();
    for _ in 0..cycles {
        again.push(restore_once(&session, &path)?);
    }
    println!("restore-again {:.1} ms", median(again));
    println!("restore-cycles {cycles} restores");
    println!("ratio restore-vs-boot {:.4}", first / boot);

    let session = Session::new(&harness, "reset");
    let vm = declare(session.root(), "a")?;
    vm.restore(RestoreFrom::Path(path.clone()))?;
    let baseline = session.root().snapshot(None)?;
    let small = reset(&session, &vm, &baseline, 64)?;
    println!("reset-small {small:.1} ms");
    for mib in [16, 32, 64, 96] {
        let took = reset(&session, &vm, &baseline, mib << 10)?;
        println!("reset-{mib}MiB {took:.1} ms");
        println!(
            "reset-per-MiB-of-{mib} {:.3} ms",
            (took - small) / f64::from(mib)
        );
    }
    session.finish();
    large(&harness, first, small)?;

    let session = Session::new(&harness, "clones");
    let vm = session.root().declare_vm(
        Some("a"),
        "minimal",
        BootOptions {
            memory: Some(256 << 20),
            cold: true,
            ..BootOptions::default()
        },
    )?;
    vm.boot(BootOptions::default())?;
    vm.run("true")?.assert_ok()?;
    let (own_before, _) = memory()?;
    let mut times = Vec::new();
    let mut all = Vec::new();
    for _ in 0..clones {
        let since = Instant::now();
        all.push(vm.fork(session.root(), None)?);
        times.push(since.elapsed());
    }
    println!("clone {:.1} ms", median(times));
    for (index, clone) in all.iter().enumerate() {
        clone.write_file("/tmp/me", index.to_string())?;
    }
    for (index, clone) in all.iter().enumerate() {
        assert_eq!(clone.read_file("/tmp/me")?, index.to_string().as_bytes());
    }
    let (own, shared) = memory()?;
    let each = own.saturating_sub(own_before) / clones.max(1) as u64;
    println!("clones-256MiB {clones} VMs");
    println!("clone-own-memory {each} KiB");
    println!("clones-shared-memory {shared} KiB");
    session.finish();
    Ok(())
}

fn restore_once(session: &Session, path: &std::path::Path) -> Result<Duration> {
    let scope = session.enter_scope();
    let vm = declare(&scope, "a")?;
    let taken = timed(|| {
        vm.restore(RestoreFrom::Path(path.to_owned()))?;
        vm.run("true")?.assert_ok()?;
        Ok(())
    });
    session.leave_scope();
    taken
}

/// Milliseconds of a reset in place after a test that has written `kib` KiB.
fn reset(session: &Session, vm: &Vm, baseline: &LabSnapshot, kib: u32) -> Result<f64> {
    let mut resets = Vec::new();
    for _ in 0..11 {
        // Zeroes are written like any other bytes, and the guest need not make them.
        let write = format!("dd if=/dev/zero of=/tmp/dirt bs=64k count={}", kib / 64);
        vm.run(&*write)?.assert_ok()?;
        resets.push(timed(|| Ok(session.root().restore(baseline)?))?);
        assert!(vm.run("ls /tmp/dirt")?.exit_code != 0, "the dirt is gone");
    }
    Ok(median(resets))
}

/// The same with a VM of several times the memory, which has nothing in it: how much there is does not matter.
fn large(harness: &std::sync::Arc<Harness>, first: f64, small: f64) -> Result<()> {
    let session = Session::new(harness, "large");
    let options = BootOptions {
        memory: Some(2 << 30),
        cold: true,
        ..BootOptions::default()
    };
    let vm = session.root().declare_vm(Some("a"), "minimal", options)?;
    vm.boot(BootOptions::default())?;
    vm.run("sleep 0.1")?.assert_ok()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("large.snap");
    vm.snapshot(Some(&path))?;
    session.finish();
    let mut firsts = Vec::new();
    for _ in 0..5 {
        let harness = Harness::for_tests()?;
        firsts.push(restore_once(&Session::new(&harness, "first"), &path)?);
    }
    println!(
        "ratio restore-2GiB-vs-default {:.2}",
        median(firsts) / first
    );
    let session = Session::new(harness, "large");
    let vm = declare(session.root(), "a")?;
    vm.restore(RestoreFrom::Path(path))?;
    let baseline = session.root().snapshot(None)?;
    let took = reset(&session, &vm, &baseline, 64)?;
    println!("ratio reset-2GiB-vs-default {:.2}", took / small);
    session.finish();
    Ok(())
}
