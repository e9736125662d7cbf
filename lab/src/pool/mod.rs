//! The pool of host resources that one run shares out (cli-and-config ).
//!
//! A file that runs holds a [`Share`]: its reservation, its claim, and the memory of the VMs it has up. What does not
//! fit now waits in a line. The oldest request that fits is served first, and no file is admitted while a request of a
//! running file waits, so neither a large request nor a large file starves. What can never fit is refused at once, and
//! so is the youngest request when all files wait for each other.

mod error;
mod line;
mod share;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provium_protocol::Amount;

pub use error::PoolError;
use line::Line;
pub(crate) use share::Charge;
pub use share::Share;

/// Memory reserved for a file besides its claim: its Lua state and what belongs to it.
pub const FILE_OVERHEAD: u64 = 50 << 20;

/// Memory charged for a VM besides its own: queues, console, the software CPU's translations; an estimate.
pub const VM_OVERHEAD: u64 = 32 << 20;

/// Memory and CPUs that a run may use; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Core>);

struct Core {
    total: Amount,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Amount,
    /// Files that hold a share.
    files: usize,
    line: Line,
}

impl Pool {
    /// A pool of that size.
    #[must_use]
    pub fn new(total: Amount) -> Self {
        Self(Arc::new(Core {
            total,
            state: Mutex::default(),
        }))
    }

    /// A pool in which everything fits: for a prompt, or a Rust test.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(Amount {
            memory_bytes: u64::MAX,
            cpus: u32::MAX,
        })
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

    /// What is left of it.
    #[must_use]
    pub fn available(&self) -> Amount {
        difference(self.0.total, self.used())
    }

    /// What a file with that claim reserves when it starts.
    #[must_use]
    pub fn reservation(claim: Amount) -> Amount {
        Amount {
            memory_bytes: claim.memory_bytes.saturating_add(FILE_OVERHEAD),
            cpus: claim.cpus,
        }
    }

    /// Whether a file with that claim could ever start.
    #[must_use]
    pub fn could_admit(&self, claim: Amount) -> bool {
        within(Self::reservation(claim), self.0.total)
    }

    /// Lets a file in, with room for the claim that it declares; nothing if it has to wait.
    #[must_use]
    pub fn admit(&self, file: &str, declared: Amount) -> Option<Share> {
        let reserved = Self::reservation(declared);
        let mut state = self.lock();
        let fits = within(sum(state.used, reserved), self.0.total);
        if !fits || state.line.has_waiters() {
            return None;
        }
        state.used = sum(state.used, reserved);
        state.files += 1;
        drop(state);
        Some(Share::new(self.clone(), file, reserved, declared))
    }

    /// A share of a pool that nobody manages: room is taken even where there is none.
    pub(crate) fn admit_anyhow(&self, file: &str) -> Share {
        let reserved = Self::reservation(Amount::default());
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
    fn release(&self, amount: Amount, leaves: bool) {
        let woken = {
            let mut state = self.lock();
            state.used = difference(state.used, amount);
            state.files -= usize::from(leaves);
            self.serve(&mut state)
        };
        woken.iter().for_each(|world| world.notify());
    }

    /// Serves waiting requests, the oldest that fits first; answers the worlds to wake.
    fn serve(&self, state: &mut State) -> Vec<Arc<crate::World>> {
        let mut used = state.used;
        let woken = state.line.serve(|amount| {
            let fits = within(sum(used, amount), self.0.total);
            if fits {
                used = sum(used, amount);
            }
            fits
        });
        state.used = used;
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
