//! The state of one running file: its labs, its scope, its deadlines, where it prints.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mlua::{Lua, WeakLua};
use provium_lab::{Harness, Lab, Session, Site, Vm, VmState, World};

use crate::classic::ConsoleLog;
use crate::fixture::ClassicFixtures;
use crate::report::{ConsoleTail, Observer};
use crate::runner::FileJob;
use crate::watch::{Interrupt, Watch, author_frame};

/// Bytes of each console that a failure carries (L-220).
const CONSOLE_TAIL: usize = 4096;

/// Gives the path of a file as outputs show it (cli-and-config R-039).
pub type Display = Box<dyn Fn(&Path) -> String + Send + Sync>;

/// What all files of a run share.
pub struct Setup {
    /// Configuration, backend, guests, events.
    pub harness: Arc<Harness>,
    /// The path of a file as outputs show it.
    pub display: Display,
    /// Stdout carries JSON or events, so whatever a file prints goes to stderr (L-001).
    pub stdout_is_data: bool,
    /// Directories given on the command line: beside the roots, what bounds the search for classic fixtures (C-060).
    tops: Vec<PathBuf>,
    classic: ClassicFixtures,
}

impl Setup {
    /// That of a run.
    #[must_use]
    pub fn new(harness: Arc<Harness>, display: Display, stdout_is_data: bool) -> Self {
        Self {
            harness,
            display,
            stdout_is_data,
            tops: Vec::new(),
            classic: ClassicFixtures::default(),
        }
    }

    /// With the directories given on the command line.
    #[must_use]
    pub fn with_tops(mut self, tops: Vec<PathBuf>) -> Self {
        self.tops = tops;
        self
    }

    pub(crate) fn tops(&self) -> &[PathBuf] {
        &self.tops
    }

    pub(crate) fn classic(&self) -> &ClassicFixtures {
        &self.classic
    }
}

/// A file while it runs.
pub(crate) struct FileState {
    pub(crate) watch: Arc<Watch>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) session: Session,
    setup: Arc<Setup>,
    interrupt: Interrupt,
    chain: Vec<String>,
    path: PathBuf,
    poisoned: AtomicBool,
    settings: Mutex<Settings>,
}

/// What the file has told about itself.
#[derive(Default)]
struct Settings {
    /// `provium.timeout` (L-013).
    test_timeout: Option<Duration>,
    /// `provium.reset_between_tests` (L-011).
    reset_between_tests: bool,
    /// Directories of the author's files by their display path.
    dirs: HashMap<String, PathBuf>,
}

impl FileState {
    pub(crate) fn new(job: &FileJob, observer: Arc<dyn Observer>) -> Arc<Self> {
        Self::below(job, observer, Vec::new())
    }

    /// The same for a fixture; `chain` are the names of those being built around it and its own.
    pub(crate) fn below(
        job: &FileJob,
        observer: Arc<dyn Observer>,
        chain: Vec<String>,
    ) -> Arc<Self> {
        let display = (job.setup.display)(&job.path);
        let display = job.name.clone().unwrap_or(display);
        let harness = &job.setup.harness;
        let session = match &job.share {
            Some(share) => Session::with_share(harness, display, share.clone()),
            None => Session::new(harness, display),
        };
        let world = Arc::clone(session.world());
        let file = Self {
            watch: Arc::new(Watch::new(job.interrupt.clone(), job.timeout, world)),
            observer,
            session,
            setup: Arc::clone(&job.setup),
            interrupt: job.interrupt.clone(),
            chain,
            path: job.path.clone(),
            poisoned: AtomicBool::new(false),
            settings: Mutex::default(),
        };
        // The file itself is the first author's file.
        file.display_path(&job.path);
        Arc::new(file)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the library ask where in the test something is made (L-199).
    pub(crate) fn watch_positions_of(&self, lua: &Lua) {
        let lua: WeakLua = lua.weak();
        self.session.set_site_finder(move || {
            let (file, line) = author_frame(&lua.try_upgrade()?)?;
            Some(Site {
                file,
                line: u32::try_from(line).ok()?,
            })
        });
    }

    /// The harness panicked: nothing of this file can be trusted from here on (L-219).
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        self.session.world()
    }

    /// A number for a handle, unique in the run (L-005).
    pub(crate) fn new_number(&self) -> u64 {
        self.setup.harness.new_id()
    }

    /// The name of an author's file in outputs and chunk names; its directory is remembered.
    pub(crate) fn display_path(&self, path: &Path) -> String {
        let display = (self.setup.display)(path);
        let dir = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        self.settings().dirs.insert(display.clone(), dir);
        display
    }

