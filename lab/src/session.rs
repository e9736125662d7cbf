//! A test file's run: its world, its root lab, the scope of the test that runs now, and what must be closed at the
//! end of each (lua-api sections 3 and 18).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use provium_vmm::snapshot::Extent;
use tempfile::TempDir;

use crate::error::{Error, Reason, Result};
use crate::harness::Harness;
use crate::lab::Lab;
use crate::pool::Share;
use crate::vm::{Offender, Snapshot, VmCore};
use crate::wait::{Either, Limit, Pending, World, both, lock};

/// Where in a test file something was made (L-199).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The file, as it is displayed.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// Kinds of resources, in the order in which a scope closes them (L-228).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Stream,
    Process,
    File,
    Worker,
}

/// Something that its scope closes.
pub(crate) trait Closable: Send + Sync {
    /// As a leak report names it.
    fn describe(&self) -> String;

    /// The VM it is on.
    fn vm(&self) -> &Arc<VmCore>;

    /// Closes it; again is nothing.
    fn start_close(&self) -> Pending<()>;

    /// Takes note that it went with its VM, without asking the guest.
    fn abandon(&self);

    /// What it is, if a snapshot cannot be taken while it is open (L-206).
    fn offence(&self) -> Option<Offender> {
        None
    }
}

/// How long closing one resource may take before its VM counts as silent (L-221).
const CLOSE_LIMIT: Duration = Duration::from_secs(6);

/// Where snapshots without a path of their own lie.
struct Temporary {
    dir: TempDir,
    /// What is made there is put elsewhere and used after the session.
    outlived: bool,
}

/// What the handles of one test file share.
pub(crate) struct SessionCore {
    harness: Arc<Harness>,
    world: Arc<World>,
    file: String,
    share: Share,
    /// The share is of this session's own making, so its end is the claim's end.
    own_share: bool,
    state: Mutex<State>,
    site: Mutex<Option<SiteFinder>>,
    /// Where snapshots without a path of their own lie; gone with the session (L-204).
    temp: OnceLock<Temporary>,
    /// Snapshots taken of VMs of this session.
    snapshots: Mutex<Vec<Snapshot>>,
}

/// Tells where the running Lua code stands.
type SiteFinder = Box<dyn Fn() -> Option<Site> + Send + Sync>;

#[derive(Default)]
struct State {
    next_id: u64,
    /// Depth of the scope that runs now: 0 is the file, 1 a test.
    depth: u32,
    /// Name of the test that runs now.
    test: Option<Arc<str>>,
    open: BTreeMap<(Class, u64), Entry>,
    claimed: bool,
}

struct Entry {
    depth: u32,
    /// The test in which it was opened.
    test: Option<Arc<str>>,
    resource: Arc<dyn Closable>,
}

/// A resource's place in its scope.
pub(crate) struct Registration {
    session: Weak<SessionCore>,
    key: (Class, u64),
    depth: u32,
    test: Option<Arc<str>>,
}

impl Registration {
    /// Hands the resource to its scope.
    pub(crate) fn set<T: Closable + Clone + 'static>(&self, resource: &T) {
        if let Some(session) = self.session.upgrade() {
            let entry = Entry {
                depth: self.depth,
                test: self.test.clone(),
                resource: Arc::new(resource.clone()),
            };
            lock(&session.state).open.insert(self.key, entry);
        }
    }

    /// The resource is closed; its scope forgets it.
    pub(crate) fn done(&self) {
        if let Some(session) = self.session.upgrade() {
            let entry = lock(&session.state).open.remove(&self.key);
            // Dropped outside the lock: it may be the last handle.
            drop(entry);
        }
    }
}

