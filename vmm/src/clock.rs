//! The machine's clock: guest nanoseconds since the machine started, alarms, and the wall clock
//! laid over them.
//!
//! On `soft` the machine's thread sets the time as instructions retire and idle periods are skipped
//! (L-247); on KVM it is host time less the spans during which the machine was paused (L-074). This
//! is the one place of the crate, together with the speed probe and host-time backstops, that reads
//! the host's clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use provium_devices::{AlarmId, Clock};

/// What an alarm does when its time has come. It runs on the machine's own thread (`soft`) or its
/// device thread (KVM) and must return quickly.
pub type AlarmAction = Box<dyn FnOnce() + Send>;

/// The clock of one machine; see the module documentation.
pub struct MachineClock {
    source: Source,
    /// Wall-clock nanoseconds since the epoch at guest nanosecond 0 (L-069).
    wall_base_ns: AtomicU64,
    alarms: Mutex<Alarms>,
    /// Time of the earliest alarm, readable without the lock; `u64::MAX` for none.
    earliest: AtomicU64,
    /// Told when an alarm became the earliest, so that the thread that fires alarms can look again.
    on_earlier: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

enum Source {
    Virtual(AtomicU64),
    Host(Mutex<HostTime>),
}

/// Guest time under KVM: `guest_ns` at the instant `since`, running on from there unless paused.
struct HostTime {
    guest_ns: u64,
    since: Option<Instant>,
}

#[derive(Default)]
struct Alarms {
    serial: u64,
    /// By time, then in the order of setting.
    pending: BTreeMap<(u64, AlarmId), AlarmAction>,
    times: BTreeMap<AlarmId, u64>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostTime {
    fn now(&self) -> u64 {
        let ran = self.since.map_or(0, |s| s.elapsed().as_nanos());
        self.guest_ns
            .saturating_add(u64::try_from(ran).unwrap_or(u64::MAX))
    }
}

impl MachineClock {
    /// A clock that stands at 0 and moves only by [`MachineClock::advance_to`].
    #[must_use]
    pub fn new_virtual(wall_base_ns: u64) -> Self {
        Self::new(Source::Virtual(AtomicU64::new(0)), wall_base_ns)
    }

    /// A clock that follows host time, paused at 0.
    #[must_use]
    pub fn new_host(wall_base_ns: u64) -> Self {
        let time = HostTime {
            guest_ns: 0,
            since: None,
        };
        Self::new(Source::Host(Mutex::new(time)), wall_base_ns)
    }

    fn new(source: Source, wall_base_ns: u64) -> Self {
        Self {
            source,
            wall_base_ns: AtomicU64::new(wall_base_ns),
            alarms: Mutex::default(),
            earliest: AtomicU64::new(u64::MAX),
            on_earlier: OnceLock::new(),
        }
    }

    /// Sets, once, who is told that an alarm became the earliest one.
    pub(crate) fn set_on_earlier(&self, hook: Box<dyn Fn() + Send + Sync>) {
        // A second hook would mean two machines on one clock, which no caller builds.
        let _first_wins = self.on_earlier.set(hook);
    }

    /// The wall clock in nanoseconds since the epoch.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        self.wall_base_ns
            .load(Ordering::Acquire)
            .saturating_add(self.now_ns())
    }

    /// Wall-clock nanoseconds since the epoch at guest nanosecond 0.
    #[must_use]
    pub fn wall_base_ns(&self) -> u64 {
        self.wall_base_ns.load(Ordering::Acquire)
    }

    /// Moves virtual time forward to `ns`; time never goes back. Without effect on a host-time
    /// clock.
    pub(crate) fn advance_to(&self, ns: u64) {
        if let Source::Virtual(now) = &self.source {
            now.fetch_max(ns, Ordering::AcqRel);
        }
    }

    /// Lets a host-time clock stand still (true) or run on (false); a virtual clock does so by
    /// itself.
    pub(crate) fn set_paused(&self, paused: bool) {
        if let Source::Host(time) = &self.source {
            let mut time = lock(time);
            match (paused, time.since) {
                (true, Some(_)) => {
                    time.guest_ns = time.now();
                    time.since = None;
                }
                (false, None) => time.since = Some(Instant::now()),
                _ => {}
            }
        }
    }

    /// Puts the clock, which stands still, at `ns` with the wall clock laid over it as given: for
    /// a machine that goes on from a snapshot.
    pub(crate) fn set(&self, ns: u64, wall_base_ns: u64) {
        self.wall_base_ns.store(wall_base_ns, Ordering::Release);
        match &self.source {
            Source::Virtual(now) => now.store(ns, Ordering::Release),
            Source::Host(time) => {
                let mut time = lock(time);
                time.guest_ns = ns;
                time.since = time.since.map(|_| Instant::now());
            }
        }
    }

    /// True for a host-time clock that stands still.
    pub(crate) fn is_paused(&self) -> bool {
        match &self.source {
            Source::Virtual(_) => false,
            Source::Host(time) => lock(time).since.is_none(),
        }
    }

