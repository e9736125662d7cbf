//! Building fixtures: their Lua code in a state and a lab of its own (cli-and-config;
//! classic-api C-060 to C-065).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use mlua::{Function, Lua, Table, Value};
use provium_lab::fixture::{Cache, Fixture, FixtureKind, Inputs};
use provium_lab::{LabSnapshot, Snapshot, Vm, VmState};
use provium_protocol::event::{
    FixtureBuildDone, FixtureBuildStarted, FixtureBuildWaiting, FixtureCacheHit,
};

use crate::fault::Fault;
use crate::file::{FileState, Setup};
use crate::filter::Filter;
use crate::handle::{Handle, Object};
use crate::record::text_of;
use crate::report::Observer;
use crate::runner::{FileJob, without_shebang};
use crate::state;
use crate::watch::Interrupt;

/// Who wants a fixture.
struct Wanted<'a> {
    setup: &'a Arc<Setup>,
    observer: &'a Arc<dyn Observer>,
    interrupt: &'a Interrupt,
    /// Fixtures being built around the request.
    chain: &'a [String],
    /// The file that asks, as lock files name it.
    holder: String,
    /// Its directory, looked in after the roots.
    own: PathBuf,
}

/// What [`build_fixture`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Built {
    /// It was in the cache.
    Already,
    /// It was built.
    Now,
}

/// Builds the fixture `name` unless it is in the cache (`anew`: in any case), for the command line.
///
/// # Errors
/// A message that names the fixture, the position and the cause.
pub fn build_fixture(
    setup: &Arc<Setup>,
    observer: &Arc<dyn Observer>,
    name: &str,
    anew: bool,
) -> Result<Built, String> {
    let wanted = Wanted {
        setup,
        observer,
        interrupt: &Interrupt::default(),
        chain: &[],
        holder: "provium fixture".to_owned(),
        own: std::env::current_dir().unwrap_or_else(|_| "/".into()),
    };
    let text = |fault: Fault| fault.0;
    let (fixture, inputs) = wanted.find(name).map_err(text)?;
    let cache = setup.harness.fixtures();
    if anew {
        for kind in [FixtureKind::Vm, FixtureKind::Lab] {
            cache.remove_content(&inputs.key(), kind);
        }
    }
    let there = [FixtureKind::Vm, FixtureKind::Lab]
        .into_iter()
        .any(|kind| cache.find(&inputs.key(), kind).is_some());
    if there {
        return Ok(Built::Already);
    }
    wanted
        .build(&cache, &fixture, &inputs, None)
        .map_err(text)?;
    Ok(Built::Now)
}

/// Finds or builds the entry of a fixture and hands it to `take`; one that is damaged is built again, once.
pub(crate) fn with_entry<T>(
    file: &Arc<FileState>,
    name: &str,
    kind: FixtureKind,
    mut take: impl FnMut(&Path) -> Result<T, provium_lab::Error>,
) -> Result<T, Fault> {
    let wanted = Wanted::by(file);
    let (fixture, inputs) = wanted.find(name)?;
    let cache = wanted.setup.harness.fixtures();
    let (path, hit) = wanted.entry(&cache, &fixture, &inputs, kind)?;
    let taken = match take(&path) {
        Err(error) if hit && error.reason.is_unusable_snapshot() => {
            file.observer
                .warn(&format!("fixture {name}: {error}; it is built anew"));
            cache.remove_content(&inputs.key(), kind);
            let (path, _) = wanted.entry(&cache, &fixture, &inputs, kind)?;
            return Ok(take(&path)?);
        }
        taken => taken?,
    };
    if hit {
        let path = name.to_owned();
        wanted.setup.harness.emit(FixtureCacheHit { path });
    }
    Ok(taken)
}

impl<'a> Wanted<'a> {
    fn by(file: &'a Arc<FileState>) -> Self {
        Self {
            setup: file.setup(),
            observer: &file.observer,
            interrupt: file.interrupt(),
            chain: file.chain(),
            holder: file.display_path(file.path()),
            own: file.dir().to_owned(),
        }
    }

