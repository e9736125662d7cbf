//! What an operation on a guest costs: `NAME VALUE UNIT` lines for `benches/ops.sh`.
//!
//! `cargo run --release -p provium-lab --example ops -- [ROUNDS]`

use std::time::Instant;

use provium_lab::{BatchOp, BootOptions, Harness, Pending, Session, Syscall, Vm};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const GETPID: u32 = 39;

/// Median seconds of five runs of `work`.
fn seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let since = Instant::now();
        work()?;
        times.push(since.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn rate(name: &str, count: usize, seconds: f64) {
    println!("{name} {:.0} per-second", count as f64 / seconds);
}

/// A program started by the guest's own shell, `count` times: what `run` cannot do without.
fn in_guest(vm: &Vm, count: usize) -> Result<()> {
    let script = format!("i=0; while [ $i -lt {count} ]; do /bin/busybox true; i=$((i+1)); done");
    vm.run(&*script)?.assert_ok()?;
    Ok(())
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let rounds: usize = rounds.unwrap_or(500);
    let harness = Harness::for_tests()?;
    let session = Session::new(&harness, "ops.rs");
    let vm = session
        .root()
        .declare_vm(Some("a"), "minimal", BootOptions::default())?;
    vm.boot(BootOptions::default())?;
    let getpid = || Syscall::new(GETPID, &[]);

    let single = seconds(|| {
        for _ in 0..rounds {
            vm.syscall(getpid())?;
        }
        Ok(())
    })?;
    rate("syscall", rounds, single);

    let batch = seconds(|| {
        for _ in 0..rounds / 100 {
            let ops = vec![BatchOp::Syscall(GETPID, Vec::new()); 100];
            for result in vm.batch(ops)? {
                result?;
            }
        }
        Ok(())
    })?;
    rate("syscall-in-batches-of-100", rounds / 100 * 100, batch);

    let together = seconds(|| {
        let pending: Vec<_> = (0..rounds).map(|_| vm.start_syscall(getpid())).collect();
        pending
            .into_iter()
            .map(Pending::wait)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(())
    })?;
    rate("syscall-all-at-once", rounds, together);

    let runs = rounds / 10;
    let run = seconds(|| {
        for _ in 0..runs {
            vm.run("/bin/busybox true")?.assert_ok()?;
        }
        Ok(())
    })?;
    rate("run-true", runs, run);
    let own = seconds(|| in_guest(&vm, runs))?;
    rate("true-in-the-guests-shell", runs, own);

    let data = vec![7; 16 << 20];
    vm.write_file("/tmp/big", data.clone())?;
    let read = seconds(|| {
        assert_eq!(vm.read_file("/tmp/big")?.len(), data.len());
        Ok(())
    })?;
    println!("read-16-mib {:.1} MiB/s", 16.0 / read);
    let write = seconds(|| Ok(vm.write_file("/tmp/big", data.clone())?))?;
    println!("write-16-mib {:.1} MiB/s", 16.0 / write);

    println!("ratio batched-syscall-vs-single {:.3}", batch / single);
    println!("ratio run-vs-guests-shell {:.3}", run / own);
    session.finish();
    Ok(())
}
