//! Boots a guest and reports the stretches it marks on its console: the harness of `benches/`.
//!
//! ```text
//! marks KERNEL INITRD [--initrd MORE] [--cmdline TEXT] [--memory MIB] [--cpus N] [--until TEXT]
//! ```
//!
//! A guest program prints `mark begin NAME` and `mark end NAME`; for each pair this prints
//! `NAME INSTRUCTIONS HOST_SECONDS`. `boot` is the stretch from the start of this process to the first mark,
//! or to the text given with `--until`, after which the program ends.

use std::error::Error;
use std::time::{Duration, Instant};

use provium_vmm::{Backend, InitrdPart, Machine, MachineConfig, Waited};

struct Args {
    config: MachineConfig,
    until: Option<String>,
}

fn arguments() -> Result<Args, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let kernel = args.next().ok_or("usage: marks KERNEL INITRD [options]")?;
    let mut config = MachineConfig::new("bench", Backend::Soft, kernel);
    let initrd = args.next().ok_or("no initramfs named")?;
    config.initrd = vec![InitrdPart::File(initrd.into())];
    config.cmdline = "console=ttyS0 panic=-1".into();
    let mut until = None;
    while let Some(option) = args.next() {
        let value = args
            .next()
            .ok_or_else(|| format!("{option} wants a value"))?;
        match option.as_str() {
            "--cmdline" => config.cmdline = value,
            "--initrd" => config.initrd.push(InitrdPart::File(value.into())),
            "--memory" => config.memory = value.parse::<u64>()? << 20,
            "--cpus" => config.cpus = value.parse()?,
            "--until" => until = Some(value),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    Ok(Args { config, until })
}

/// A point of the run.
#[derive(Clone, Copy)]
struct Point {
    at: Instant,
    instructions: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let Args { config, until } = arguments()?;
    let machine = Machine::start(config)?;
    let watch = machine.console().watch();
    let mut line = Vec::new();
    let mut offset = 0;
    let mut open: Vec<(String, Point)> = vec![(
        "boot".into(),
        Point {
            at: start,
            instructions: 0,
        },
    )];
    loop {
        let waited = machine.wait(None, Some(Duration::from_secs(1200)), || {
            let (bytes, next) = machine.console().read_at(offset, 4096);
            offset = next;
            line.extend_from_slice(&bytes);
            take_line(&mut line, until.as_deref())
        });
        let text = match waited {
            Waited::Done(text) => text,
            Waited::Stopped(_) => break,
            _ => return Err("the guest said nothing for 20 minutes".into()),
        };
        let here = Point {
            at: Instant::now(),
            instructions: machine.stats().instructions.unwrap_or(0),
        };
        if until.as_deref().is_some_and(|u| text.contains(u)) {
            report("boot", open[0].1, here);
            return Ok(());
        }
        if let Some(name) = text.split("mark begin ").nth(1) {
            if open.len() == 1 && open[0].0 == "boot" {
                report("boot", open[0].1, here);
                open.clear();
            }
            open.push((name.trim().into(), here));
        } else if let Some(name) = text.split("mark end ").nth(1)
            && let Some(i) = open.iter().position(|(n, _)| n == name.trim())
        {
            let (name, from) = open.remove(i);
            report(&name, from, here);
        }
    }
    drop(watch);
    if open.is_empty() {
        return Ok(());
    }
    let tail = String::from_utf8_lossy(&machine.console().tail(2000)).into_owned();
    Err(format!(
        "the guest stopped in the middle of {:?}; its console ends:\n{tail}",
        open[0].0
    )
    .into())
}

/// The next whole line, or what there is of one if it holds the text waited for.
fn take_line(pending: &mut Vec<u8>, until: Option<&str>) -> Option<String> {
    if let Some(end) = pending.iter().position(|&b| b == b'\n') {
        let line: Vec<u8> = pending.drain(..=end).collect();
        return Some(String::from_utf8_lossy(&line).into_owned());
    }
    let partial = String::from_utf8_lossy(pending).into_owned();
    until.filter(|u| partial.contains(u)).map(|_| partial)
}

fn report(name: &str, from: Point, to: Point) {
    let seconds = (to.at - from.at).as_secs_f64();
    println!(
        "{name} {} {seconds:.6}",
        to.instructions - from.instructions
    );
}
