//! Deadlines and interruption of a file (lua-api L-221, cli-and-config ).
//!
//! One [`Watch`] belongs to one running file. It knows three reasons to stop: the run is
//! interrupted, the file's deadline, the running test's deadline. Lua code is stopped by an
//! instruction hook that raises again and again until the body is left, so that no `pcall`
//! survives it; waits for guests are broken off through the file's [`World`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use mlua::debug::Debug;
use mlua::{HookTriggers, Lua, VmState};
use provium_lab::World;
use provium_lab::units::show_duration;

/// Lua instructions between two looks at the clock: some tens of microseconds.
const STRIDE: u32 = 10_000;

/// Tells running files to stop; shared by a whole run.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Interrupted>);

#[derive(Default)]
struct Interrupted {
    set: AtomicBool,
    worlds: Mutex<Vec<Weak<World>>>,
}

impl Interrupt {
    /// Stops every file that holds this interrupt, and all waits of their guests.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::Release);
        for world in self.worlds().iter().filter_map(Weak::upgrade) {
            world.interrupt(Stop::Interrupted.to_string());
        }
    }

    /// Takes it back: what starts now runs.
    pub fn clear(&self) {
        self.0.set.store(false, Ordering::Release);
        for world in self.worlds().iter().filter_map(Weak::upgrade) {
            world.calm();
        }
    }

    /// True once [`Interrupt::set`] was called.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    fn worlds(&self) -> MutexGuard<'_, Vec<Weak<World>>> {
        self.0.worlds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits of this world are broken off too.
    fn covers(&self, world: &Arc<World>) {
        let mut worlds = self.worlds();
        worlds.retain(|world| world.strong_count() > 0);
        worlds.push(Arc::downgrade(world));
        drop(worlds);
        if self.is_set() {
            world.interrupt(Stop::Interrupted.to_string());
        }
    }
}

/// Why a body was stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The run was interrupted.
    Interrupted,
    /// The file's deadline passed.
    File(Duration),
    /// The test's deadline passed.
    Test(Duration),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::File(limit) => write!(f, "file timed out after {}", show_duration(*limit)),
            Self::Test(limit) => write!(f, "timed out after {}", show_duration(*limit)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    at: Instant,
    length: Duration,
}

impl Limit {
    fn start(length: Duration) -> Option<Self> {
        Some(Self {
            at: Instant::now().checked_add(length)?,
            length,
        })
    }

    /// Whether it has passed when it was put off by `off`.
    fn passed(&self, off: Duration) -> bool {
        self.at.elapsed() >= off && Instant::now() >= self.at
    }
}

#[derive(Debug, Default)]
struct Limits {
    file: Option<Limit>,
    test: Option<Limit>,
    /// The first stop seen since the test began, with the author's position at that moment.
    hit: Option<(Stop, Option<String>)>,
    /// While closing up, the file's own code may finish what it must.
    disarmed: bool,
}

/// The deadlines of one file.
pub(crate) struct Watch {
    interrupt: Interrupt,
    world: Arc<World>,
    limits: Mutex<Limits>,
}

