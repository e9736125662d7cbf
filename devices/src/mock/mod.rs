//! Stand-ins for what surrounds a device: driver, interrupt line, kick, clock.
//!
//! One mock driver serves the unit tests, the property tests and the fuzzer of every virtio device.
//! Only built for tests and with the feature `mock`.

#![expect(
    clippy::missing_panics_doc,
    reason = "a mock panics to fail the test that misuses it"
)]

mod driver;
pub mod fuzz;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::{AlarmId, Clock};
use crate::interrupt::Interrupt;
use crate::kick::Kick;
use crate::sync::lock;

pub use driver::{Buffer, Descriptor, Driver, DriverQueue, RAM_SIZE, flag};

/// Counts interrupts or kicks.
#[derive(Debug, Default)]
pub struct Counter(AtomicUsize);

impl Counter {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// How many there were since the last call.
    pub fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl Interrupt for Counter {
    fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Kick for Counter {
    fn kick(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Alarm = Box<dyn FnOnce() + Send>;

/// A clock that a test moves by hand.
#[derive(Default)]
pub struct ManualClock {
    now: AtomicU64,
    alarms: Mutex<BTreeMap<(u64, AlarmId), Alarm>>,
    next: AtomicU64,
}

impl ManualClock {
    /// Moves the clock to `ns` and fires what is due, in order.
    pub fn advance_to(&self, ns: u64) {
        loop {
            let due = {
                let mut alarms = lock(&self.alarms);
                let first = alarms.first_entry().filter(|entry| entry.key().0 <= ns);
                first.map(|entry| entry.remove_entry())
            };
            let Some(((at, _), alarm)) = due else { break };
            self.now.fetch_max(at, Ordering::SeqCst);
            alarm();
        }
        self.now.fetch_max(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn call_at(&self, at_ns: u64, alarm: Alarm) -> AlarmId {
        let id = AlarmId(self.next.fetch_add(1, Ordering::SeqCst));
        lock(&self.alarms).insert((at_ns, id), alarm);
        id
    }

    fn cancel(&self, id: AlarmId) -> bool {
        let mut alarms = lock(&self.alarms);
        let before = alarms.len();
        alarms.retain(|key, _| key.1 != id);
        alarms.len() < before
    }
}