    /// Guest time of the earliest pending alarm.
    #[must_use]
    pub fn next_alarm_ns(&self) -> Option<u64> {
        Some(self.earliest.load(Ordering::Acquire)).filter(|at| *at != u64::MAX)
    }

    /// To be called with the lock held, after every change.
    fn note_earliest(&self, alarms: &Alarms) {
        let first = alarms.pending.first_key_value();
        self.earliest.store(
            first.map_or(u64::MAX, |((at_ns, _), _)| *at_ns),
            Ordering::Release,
        );
    }

    /// Fires the alarms that are due, earliest first; returns how many there were. Actions may set
    /// further alarms.
    pub(crate) fn fire_due(&self) -> usize {
        let mut fired = 0;
        loop {
            let now = self.now_ns();
            if self.earliest.load(Ordering::Acquire) > now {
                return fired;
            }
            let due = {
                let mut alarms = lock(&self.alarms);
                let due = match alarms.pending.first_key_value() {
                    Some(((at_ns, _), _)) if *at_ns <= now => alarms.pop(),
                    _ => None,
                };
                self.note_earliest(&alarms);
                due
            };
            let Some(action) = due else { return fired };
            action();
            fired += 1;
        }
    }
}

impl Alarms {
    fn pop(&mut self) -> Option<AlarmAction> {
        let ((_, id), action) = self.pending.pop_first()?;
        self.times.remove(&id);
        Some(action)
    }
}

impl Clock for MachineClock {
    fn now_ns(&self) -> u64 {
        match &self.source {
            Source::Virtual(now) => now.load(Ordering::Acquire),
            Source::Host(time) => lock(time).now(),
        }
    }

    fn call_at(&self, at_ns: u64, alarm: AlarmAction) -> AlarmId {
        let (id, earliest) = {
            let mut alarms = lock(&self.alarms);
            alarms.serial += 1;
            let id = AlarmId(alarms.serial);
            alarms.pending.insert((at_ns, id), alarm);
            alarms.times.insert(id, at_ns);
            self.note_earliest(&alarms);
            (
                id,
                alarms
                    .pending
                    .first_key_value()
                    .is_some_and(|((_, first), _)| *first == id),
            )
        };
        if earliest && let Some(hook) = self.on_earlier.get() {
            hook();
        }
        id
    }

    fn cancel(&self, id: AlarmId) -> bool {
        let mut alarms = lock(&self.alarms);
        let Some(at_ns) = alarms.times.remove(&id) else {
            return false;
        };
        let cancelled = alarms.pending.remove(&(at_ns, id)).is_some();
        self.note_earliest(&alarms);
        cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn virtual_time_stands_still_until_advanced_and_never_goes_back() {
        // L-247
        let clock = MachineClock::new_virtual(1_000);
        assert_eq!(clock.now_ns(), 0);
        clock.advance_to(50);
        clock.advance_to(20);
        assert_eq!(clock.now_ns(), 50);
        assert_eq!(clock.wall_ns(), 1_050);
    }

    #[test]
    fn alarms_fire_in_order_of_time_then_of_setting() {
        let clock = Arc::new(MachineClock::new_virtual(0));
        let log = Arc::new(Mutex::new(Vec::new()));
        for (at, name) in [(20, "c"), (10, "a"), (10, "b"), (30, "d")] {
            let log = log.clone();
            clock.call_at(at, Box::new(move || lock(&log).push(name)));
        }
        clock.advance_to(20);
        assert_eq!(clock.fire_due(), 3);
        assert_eq!(*lock(&log), ["a", "b", "c"]);
        assert_eq!(clock.next_alarm_ns(), Some(30));
    }

    #[test]
    fn a_cancelled_alarm_does_not_fire() {
        let clock = MachineClock::new_virtual(0);
        let id = clock.call_at(1, Box::new(|| panic!("cancelled")));
        assert!(clock.cancel(id));
        assert!(!clock.cancel(id));
        clock.advance_to(5);
        assert_eq!(clock.fire_due(), 0);
    }

    #[test]
    fn an_alarm_may_set_an_alarm_that_is_due_too() {
        let clock = Arc::new(MachineClock::new_virtual(0));
        let again = clock.clone();
        clock.call_at(
            1,
            Box::new(move || {
                again.call_at(1, Box::new(|| {}));
            }),
        );
        clock.advance_to(1);
        assert_eq!(clock.fire_due(), 2);
    }

    #[test]
    fn only_a_new_earliest_alarm_is_announced() {
        let clock = MachineClock::new_virtual(0);
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        clock.set_on_earlier(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        clock.call_at(10, Box::new(|| {}));
        clock.call_at(20, Box::new(|| {}));
        clock.call_at(5, Box::new(|| {}));
        assert_eq!(told.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn host_time_does_not_pass_while_paused() {
        // L-074
        let clock = MachineClock::new_host(0);
        assert!(clock.is_paused());
        assert_eq!(clock.now_ns(), 0);
        clock.set_paused(false);
        while clock.now_ns() == 0 {}
        clock.set_paused(true);
        let stood = clock.now_ns();
        assert!(stood > 0);
        assert_eq!(clock.now_ns(), stood);
    }
}
