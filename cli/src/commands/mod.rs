//! One file per subcommand.

pub(crate) mod console;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod fixture;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod lsp;
pub(crate) mod merge;
pub(crate) mod prepare;
pub(crate) mod reference;
pub(crate) mod repl;
pub(crate) mod run;
pub(crate) mod shell;
mod start;
pub(crate) mod test;
pub(crate) mod watch;

use crate::exit::Exit;
use crate::problem::Problem;
use crate::say::say;

/// `provium version`.
pub(crate) fn version() -> Result<Exit, Problem> {
    say!("provium {}", env!("CARGO_PKG_VERSION"));
    Ok(Exit::Success)
}
