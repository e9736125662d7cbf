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

    /// Lets waits work again after an interruption; also takes the deadline back.
    pub fn calm(&self) {
        let mut state = self.lock();
        state.interrupt = None;
        state.deadline = None;
    }

    /// Whether waits are broken off now, and why.
    pub fn interrupted(&self) -> Option<Interrupted> {
        let state = self.lock();
        let expired = |(at, _): &&(Instant, String)| Instant::now() >= *at;
        let reason = state.interrupt.as_ref();
        let reason = reason.or_else(|| state.deadline.as_ref().filter(expired).map(|(_, why)| why));
        reason.cloned().map(Interrupted)
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
        let deadline = state.deadline.as_ref().map(|(at, _)| *at);
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
}
