//! The world of one test file: its machines, its bell, and the one place where host threads block.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use provium_vmm::{Bell, Machine, MachineState, Waited};

/// A wait was broken off from outside: the deadline of the test, or [`World::interrupt`] (L-221).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(
    /// Why, `timed out after 5s`.
    pub String,
);

/// All that can wake a waiting thread of one test file, and all that must run while it waits.
pub struct World {
    bell: Arc<Bell>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts host-side changes: a machine came, the world was interrupted, another thread finished something.
    generation: u64,
    machines: Vec<Weak<Machine>>,
    timers: BTreeMap<(Instant, u64), ()>,
    next_timer: u64,
    interrupt: Option<String>,
    deadline: Option<(Instant, String)>,
    /// As `deadline`, put off by the time that does not count.
    file_deadline: Option<(Instant, String)>,
    off: Uncounted,
}

/// Time that does not count against a file's deadline.
#[derive(Default)]
struct Uncounted {
    past: Duration,
    now: Option<(Instant, u32)>,
}

impl Uncounted {
    fn total(&self) -> Duration {
        self.past
            + self
                .now
                .map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    fn begin(&mut self) {
        let (_, depth) = self.now.get_or_insert((Instant::now(), 0));
        *depth += 1;
    }

    fn end(&mut self) {
        if let Some((since, depth)) = &mut self.now {
            *depth -= 1;
            if *depth == 0 {
                self.past += since.elapsed();
                self.now = None;
            }
        }
    }
}

/// While it lives, time does not count against the file's deadline.
pub(crate) struct TimeOff(Arc<World>);

impl Drop for TimeOff {
    fn drop(&mut self) {
        self.0.lock().off.end();
        self.0.notify();
    }
}

impl State {
    /// The deadline that comes first.
    fn next_deadline(&self) -> Option<(Instant, &str)> {
        let file = self.file_deadline.as_ref().and_then(|(at, why)| {
            let at = at.checked_add(self.off.total())?;
            Some((at, &**why))
        });
        let test = self.deadline.as_ref().map(|(at, why)| (*at, &**why));
        file.into_iter().chain(test).min_by_key(|(at, _)| *at)
    }
}

impl World {
    /// A world without machines.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            bell: Bell::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bell that all machines of this world share.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Makes every waiting thread look again.
    pub(crate) fn notify(&self) {
        self.lock().generation += 1;
        self.changed.notify_all();
        self.bell.ring();
    }

    pub(crate) fn add_machine(&self, machine: &Arc<Machine>) {
        {
            let mut state = self.lock();
            state.machines.retain(|known| known.strong_count() > 0);
            state.machines.push(Arc::downgrade(machine));
        }
        self.notify();
    }

    /// Machines whose vCPUs may run.
    pub(crate) fn running(&self) -> Vec<Arc<Machine>> {
        let machines: Vec<_> = self
            .lock()
            .machines
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        machines
            .into_iter()
            .filter(|machine| machine.state() == MachineState::Running)
            .collect()
    }

    pub(crate) fn add_timer(&self, at: Instant) -> u64 {
        let mut state = self.lock();
        state.next_timer += 1;
        let id = state.next_timer;
        state.timers.insert((at, id), ());
        id
    }

    pub(crate) fn remove_timer(&self, at: Instant, id: u64) {
        self.lock().timers.remove(&(at, id));
    }

    /// Breaks off the wait that is going on, and all later ones until [`World::calm`].
    pub fn interrupt(&self, reason: impl Into<String>) {
        self.lock().interrupt.get_or_insert(reason.into());
        self.notify();
    }

    /// Breaks off waits at a host time, as [`World::interrupt`] does; `None` takes the deadline back.
    pub fn set_deadline(&self, deadline: Option<(Instant, String)>) {
        self.lock().deadline = deadline;
        self.notify();
    }

    /// Breaks off waits at a host time, put off by the time that does not count against a file.
    pub fn set_file_deadline(&self, deadline: Option<(Instant, String)>) {
        self.lock().file_deadline = deadline;
        self.notify();
    }

    /// How much time so far does not count against the file's deadline.
    pub fn uncounted_time(&self) -> Duration {
        self.lock().off.total()
    }

    /// From now on, until the answer is dropped, time does not count against the file's deadline.
    pub(crate) fn uncounted(self: &Arc<Self>) -> TimeOff {
        self.lock().off.begin();
        self.notify();
        TimeOff(self.clone())
    }

    /// Lets waits work again after an interruption; also takes the deadlines back.
    pub fn calm(&self) {
        let mut state = self.lock();
        state.interrupt = None;
        state.deadline = None;
        state.file_deadline = None;
    }

