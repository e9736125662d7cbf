//! The `provium` command: boots real kernels in microVMs and runs Lua tests against them.

mod api;
mod args;
mod atomic;
mod budget;
mod builds;
mod classic;
mod commands;
mod coverage;
mod discover;
mod environment;
mod exit;
mod news;
mod plan;
mod preflight;
mod pressure;
mod problem;
mod report;
mod say;
mod scheduler;
mod select;
mod session;
mod signals;
mod sink;
mod stream;
mod terminal;
mod timings;

use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use provium_lab::config::nearest;

use crate::args::{Cli, Command};
use crate::discover::DiscoverError;
use crate::exit::Exit;
use crate::problem::Problem;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| wrong_usage(&error));
    // A panic has said by itself what it is; no other exit code than ours is ever used.
    let ended = catch_unwind(AssertUnwindSafe(|| carry_out(cli)));
    let exit = ended.unwrap_or(Ok(Exit::Error)).unwrap_or_else(|problem| {
        eprintln!("provium: {}", chain(&problem));
        Exit::Error
    });
    exit.into()
}

/// Says what is wrong with the command line, or the help that was asked for. A classic run knows no
/// other failure than 1 (classic-api C-074).
fn wrong_usage(error: &clap::Error) -> ! {
    // Nobody is there to hear that it could not be printed.
    let _ = error.print();
    let classic = std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "test");
    match error.exit_code() {
        2 if classic => std::process::exit(1),
        code => std::process::exit(code),
    }
}

fn carry_out(cli: Cli) -> Result<Exit, Problem> {
    match cli.command {
        None => commands::run::run(&cli.run).map_err(or_no_command),
        Some(Command::Run(args)) => commands::run::run(&args),
        Some(Command::Test(args)) => Ok(commands::test::test(&args)),
        Some(Command::List(args)) => commands::list::list(&args),
        Some(Command::Doctor(args)) => commands::doctor::doctor(&args),
        Some(Command::Console(args)) => commands::console::console(&args),
        Some(Command::Repl(args)) => commands::repl::repl(&args),
        Some(Command::Fixture(args)) => commands::fixture::fixture(&args),
        Some(Command::Prepare(args)) => commands::prepare::prepare(&args),
        Some(Command::Init(args)) => commands::init::init(&args),
        Some(Command::Events(args)) => commands::events::events(&args),
        Some(Command::Merge(args)) => commands::merge::merge(&args),
        Some(Command::Reference(args)) => commands::reference::reference(&args),
        Some(Command::LspSetup(args)) => commands::lsp::lsp_setup(&args),
        Some(Command::Completions(args)) => commands::shell::completions(&args),
        Some(Command::Man(args)) => commands::shell::man(&args),
        Some(Command::Version) => commands::version(),
    }
}

/// A word that names no file may have been meant as a command.
fn or_no_command(problem: Problem) -> Problem {
    let Problem::Discover(DiscoverError::Missing(path)) = &problem else {
        return problem;
    };
    let Some(word) = path.to_str().filter(|word| !word.contains(['/', '.'])) else {
        return problem;
    };
    let cli = Cli::command();
    let commands = cli.get_subcommands().map(clap::Command::get_name);
    let meant = nearest(word, commands).map_or_else(
        || "`provium --help` lists the commands".to_owned(),
        |name| format!("did you mean `provium {name}`?"),
    );
    Problem::Usage(format!(
        "{word}: no such file or directory, nor a command; {meant}"
    ))
}

/// A problem with all its causes, said once.
fn chain(problem: &Problem) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
