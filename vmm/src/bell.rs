//! How host threads wait for a guest: who waits, and the hand-over that keeps `soft` deterministic.
//!
//! A host thread that wants something from the guest (a response, a console line, a state) waits on
//! the machine's [`Signal`]. Whatever may fulfil such a wish notifies it. On the software backend
//! the machine's thread, having notified, stands still until every waiter has looked at its
//! condition again (`settle`): so a condition is always judged at one exact guest instant, however
//! slow the host's threads are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use provium_devices::Signal;

use crate::pace::Pace;

/// A [`Signal`] together with the threads that wait on it.
///
/// Notified by the machine itself (vsock traffic of subscribed streams, console output with a
/// watcher, state changes, alarms), and by anyone else who changed something that a waiter's
/// condition looks at. Machines that are to be waited for together (all VMs of a lab) share one
/// bell; on `soft` they keep together in guest time, too.
pub struct Bell {
    signal: Arc<Signal>,
    pace: Arc<Pace>,
    waiters: Mutex<Waiters>,
    answered: Condvar,
    /// How many waiters there are, readable without the lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct Waiters {
    next_id: u64,
    /// Per waiter: the signal's generation that it has judged; none before the first time.
    seen: BTreeMap<u64, Option<u64>>,
}

impl Bell {
    /// A bell nobody waits at.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            signal: Signal::new(),
            pace: Arc::default(),
            waiters: Mutex::default(),
            answered: Condvar::new(),
            count: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signal to subscribe to streams.
    #[must_use]
    pub fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// What keeps the machines together.
    pub(crate) fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// Makes every waiter look at its condition again.
    pub fn ring(&self) {
        self.signal.notify();
    }

    /// Number of threads waiting now.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Blocks the calling machine thread until all waiters have judged the latest notification, or
    /// `abort` holds. `abort` is looked at when it starts and after each [`Bell::interrupt`].
    pub(crate) fn settle(&self, abort: impl Fn() -> bool) {
        let mut waiters = self.lock();
        while !abort() {
            let latest = Some(self.signal.generation());
            if waiters.seen.values().all(|seen| *seen == latest) {
                return;
            }
            waiters = self
                .answered
                .wait(waiters)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets a thread in `settle` look at its abort condition.
    pub(crate) fn interrupt(&self) {
        // Taken so that the condition cannot change unseen between a settler's look and its wait.
        drop(self.lock());
        self.answered.notify_all();
    }

    pub(crate) fn join(self: &Arc<Self>) -> Waiter {
        let mut waiters = self.lock();
        waiters.next_id += 1;
        let id = waiters.next_id;
        waiters.seen.insert(id, None);
        self.count.store(waiters.seen.len(), Ordering::Release);
        Waiter {
            bell: self.clone(),
            id,
        }
    }
}

/// One waiting thread's place at the bell.
pub(crate) struct Waiter {
    bell: Arc<Bell>,
    id: u64,
}

impl Waiter {
    /// The generation to pass to `wait_past`; read it before judging the condition.
    pub(crate) fn generation(&self) -> u64 {
        self.bell.signal.generation()
    }

    /// Declares that the condition has been judged as of `generation`, then blocks until there is
    /// another notification or host time `until` has come. True when notified.
    pub(crate) fn wait_past(&self, generation: u64, until: Option<Instant>) -> bool {
        self.bell.lock().seen.insert(self.id, Some(generation));
        self.bell.answered.notify_all();
        let left: Option<Duration> = until.map(|u| u.saturating_duration_since(Instant::now()));
        self.bell.signal.wait(generation, left) != generation
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.bell.lock();
        waiters.seen.remove(&self.id);
        self.bell.count.store(waiters.seen.len(), Ordering::Release);
        drop(waiters);
        self.bell.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn settle_returns_at_once_without_waiters() {
        let bell = Bell::new();
        bell.ring();
        bell.settle(|| false);
    }

    #[test]
    fn settle_waits_until_the_condition_was_judged() {
        let bell = Bell::new();
        let judged = Arc::new(AtomicU64::new(0));
        let (b, j) = (bell.clone(), judged.clone());
        let place = bell.join();
        let t = std::thread::spawn(move || {
            loop {
                let g = place.generation();
                j.store(g, Ordering::SeqCst);
                if g >= 100 {
                    break;
                }
                place.wait_past(g, None);
            }
            drop(b);
        });
        for _ in 0..100 {
            bell.ring();
            bell.settle(|| false);
            assert_eq!(judged.load(Ordering::SeqCst), bell.signal.generation());
        }
        t.join().unwrap();
    }

    #[test]
    fn an_interrupt_breaks_off_a_settle() {
        let bell = Bell::new();
        let _place = bell.join();
        bell.ring();
        let flag = Arc::new(AtomicU64::new(0));
        let (b, f) = (bell.clone(), flag.clone());
        let t = std::thread::spawn(move || b.settle(|| f.load(Ordering::SeqCst) == 1));
        flag.store(1, Ordering::SeqCst);
        bell.interrupt();
        t.join().unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_host_deadline() {
        let bell = Bell::new();
        let place = bell.join();
        assert!(!place.wait_past(place.generation(), Some(Instant::now())));
    }
}