    fn find(&self, name: &str) -> Result<(Fixture, Inputs), Fault> {
        if let Some(fault) = circle(self.chain, name) {
            return Err(fault);
        }
        let harness = &self.setup.harness;
        let told = |error: provium_lab::fixture::FixtureError| Fault(error.to_string());
        let fixture = Fixture::find(harness, &self.own, name).map_err(told)?;
        let inputs = fixture.inputs(harness).map_err(told)?;
        Ok((fixture, inputs))
    }

    /// The entry's path, and whether it was there already.
    fn entry(
        &self,
        cache: &Cache,
        fixture: &Fixture,
        inputs: &Inputs,
        kind: FixtureKind,
    ) -> Result<(PathBuf, bool), Fault> {
        match cache.find(&inputs.key(), kind) {
            Some(path) => Ok((path, true)),
            None => self.build(cache, fixture, inputs, Some(kind)),
        }
    }

    /// Builds an entry, or waits for the one who does. Without a `kind` the fixture decides.
    fn build(
        &self,
        cache: &Cache,
        fixture: &Fixture,
        inputs: &Inputs,
        kind: Option<FixtureKind>,
    ) -> Result<(PathBuf, bool), Fault> {
        let told = |error: provium_lab::fixture::FixtureError| Fault(error.to_string());
        let key = inputs.key();
        let harness = &self.setup.harness;
        let mut waited = false;
        let waiting = |held_by_file: &str| {
            if !std::mem::replace(&mut waited, true) {
                let (path, held_by_file) = (fixture.name.clone(), held_by_file.to_owned());
                harness.emit(FixtureBuildWaiting { path, held_by_file });
            }
            !self.interrupt.is_set()
        };
        let lock_kind = kind.unwrap_or(FixtureKind::Vm);
        let lock = cache
            .lock(&key, lock_kind, &self.holder, waiting)
            .map_err(told)?;
        let lock = lock.ok_or_else(|| Fault("interrupted".to_owned()))?;
        // Whoever held the lock before may have built it.
        if let Some(path) = kind.and_then(|kind| cache.find(&key, kind)) {
            return Ok((path, true));
        }
        let path = fixture.name.clone();
        harness.emit(FixtureBuildStarted { path });
        let started = Instant::now();
        self.observer
            .phase(&format!("building fixture {}", fixture.name));
        let built = self.run(cache, fixture, kind).and_then(|made| {
            let installed = cache.install(&lock, inputs, made.kind, &made.path);
            installed.map_err(told)
        });
        self.observer.phase("");
        let size = cache.entries().into_iter().find(|entry| entry.key == key);
        harness.emit(FixtureBuildDone {
            path: fixture.name.clone(),
            duration_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            snapshot_bytes: built
                .as_ref()
                .map_or(0, |_| size.map_or(0, |entry| entry.size)),
            error: built.as_ref().err().map(|fault| fault.0.clone()),
        });
        built.map(|path| (path, false))
    }

    /// Runs the fixture's code; what it made lies in a workshop of the cache, which lives as long as the result.
    fn run(
        &self,
        cache: &Cache,
        fixture: &Fixture,
        kind: Option<FixtureKind>,
    ) -> Result<Made, Fault> {
        let workshop = cache.workshop().map_err(|e| Fault(e.to_string()))?;
        let scratch = cache.workshop().map_err(|e| Fault(e.to_string()))?;
        let name = &fixture.name;
        self.in_state(
            name,
            &fixture.path,
            |file, _, value| {
                let wrong = |got: String| {
                    let wants = match kind {
                        Some(FixtureKind::Lab) => {
                            "a LabSnapshot or the path of one (use vm_fixture for a single VM)"
                        }
                        Some(FixtureKind::Vm | FixtureKind::Boot) => {
                            "a Snapshot (use lab_fixture for a lab)"
                        }
                        None => "a Snapshot, or a LabSnapshot or the path of one",
                    };
                    Fault(format!(
                        "fixture {name}: must return {wants}, returned {got}"
                    ))
                };
                let (made, from) = match returned(&value) {
                    Returned::Snapshot(snapshot) => {
                        if let Some(base) = snapshot.base() {
                            return Err(Fault(format!(
                                "fixture {name}: returned a snapshot that holds only what changed since {}; \
                                 take it without a base",
                                base.display()
                            )));
                        }
                        (FixtureKind::Vm, snapshot.path().to_owned())
                    }
                    Returned::Lab(snapshot) => (FixtureKind::Lab, snapshot.path().to_owned()),
                    Returned::Path(path) => (FixtureKind::Lab, file.host_path(path.as_bytes())),
                    Returned::Vm(_) | Returned::Other => {
                        return Err(wrong(crate::args::kind(&value)));
                    }
                };
                if kind.is_some_and(|kind| kind != made) {
                    return Err(wrong(format!("that of a {}", made.name())));
                }
                let to = workshop.path().join("new");
                let moved = std::fs::rename(&from, &to).or_else(|_| copy(&from, &to));
                moved.map_err(|error| {
                    Fault(format!("fixture {name}: {}: {error}", from.display()))
                })?;
                Ok(made)
            },
            Some(scratch),
        )
        .map(|kind| Made {
            kind,
            path: workshop.path().join("new"),
            _workshop: workshop,
        })
    }

