//! The life of a machine as its owner sees it: which state it is in, why it stopped, and who wants
//! to be told.
//!
//! States change on whatever thread causes them (a vCPU thread, the device loop, the owner); the
//! cell below serialises the changes, keeps the first stop cause for good, and tells subscribers in
//! order.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a machine is doing (lua-api section 3; `created` is a machine that does not exist yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    /// vCPUs may run (on `soft` they do so only under a [`Demand`](crate::Demand), L-247).
    Running,
    /// Stopped by [`Machine::pause`](crate::Machine::pause); guest time stands still (L-074).
    Paused,
    /// Ended for good.
    Stopped(StopCause),
}

/// Why a machine ended (L-061, L-062, L-251).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// The guest switched itself off (ACPI S5).
    PowerOff,
    /// A vCPU met a fault while delivering a double fault.
    TripleFault,
    /// The guest's kernel panicked; carries the panic line.
    Panic(String),
    /// A vCPU could not go on; carries the backend's reason.
    VcpuError(String),
    /// A restart in place asked for by the guest or the owner failed.
    ResetFailed(String),
    /// The owner stopped it.
    Killed,
}

impl StopCause {
    /// True for the causes that leave a VM `dead` rather than `shutdown` (L-061, L-062).
    #[must_use]
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, Self::PowerOff | Self::Killed)
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::TripleFault => f.write_str("the guest triple-faulted"),
            Self::Panic(line) => write!(f, "the guest kernel panicked: {line}"),
            Self::VcpuError(why) => write!(f, "a vCPU failed: {why}"),
            Self::ResetFailed(why) => write!(f, "the machine could not be restarted: {why}"),
            Self::Killed => f.write_str("the machine was stopped"),
        }
    }
}

/// Something that happened to a machine, told to subscribers in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// The state changed.
    State(MachineState),
    /// The machine was restarted in place: by the guest itself (`by_guest`, L-062) or by
    /// [`Machine::reset`](crate::Machine::reset).
    Restarted {
        /// True when the guest asked for it.
        by_guest: bool,
    },
    /// A panic line came out on the console, or the panic port was written (L-061).
    PanicSeen(String),
}

/// A subscriber. It is called on the thread that caused the event and must return quickly; it may
/// ring bells and note things, and must not call back into the machine.
pub type EventHook = Box<dyn Fn(&MachineEvent) + Send + Sync>;

/// The state cell of one machine.
pub(crate) struct Lifecycle {
    state: Mutex<MachineState>,
    changed: Condvar,
    boots: AtomicU64,
    panic: Mutex<Option<String>>,
    hooks: Mutex<Vec<(u64, EventHook)>>,
    next_hook: AtomicU64,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(MachineState::Running),
            changed: Condvar::new(),
            boots: AtomicU64::new(1),
            panic: Mutex::new(None),
            hooks: Mutex::new(Vec::new()),
            next_hook: AtomicU64::new(1),
        }
    }

    pub(crate) fn state(&self) -> MachineState {
        lock(&self.state).clone()
    }

    /// How many times the guest has been started: 1, and one more for each reset.
    pub(crate) fn boots(&self) -> u64 {
        self.boots.load(Ordering::Acquire)
    }

    pub(crate) fn panic_line(&self) -> Option<String> {
        lock(&self.panic).clone()
    }

    /// Moves between running and paused; false when the machine has stopped meanwhile.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        let target = if paused {
            MachineState::Paused
        } else {
            MachineState::Running
        };
        self.change(target)
    }

    /// Stops for `cause`; the first cause wins. False when it had stopped before.
    pub(crate) fn stop(&self, cause: StopCause) -> bool {
        self.change(MachineState::Stopped(cause))
    }

    /// The machine goes on from a snapshot: whether that guest had panicked replaces what was known.
    pub(crate) fn set_panic_line(&self, line: Option<String>) {
        *lock(&self.panic) = line;
    }

    pub(crate) fn restarted(&self, by_guest: bool) {
        *lock(&self.panic) = None;
        self.boots.fetch_add(1, Ordering::AcqRel);
        self.tell(&MachineEvent::Restarted { by_guest });
    }

    /// Records a guest panic; only the first line of a boot is kept and told.
    pub(crate) fn panic_seen(&self, line: &str) {
        {
            let mut seen = lock(&self.panic);
            if seen.is_some() {
                return;
            }
            *seen = Some(line.to_owned());
        }
        self.tell(&MachineEvent::PanicSeen(line.to_owned()));
    }

    fn change(&self, target: MachineState) -> bool {
        {
            let mut state = lock(&self.state);
            if matches!(*state, MachineState::Stopped(_)) {
                return false;
            }
            if *state == target {
                return true;
            }
            *state = target.clone();
            self.changed.notify_all();
        }
        self.tell(&MachineEvent::State(target));
        true
    }

    /// Blocks until `until` holds of the state or `timeout` of host time has passed; returns the
    /// state then.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
        until: impl Fn(&MachineState) -> bool,
    ) -> MachineState {
        let end = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = lock(&self.state);
        while !until(&state) {
            let left = end.map(|e| e.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.clone()
    }

    pub(crate) fn subscribe(&self, hook: EventHook) -> u64 {
        let id = self.next_hook.fetch_add(1, Ordering::Relaxed);
        lock(&self.hooks).push((id, hook));
        id
    }

    pub(crate) fn unsubscribe(&self, id: u64) {
        lock(&self.hooks).retain(|(other, _)| *other != id);
    }

    fn tell(&self, event: &MachineEvent) {
        for (_, hook) in lock(&self.hooks).iter() {
            hook(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn first_stop_cause_wins() {
        let life = Lifecycle::new();
        assert!(life.stop(StopCause::PowerOff));
        assert!(!life.stop(StopCause::Killed));
        assert!(!life.set_paused(true));
        assert_eq!(life.state(), MachineState::Stopped(StopCause::PowerOff));
    }

    #[test]
    fn subscribers_hear_events_in_order_until_they_leave() {
        let life = Lifecycle::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = heard.clone();
        let id = life.subscribe(Box::new(move |e| sink.lock().unwrap().push(e.clone())));
        life.set_paused(true);
        life.set_paused(true);
        life.panic_seen("Kernel panic - not syncing: a");
        life.panic_seen("Kernel panic - not syncing: b");
        life.unsubscribe(id);
        life.stop(StopCause::Killed);
        assert_eq!(
            *heard.lock().unwrap(),
            vec![
                MachineEvent::State(MachineState::Paused),
                MachineEvent::PanicSeen("Kernel panic - not syncing: a".into()),
            ]
        );
    }

    #[test]
    fn a_restart_counts_and_forgets_the_panic() {
        let life = Lifecycle::new();
        life.panic_seen("x");
        life.restarted(true);
        assert_eq!(life.boots(), 2);
        assert_eq!(life.panic_line(), None);
    }

    #[test]
    fn waiting_returns_on_change_and_on_timeout() {
        let life = Arc::new(Lifecycle::new());
        let state = life.wait(Some(Duration::from_millis(1)), |s| {
            *s != MachineState::Running
        });
        assert_eq!(state, MachineState::Running);
        let other = life.clone();
        let t = std::thread::spawn(move || other.stop(StopCause::TripleFault));
        let state = life.wait(None, |s| matches!(s, MachineState::Stopped(_)));
        assert_eq!(state, MachineState::Stopped(StopCause::TripleFault));
        assert!(t.join().unwrap());
    }
}
