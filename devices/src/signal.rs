//! A wake-up that host threads wait on: an event counter with a condition variable.
//!
//! Streams, the console and the machine each notify the signals subscribed to them; so one thread
//! can wait for any of many things (data on a stream, the machine's end, an alarm at a guest time)
//! by subscribing one signal to all of them:
//!
//! ```
//! use std::time::Duration;
//! use provium_devices::Signal;
//!
//! let signal = Signal::new();
//! let ready = || true; // what the thread waits for
//! loop {
//!     let seen = signal.generation(); // before looking, so that no change in between is missed
//!     if ready() {
//!         break;
//!     }
//!     signal.wait(seen, Some(Duration::from_secs(1)));
//! }
//! ```

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::sync::lock;

/// The event counter. Cheap to notify, safe to notify under any lock (its own lock is a leaf).
#[derive(Debug, Default)]
pub struct Signal {
    generation: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// A new signal, ready to be subscribed somewhere.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The number of notifications so far. Read it before checking the awaited condition.
    pub fn generation(&self) -> u64 {
        *lock(&self.generation)
    }

    /// Wakes every waiter.
    pub fn notify(&self) {
        let mut generation = lock(&self.generation);
        *generation = generation.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Blocks the calling thread until the generation differs from `seen`, or until `timeout` of
    /// host time is over (None: no limit). Returns the generation at that moment.
    pub fn wait(&self, seen: u64, timeout: Option<Duration>) -> u64 {
        let guard = lock(&self.generation);
        let unchanged = |generation: &mut u64| *generation == seen;
        let guard = match timeout {
            None => self
                .changed
                .wait_while(guard, unchanged)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(guard, timeout, unchanged);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        *guard
    }
}

/// The signals to notify when something changes. Subscribers that are gone drop out by themselves.
#[derive(Debug, Default)]
pub struct Subscribers {
    signals: Vec<Weak<Signal>>,
}

impl Subscribers {
    /// Adds a signal; adding one twice is harmless.
    pub fn add(&mut self, signal: &Arc<Signal>) {
        self.signals.retain(|known| known.strong_count() > 0);
        if !self
            .signals
            .iter()
            .any(|known| known.ptr_eq(&Arc::downgrade(signal)))
        {
            self.signals.push(Arc::downgrade(signal));
        }
    }

    /// Notifies all of them.
    pub fn notify(&self) {
        self.signals
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|signal| signal.notify());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_between_look_and_wait_is_not_lost() {
        let signal = Signal::new();
        let seen = signal.generation();
        signal.notify();
        assert_eq!(signal.wait(seen, None), seen + 1);
    }

    #[test]
    fn a_wait_ends_at_its_timeout() {
        let signal = Signal::new();
        assert_eq!(signal.wait(0, Some(Duration::from_millis(1))), 0);
    }

    #[test]
    fn a_waiter_is_woken_from_another_thread() {
        let signal = Signal::new();
        let waker = Arc::clone(&signal);
        let thread = std::thread::spawn(move || waker.notify());
        assert_eq!(signal.wait(0, None), 1);
        thread.join().unwrap();
    }

    #[test]
    fn subscribers_are_weak_and_unique() {
        let (kept, dropped) = (Signal::new(), Signal::new());
        let mut subscribers = Subscribers::default();
        subscribers.add(&kept);
        subscribers.add(&kept);
        subscribers.add(&dropped);
        drop(dropped);
        subscribers.notify();
        assert_eq!(kept.generation(), 1);
    }
}