impl SessionCore {
    pub(crate) fn harness(&self) -> &Arc<Harness> {
        &self.harness
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Display path of the test file (E-020).
    #[must_use]
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn register(self: &Arc<Self>, class: Class) -> Registration {
        let mut state = lock(&self.state);
        state.next_id += 1;
        let key = (class, state.next_id);
        Registration {
            session: Arc::downgrade(self),
            key,
            depth: state.depth,
            test: state.test.clone(),
        }
    }

    pub(crate) fn site(&self) -> Option<Site> {
        lock(&self.site).as_ref().and_then(|find| find())
    }

    /// What the file holds of the pool.
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// True when nobody outside ends the share.
    pub(crate) fn owns_share(&self) -> bool {
        self.own_share
    }

    /// Lets people see what a call waits for.
    pub(crate) fn tell_waiting(self: &Arc<Self>) -> impl Fn(&str) + Send + use<> {
        let session = self.clone();
        move |text| session.harness.events().waiting(&session.file, text)
    }

    /// Tells people something that is no failure.
    pub(crate) fn warn(&self, text: &str) {
        let text = format!("warning: {}: {text}", self.file);
        self.harness.events().note(&text);
    }

    /// Takes the file's one claim (L-039).
    pub(crate) fn take_claim(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).claimed, true)
    }

    /// What is open on `vms` that a snapshot could not hold.
    pub(crate) fn offenders(&self, vms: &[&Arc<VmCore>]) -> Vec<Offender> {
        let open: Vec<_> = {
            let state = lock(&self.state);
            let entries = state.open.values();
            entries
                .map(|entry| (entry.resource.clone(), entry.test.clone()))
                .collect()
        };
        open.into_iter()
            .filter(|(resource, _)| vms.iter().any(|vm| Arc::ptr_eq(vm, resource.vm())))
            .filter_map(|(resource, test)| {
                let offender = resource.offence()?;
                Some(Offender { test, ..offender })
            })
            .collect()
    }

    /// The directory for snapshots that end with the file.
    pub(crate) fn temp_dir(&self) -> Result<PathBuf, Reason> {
        if let Some(temp) = self.temp.get() {
            return Ok(temp.dir.path().to_owned());
        }
        let made = tempfile::Builder::new().prefix("provium-").tempdir();
        let made = made.map_err(|source| Reason::Host {
            action: "make a directory in",
            path: std::env::temp_dir(),
            source,
        })?;
        let temp = self.temp.get_or_init(|| Temporary {
            dir: made,
            outlived: false,
        });
        Ok(temp.dir.path().to_owned())
    }

    /// Whether what lies at `path` ends with the file.
    pub(crate) fn is_temporary(&self, path: &Path) -> bool {
        let temp = self.temp.get();
        temp.is_some_and(|temp| path.starts_with(temp.dir.path()))
    }

    /// How much of a VM goes into a snapshot there: as little as will do, unless what is made there is to be used
    /// elsewhere.
    pub(crate) fn temp_extent(&self) -> Extent<'static> {
        match self.temp.get() {
            Some(temp) if temp.outlived => Extent::Whole,
            _ => Extent::Little,
        }
    }

    /// A name in it that nobody uses.
    pub(crate) fn temp_path(&self, stem: &str, extension: &str) -> Result<PathBuf, Reason> {
        let dir = self.temp_dir()?;
        let number = {
            let mut state = lock(&self.state);
            state.next_id += 1;
            state.next_id
        };
        Ok(dir.join(format!("{stem}-{number}.{extension}")))
    }

    pub(crate) fn note_snapshot(&self, snapshot: &Snapshot) {
        let mut known = lock(&self.snapshots);
        known.retain(|other| other.path().exists());
        known.push(snapshot.clone());
    }

    /// The snapshot that this session has put at `path`, if it is still that.
    pub(crate) fn known_snapshot(&self, path: &Path) -> Option<Snapshot> {
        let known = lock(&self.snapshots);
        let found = known.iter().rev().find(|s| s.path() == path)?.clone();
        drop(known);
        if self.is_temporary(path) {
            return Some(found);
        }
        // A file of a lasting name may have been replaced by another process.
        let now = self.harness().images().open(path).ok()?;
        Arc::ptr_eq(&now, found.image()).then_some(found)
    }

    /// Resources of scopes at `depth` and deeper, in closing order.
    fn open_at(&self, depth: u32) -> Vec<Arc<dyn Closable>> {
        let state = lock(&self.state);
        let of_scope = state.open.values().filter(|entry| entry.depth >= depth);
        of_scope.map(|entry| entry.resource.clone()).collect()
    }
}

/// One test file being run: the owner of everything it makes. Ends with [`Session::finish`]; dropping it stops what
/// is left.
pub struct Session {
    core: Arc<SessionCore>,
    root: Lab,
    scope: Mutex<Option<Lab>>,
}

impl Session {
    /// A session for a test file with that display path, which takes what it needs of the pool.
    #[must_use]
    pub fn new(harness: &Arc<Harness>, file: impl Into<String>) -> Self {
        let file = file.into();
        let share = harness.pool().admit_anyhow(&file);
        Self::make(harness, file, share, true)
    }

    /// A session for a file that was admitted to the pool with `share`. Whoever holds that share tells the release of
    /// the file's claim (E-023).
    #[must_use]
    pub fn with_share(harness: &Arc<Harness>, file: impl Into<String>, share: Share) -> Self {
        Self::make(harness, file.into(), share, false)
    }

    fn make(harness: &Arc<Harness>, file: String, share: Share, own_share: bool) -> Self {
        let core = Arc::new(SessionCore {
            harness: harness.clone(),
            world: World::new(),
            file,
            share,
            own_share,
            state: Mutex::default(),
            site: Mutex::default(),
            temp: OnceLock::new(),
            snapshots: Mutex::default(),
        });
        let root = Lab::root(&core);
        Self {
            core,
            root,
            scope: Mutex::new(None),
        }
    }

    /// The harness it runs in.
    #[must_use]
    pub fn harness(&self) -> &Arc<Harness> {
        &self.core.harness
    }

    pub(crate) fn core(&self) -> &Arc<SessionCore> {
        &self.core
    }

