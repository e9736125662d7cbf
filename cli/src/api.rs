//! The Lua API as the program itself knows it: the one table that the bindings are made from.

use std::path::Path;
use std::sync::Arc;

use provium_lab::guest::{Guests, Silent};
use provium_lab::{Backend, Harness};
use provium_lua::{Entry, Interactive, Observer, Setup, TestEnd};
use provium_protocol::{EventKind, Meta};

use crate::problem::Problem;
use crate::session::Session;

/// The table of functions, from a Lua state with everything in it.
pub(crate) fn entries() -> Result<Vec<Entry>, Problem> {
    lua()?.reference().map_err(Problem::Usage)
}

/// A Lua state with everything an author can call. Nothing runs in it.
pub(crate) fn lua() -> Result<Interactive, Problem> {
    let session = Session::builtin()?;
    let guests = Guests::new(session.places.guests(), Arc::new(Silent));
    let setup = Setup::new(
        Arc::new(Harness::new(session.config, Backend::Soft, guests)),
        Box::new(|path: &Path| path.display().to_string()),
        false,
    );
    Interactive::new(Arc::new(setup), Arc::new(Nobody)).map_err(Problem::Usage)
}

/// Listens to nothing: nothing runs.
struct Nobody;

impl Observer for Nobody {
    fn test_started(&self, _: &str, _: &Meta) {}
    fn test_ended(&self, _: TestEnd) {}
    fn print(&self, _: &[u8]) {}
    fn warn(&self, _: &str) {}
    fn phase(&self, _: &str) {}
    fn lab(&self, _: EventKind) {}
}
