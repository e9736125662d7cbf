//! What a run and a classic run do before their files start: who hears of it, what is
//! built, which backend runs the guests, what is checked.

use std::fs::File;
use std::path::Path;

use provium_vmm::probe::Choice;

use crate::args::SharedArgs;
use crate::atomic;
use crate::builds;
use crate::discover::TestFile;
use crate::preflight;
use crate::problem::Problem;
use crate::report::{EventSocket, EventWriter, Junit, Reporters};
use crate::session::{Session, backend_line, choose_backend};

/// The socket of `--events-socket`; made before discovery, so that whoever connects first hears
/// everything (E-040).
pub(super) fn socket(args: &SharedArgs) -> Result<Option<EventSocket>, Problem> {
    let path = args.events_socket.as_ref();
    Ok(path.map(|path| EventSocket::listen(path)).transpose()?)
}

/// Those who hear both kinds of runs. `events` is where the event stream is saved.
pub(super) fn reporters(
    args: &SharedArgs,
    events: Option<&Path>,
    socket: Option<&EventSocket>,
) -> Result<Reporters, Problem> {
    let mut reporters = Reporters::default();
    if let Some(path) = events {
        let file = atomic::make_parent(path).and_then(|()| File::create(path));
        let file = file.map_err(Problem::file("write", path))?;
        let name = format!("event file {}", path.display());
        reporters.add(EventWriter::new(name, file));
    }
    if let Some(socket) = socket {
        reporters.add(socket.reporter());
    }
    if let Some(path) = &args.junit {
        let junit = Junit::new(path.clone()).map_err(Problem::file("write", path))?;
        reporters.add(junit);
    }
    Ok(reporters)
}

/// Builds what profiles build, finds the backend, which is told when it is `verbose` or not the one
/// to be hoped for, and checks the guests of `files`.
pub(super) fn make_ready(
    args: &SharedArgs,
    session: &Session,
    files: &[TestFile],
    verbose: bool,
) -> Result<Choice, Problem> {
    if !args.no_build {
        let mut profiles = session.config.profiles.values();
        profiles.try_for_each(builds::build)?;
    }
    let choice = choose_backend(args.common.vmm)?;
    if verbose || choice.fell_back {
        eprintln!("{}", backend_line(&choice));
    }
    if !args.no_preflight {
        preflight::check(session, files)?;
    }
    Ok(choice)
}
