//! `provium console`: a profile's serial console on this terminal, no Lua in between (R-005).

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use provium_lab::guest::StderrProgress;
use provium_lab::{BootOptions, NoEvents, Pool};
use provium_vmm::{InitrdPart, Machine, MachineConfig, MachineState, StopCause};

use crate::args::ConsoleArgs;
use crate::builds;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::session::{Session, backend_line, choose_backend};
use crate::terminal::{Input, RawMode, read_stdin};

/// Guest and host time go side by side in steps of this length.
const STEP: Duration = Duration::from_millis(10);

/// Ctrl-A, after which X quits.
const ESCAPE: u8 = 1;

/// Boots the profile and ties the terminal to its console until it ends or Ctrl-A X is typed.
pub(crate) fn console(args: &ConsoleArgs) -> Result<Exit, Problem> {
    let session = Session::with_guests(&args.common)?;
    let profile = session.profile(&args.target)?;
    builds::build(&profile)?;
    let choice = choose_backend(args.common.vmm)?;
    eprintln!("{}; Ctrl-A X quits", backend_line(&choice));
    if args.agent {
        return with_agent(args, session, &choice);
    }
    let guests = session.guests(Arc::new(StderrProgress::default()));
    let mut config = MachineConfig::new(
        &args.target,
        choice.backend,
        guests.kernel(&profile.kernel)?,
    );
    if let Some(initrd) = &profile.initrd {
        config.initrd.push(InitrdPart::File(guests.initrd(initrd)?));
    }
    config.memory = args.mem.unwrap_or(profile.memory);
    config.cpus = args.cpus.unwrap_or(profile.cpus);
    config.cmdline = match &args.cmdline {
        Some(given) => given.clone(),
        None => profile.base_cmdline().map_err(Problem::file(
            "read",
            profile.cmdline_file.clone().unwrap_or_default(),
        ))?,
    };
    if !config
        .cmdline
        .split_whitespace()
        .any(|token| token == "console=ttyS0")
    {
        config.cmdline.push_str(" console=ttyS0");
    }
    let machine = Machine::start(config)?;
    attach(&machine)
}

/// The same with the agent in the guest, as tests have it.
fn with_agent(
    args: &ConsoleArgs,
    session: Session,
    choice: &provium_vmm::probe::Choice,
) -> Result<Exit, Problem> {
    let progress = Arc::new(StderrProgress::default());
    let harness = session.harness(choice, Pool::unlimited(), progress, Arc::new(NoEvents));
    let harness = Arc::new(harness);
    let lab = provium_lab::Session::new(&harness, "console");
    let options = BootOptions {
        memory: args.mem,
        cpus: args.cpus,
        kernel_cmdline: args.cmdline.clone(),
        // Who looks at the console wants to see the boot.
        cold: true,
        ..BootOptions::default()
    };
    let vm = lab
        .root()
        .declare_vm(Some("console"), &args.target, options)?;
    vm.boot(BootOptions::default())?;
    match vm.machine() {
        Some(machine) => attach(&machine),
        None => Ok(Exit::Success),
    }
}

/// Moves bytes between terminal and console; the guest's time keeps pace with ours.
fn attach(machine: &Machine) -> Result<Exit, Problem> {
    let _raw = RawMode::enter();
    let mut keys = Keys::default();
    let mut shown = 0;
    loop {
        let step = Instant::now();
        let until = machine
            .now_ns()
            .saturating_add(u64::try_from(STEP.as_nanos()).unwrap_or(0));
        // Ends early when the guest writes, so that typing feels immediate.
        machine.wait(Some(until), Some(STEP), || {
            (machine.console().len() > shown).then_some(())
        });
        shown = show(machine, shown)?;
        if let MachineState::Stopped(cause) = machine.state() {
            return Ok(ended(&cause));
        }
        match read_stdin(STEP.saturating_sub(step.elapsed())) {
            Input::None => {}
            Input::End => return Ok(Exit::Success),
            Input::Bytes(bytes) => match keys.typed(&bytes) {
                Some(bytes) => machine.console().write(&bytes),
                None => return Ok(Exit::Success),
            },
        }
    }
}

/// Prints console bytes from `shown` on; answers how far that was.
fn show(machine: &Machine, mut shown: u64) -> Result<u64, Problem> {
    let mut out = io::stdout().lock();
    loop {
        let (bytes, next) = machine.console().read_at(shown, 64 << 10);
        if bytes.is_empty() {
            break;
        }
        let written = out.write_all(&bytes).and_then(|()| out.flush());
        written.map_err(|source| Problem::Io {
            action: "write to the terminal",
            source,
        })?;
        shown = next;
    }
    Ok(shown)
}

fn ended(cause: &StopCause) -> Exit {
    eprint!("\r\nprovium: {cause}\r\n");
    if cause.is_abnormal() {
        Exit::Error
    } else {
        Exit::Success
    }
}

/// What is typed, with Ctrl-A as the escape.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// Bytes for the guest; nothing when the user quits.
    fn typed(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if std::mem::take(&mut self.escaped) {
                match byte {
                    b'x' | b'X' => return None,
                    ESCAPE => out.push(ESCAPE),
                    other => out.extend([ESCAPE, other]),
                }
            } else if byte == ESCAPE {
                self.escaped = true;
            } else {
                out.push(byte);
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r005_ctrl_a_escapes() {
        let mut keys = Keys::default();
        assert_eq!(keys.typed(b"ls\r").unwrap(), b"ls\r");
        assert_eq!(keys.typed(b"\x01").unwrap(), b"");
        assert_eq!(keys.typed(b"\x01a\x01b").unwrap(), b"\x01a\x01b");
        assert_eq!(keys.typed(b"\x01x"), None);
        let mut keys = Keys::default();
        assert!(keys.typed(b"\x01").is_some());
        assert_eq!(keys.typed(b"X"), None);
    }
}
