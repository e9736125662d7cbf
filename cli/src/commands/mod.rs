//! One file per subcommand.

pub mod console;
pub mod doctor;
pub mod list;
pub mod prepare;
pub mod repl;
pub mod run;

use crate::exit::Exit;
use crate::problem::Problem;

/// `provium version`.
pub fn version() -> Result<Exit, Problem> {
    println!("provium {}", env!("CARGO_PKG_VERSION"));
    Ok(Exit::Success)
}
