//! `provium repl`: a VM and a Lua prompt.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use provium_lab::guest::StderrProgress;
use provium_lab::{NoEvents, Pool};
use provium_lua::{Evaluated, Interactive, Observer, Setup, TestEnd};
use provium_protocol::{EventKind, Meta};

use crate::args::ReplArgs;
use crate::builds;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::session::{Session, backend_line, choose_backend};

/// Boots a VM, then reads and runs Lua until the input ends or `exit()` is typed.
pub(crate) fn repl(args: &ReplArgs) -> Result<Exit, Problem> {
    let session = Session::with_guests(&args.common)?;
    builds::build(&session.profile(&args.target)?)?;
    let choice = choose_backend(args.common.vmm)?;
    let talk = io::stdin().is_terminal();
    if talk {
        eprintln!("{}", backend_line(&choice));
    }
    let setup = Setup {
        harness: session.harness(
            &choice,
            Pool::unlimited(),
            Arc::new(StderrProgress::default()),
            Arc::new(NoEvents),
        ),
        display: Box::new(|path: &Path| path.display().to_string()),
        stdout_is_data: false,
    };
    let lua = Interactive::new(Arc::new(setup), Arc::new(Terminal)).map_err(Problem::Usage)?;
    let boot = format!("vm = provium:vm({:?}, {:?}):boot()", args.name, args.target);
    if let Evaluated::Failed(why) = lua.evaluate(&boot) {
        return Err(Problem::Usage(why));
    }
    if talk {
        eprintln!(
            "vm is {} ({}); Ctrl-D or exit() ends",
            args.name, args.target
        );
    }
    read_and_run(&lua, talk).map_err(|source| Problem::Io {
        action: "read the prompt",
        source,
    })?;
    Ok(Exit::Success)
}

fn read_and_run(lua: &Interactive, talk: bool) -> io::Result<()> {
    let mut typed = String::new();
    let mut lines = io::stdin().lock().lines();
    loop {
        if talk {
            eprint!("{}", if typed.is_empty() { "> " } else { ">> " });
        }
        let Some(line) = lines.next().transpose()? else {
            return Ok(());
        };
        if typed.is_empty() && line.trim() == "exit()" {
            return Ok(());
        }
        typed.push_str(&line);
        typed.push('\n');
        match lua.evaluate(&typed) {
            Evaluated::Incomplete => continue,
            Evaluated::Done(Some(values)) => writeln!(io::stdout(), "{values}")?,
            Evaluated::Done(None) => {}
            Evaluated::Failed(why) => eprintln!("{why}"),
        }
        typed.clear();
    }
}

/// Prints straight to the terminal.
struct Terminal;

impl Observer for Terminal {
    fn test_started(&self, _: &str, _: &Meta) {}

    fn test_ended(&self, _: TestEnd) {}

    fn print(&self, bytes: &[u8]) {
        // A closed pipe ends the prompt at its next output.
        let _ = io::stdout().write_all(bytes);
    }

    fn warn(&self, text: &str) {
        eprintln!("{text}");
    }

    fn phase(&self, _: &str) {}

    fn lab(&self, _: EventKind) {}
}
