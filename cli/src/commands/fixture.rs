//! `provium fixture`: the cache of prepared VMs and labs.

use std::path::Path;
use std::sync::Arc;

use provium_lab::fixture::{Cache, Entry, Fixture, FixtureKind, Inputs};
use provium_lab::guest::StderrProgress;
use provium_lab::{Harness, NoEvents, Pool};
use provium_lua::{Built, Observer, Setup, TestEnd, build_fixture};
use provium_protocol::{EventKind, Meta};

use crate::args::{CommonArgs, FixtureArgs, FixtureCommand, Vmm};
use crate::discover::{Kind, discover, display_path};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::say::say;
use crate::session::{Session, choose_backend};

/// What follows a fixture's name.
const SUFFIX: &str = ".fixture.lua";

/// Carries out a subcommand on the cache.
pub(crate) fn fixture(args: &FixtureArgs) -> Result<Exit, Problem> {
    match &args.command {
        FixtureCommand::List(common) => list(&Place::open(common)?.cache),
        FixtureCommand::Clean(common) => clean(&Place::open(common)?.cache),
        FixtureCommand::Stale(common) => stale(Place::open(common)?)?,
        FixtureCommand::Why(one) => why(Place::open(&one.common)?, &one.name)?,
        FixtureCommand::Build(one) => build(Place::open(&one.common)?, &one.name, false)?,
        FixtureCommand::Rebuild(one) => build(Place::open(&one.common)?, &one.name, true)?,
    }
    Ok(Exit::Success)
}

/// What every subcommand works with.
struct Place {
    session: Session,
    cache: Cache,
    vmm: Vmm,
}

impl Place {
    fn open(common: &CommonArgs) -> Result<Self, Problem> {
        let session = Session::with_guests(common)?;
        Ok(Self {
            cache: Cache::new(&session.config.cache_dir),
            session,
            vmm: common.vmm,
        })
    }

    /// The harness: no events, guests prepared on demand.
    fn harness(self) -> Result<Arc<Harness>, Problem> {
        let choice = choose_backend(self.vmm)?;
        Ok(Arc::new(self.session.harness(
            &choice,
            Pool::unlimited(),
            Arc::new(StderrProgress::default()),
            Arc::new(NoEvents),
        )))
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.2}MiB", bytes as f64 / f64::from(1 << 20))
}

fn list(cache: &Cache) {
    let entries = cache.entries();
    let width = entries.iter().map(|e| mib(e.size).len()).max().unwrap_or(0);
    for entry in &entries {
        let (size, kind) = (mib(entry.size), entry.kind.name());
        let name = cache
            .inputs(&entry.key)
            .map_or_else(String::new, |inputs| inputs.fixture);
        say!(
            "{}",
            format!("{size:>width$}  {kind:<4}  {}  {name}", entry.key).trim_end()
        );
    }
    say!("\n{} entries, {}", entries.len(), total(&entries));
}

fn total(entries: &[Entry]) -> String {
    mib(entries.iter().map(|entry| entry.size).sum())
}

fn clean(cache: &Cache) {
    let mut entries = cache.entries();
    entries.retain(|entry| cache.evict(entry));
    say!("removed {} entries, {}", entries.len(), total(&entries));
}

/// An error as this command's: the user named something that cannot be had.
fn refused(error: impl std::fmt::Display) -> Problem {
    Problem::Usage(error.to_string())
}

fn stale(place: Place) -> Result<(), Problem> {
    let (config, bases) = (&place.session.config, &place.session.bases);
    let files = discover(&[], &config.roots, bases, Kind::Fixture)?;
    let cache = place.cache.clone();
    let harness = place.harness()?;
    let mut count = 0;
    for file in files {
        let fixture = Fixture {
            name: file.relative.trim_end_matches(SUFFIX).to_owned(),
            path: file.path,
        };
        let there = match fixture.inputs(&harness) {
            Ok(inputs) => find(&cache, &inputs).is_some(),
            Err(error) => {
                eprintln!("provium: fixture {}: {error}", fixture.name);
                false
            }
        };
        if !there {
            say!("  {}", fixture.name);
            count += 1;
        }
    }
    say!("\n{count} stale fixture(s)");
    Ok(())
}

fn find(cache: &Cache, inputs: &Inputs) -> Option<FixtureKind> {
    [FixtureKind::Vm, FixtureKind::Lab]
        .into_iter()
        .find(|kind| cache.path(&inputs.key(), *kind).exists())
}

/// Prints what a fixture depends on, and what of it changed since it was last built.
fn why(place: Place, name: &str) -> Result<(), Problem> {
    let cwd = place.session.bases.cwd.clone();
    let cache = place.cache.clone();
    let harness = place.harness()?;
    let fixture = Fixture::find(&harness, &cwd, name).map_err(refused)?;
    let inputs = fixture.inputs(&harness).map_err(refused)?;
    say!("{name}: key {}", inputs.key());
    for input in &inputs.list {
        say!("  {} {}: {}", input.kind, input.name, short(&input.value));
    }
    match (find(&cache, &inputs), cache.latest_inputs(name)) {
        (Some(kind), _) => say!("built, as a {}", kind.name()),
        (None, None) => say!("never built"),
        (None, Some(before)) => {
            say!("stale; since it was last built:");
            for change in inputs.changes_since(&before) {
                say!("  {change}");
            }
        }
    }
    Ok(())
}

/// The start of a long value.
fn short(value: &str) -> String {
    const SHOWN: usize = 60;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

fn build(place: Place, name: &str, anew: bool) -> Result<(), Problem> {
    let bases = place.session.bases.clone();
    let setup = Arc::new(Setup::new(
        place.harness()?,
        Box::new(move |path: &Path| display_path(path, &bases)),
        true,
    ));
    let observer: Arc<dyn Observer> = Arc::new(Stderr);
    match build_fixture(&setup, &observer, name, anew).map_err(refused)? {
        Built::Already => say!("already built: {name}"),
        Built::Now => say!("built: {name}"),
    }
    Ok(())
}

/// Tells what a fixture prints.
struct Stderr;

impl Observer for Stderr {
    fn test_started(&self, _: &str, _: &Meta) {}

    fn test_ended(&self, _: TestEnd) {}

    fn print(&self, bytes: &[u8]) {
        eprint!("{}", String::from_utf8_lossy(bytes));
    }

    fn warn(&self, text: &str) {
        eprintln!("provium: {text}");
    }

    fn phase(&self, _: &str) {}

    fn lab(&self, _: EventKind) {}
}
