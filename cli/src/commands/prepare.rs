//! `provium prepare`: runs build commands and nothing else.

use crate::args::PrepareArgs;
use crate::builds;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::session::Session;

/// Builds one profile, or all that can be built, in name order.
pub(crate) fn prepare(args: &PrepareArgs) -> Result<Exit, Problem> {
    let session = Session::open(args.config.as_deref())?;
    match &args.target {
        Some(name) => builds::build(&session.profile(name)?)?,
        None => session
            .config
            .profiles
            .values()
            .try_for_each(builds::build)?,
    }
    Ok(Exit::Success)
}
