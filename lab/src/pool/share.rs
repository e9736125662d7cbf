//! What one running file holds of the pool.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use provium_protocol::Amount;

use super::error::{show_amount, show_size};
use super::{Pool, PoolError, VM_OVERHEAD, difference, sum};
use crate::World;
use crate::wait::{Either, Limit, both};

/// How long all files may wait for each other before the youngest request is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file's share of the pool; given back when the last of it is dropped.
#[derive(Clone)]
pub struct Share(Arc<Core>);

struct Core {
    pool: Pool,
    file: String,
    /// What was reserved when the file started.
    reserved: Amount,
    /// The part of it meant for a claim.
    declared: Amount,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    claim: Option<Amount>,
    /// Taken for the claim besides what was declared.
    extra: Amount,
    /// Memory of VMs that are up.
    charged: u64,
}

impl Share {
    pub(super) fn new(pool: Pool, file: &str, reserved: Amount, declared: Amount) -> Self {
        Self(Arc::new(Core {
            pool,
            file: file.to_owned(),
            reserved,
            declared,
            state: Mutex::default(),
        }))
    }

    /// What was reserved when the file started (E-014).
    #[must_use]
    pub fn reservation(&self) -> Amount {
        self.0.reserved
    }

    /// The claim that the file has made.
    #[must_use]
    pub fn claimed(&self) -> Option<Amount> {
        self.state().claim
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    /// Takes the claim: what was declared, or claimed by an earlier attempt at the file, is there already, the rest is
    /// waited for. `tell` is told what it waits for. Answers whether it is the file's first claim.
    pub(crate) async fn claim(
        &self,
        world: &Arc<World>,
        amount: Amount,
        tell: impl Fn(&str),
    ) -> Result<bool, PoolError> {
        let pool = &self.0.pool;
        if !pool.could_admit(amount) {
            let total = pool.total();
            let claim = amount;
            return Err(PoolError::Claim { claim, total });
        }
        let held = sum(self.0.declared, self.state().extra);
        let missing = difference(amount, held);
        self.acquire(world, missing, "claim", tell).await?;
        let mut state = self.state();
        state.extra = sum(state.extra, missing);
        Ok(state.claim.replace(amount).is_none())
    }

    /// Takes the memory of a VM: from the claim if the file made one, else from the pool, waiting for room.
    pub(crate) async fn charge(
        &self,
        world: &Arc<World>,
        memory: u64,
        tell: impl Fn(&str),
    ) -> Result<Charge, PoolError> {
        let memory = memory.saturating_add(VM_OVERHEAD);
        let amount = Amount {
            memory_bytes: memory,
            cpus: 0,
        };
        let budget = self.claimed().map_or(0, |claim| claim.memory_bytes);
        let from_pool = budget == 0;
        {
            let mut state = self.state();
            let charged = state.charged;
            if !from_pool {
                if charged.saturating_add(memory) > budget {
                    let claim = budget;
                    return Err(PoolError::Budget {
                        memory,
                        charged,
                        claim,
                    });
                }
            } else {
                let held = charged.saturating_add(self.0.reserved.memory_bytes);
                let total = self.0.pool.total().memory_bytes;
                if held.saturating_add(memory) > total {
                    return Err(PoolError::Vm {
                        memory,
                        held,
                        total,
                    });
                }
            }
            state.charged = charged.saturating_add(memory);
        }
        // From here on the charge is undone by dropping it.
        let mut charge = Charge {
            share: self.clone(),
            memory,
            from_pool: false,
        };
        if from_pool {
            self.acquire(world, amount, "VM", tell).await?;
            charge.from_pool = true;
        }
        Ok(charge)
    }

    /// Takes room from the pool, waiting for it in line.
    async fn acquire(
        &self,
        world: &Arc<World>,
        amount: Amount,
        what: &str,
        tell: impl Fn(&str),
    ) -> Result<(), PoolError> {
        let mut place = Place::join(&self.0.pool, &self.0.file, world, amount);
        if place.is_served() {
            place.taken = true;
            return Ok(());
        }
        loop {
            tell(&place.describe(what));
            match both(&mut place, Limit::host(world, PATIENCE)).await {
                Either::First(()) => break,
                Either::Second(_) => place.check_standstill()?,
            }
        }
        place.taken = true;
        tell("");
        Ok(())
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let extra = self.state().extra;
        self.pool.release(sum(self.reserved, extra), true);
    }
}

/// The memory of one VM; given back when dropped.
pub(crate) struct Charge {
    share: Share,
    memory: u64,
    from_pool: bool,
}

impl Drop for Charge {
    fn drop(&mut self) {
        {
            let mut state = self.share.state();
            state.charged = state.charged.saturating_sub(self.memory);
        }
        if self.from_pool {
            let amount = Amount {
                memory_bytes: self.memory,
                cpus: 0,
            };
            self.share.0.pool.release(amount, false);
        }
    }
}

/// A place in the pool's line; ready when it is served.
struct Place {
    pool: Pool,
    amount: Amount,
    number: u64,
    taken: bool,
}

impl Place {
    fn join(pool: &Pool, file: &str, world: &Arc<World>, amount: Amount) -> Self {
        let mut state = pool.lock();
        let number = state.line.join(amount, file, world);
        // Nobody else can be woken by this: a request that fits now would have been served before.
        let _woken = pool.serve(&mut state);
        drop(state);
        Self {
            pool: pool.clone(),
            amount,
            number,
            taken: false,
        }
    }

    fn is_served(&self) -> bool {
        self.pool.lock().line.is_served(self.number)
    }

    /// What it waits for, for people.
    fn describe(&self, what: &str) -> String {
        let (available, total) = (self.pool.available(), self.pool.total());
        let memory_fits = self.amount.memory_bytes <= available.memory_bytes;
        let room = if memory_fits {
            format!("{} of {} CPUs", available.cpus, total.cpus)
        } else {
            format!(
                "{} of {}",
                show_size(available.memory_bytes),
                show_size(total.memory_bytes)
            )
        };
        let wanted = show_amount(self.amount);
        format!("waits for {wanted} of the pool for a {what}; {room} left")
    }

    fn check_standstill(&self) -> Result<(), PoolError> {
        let state = self.pool.lock();
        let files = state.files;
        if !state.line.stands_still(self.number, files, PATIENCE) {
            return Ok(());
        }
        let total = self.pool.total();
        Err(PoolError::Standstill {
            wanted: self.amount,
            available: difference(total, state.used),
            total,
            files,
        })
    }
}

impl Future for Place {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.is_served() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let served = self.pool.lock().line.leave(self.number);
        if served && !self.taken {
            self.pool.release(self.amount, false);
        } else {
            // Who stood behind may fit now.
            self.pool.release(Amount::default(), false);
        }
    }
}
