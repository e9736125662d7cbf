//! Who may run: the gate between a machine's executor threads and the threads that own or use it.
//!
//! Executors are the threads that move the guest: one on `soft`, one per vCPU and the device loop
//! on KVM. Each calls [`Control::checkpoint`] between stretches of work and blocks there while the
//! machine is paused, held by somebody who looks at a stopped world, about to be reset, or (`soft`)
//! not asked for by any demand (L-247). Everything that wants an executor's attention sets a wish
//! here and then kicks it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::pace::{Permit, Seat};

/// How long an executor waits, in host time, for another one of its pace that nobody lets run: one
/// that the host waits for alternately with this one is let run much sooner.
const RESTING: Duration = Duration::from_millis(20);

/// Who asked for a restart in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetBy {
    Guest,
    Owner,
}

/// What an executor does after a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    /// Run; on `soft`, not beyond this guest time.
    Run {
        /// Largest horizon of all demands; `u64::MAX` without a bound.
        until_ns: u64,
        /// Whatever comes up comes up after this guest time; until then nothing is due.
        from_ns: u64,
    },
    /// The world stands still and this executor was chosen to restart the machine, then to call
    /// [`Control::reset_done`].
    Reset(ResetBy),
    /// Leave the thread.
    Stop,
}

pub(crate) struct Control {
    state: Mutex<State>,
    /// Executors wait here.
    go: Condvar,
    /// Threads that need a stopped world wait here.
    parked: Condvar,
    /// Something in `state` wants the executors' attention before their stretch is over.
    attention: AtomicBool,
    /// Makes executors reach their checkpoint soon.
    kick: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Makes the executor that owns the devices look for host activity.
    nudge: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Runs only under a demand.
    gated: bool,
    /// The place among machines that run together (`soft`, which has one executor).
    seat: OnceLock<Seat>,
}

#[derive(Default)]
struct State {
    executors: usize,
    parked: usize,
    paused: bool,
    holds: usize,
    stop: bool,
    reset: Option<ResetBy>,
    resetting: bool,
    demands: BTreeMap<u64, u64>,
    /// The demands are not those of the executor's last checkpoint.
    demands_changed: bool,
    next_demand: u64,
    /// Host activity (a device kick, a new alarm) since the executor last looked.
    activity: bool,
}

impl State {
    /// True when executors must not run, whatever the demand.
    fn barred(&self) -> bool {
        self.paused || self.holds > 0 || self.reset.is_some()
    }

    /// True when the executors have something to look at.
    fn wanted(&self) -> bool {
        self.stop || self.activity || self.demands_changed || self.barred()
    }

    fn all_parked(&self) -> bool {
        self.parked == self.executors
    }
}

