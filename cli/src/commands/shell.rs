//! What packagers and shells want: completions and the man page, made from the table of flags.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Exit;
use crate::problem::Problem;

/// `provium completions SHELL`: the script to stdout.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "provium", &mut script);
    print(&script)
}

/// `provium man`: the page to stdout, or all pages into a directory.
pub(crate) fn man(args: &ManArgs) -> Result<Exit, Problem> {
    match &args.dir {
        Some(dir) => {
            let write = || {
                std::fs::create_dir_all(dir)?;
                pages(dir)
            };
            write().map_err(Problem::file("write man pages to", dir))?;
            Ok(Exit::Success)
        }
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.map_err(stdout)?;
            print(&page)
        }
    }
}

/// The page of the program and one for each subcommand.
fn pages(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
}

fn print(bytes: &[u8]) -> Result<Exit, Problem> {
    io::stdout().write_all(bytes).map_err(stdout)?;
    Ok(Exit::Success)
}

fn stdout(source: io::Error) -> Problem {
    Problem::Io {
        action: "write to stdout",
        source,
    }
}
