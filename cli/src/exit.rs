//! The exit codes of the program, named (cli-and-config R-061).

use std::process::ExitCode;

/// How the program ended. No other code is ever used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Every file passed or was skipped; or the command did what it was asked.
    Success = 0,
    /// A file failed, timed out or crashed.
    Failed = 1,
    /// Usage, configuration, preflight, build or internal error; or an interruption.
    Error = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