impl Watch {
    /// A watch over `world` whose file deadline starts now.
    pub(crate) fn new(interrupt: Interrupt, file: Option<Duration>, world: Arc<World>) -> Self {
        let limits = Limits {
            file: file.and_then(Limit::start),
            ..Limits::default()
        };
        interrupt.covers(&world);
        Self {
            interrupt,
            world,
            limits: Mutex::new(limits),
        }
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a test with its own deadline, which also bounds waits for guests.
    pub(crate) fn begin_test(&self, deadline: Option<Duration>) {
        let mut limits = self.limits();
        limits.test = deadline.and_then(Limit::start);
        limits.hit = None;
        let file = limits
            .file
            .map(|limit| (limit.at, Stop::File(limit.length).to_string()));
        let test = limits
            .test
            .map(|limit| (limit.at, Stop::Test(limit.length).to_string()));
        self.world.set_file_deadline(file);
        self.world.set_deadline(test);
    }

    /// Ends the test; answers what stopped it and where it was then. Waits work again, so that
    /// its scope can be closed.
    pub(crate) fn end_test(&self) -> Option<(Stop, Option<String>)> {
        let mut limits = self.limits();
        limits.test = None;
        self.world.calm();
        limits.hit.take()
    }

    /// From now on nothing is stopped any more: the file is being closed.
    pub(crate) fn disarm(&self) {
        self.limits().disarmed = true;
        self.world.calm();
    }

    /// Why the running code must stop now, if it must.
    pub(crate) fn stop(&self) -> Option<Stop> {
        let limits = self.limits();
        if limits.disarmed {
            return None;
        }
        if self.interrupt.is_set() {
            return Some(Stop::Interrupted);
        }
        let passed = |limit: Option<Limit>, off: Duration| {
            let limit = limit.filter(|limit| limit.passed(off))?;
            Some(limit.length)
        };
        passed(limits.file, self.world.uncounted_time())
            .map(Stop::File)
            .or_else(|| passed(limits.test, Duration::ZERO).map(Stop::Test))
    }

    /// The stop to act on now, remembered together with the author's position.
    pub(crate) fn observe(&self, lua: &Lua) -> Option<Stop> {
        let stop = self.stop()?;
        let position = author_frame(lua).map(|(file, line)| format!("{file}:{line}"));
        self.limits().hit.get_or_insert((stop, position));
        Some(stop)
    }

    /// Lets Lua code of `lua` be stopped by this watch.
    pub(crate) fn install(self: &Arc<Self>, lua: &Lua) -> mlua::Result<()> {
        self.hook(lua, STRIDE)
    }

    fn hook(self: &Arc<Self>, lua: &Lua, stride: u32) -> mlua::Result<()> {
        let watch = Arc::clone(self);
        let triggers = HookTriggers::new().every_nth_instruction(stride);
        lua.set_global_hook(triggers, move |lua: &Lua, _: &Debug<'_>| {
            match watch.observe(lua) {
                Some(stop) => {
                    // Every further instruction raises too, until the body is left for good.
                    watch.hook(lua, 1)?;
                    Err(mlua::Error::runtime(stop.to_string()))
                }
                None if stride == 1 => watch.hook(lua, STRIDE).map(|()| VmState::Continue),
                None => Ok(VmState::Continue),
            }
        })
    }
}

/// File and line of the nearest author frame: a chunk named by its path.
pub(crate) fn author_frame(lua: &Lua) -> Option<(String, usize)> {
    for level in 0.. {
        let frame = lua.inspect_stack(level, |debug| {
            let source = debug.source();
            let file = source.source.as_deref()?.strip_prefix('@')?.to_owned();
            Some((file, debug.current_line()?))
        });
        // No frame at this level: the stack ends here.
        if let Some(found) = frame? {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(interrupt: &Interrupt, file: Option<Duration>) -> Arc<Watch> {
        Arc::new(Watch::new(interrupt.clone(), file, World::new()))
    }

    fn stopped(source: &str) -> (bool, Option<(Stop, Option<String>)>) {
        let lua = Lua::new();
        let watch = watch(&Interrupt::default(), None);
        watch.install(&lua).unwrap();
        watch.begin_test(Some(Duration::from_millis(50)));
        let result = lua.load(source).set_name("@a.test.lua").exec();
        (result.is_err(), watch.end_test())
    }

    #[test]
    fn l221_endless_loops_end_and_pcall_does_not_help() {
        for source in [
            "\nwhile true do end",
            "\nwhile true do pcall(function() while true do end end) end",
            "\npcall(function() while true do pcall(error) end end) while true do end",
            "\ncoroutine.wrap(function() while true do pcall(function() while true do end end) end end)()",
            "\nwhile true do local c = coroutine.create(function() while true do end end) coroutine.resume(c) end",
        ] {
            let (failed, hit) = stopped(source);
            assert!(failed, "{source}");
            let (stop, position) = hit.unwrap();
            assert_eq!(stop, Stop::Test(Duration::from_millis(50)));
            assert_eq!(position.as_deref(), Some("a.test.lua:2"), "{source}");
        }
    }

    #[test]
    fn l221_the_next_test_runs_at_full_speed() {
        let lua = Lua::new();
        let watch = watch(&Interrupt::default(), None);
        watch.install(&lua).unwrap();
        watch.begin_test(Some(Duration::from_millis(10)));
        assert!(lua.load("while true do end").exec().is_err());
        assert!(watch.end_test().is_some());
        watch.begin_test(None);
        let sum: i64 = lua
            .load("local s = 0 for i = 1, 1e5 do s = s + i end return s")
            .eval()
            .unwrap();
        assert_eq!((sum, watch.end_test()), (5_000_050_000, None));
    }

    #[test]
    fn r062_an_interrupt_stops_everything_and_beats_deadlines() {
        let interrupt = Interrupt::default();
        let watch = watch(&interrupt, Some(Duration::ZERO));
        assert_eq!(watch.stop(), Some(Stop::File(Duration::ZERO)));
        interrupt.set();
        assert_eq!(watch.stop(), Some(Stop::Interrupted));
        watch.disarm();
        assert_eq!(watch.stop(), None);
    }
}
