//! A guest saved by one process and gone on with in another.
//!
//! `cargo run --release -p provium-lab --example snapshot` boots the default guest, starts a counter in it, saves it,
//! and calls itself to go on from the file; the counter goes on, and so does the clock. Prints how long each step took.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use provium_lab::{BootOptions, Harness, RestoreFrom, Session};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Says how long `step` took.
fn timed<T>(step: &str, run: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let result = run();
    println!("{step}: {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
    result
}

fn save(path: &Path) -> Result<()> {
    let harness = Harness::for_tests()?;
    let session = Session::new(&harness, "save");
    let vm = session
        .root()
        .declare_vm(Some("a"), "minimal", BootOptions::default())?;
    timed("cold boot to agent", || vm.boot(BootOptions::default()))?;
    timed("run true", || vm.run("true"))?.assert_ok()?;
    vm.run(
        "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.01; done) >/dev/null 2>&1 &",
    )?
    .assert_ok()?;
    vm.run("head -c 4000000 /dev/urandom > /tmp/data; md5sum /tmp/data > /tmp/sum; sleep 0.2")?
        .assert_ok()?;
    let snapshot = timed("snapshot", || vm.snapshot(Some(path)))?;
    println!("size: {} KiB", snapshot.size() / 1024);
    let clone = timed("clone", || vm.fork(session.root(), Some("b")))?;
    print!("in the clone: {}", vm_uptime(&clone)?);
    print!("in the original: {}", vm_uptime(&vm)?);
    session.finish();
    Ok(())
}

fn vm_uptime(vm: &provium_lab::Vm) -> Result<String> {
    let result = vm.run(
        "uptime; cat /tmp/count; md5sum -c /tmp/sum; dmesg | grep -ci 'warn\\|stall\\|lockup'",
    )?;
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn go_on(path: &Path) -> Result<()> {
    let harness = Harness::for_tests()?;
    let session = Session::new(&harness, "restore");
    for name in ["first", "second"] {
        let vm = session
            .root()
            .declare_vm(Some(name), "minimal", BootOptions::default())?;
        timed("restore and first operation", || -> Result<()> {
            vm.restore(RestoreFrom::Path(path.to_owned()))?;
            vm.run("true")?.assert_ok()?;
            Ok(())
        })?;
        print!("{}", vm_uptime(&vm)?);
        vm.run("sleep 1")?.assert_ok()?;
        print!("{}", vm_uptime(&vm)?);
    }
    session.finish();
    Ok(())
}

fn main() -> Result<()> {
    if let Some(path) = std::env::args_os().nth(1) {
        return go_on(&PathBuf::from(path));
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("a.snap");
    save(&path)?;
    let status = Command::new(std::env::current_exe()?).arg(&path).status()?;
    assert!(status.success(), "the other process failed: {status}");
    Ok(())
}