    /// Puts snapshots without a path of their own into `dir` instead of a directory of the session's own; for a
    /// fixture's build, whose result is to stay on the cache's file system. Without effect once there is one.
    pub fn use_temp_dir(&self, dir: TempDir) {
        let outlived = true;
        // The first one stays.
        let _other = self.core.temp.set(Temporary { dir, outlived });
    }

    /// What its waits run; interrupt it to break them off (L-221).
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.core.world
    }

    /// The file's root lab (L-010).
    #[must_use]
    pub fn root(&self) -> &Lab {
        &self.root
    }

    /// The lab that `provium` means now: the test's scope, else the root (L-010).
    #[must_use]
    pub fn current(&self) -> Lab {
        lock(&self.scope)
            .clone()
            .unwrap_or_else(|| self.root.clone())
    }

    /// Sets how the position of the running test code is found (L-199).
    pub fn set_site_finder(&self, find: impl Fn() -> Option<Site> + Send + Sync + 'static) {
        *lock(&self.core.site) = Some(Box::new(find));
    }

    /// Begins a test: its scope is a fresh lab below the root (L-020).
    pub fn enter_scope(&self) -> Lab {
        let lab = Lab::scope(&self.root);
        lock(&self.core.state).depth = 1;
        *lock(&self.scope) = Some(lab.clone());
        lab
    }

    /// Names the test that has begun, for messages.
    pub fn name_scope(&self, test: &str) {
        lock(&self.core.state).test = Some(test.into());
    }

    /// Ends a test: closes everything its scope holds. What could not be closed in order is told, one line each
    /// (L-228, L-229).
    pub fn leave_scope(&self) -> Vec<String> {
        let lab = lock(&self.scope).take();
        let problems = match lab {
            Some(lab) => self.close_from(1, &lab),
            None => Vec::new(),
        };
        let mut state = lock(&self.core.state);
        state.depth = 0;
        state.test = None;
        problems
    }

    /// Ends the file: closes everything (L-228). Problems as for [`Session::leave_scope`].
    pub fn finish(&self) -> Vec<String> {
        let mut problems = self.leave_scope();
        problems.extend(self.close_from(0, &self.root));
        lock(&self.core.snapshots).clear();
        if let Some(temp) = self.core.temp.get() {
            for entry in std::fs::read_dir(temp.dir.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                // The directory itself goes with the session; what cannot be removed is told then.
                let _gone = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
                    _ => std::fs::remove_file(entry.path()),
                };
            }
        }
        problems
    }

    /// What is still open, for a leak report.
    #[must_use]
    pub fn open_resources(&self) -> Vec<String> {
        self.core
            .open_at(0)
            .iter()
            .map(|resource| resource.describe())
            .collect()
    }

    fn close_from(&self, depth: u32, lab: &Lab) -> Vec<String> {
        let mut problems = Vec::new();
        let ending = lab.owned_vms();
        for resource in self.core.open_at(depth) {
            // The whole VM goes: what is on it needs no goodbye.
            if depth == 0 || ending.iter().any(|vm| vm.is(resource.vm())) {
                resource.abandon();
                continue;
            }
            if let Err(error) = close_one(&self.core.world, &*resource) {
                problems.push(error.to_string());
                resource.abandon();
            }
        }
        lab.close();
        problems
    }
}

/// Closes one resource on a VM that lives on; a VM whose agent does not answer is dead (L-221).
fn close_one(world: &Arc<World>, resource: &dyn Closable) -> Result<()> {
    if world.interrupted().is_some() {
        resource.abandon();
        return Ok(());
    }
    let Some(machine) = resource.vm().running_machine() else {
        resource.abandon();
        return Ok(());
    };
    let call = "close";
    let name = resource.describe();
    let mut closing = resource.start_close();
    let mut limit = Box::pin(Limit::new(world, &machine, CLOSE_LIMIT));
    let ended = world.run_until(move || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let close = std::future::poll_fn(|_| match closing.poll() {
            Some(result) => std::task::Poll::Ready(result),
            None => std::task::Poll::Pending,
        });
        let mut either = Box::pin(both(close, limit.as_mut()));
        match either.as_mut().poll(&mut context) {
            std::task::Poll::Ready(Either::First(result)) => Some(result),
            std::task::Poll::Ready(Either::Second(_)) => {
                let what = "the agent to close it".to_owned();
                let reason = Reason::Timeout {
                    what,
                    after: CLOSE_LIMIT,
                };
                Some(Err(Error::new(call, name.clone(), reason)))
            }
            std::task::Poll::Pending => None,
        }
    });
    match ended {
        Ok(Err(error)) if matches!(*error.reason, Reason::Timeout { .. }) => {
            resource.vm().die("its agent is silent");
            Err(error)
        }
        Ok(result) => result,
        Err(interrupted) => Err(Error::new(
            call,
            resource.describe(),
            Reason::Interrupted(interrupted.0),
        )),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for resource in self.core.open_at(0) {
            resource.abandon();
        }
        if let Some(lab) = lock(&self.scope).take() {
            lab.close();
        }
        self.root.close();
    }
}
