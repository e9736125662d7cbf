//! `provium list`: the files that a run would take.

use crate::args::ListArgs;
use crate::discover::Kind;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::say::say;
use crate::select::select;
use crate::session::Session;

/// Prints one path per line.
pub(crate) fn list(args: &ListArgs) -> Result<Exit, Problem> {
    let session = Session::open(args.config.as_deref())?;
    let kind = if args.fixtures {
        Kind::Fixture
    } else {
        Kind::Test
    };
    for file in select(&session, &args.select, kind)?.files {
        say!("{}", file.again.display());
    }
    Ok(Exit::Success)
}
