//! The `provium` command: boots real kernels in microVMs and runs Lua tests against them.

mod args;
mod atomic;
mod budget;
mod builds;
mod commands;
mod discover;
mod exit;
mod news;
mod plan;
mod preflight;
mod pressure;
mod problem;
mod report;
mod scheduler;
mod select;
mod session;
mod signals;
mod sink;
mod stream;
mod terminal;
mod timings;

use std::error::Error as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::exit::Exit;
use crate::problem::Problem;

fn main() -> ExitCode {
    // Clap ends the process itself: 0 after help and version, 2 on wrong usage.
    let cli = Cli::parse();
    let exit = carry_out(cli).unwrap_or_else(|problem| {
        eprintln!("provium: {}", chain(&problem));
        Exit::Error
    });
    exit.into()
}

fn carry_out(cli: Cli) -> Result<Exit, Problem> {
    match cli.command {
        None => commands::run::run(&cli.run),
        Some(Command::Run(args)) => commands::run::run(&args),
        Some(Command::List(args)) => commands::list::list(&args),
        Some(Command::Doctor(args)) => commands::doctor::doctor(&args),
        Some(Command::Console(args)) => commands::console::console(&args),
        Some(Command::Repl(args)) => commands::repl::repl(&args),
        Some(Command::Prepare(args)) => commands::prepare::prepare(&args),
        Some(Command::Init(args)) => commands::init::init(&args),
        Some(Command::Events(args)) => commands::events::events(&args),
        Some(Command::Merge(args)) => commands::merge::merge(&args),
        Some(Command::LspSetup(args)) => commands::lsp::lsp_setup(&args),
        Some(Command::Completions(args)) => commands::shell::completions(&args),
        Some(Command::Man(args)) => commands::shell::man(&args),
        Some(Command::Version) => commands::version(),
    }
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