    /// Whether waits are broken off now, and why.
    pub fn interrupted(&self) -> Option<Interrupted> {
        let state = self.lock();
        let reason = state.interrupt.clone();
        let reason = reason.or_else(|| {
            let (at, why) = state.next_deadline()?;
            (Instant::now() >= at).then(|| why.to_owned())
        });
        reason.map(Interrupted)
    }

    /// Lets the guests run until `condition` yields something (L-247). The condition is looked at first of all, and
    /// again whenever anything happened; it must not block.
    pub fn run_until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> Result<T, Interrupted> {
        loop {
            let generation = self.lock().generation;
            if let Some(reason) = self.interrupted() {
                return Err(reason);
            }
            if let Some(value) = condition() {
                return Ok(value);
            }
            if let Some(value) = self.park(generation, &mut condition) {
                return Ok(value);
            }
        }
    }

    /// Blocks until something of the host's side changed since `generation`, a timer is due, or `condition` yields.
    fn park<T>(&self, generation: u64, condition: &mut impl FnMut() -> Option<T>) -> Option<T> {
        let timeout = self.next_timeout();
        let running = self.running();
        let Some((first, others)) = running.split_first() else {
            self.park_without_guests(generation, timeout);
            return None;
        };
        let _demands: Vec<_> = others.iter().map(|machine| machine.demand()).collect();
        let changed = || (self.lock().generation != generation).then_some(None);
        let waited = first.wait(None, timeout, || {
            changed().or_else(|| condition().map(Some))
        });
        match waited {
            Waited::Done(value) => value,
            // Timers are looked at by the futures that own them, a stopped machine by those that need it.
            Waited::HostBackstop | Waited::GuestDeadline | Waited::Stopped(_) => None,
        }
    }

    fn park_without_guests(&self, generation: u64, timeout: Option<Duration>) {
        let unchanged = |state: &mut State| state.generation == generation;
        let state = self.lock();
        // A poisoned lock is taken all the same: the state is whole after every statement.
        match timeout {
            Some(timeout) => {
                drop(self.changed.wait_timeout_while(state, timeout, unchanged));
            }
            None => drop(self.changed.wait_while(state, unchanged)),
        }
    }

    /// Host time until the next timer or the deadline.
    fn next_timeout(&self) -> Option<Duration> {
        let state = self.lock();
        let timer = state.timers.keys().next().map(|(at, _)| *at);
        let deadline = state.next_deadline().map(|(at, _)| at);
        let next = timer.into_iter().chain(deadline).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_met_condition_returns_at_once() {
        assert_eq!(World::new().run_until(|| Some(7)), Ok(7));
    }

    #[test]
    fn a_waiting_thread_sees_what_another_did() {
        let world = World::new();
        let flag = Arc::new(AtomicBool::new(false));
        let (other, set) = (world.clone(), flag.clone());
        let thread = std::thread::spawn(move || {
            set.store(true, Ordering::SeqCst);
            other.notify();
        });
        assert_eq!(
            world.run_until(|| flag.load(Ordering::SeqCst).then_some(())),
            Ok(())
        );
        thread.join().unwrap();
    }

    #[test]
    fn l221_an_interrupt_ends_waits_until_the_world_is_calm() {
        let world = World::new();
        let other = world.clone();
        let thread = std::thread::spawn(move || other.interrupt("interrupted"));
        let waited = world.run_until(|| None::<()>);
        assert_eq!(waited, Err(Interrupted("interrupted".into())));
        thread.join().unwrap();
        assert!(world.run_until(|| Some(())).is_err());
        world.calm();
        assert!(world.run_until(|| Some(())).is_ok());
    }

    #[test]
    fn l221_a_deadline_ends_waits() {
        let world = World::new();
        world.set_deadline(Some((
            Instant::now() + Duration::from_millis(2),
            "timed out after 2ms".into(),
        )));
        assert_eq!(
            world.run_until(|| None::<()>),
            Err(Interrupted("timed out after 2ms".into()))
        );
        world.set_deadline(None);
        assert!(world.run_until(|| Some(())).is_ok());
    }

    #[test]
    fn r050_time_off_puts_the_files_deadline_off_and_no_other() {
        let world = World::new();
        let soon = || Instant::now() + Duration::from_millis(20);
        let off = world.uncounted();
        let nested = world.uncounted();
        world.set_file_deadline(Some((soon(), "file timed out".into())));
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(world.interrupted(), None);
        world.set_deadline(Some((Instant::now(), "timed out".into())));
        assert_eq!(world.interrupted(), Some(Interrupted("timed out".into())));
        world.set_deadline(None);
        drop(nested);
        std::thread::sleep(Duration::from_millis(5));
        drop(off);
        assert!(world.uncounted_time() >= Duration::from_millis(45));
        let waited = world.run_until(|| None::<()>);
        assert_eq!(waited, Err(Interrupted("file timed out".into())));
    }
}