impl Control {
    /// `gated`: run only while a demand is held (`soft`).
    pub(crate) fn new(gated: bool) -> Self {
        Self {
            state: Mutex::default(),
            go: Condvar::new(),
            parked: Condvar::new(),
            attention: AtomicBool::new(false),
            kick: OnceLock::new(),
            nudge: OnceLock::new(),
            gated,
            seat: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_kick(&self, kick: Box<dyn Fn() + Send + Sync>) {
        let _first_wins = self.kick.set(kick);
    }

    pub(crate) fn set_nudge(&self, nudge: Box<dyn Fn() + Send + Sync>) {
        let _first_wins = self.nudge.set(nudge);
    }

    /// The executor is to keep together with others; see [`Control::look_again`].
    pub(crate) fn set_seat(&self, seat: Seat) {
        let _first_wins = self.seat.set(seat);
    }

    /// Wakes an executor that waits for the others of its pace.
    pub(crate) fn look_again(&self) {
        // Taken so that what it looks at cannot change unseen between its look and its wait.
        drop(self.lock());
        self.go.notify_all();
    }

    /// Asks the others of the pace whether an executor may go on at `now_ns`, and how far. By itself
    /// it may if it is `wanted`.
    fn in_pace(&self, state: &State, wanted: bool, now_ns: u64, idle_ns: u64) -> Permit {
        let stays = || Permit {
            until_ns: None,
            from_ns: 0,
            wake: Vec::new(),
        };
        match self.seat.get() {
            Some(seat) if wanted => seat.permit(now_ns, idle_ns),
            Some(seat) if state.demands.is_empty() && !state.barred() && !state.stop => {
                seat.rest();
                stays()
            }
            Some(seat) => Permit {
                wake: seat.leave(),
                ..stays()
            },
            None => Permit {
                until_ns: wanted.then_some(u64::MAX),
                ..stays()
            },
        }
    }

    /// Blocks an executor that has to wait for the others of its pace until there is news for it.
    fn await_pace<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        seat: &Seat,
    ) -> MutexGuard<'a, State> {
        loop {
            let waited = self.go.wait_timeout(state, RESTING);
            let end;
            (state, end) = waited.unwrap_or_else(PoisonError::into_inner);
            if !end.timed_out() {
                return state;
            }
            let wake = seat.pass_resting();
            drop(state);
            wake.iter().for_each(|wake| wake());
            state = self.lock();
            // Somebody may have notified while the lock was given up.
            if seat.is_running() || state.wanted() {
                return state;
            }
        }
    }

    /// Tells the others of the pace that this executor stands still, before it does.
    fn leave_pace(&self) {
        for wake in self.seat.get().map(Seat::leave).unwrap_or_default() {
            wake();
        }
    }

    /// Registers an executor; it counts as running until it leaves or parks.
    pub(crate) fn enter(&self) {
        self.lock().executors += 1;
    }

    /// Ends an executor's registration.
    pub(crate) fn leave(&self) {
        self.leave_pace();
        self.lock().executors -= 1;
        self.parked.notify_all();
        self.go.notify_all();
    }

    /// True when an executor should come to its checkpoint before its stretch is over.
    pub(crate) fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// True when somebody waits for the executors to stand still or leave.
    pub(crate) fn wants_to_hold(&self) -> bool {
        let state = self.lock();
        state.stop || state.barred()
    }