    /// Runs the code of a fixture in a state and a session of its own and hands on what it returned; then all its
    /// VMs are gone.
    fn in_state<T>(
        &self,
        name: &str,
        path: &Path,
        take: impl FnOnce(&Arc<FileState>, &Table, Value) -> Result<T, Fault>,
        scratch: Option<tempfile::TempDir>,
    ) -> Result<T, Fault> {
        let job = FileJob {
            path: path.to_owned(),
            // In events its VMs belong to the fixture, which goes by its name there (E-020).
            name: Some(name.to_owned()),
            only: None,
            filter: Filter::default(),
            timeout: None,
            share: None,
            interrupt: self.interrupt.clone(),
            setup: Arc::clone(self.setup),
        };
        let mut chain = self.chain.to_vec();
        chain.push(name.to_owned());
        let source = std::fs::read(path)
            .map_err(|error| Fault(format!("fixture {name}: {}: {error}", path.display())))?;
        let file = FileState::below(&job, Arc::clone(self.observer), chain);
        if let Some(scratch) = scratch {
            file.session.use_temp_dir(scratch);
        }
        let result = (|| {
            let (lua, prelude) = state::open(&file)?;
            let value = run_code(&lua, &prelude, &file, path, &source)
                .map_err(|Fault(why)| Fault(format!("fixture {name}: {why}")))?;
            let taken = take(&file, &prelude, value);
            file.watch.disarm();
            // Finalisers of the fixture may raise; that is no failure of anything.
            let _ = lua.gc_collect();
            taken
        })();
        file.watch.disarm();
        file.close();
        result
    }
}

/// A built fixture, in a directory that is gone with the value.
struct Made {
    kind: FixtureKind,
    path: PathBuf,
    _workshop: tempfile::TempDir,
}

fn circle(chain: &[String], name: &str) -> Option<Fault> {
    chain.iter().any(|known| known == name).then(|| {
        let chain = chain.join(" -> ");
        Fault(format!(
            "fixtures refer to each other in a circle: {chain} -> {name}"
        ))
    })
}

/// Runs the code; its error carries the position.
fn run_code(
    lua: &Lua,
    prelude: &Table,
    file: &Arc<FileState>,
    path: &Path,
    source: &[u8],
) -> Result<Value, Fault> {
    let display = file.display_path(path);
    let source = without_shebang(source);
    let sources: Table = prelude.get("sources")?;
    sources.raw_set(display.as_str(), lua.create_string(&source)?)?;
    let chunk = lua.load(&*source).set_name(format!("@{display}"));
    let chunk = chunk.into_function()?;
    file.watch.begin_test(None);
    let run: Function = prelude.get("run_fixture")?;
    let result = run.call::<(Option<Table>, Value)>(chunk);
    if let Some((stop, _)) = file.watch.end_test() {
        return Err(Fault(stop.to_string()));
    }
    match result? {
        (None, value) => Ok(value),
        (Some(record), _) => Err(Fault(
            text_of(&record, "message")
                .or_else(|| text_of(&record, "skip"))
                .unwrap_or_else(|| "failed".to_owned()),
        )),
    }
}

