//! Boots a kernel and shows its console, to look at a machine without anything above it.
//!
//! ```text
//! cargo run --release -p provium-vmm --example boot -- KERNEL [INITRD] [--cpus N] [--memory MIB]
//!     [--backend kvm|soft] [--seconds GUEST] [--append TEXT] [--until TEXT] [--registers]
//! ```

use std::io::Write;
use std::time::{Duration, Instant};

use provium_vmm::{Backend, InitrdPart, Machine, MachineConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let kernel = args.next().ok_or("a kernel file is needed")?;
    let mut config = MachineConfig::new("boot", Backend::Soft, kernel);
    config.cmdline = "console=ttyS0 panic=-1".to_owned();
    let (mut seconds, mut until, mut registers) = (60, None, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--cpus" => config.cpus = value()?.parse()?,
            "--memory" => config.memory = value()?.parse::<u64>()? << 20,
            "--seconds" => seconds = value()?.parse()?,
            "--append" => config.cmdline = format!("{} {}", config.cmdline, value()?),
            "--registers" => registers = true,
            "--until" => until = Some(value()?),
            "--backend" if value()? == "kvm" => config.backend = Backend::Kvm,
            "--backend" => {}
            file => config.initrd.push(InitrdPart::File(file.into())),
        }
    }
    let started = Instant::now();
    let machine = Machine::start(config)?;
    let console = machine.console().clone();
    let _watch = console.watch();
    let mut seen = 0;
    let mut text = Vec::new();
    let end = machine.wait(
        Some(seconds * 1_000_000_000),
        Some(Duration::from_secs(600)),
        || {
            let (bytes, next) = console.read_at(seen, usize::MAX);
            seen = next;
            // Nothing to be done about a closed terminal here.
            let _closed = std::io::stdout()
                .write_all(&bytes)
                .and_then(|()| std::io::stdout().flush());
            text.extend_from_slice(&bytes);
            let wanted = until.as_ref()?.as_bytes();
            text.windows(wanted.len())
                .any(|w| w == wanted)
                .then_some(())
        },
    );
    let host = started.elapsed();
    let stats = machine.stats();
    eprintln!(
        "\n[{end:?} at guest {:.3}s, host {:.3}s]",
        machine.now_ns() as f64 / 1e9,
        host.as_secs_f64()
    );
    if let Some(instructions) = stats.instructions {
        let rate = instructions as f64 / host.as_secs_f64() / 1e6;
        eprintln!("[{instructions} instructions, {rate:.0} M/s]");
    }
    eprintln!("[{:?}]", stats.exits);
    for (name, count) in &stats.unknown_instructions {
        eprintln!("[unknown instruction {name}: {count}]");
    }
    for place in machine.places()? {
        eprintln!("[{place}]");
    }
    if registers {
        for state in machine.vcpu_states()? {
            eprintln!("{:#x?}", (state.regs, state.sregs));
        }
    }
    Ok(())
}
