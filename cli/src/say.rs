//! Lines on stdout for commands whose whole work is to print.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use crate::exit::Exit;

/// Prints a line to stdout. Where nobody reads any more, the command is done; where it cannot be
/// written for another reason, that is said (R-061: no other exit code).
macro_rules! say {
    ($($line:tt)*) => { $crate::say::line(format_args!($($line)*)) };
}
pub(crate) use say;

/// See [`say!`].
pub(crate) fn line(text: Arguments<'_>) {
    let Err(error) = writeln!(io::stdout(), "{text}") else {
        return;
    };
    let exit = match error.kind() {
        ErrorKind::BrokenPipe => Exit::Success,
        _ => {
            eprintln!("provium: cannot write to stdout: {error}");
            Exit::Error
        }
    };
    std::process::exit(exit as i32);
}
