//! Waiting for a guest: demands, and the one helper through which every wait of the harness goes.
//!
//! A `soft` machine moves only while somebody holds a [`Demand`] on it, and not beyond the largest
//! horizon of the demands held (L-247). A wait holds one for as long as it lasts. Machines that are
//! waited for together keep together besides: see [`crate::pace`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use provium_devices::Clock;

use crate::lifecycle::{MachineState, StopCause};
use crate::machine::Machine;
use crate::shared::Shared;

/// While it lives, the machine may run (L-247). Without effect on KVM, where guests run in real
/// time.
pub struct Demand {
    shared: Arc<Shared>,
    id: u64,
}

impl Demand {
    pub(crate) fn new(shared: &Arc<Shared>, until_ns: u64) -> Self {
        let id = shared.control.add_demand(until_ns);
        Self {
            shared: shared.clone(),
            id,
        }
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        self.shared.control.remove_demand(self.id);
    }
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited<T> {
    /// The condition was met.
    Done(T),
    /// Guest time reached the deadline first (L-248).
    GuestDeadline,
    /// Host time ran out first (L-248).
    HostBackstop,
    /// The machine stopped first (L-243).
    Stopped(StopCause),
}

impl<T> Waited<T> {
    /// The value, if the condition was met.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            _ => None,
        }
    }
}

/// The backstop in host time for `guest` time to wait: ten times as long plus 60 s (L-248).
#[must_use]
pub fn host_backstop(guest: Duration) -> Duration {
    guest
        .saturating_mul(10)
        .saturating_add(Duration::from_secs(60))
}

/// An alarm that rings the bell at a guest time, taken back when dropped.
struct DeadlineBell<'a> {
    shared: &'a Shared,
    id: provium_devices::AlarmId,
}

impl<'a> DeadlineBell<'a> {
    fn new(shared: &'a Shared, at_ns: u64) -> Self {
        let bell = shared.bell.clone();
        Self {
            shared,
            id: shared.clock.call_at(at_ns, Box::new(move || bell.ring())),
        }
    }
}

impl Drop for DeadlineBell<'_> {
    fn drop(&mut self) {
        self.shared.clock.cancel(self.id);
    }
}

impl Machine {
    /// Lets the machine run for as long as the result lives (L-247).
    #[must_use]
    pub fn demand(&self) -> Demand {
        Demand::new(self.shared(), u64::MAX)
    }

    /// Lets the machine run up to guest time `until_ns` for as long as the result lives; it stands
    /// still there.
    #[must_use]
    pub fn demand_until(&self, until_ns: u64) -> Demand {
        Demand::new(self.shared(), until_ns)
    }

    /// Lets the machine run until `condition` yields something, or guest time reaches
    /// `guest_deadline_ns`, or `host_backstop` of host time has passed, or the machine stops.
    ///
    /// The condition is looked at first of all, again whenever the machine's [`Bell`](crate::Bell)
    /// is rung (subscribe streams to [`Machine::signal`]; watch the console), and a last time
    /// before any of the other ends is reported. On `soft` the guest stands still while it is
    /// looked at, so what it sees is the state at one exact guest instant; it must not block on the
    /// guest.
    pub fn wait<T>(
        &self,
        guest_deadline_ns: Option<u64>,
        host_backstop: Option<Duration>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Waited<T> {
        let shared = self.shared();
        let place = shared.bell.join();
        if let Some(value) = condition() {
            return Waited::Done(value);
        }
        let until = host_backstop.and_then(|d| Instant::now().checked_add(d));
        let _alarm = guest_deadline_ns.map(|at| DeadlineBell::new(shared, at));
        // Dropped before `place`, so that the machine, having settled, finds nobody who wants it to
        // go on.
        let _demand = Demand::new(shared, guest_deadline_ns.unwrap_or(u64::MAX));
        loop {
            let generation = place.generation();
            let end = self.ended(guest_deadline_ns, until);
            if let Some(value) = condition() {
                return Waited::Done(value);
            }
            if let Some(end) = end {
                return end;
            }
            place.wait_past(generation, until);
        }
    }

    fn ended<T>(
        &self,
        guest_deadline_ns: Option<u64>,
        until: Option<Instant>,
    ) -> Option<Waited<T>> {
        let shared = self.shared();
        if let MachineState::Stopped(cause) = shared.life.state() {
            return Some(Waited::Stopped(cause));
        }
        if guest_deadline_ns.is_some_and(|at| shared.clock.now_ns() >= at) {
            return Some(Waited::GuestDeadline);
        }
        until
            .is_some_and(|u| Instant::now() >= u)
            .then_some(Waited::HostBackstop)
    }
}

/// Lets all of `machines` run for `duration` of guest time each, or until `host_backstop` of host
/// time has passed (`wait_until`'s pauses, L-248). Machines that are paused or stopped, or stop
/// meanwhile, are not waited for. The machines share one bell. True when every running one got its
/// time.
pub fn run_all_for(machines: &[&Machine], duration: Duration, host_backstop: Duration) -> bool {
    let Some(first) = machines.first() else {
        return true;
    };
    let span = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let target = |m: &Machine| m.now_ns().saturating_add(span);
    let targets: Vec<u64> = machines.iter().map(|m| target(m)).collect();
    let place = first.shared().bell.join();
    let alarms = machines
        .iter()
        .zip(&targets)
        .map(|(m, at)| DeadlineBell::new(m.shared(), *at));
    let _alarms: Vec<_> = alarms.collect();
    let demands = machines
        .iter()
        .zip(&targets)
        .map(|(m, at)| m.demand_until(*at));
    let _demands: Vec<_> = demands.collect();
    let until = Instant::now().checked_add(host_backstop);
    loop {
        let generation = place.generation();
        let arrived = machines
            .iter()
            .zip(&targets)
            .all(|(m, at)| m.state() != MachineState::Running || m.now_ns() >= *at);
        if arrived {
            return true;
        }
        if until.is_some_and(|u| Instant::now() >= u) {
            return false;
        }
        place.wait_past(generation, until);
    }
}
