//! `provium repl`: a VM and a Lua prompt.

mod prompt;

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use provium_lab::guest::StderrProgress;
use provium_lab::{NoEvents, Pool};
use provium_lua::{Evaluated, Interactive, Observer, Setup, TestEnd};
use provium_protocol::{EventKind, Meta};

use crate::args::ReplArgs;
use crate::builds;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::session::{Session, backend_line, choose_backend};
use crate::signals;

/// How often a Ctrl-C is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Boots a VM, then reads and runs Lua until the input ends or `exit()` is typed.
pub(crate) fn repl(args: &ReplArgs) -> Result<Exit, Problem> {
    let session = Session::with_guests(&args.common)?;
    let start = Start::of(args);
    start.prepare(&session)?;
    let choice = choose_backend(args.common.vmm)?;
    let talk = io::stdin().is_terminal();
    if talk {
        eprintln!("{}", backend_line(&choice));
    }
    let session_history = session.places.cache.join("repl_history");
    signals::install(Exit::Error);
    let setup = Setup::new(
        Arc::new(session.harness(
            &choice,
            Pool::unlimited(),
            Arc::new(StderrProgress::default()),
            Arc::new(NoEvents),
        )),
        Box::new(|path: &Path| path.display().to_string()),
        false,
    );
    let lua = Interactive::new(Arc::new(setup), Arc::new(Terminal)).map_err(Problem::Usage)?;
    if let Evaluated::Failed(why) = lua.evaluate(&start.code()) {
        return Err(Problem::Usage(why));
    }
    if talk {
        eprintln!("vm is {start}; Ctrl-D or exit() ends");
    }
    let done = AtomicBool::new(false);
    let lua = Rc::new(lua);
    let interrupt = lua.interrupt();
    std::thread::scope(|scope| {
        // Ctrl-C ends what is being evaluated, not the prompt.
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if signals::take() {
                    interrupt.set();
                }
                std::thread::park_timeout(LOOK);
            }
        });
        let _in_order = signals::InOrder::begin();
        let result = if talk {
            prompt::read_and_run(&lua, &session_history)
        } else {
            read_and_run(&lua)
        };
        done.store(true, Ordering::Release);
        result
    })?;
    Ok(Exit::Success)
}

/// Where `vm` comes from.
enum Start<'a> {
    Boot { name: &'a str, profile: &'a str },
    Fixture(&'a str),
}

impl<'a> Start<'a> {
    fn of(args: &'a ReplArgs) -> Self {
        match (&args.fixture, &args.target) {
            (Some(path), _) => Self::Fixture(path),
            (None, profile) => Self::Boot {
                name: &args.name,
                profile: profile.as_deref().unwrap_or_default(),
            },
        }
    }

    /// Runs what builds the profile; of a fixture nobody knows yet which it boots.
    fn prepare(&self, session: &Session) -> Result<(), Problem> {
        match self {
            Self::Boot { profile, .. } => builds::build(&session.profile(profile)?),
            Self::Fixture(_) => session.config.profiles.values().try_for_each(builds::build),
        }
    }

    fn code(&self) -> String {
        match self {
            Self::Boot { name, profile } => {
                format!("vm = provium:vm({name:?}, {profile:?}):boot()")
            }
            Self::Fixture(path) => format!("vm = provium:vm_fixture({path:?})"),
        }
    }
}

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot { name, profile } => write!(f, "{name} ({profile})"),
            Self::Fixture(path) => write!(f, "that of the fixture {path}"),
        }
    }
}

/// Without a terminal: reads all of stdin, silently.
fn read_and_run(lua: &Interactive) -> Result<(), Problem> {
    let mut typed = String::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(prompt::unreadable)?;
        if typed.is_empty() && is_exit(&line) {
            return Ok(());
        }
        typed.push_str(&line);
        typed.push('\n');
        if evaluate(lua, &typed)? {
            typed.clear();
        }
    }
    if !typed.trim().is_empty() {
        eprintln!(
            "repl: the input ends within a statement:\n{}",
            typed.trim_end()
        );
    }
    Ok(())
}

fn is_exit(line: &str) -> bool {
    matches!(line.trim(), "exit()" | "exit" | "quit")
}

/// Runs what was typed and shows what comes of it; false when more has to be typed.
fn evaluate(lua: &Interactive, typed: &str) -> Result<bool, Problem> {
    match lua.evaluate(typed) {
        Evaluated::Incomplete => return Ok(false),
        Evaluated::Done(Some(values)) => {
            let written = writeln!(io::stdout(), "{values}");
            written.map_err(|source| Problem::Io {
                action: "write to stdout",
                source,
            })?;
        }
        Evaluated::Done(None) => {}
        Evaluated::Failed(why) => eprintln!("{why}"),
    }
    Ok(true)
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
