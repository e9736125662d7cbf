//! Counters of a running machine, as `-v`, benchmarks and hang reports show them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::vcpu::Exit;

/// A reading of a machine's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest instructions retired, all vCPUs together; none on KVM, which does not tell.
    pub instructions: Option<u64>,
    /// Instructions that the software CPU lacks (they raised #UD), by name, with how often they
    /// were met.
    pub unknown_instructions: Vec<(String, u64)>,
    /// Exits by kind.
    pub exits: ExitCounts,
}

/// How often vCPUs came back to the machine, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// IN and OUT.
    pub pio: u64,
    /// Loads and stores outside RAM.
    pub mmio: u64,
    /// HLT.
    pub halt: u64,
    /// Budgets used up and kicks.
    pub interrupted: u64,
}

/// The live counters behind [`ExitCounts`].
#[derive(Debug, Default)]
pub(crate) struct ExitCounters {
    pio: AtomicU64,
    mmio: AtomicU64,
    halt: AtomicU64,
    interrupted: AtomicU64,
}

impl ExitCounters {
    pub(crate) fn count(&self, exit: &Exit<'_>) {
        let counter = match exit {
            Exit::PioRead { .. } | Exit::PioWrite { .. } => &self.pio,
            Exit::MmioRead { .. } | Exit::MmioWrite { .. } => &self.mmio,
            Exit::Hlt => &self.halt,
            Exit::Shutdown | Exit::Interrupted => &self.interrupted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> ExitCounts {
        ExitCounts {
            pio: self.pio.load(Ordering::Relaxed),
            mmio: self.mmio.load(Ordering::Relaxed),
            halt: self.halt.load(Ordering::Relaxed),
            interrupted: self.interrupted.load(Ordering::Relaxed),
        }
    }
}
