//! Boots the default guest and drives it, from Rust: `cargo run --release -p provium-lab --example smoke`.
//!
//! The first run prepares the guest (it downloads a Debian kernel), later ones boot at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use provium_lab::guest::StderrProgress;
use provium_lab::{BootOptions, Command, Harness, OpenMode, Session, Syscall, Whence};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let harness = Harness::for_tests()?;
    harness
        .guests()
        .clone()
        .with_progress(Arc::new(StderrProgress::default()))
        .prepare("minimal")?;

    let session = Session::new(&harness, "smoke.rs");
    let vm = session
        .root()
        .declare_vm(Some("a"), "minimal", BootOptions::default())?;
    let started = Instant::now();
    vm.boot(BootOptions::default())?;
    println!("booted in {:.2} s", started.elapsed().as_secs_f64());

    // Commands.
    print!(
        "{}",
        vm.run("uname -a; cat /proc/cpuinfo | head -5")?
            .assert_ok()?
            .stdout_text()
    );
    let slow = vm.run(Command::shell("sleep 100").timeout(Duration::from_secs(1)))?;
    println!(
        "sleep 100 with a timeout of a second: {}",
        slow.status.name()
    );

    // Files.
    vm.write_file("/tmp/x", "hello, file\n")?;
    let file = vm.open_file("/tmp/x", OpenMode::read())?;
    file.seek(7, Whence::Set)?;
    println!("read {:?}", String::from_utf8(file.read(4)?)?);

    // Raw system calls: getpid, and uname with a buffer.
    println!("getpid: {}", vm.syscall(Syscall::new(39, &[]))?.ret);
    let uname = vm.syscall(Syscall::new(63, &[]).buffer(0, [0; 390]))?;
    println!(
        "uname: {}",
        String::from_utf8_lossy(&uname.out_bufs[0][..5])
    );

    // Processes with streams.
    let process = vm.run_async("for i in 1 2 3; do echo line $i; sleep 1; done")?;
    let output = process.stdout_stream()?;
    output.expect(b"line 2\n", Duration::from_secs(10))?;
    println!("process ended with {}", process.wait(None)?.exit_code);

    vm.shutdown()?;
    println!("state: {}", vm.state());
    for problem in session.finish() {
        eprintln!("{problem}");
    }
    Ok(())
}
