//! The pool of host resources that one run shares out (cli-and-config ).
//!
//! A file that runs holds a [`Share`]: its reservation, its claim, and the memory of the VMs it has up. What does not
//! fit now waits in a line. The oldest request that fits is served first, and no file is admitted while a request of a
//! running file waits, so neither a large request nor a large file starves. What can never fit is refused at once, and
//! so is the youngest request when all files wait for each other.
//!
//! A classic run has another [`Rule`]: only VMs take room, of a fixed budget or of what the host has to spare
//! and those who wait are served strictly in order.

mod error;
mod line;
mod rule;
mod share;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provium_protocol::Amount;

pub use error::PoolError;
use line::Line;
use rule::Rule;
pub(crate) use share::Charge;
pub use share::Share;

/// Memory reserved for a file besides its claim: its Lua state and what belongs to it.
pub const FILE_OVERHEAD: u64 = 50 << 20;

/// Memory charged for a VM besides its own: queues, console, the software CPU's decoded code. Measured: the
/// process grows by 25 to 30 MiB besides the guest's memory when the default guest boots, and by one more under load.
pub const VM_OVERHEAD: u64 = 32 << 20;

/// Memory and CPUs that a run may use; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Core>);

struct Core {
    rule: Rule,
    total: Amount,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Amount,
    /// Files that hold a share.
    files: usize,
    /// VMs that hold room.
    vms: usize,
    /// Memory of VMs that are still starting, which the host does not miss yet.
    promised: u64,
    line: Line,
}

/// What asks for room, and gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// A file, for itself or its claim.
    File,
    /// A VM that starts.
    StartingVm,
    /// A VM that is up.
    Vm,
}

/// An amount without bounds.
const ENDLESS: Amount = Amount {
    memory_bytes: u64::MAX,
    cpus: u32::MAX,
};

impl Pool {
    /// A pool of that size.
    #[must_use]
    pub fn new(total: Amount) -> Self {
        Self::with_rule(Rule::Shared, total)
    }

    /// The budget of a classic run, of which only VMs take; nothing given is no limit.
    #[must_use]
    pub fn budget(memory_bytes: Option<u64>, cpus: Option<u32>) -> Self {
        let total = Amount {
            memory_bytes: memory_bytes.unwrap_or(ENDLESS.memory_bytes),
            cpus: cpus.unwrap_or(ENDLESS.cpus),
        };
        Self::with_rule(Rule::Budget, total)
    }

    /// For a classic run without a budget: a VM starts when none is up, or when `spare`, the bytes that the host can
    /// do without now, cover it and all VMs that are still starting.
    #[must_use]
    pub fn of_host(spare: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self::with_rule(Rule::Host(Box::new(spare)), ENDLESS)
    }

    fn with_rule(rule: Rule, total: Amount) -> Self {
        Self(Arc::new(Core {
            rule,
            total,
            state: Mutex::default(),
        }))
    }

    /// A pool in which everything fits: for a prompt, or a Rust test.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(ENDLESS)
    }

    /// Its size.
    #[must_use]
    pub fn total(&self) -> Amount {
        self.0.total
    }

    /// What is taken of it now: reservations, claims, memory of VMs (E-022).
    #[must_use]
    pub fn used(&self) -> Amount {
        self.lock().used
    }

    /// What is left of it. What has no limit shows the largest number less what is taken.
    #[must_use]
    pub fn available(&self) -> Amount {
        let state = self.lock();
        let left = difference(self.0.total, state.used);
        match self.0.rule.spare() {
            Some(spare) => Amount {
                memory_bytes: spare.saturating_sub(state.promised),
                ..left
            },
            None => left,
        }
    }

    /// What a file with that claim reserves when it starts.
    #[must_use]
    pub fn reservation(&self, claim: Amount) -> Amount {
        self.0.rule.of_file(claim)
    }

    /// Whether a file with that claim could ever start.
    #[must_use]
    pub fn could_admit(&self, claim: Amount) -> bool {
        within(self.reservation(claim), self.0.total) && within(claim, self.0.total)
    }

    /// Lets a file in, with room for the claim that it declares; nothing if it has to wait.
    #[must_use]
    pub fn admit(&self, file: &str, declared: Amount) -> Option<Share> {
        let reserved = self.reservation(declared);
        // In a classic run there is nothing that a file could wait for.
        let declared = if self.0.rule.is_classic() {
            Amount::default()
        } else {
            declared
        };
        let mut state = self.lock();
        let fits = within(sum(state.used, reserved), self.0.total);
        let waits = !self.0.rule.is_classic() && state.line.has_waiters();
        if !fits || waits {
            return None;
        }
        state.used = sum(state.used, reserved);
        state.files += 1;
        drop(state);
        Some(Share::new(self.clone(), file, reserved, declared))
    }

    /// A share of a pool that nobody manages: room is taken even where there is none.
    pub(crate) fn admit_anyhow(&self, file: &str) -> Share {
        let reserved = self.reservation(Amount::default());
        {
            let mut state = self.lock();
            state.used = sum(state.used, reserved);
            state.files += 1;
        }
        Share::new(self.clone(), file, reserved, Amount::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives room back; whoever waits for it is served and woken.
    fn release(&self, taker: Taker, amount: Amount) {
        {
            let mut state = self.lock();
            state.used = difference(state.used, amount);
            if taker != Taker::File {
                state.vms -= 1;
            }
            if taker == Taker::StartingVm {
                state.promised -= amount.memory_bytes;
            }
        }
        self.serve();
    }

    /// A file's share is given back.
    fn leave(&self, amount: Amount) {
        self.lock().files -= 1;
        self.release(Taker::File, amount);
    }

    /// A VM is up: what it takes is now missing on the host itself.
    fn settle(&self, memory: u64) {
        self.lock().promised -= memory;
    }

    /// Serves waiting requests as far as there is room, and wakes whom it served.
    fn serve(&self) {
        let woken = {
            let mut state = self.lock();
            self.serve_locked(&mut state)
        };
        woken.iter().for_each(|world| world.notify());
    }

    fn serve_locked(&self, state: &mut State) -> Vec<Arc<crate::World>> {
        if !state.line.has_waiters() {
            return Vec::new();
        }
        let Core { rule, total, .. } = &*self.0;
        let spare = rule.spare();
        let (mut used, mut vms, mut promised) = (state.used, state.vms, state.promised);
        let woken = state.line.serve(rule.is_classic(), |taker, amount| {
            let fits = match spare {
                Some(spare) => {
                    taker == Taker::File
                        || vms == 0
                        || promised.saturating_add(amount.memory_bytes) <= spare
                }
                None => within(sum(used, amount), *total),
            };
            if fits {
                used = sum(used, amount);
                if taker == Taker::StartingVm {
                    vms += 1;
                    promised += amount.memory_bytes;
                }
            }
            fits
        });
        (state.used, state.vms, state.promised) = (used, vms, promised);
        woken
    }
}

fn sum(a: Amount, b: Amount) -> Amount {
    Amount {
        memory_bytes: a.memory_bytes.saturating_add(b.memory_bytes),
        cpus: a.cpus.saturating_add(b.cpus),
    }
}

fn difference(a: Amount, b: Amount) -> Amount {
    Amount {
        memory_bytes: a.memory_bytes.saturating_sub(b.memory_bytes),
        cpus: a.cpus.saturating_sub(b.cpus),
    }
}

fn within(a: Amount, limit: Amount) -> bool {
    a.memory_bytes <= limit.memory_bytes && a.cpus <= limit.cpus
}
