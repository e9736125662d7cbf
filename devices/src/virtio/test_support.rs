//! The mock driver and other stand-ins that the tests of all devices share.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::interrupt::Interrupt;
use crate::kick::Kick;

/// Counts interrupts or kicks.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
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