    /// Directory of the author's file of that display path, else of the test file. What `dofile` or `loadfile` read
    /// is known by the path that was given to them.
    pub(crate) fn dir_of(&self, display: Option<&str>) -> PathBuf {
        let known = |display: &str| self.settings().dirs.get(display).cloned();
        let read = |display: &str| {
            let path = self.host_path(display.as_bytes());
            path.is_file()
                .then(|| path.parent().map(Path::to_path_buf))
                .flatten()
        };
        let dir = display.and_then(|display| known(display).or_else(|| read(display)));
        dir.unwrap_or_else(|| self.dir().to_path_buf())
    }

    pub(crate) fn stdout_is_data(&self) -> bool {
        self.setup.stdout_is_data
    }

    pub(crate) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// A host path given by an author, relative to the current directory (L-007).
    pub(crate) fn host_path(&self, path: &[u8]) -> PathBuf {
        let path = Path::new(OsStr::from_bytes(path));
        std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
    }

    /// Where `require` looks: every root, then the file's own directory.
    pub(crate) fn package_path(&self) -> String {
        let own = self.dir().to_path_buf();
        let dirs = self.setup.harness.config().roots.iter().chain([&own]);
        let places: Vec<String> = dirs
            .map(|dir| format!("{0}/?.lua;{0}/?/init.lua", dir.display()))
            .collect();
        places.join(";")
    }

    /// The default deadline of tests that start now.
    pub(crate) fn test_timeout(&self) -> Option<Duration> {
        self.settings().test_timeout
    }

    /// Changes it.
    pub(crate) fn set_test_timeout(&self, timeout: Option<Duration>) {
        self.settings().test_timeout = timeout;
    }

    /// Whether the lab is put back after each test.
    pub(crate) fn resets_between_tests(&self) -> bool {
        self.settings().reset_between_tests
    }

    /// Changes it.
    pub(crate) fn set_reset_between_tests(&self, on: bool) {
        self.settings().reset_between_tests = on;
    }

    /// Names of the fixtures that are being built around this file, outermost first; its own at the end.
    pub(crate) fn chain(&self) -> &[String] {
        &self.chain
    }

    /// Its canonical path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Begins the scope of a test; answers its lab (L-020).
    pub(crate) fn begin_scope(&self, test: &str) -> Lab {
        let lab = self.session.enter_scope();
        self.session.name_scope(test);
        lab
    }

    /// Ends it: what the test declared is closed (L-228, L-229).
    pub(crate) fn end_scope(&self) {
        for problem in self.session.leave_scope() {
            self.observer.warn(&problem);
        }
    }

    /// Ends the file: everything it made is closed.
    pub(crate) fn close(&self) {
        for problem in self.session.finish() {
            self.observer.warn(&problem);
        }
    }

    /// What every VM of the file has written on its console, by name.
    pub(crate) fn console_logs(&self) -> Vec<ConsoleLog> {
        let vms = self.session.root().vms(true);
        vms.iter()
            .map(|vm| ConsoleLog {
                vm: vm.name().to_owned(),
                bytes: vm.console().read_log(),
            })
            .filter(|log| !log.bytes.is_empty())
            .collect()
    }

    /// The end of the console of every VM that is up or died (L-220); for a test that was stopped
    /// (`hung`) also where each vCPU stands.
    pub(crate) fn console_tails(&self, hung: bool) -> Vec<ConsoleTail> {
        let root = self.session.root();
        let scope = self.session.current();
        let mut vms = root.vms(true);
        if scope != *root {
            vms.extend(scope.vms(true));
        }
        vms.iter().filter_map(|vm| console_tail(vm, hung)).collect()
    }
}

fn console_tail(vm: &Vm, hung: bool) -> Option<ConsoleTail> {
    let state = vm.state();
    if matches!(state, VmState::Created | VmState::Shutdown) {
        return None;
    }
    let text = String::from_utf8_lossy(&vm.console().tail(CONSOLE_TAIL)).into_owned();
    let mut notes = Vec::new();
    if state == VmState::Dead {
        notes.push("is dead".to_owned());
    }
    if hung && let Some(machine) = vm.machine() {
        match machine.places() {
            Ok(places) => notes.extend(places.iter().map(ToString::to_string)),
            Err(error) => notes.push(format!("does not tell where its vCPUs stand: {error}")),
        }
    }
    Some(ConsoleTail {
        vm: vm.name().to_owned(),
        text,
        notes,
    })
}