/// What a fixture's code returned.
enum Returned {
    Snapshot(Snapshot),
    Lab(LabSnapshot),
    Path(String),
    Vm(Vm),
    Other,
}

fn returned(value: &Value) -> Returned {
    match value {
        Value::String(text) => Returned::Path(text.to_string_lossy()),
        Value::UserData(data) => match data.borrow::<Handle>().map(|h| h.object().clone()) {
            Ok(Object::Snapshot(snapshot)) => Returned::Snapshot(snapshot),
            Ok(Object::LabSnapshot(snapshot)) => Returned::Lab(snapshot),
            Ok(Object::Vm(vm)) => Returned::Vm(vm),
            _ => Returned::Other,
        },
        _ => Returned::Other,
    }
}

/// For a snapshot that lies on another file system, or that the fixture has given a path of its own.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return std::fs::copy(from, to).map(drop);
    }
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

type Once = Arc<OnceLock<Result<Snapshot, String>>>;

/// Classic fixtures of this process: built once per run, in files without a name (C-062, C-063).
static CLASSIC: LazyLock<Mutex<HashMap<PathBuf, Once>>> = LazyLock::new(Mutex::default);

/// The snapshot of a classic fixture, built by the first who asks (C-062).
pub(crate) fn classic(
    file: &Arc<FileState>,
    calling: &Path,
    name: &str,
) -> Result<Snapshot, Fault> {
    let wanted = Wanted::by(file);
    if let Some(fault) = circle(wanted.chain, name) {
        return Err(fault);
    }
    let path = find_classic(wanted.setup, calling, name)?;
    let slot = {
        let mut known = CLASSIC.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(path.clone()).or_default().clone()
    };
    let harness = &wanted.setup.harness;
    let built = slot.get_or_init(|| {
        let started = Instant::now();
        harness.emit(FixtureBuildStarted {
            path: name.to_owned(),
        });
        let built = wanted.build_classic(name, &path).map_err(|fault| fault.0);
        harness.emit(FixtureBuildDone {
            path: name.to_owned(),
            duration_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            snapshot_bytes: built.as_ref().map_or(0, Snapshot::memory),
            error: built.as_ref().err().cloned(),
        });
        built
    });
    built.clone().map_err(Fault)
}

impl Wanted<'_> {
    fn build_classic(&self, name: &str, path: &Path) -> Result<Snapshot, Fault> {
        self.in_state(
            name,
            path,
            |_, prelude, value| {
                let vm = match returned(&value) {
                    Returned::Snapshot(snapshot) => return Ok(snapshot),
                    Returned::Vm(vm) => Some(vm),
                    _ => match returned(&prelude.get("last_classic")?) {
                        Returned::Vm(vm) => Some(vm),
                        _ => None,
                    },
                };
                let Some(vm) = vm else {
                    return Err(Fault(format!("fixture {name}: it made no VM")));
                };
                if !matches!(vm.state(), VmState::Booted | VmState::Paused) {
                    let state = vm.state();
                    return Err(Fault(format!(
                        "fixture {name}: vm {} is {state}, it must be booted",
                        vm.name()
                    )));
                }
                Ok(vm.start_nameless_snapshot().wait()?)
            },
            None,
        )
    }
}

/// `fixtures/NAME.lua` beside the caller, in each directory above it, in each root, in `tests/` (C-060).
fn find_classic(setup: &Setup, calling: &Path, name: &str) -> Result<PathBuf, Fault> {
    let below = format!("fixtures/{name}.lua");
    let roots = setup.harness.config().roots.iter().cloned();
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let places: Vec<PathBuf> = calling
        .ancestors()
        .map(Path::to_owned)
        .chain(roots)
        .chain([here.join("tests")])
        .collect();
    let found = places
        .iter()
        .map(|dir| dir.join(&below))
        .find(|p| p.is_file());
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Fault(format!(
            "fixture {name:?} not found: there is no {below} in {}",
            places.join(", ")
        ))
    })
}