    /// True when an executor should leave its stretch for a checkpoint.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        if !self.wants_attention() {
            return false;
        }
        let state = self.lock();
        state.stop || state.barred() || state.demands_changed
    }

    /// Blocks until the calling executor may go on, and says how. `now_ns` tells guest time, which
    /// may be another after the wait: a machine that is put back to a snapshot waits here. For
    /// `idle_ns` from then on the guest has nothing to do.
    pub(crate) fn checkpoint(&self, now_ns: impl Fn() -> u64, idle_ns: u64) -> Go {
        let mut state = self.lock();
        let mut counted = false;
        let go = loop {
            let now_ns = now_ns();
            let until_ns = self.horizon(&state);
            let wanted = !state.stop && !state.barred() && until_ns > now_ns;
            let permit = self.in_pace(&state, wanted, now_ns, idle_ns);
            if !permit.wake.is_empty() {
                // They take locks like this one.
                drop(state);
                permit.wake.iter().for_each(|wake| wake());
                state = self.lock();
                continue;
            }
            if state.stop {
                break Go::Stop;
            }
            if let Some(paced) = permit.until_ns {
                state.demands_changed = false;
                let until_ns = until_ns.min(paced);
                let from_ns = permit.from_ns.min(until_ns);
                break Go::Run { until_ns, from_ns };
            }
            if !counted {
                counted = true;
                state.parked += 1;
                self.parked.notify_all();
            }
            if let Some(by) = state.reset
                && !state.resetting
                && state.holds == 0
                && state.all_parked()
            {
                state.resetting = true;
                self.refresh_attention(&state);
                // Stays counted as parked: the world is still while it restarts the machine.
                return Go::Reset(by);
            }
            state = match self.seat.get().filter(|_| wanted) {
                Some(seat) => self.await_pace(state, seat),
                None => self.go.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        };
        if counted {
            state.parked -= 1;
        }
        self.refresh_attention(&state);
        go
    }

    /// Ends the restart that a checkpoint handed out.
    pub(crate) fn reset_done(&self) {
        let mut state = self.lock();
        state.reset = None;
        state.resetting = false;
        state.parked -= 1;
        self.refresh_attention(&state);
        self.go.notify_all();
        self.parked.notify_all();
    }

    /// Blocks an idle executor until host activity, another wish, or `timeout`. The executor counts
    /// as parked meanwhile, so that a pause need not wake it.
    pub(crate) fn idle(&self, timeout: Option<Duration>) {
        self.leave_pace();
        let mut state = self.lock();
        state.parked += 1;
        self.parked.notify_all();
        while !state.wanted() {
            let waited = match timeout {
                Some(t) => {
                    let (next, end) = self
                        .go
                        .wait_timeout(state, t)
                        .unwrap_or_else(PoisonError::into_inner);
                    state = next;
                    end.timed_out()
                }
                None => {
                    state = self.go.wait(state).unwrap_or_else(PoisonError::into_inner);
                    false
                }
            };
            if waited {
                break;
            }
        }
        state.parked -= 1;
    }

    /// Takes note of host activity: true when there was some since the last call.
    pub(crate) fn take_activity(&self) -> bool {
        let mut state = self.lock();
        let had = std::mem::take(&mut state.activity);
        self.refresh_attention(&state);
        had
    }

    /// Host activity: a device was kicked, or the next alarm moved.
    pub(crate) fn note_activity(&self) {
        let mut state = self.lock();
        state.activity = true;
        self.attention.store(true, Ordering::Release);
        drop(state);
        self.go.notify_all();
        if let Some(nudge) = self.nudge.get() {
            nudge();
        }
    }

    pub(crate) fn request_stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        self.alert(state);
    }

    pub(crate) fn request_reset(&self, by: ResetBy) {
        let mut state = self.lock();
        state.reset.get_or_insert(by);
        self.alert(state);
    }

    /// Asks for a reset and waits until it is done. False when the machine stops instead.
    pub(crate) fn reset_and_wait(&self) -> bool {
        self.request_reset(ResetBy::Owner);
        let mut state = self.lock();
        while state.reset.is_some() && !state.stop && state.executors > 0 {
            state = self
                .parked
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.reset.is_none()
    }

    /// Bars the executors and waits until all stand still. False when the machine stops instead.
    pub(crate) fn pause(&self) -> bool {
        let mut state = self.lock();
        state.paused = true;
        self.alert(state);
        self.wait_parked(self.lock())
    }

    pub(crate) fn resume(&self) {
        self.lock().paused = false;
        self.go.notify_all();
    }

    /// Runs `look` while no executor moves.
    pub(crate) fn with_still_world<T>(&self, look: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        state.holds += 1;
        self.alert(state);
        self.wait_parked(self.lock());
        let result = look();
        let mut state = self.lock();
        state.holds -= 1;
        self.refresh_attention(&state);
        self.go.notify_all();
        result
    }

    /// Adds a demand with a horizon; the returned number removes it.
    pub(crate) fn add_demand(&self, until_ns: u64) -> u64 {
        let mut state = self.lock();
        state.next_demand += 1;
        let id = state.next_demand;
        state.demands.insert(id, until_ns);
        if self.gated {
            state.demands_changed = true;
            self.alert(state);
        }
        id
    }

    pub(crate) fn remove_demand(&self, id: u64) {
        let mut state = self.lock();
        state.demands.remove(&id);
        if self.gated {
            state.demands_changed = true;
            self.alert(state);
        }
    }

    fn wait_parked(&self, mut state: MutexGuard<'_, State>) -> bool {
        while (!state.all_parked() || state.resetting) && !state.stop {
            state = self
                .parked
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !state.stop
    }

    fn horizon(&self, state: &State) -> u64 {
        if self.gated {
            state.demands.values().copied().max().unwrap_or(0)
        } else {
            u64::MAX
        }
    }

    fn refresh_attention(&self, state: &State) {
        self.attention.store(
            state.stop || state.activity || state.barred(),
            Ordering::Release,
        );
    }

    fn alert(&self, state: MutexGuard<'_, State>) {
        self.attention.store(true, Ordering::Release);
        drop(state);
        self.go.notify_all();
        self.parked.notify_all();
        if let Some(kick) = self.kick.get() {
            kick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    /// An executor that counts its stretches; returns when told to stop.
    fn executor(control: &Arc<Control>, steps: &Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
        control.enter();
        let (control, steps) = (control.clone(), steps.clone());
        std::thread::spawn(move || {
            loop {
                match control.checkpoint(|| steps.load(Ordering::SeqCst), 0) {
                    Go::Run { .. } => {
                        steps.fetch_add(1, Ordering::SeqCst);
                    }
                    Go::Reset(_) => control.reset_done(),
                    Go::Stop => break control.leave(),
                }
            }
        })
    }

    #[test]
    fn a_gated_executor_runs_exactly_to_the_largest_horizon() {
        // L-247
        let control = Arc::new(Control::new(true));
        let steps = Arc::new(AtomicU64::new(0));
        let t = executor(&control, &steps);
        let a = control.add_demand(10);
        let b = control.add_demand(25);
        while steps.load(Ordering::SeqCst) < 25 {
            std::thread::yield_now();
        }
        assert!(control.pause());
        assert_eq!(steps.load(Ordering::SeqCst), 25);
        control.remove_demand(a);
        control.remove_demand(b);
        control.request_stop();
        t.join().unwrap();
    }

    #[test]
    fn pause_holds_all_executors_and_resume_lets_them_go() {
        let control = Arc::new(Control::new(false));
        let steps = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3).map(|_| executor(&control, &steps)).collect();
        assert!(control.pause());
        let stood = steps.load(Ordering::SeqCst);
        std::thread::yield_now();
        assert_eq!(steps.load(Ordering::SeqCst), stood);
        control.resume();
        while steps.load(Ordering::SeqCst) == stood {
            std::thread::yield_now();
        }
        control.request_stop();
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[test]
    fn a_reset_is_handed_to_one_executor_while_all_stand_still() {
        let control = Arc::new(Control::new(false));
        let steps = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3).map(|_| executor(&control, &steps)).collect();
        for _ in 0..50 {
            assert!(control.reset_and_wait());
        }
        control.request_stop();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert!(!control.pause());
    }

    #[test]
    fn a_reset_also_happens_while_paused_or_without_demand() {
        let control = Arc::new(Control::new(true));
        let steps = Arc::new(AtomicU64::new(0));
        let t = executor(&control, &steps);
        assert!(control.reset_and_wait());
        assert!(control.pause());
        assert!(control.reset_and_wait());
        assert_eq!(steps.load(Ordering::SeqCst), 0);
        control.request_stop();
        t.join().unwrap();
    }

    #[test]
    fn a_still_world_is_exclusive_of_running() {
        let control = Arc::new(Control::new(false));
        let steps = Arc::new(AtomicU64::new(0));
        let t = executor(&control, &steps);
        for _ in 0..50 {
            control.with_still_world(|| {
                let stood = steps.load(Ordering::SeqCst);
                std::thread::yield_now();
                assert_eq!(steps.load(Ordering::SeqCst), stood);
            });
        }
        control.request_stop();
        t.join().unwrap();
    }

    #[test]
    fn idle_ends_on_activity_and_on_timeout() {
        let control = Arc::new(Control::new(false));
        control.enter();
        control.idle(Some(Duration::from_millis(1)));
        control.note_activity();
        assert!(control.wants_attention());
        control.idle(None);
        assert!(control.take_activity());
        assert!(!control.take_activity());
        assert!(!control.wants_attention());
    }
}
