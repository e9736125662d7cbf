//! What one running file holds of the pool.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use provium_protocol::Amount;

use super::error::{show_amount, show_size};
use super::line::Wanted;
use super::rule::Rule;
use super::{Pool, PoolError, Taker, difference, sum, within};
use crate::World;
use crate::wait::{Either, Limit, both};

/// How long all files may wait for each other before the youngest request is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same where the host's memory is waited for, which others may free.
const HOST_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is told what a request waits for.
const TELL_PERIOD: Duration = Duration::from_secs(1);

/// How often the host is asked for memory that others have freed.
const HOST_PERIOD: Duration = Duration::from_millis(250);

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
    /// Taken by VMs that are up.
    charged: Amount,
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
        let holds = self.state().charged != Amount::default();
        self.acquire(world, Taker::File, missing, holds, tell)
            .await?;
        let mut state = self.state();
        state.extra = sum(state.extra, missing);
        Ok(state.claim.replace(amount).is_none())
    }

    /// Takes what a VM needs: from the claim if the file made one, else from the pool, waiting for room.
    pub(crate) async fn charge(
        &self,
        world: &Arc<World>,
        vm: Amount,
        tell: impl Fn(&str),
    ) -> Result<Charge, PoolError> {
        let amount = self.0.pool.0.rule.of_vm(vm);
        let budget = match self.0.pool.0.rule {
            // What bounds a boot is the host, claim or not.
            Rule::Host(_) => 0,
            _ => self.claimed().map_or(0, |claim| claim.memory_bytes),
        };
        let holds;
        {
            let mut state = self.state();
            let charged = state.charged;
            holds = charged != Amount::default();
            let after = sum(charged, amount);
            if budget == 0 {
                self.check_room(amount, charged)?;
            } else if after.memory_bytes > budget {
                return Err(PoolError::Budget {
                    memory: amount.memory_bytes,
                    charged: charged.memory_bytes,
                    claim: budget,
                });
            }
            state.charged = after;
        }
        // From here on the charge is undone by dropping it.
        let mut charge = Charge {
            share: self.clone(),
            amount,
            of_pool: None,
        };
        if budget == 0 {
            self.acquire(world, Taker::StartingVm, amount, holds, tell)
                .await?;
            charge.of_pool = Some(Taker::StartingVm);
        }
        Ok(charge)
    }

    /// Refuses what can never fit beside what the file itself holds.
    fn check_room(&self, amount: Amount, charged: Amount) -> Result<(), PoolError> {
        let pool = &self.0.pool;
        let (held, total) = (sum(charged, self.0.reserved), pool.total());
        if within(sum(held, amount), total) {
            return Ok(());
        }
        Err(if pool.0.rule.is_classic() {
            PoolError::BudgetVm {
                vm: amount,
                held,
                total,
            }
        } else {
            PoolError::Vm {
                memory: amount.memory_bytes,
                held: held.memory_bytes,
                total: total.memory_bytes,
            }
        })
    }

    /// Takes room from the pool, waiting for it in line.
    async fn acquire(
        &self,
        world: &Arc<World>,
        taker: Taker,
        amount: Amount,
        holds: bool,
        tell: impl Fn(&str),
    ) -> Result<(), PoolError> {
        let pool = &self.0.pool;
        let wanted = Wanted {
            taker,
            amount,
            file: &self.0.file,
            holds,
        };
        let mut place = Place::join(pool, wanted, world);
        if place.is_served() {
            place.taken = true;
            return Ok(());
        }
        let _uncounted = pool.0.rule.is_classic().then(|| world.uncounted());
        let (period, patience) = match pool.0.rule.spare() {
            Some(_) => (HOST_PERIOD, HOST_PATIENCE),
            None => (PATIENCE, PATIENCE),
        };
        let mut told = None::<Instant>;
        loop {
            if told.is_none_or(|at| at.elapsed() >= TELL_PERIOD) {
                tell(&place.describe());
                told = Some(Instant::now());
            }
            match both(&mut place, Limit::host(world, period)).await {
                Either::First(()) => break,
                Either::Second(_) => {
                    pool.serve();
                    place.check_standstill(patience)?;
                }
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
        self.pool.leave(sum(self.reserved, extra));
    }
}

/// What one VM takes; given back when dropped.
pub(crate) struct Charge {
    share: Share,
    amount: Amount,
    /// As what the pool counts it; nothing if a claim covers it.
    of_pool: Option<Taker>,
}

impl Charge {
    /// The VM is up.
    pub(crate) fn settle(&mut self) {
        if self.of_pool == Some(Taker::StartingVm) {
            self.of_pool = Some(Taker::Vm);
            self.share.0.pool.settle(self.amount.memory_bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        {
            let mut state = self.share.state();
            state.charged = difference(state.charged, self.amount);
        }
        if let Some(taker) = self.of_pool {
            self.share.0.pool.release(taker, self.amount);
        }
    }
}

/// A place in the pool's line; ready when it is served.
struct Place {
    pool: Pool,
    taker: Taker,
    amount: Amount,
    number: u64,
    taken: bool,
}

impl Place {
    fn join(pool: &Pool, wanted: Wanted<'_>, world: &Arc<World>) -> Self {
        let mut state = pool.lock();
        let number = state.line.join(wanted, world);
        let woken = pool.serve_locked(&mut state);
        drop(state);
        // Others than this one, if the host has got room since it was last asked.
        woken.iter().for_each(|world| world.notify());
        Self {
            pool: pool.clone(),
            taker: wanted.taker,
            amount: wanted.amount,
            number,
            taken: false,
        }
    }

    fn is_served(&self) -> bool {
        self.pool.lock().line.is_served(self.number)
    }

    /// What it waits for, for people.
    fn describe(&self) -> String {
        let (available, total) = (self.pool.available(), self.pool.total());
        let wanted = show_amount(self.amount);
        if self.pool.0.rule.spare().is_some() {
            let left = show_size(available.memory_bytes);
            return format!("waits for {wanted} of the host for a VM; {left} to spare");
        }
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
        let what = match self.taker {
            Taker::File => "claim",
            Taker::StartingVm | Taker::Vm => "VM",
        };
        format!("waits for {wanted} of the pool for a {what}; {room} left")
    }

    fn check_standstill(&self, patience: Duration) -> Result<(), PoolError> {
        let state = self.pool.lock();
        let files = state.files;
        if !state.line.stands_still(self.number, files, patience) {
            return Ok(());
        }
        drop(state);
        let (wanted, available, total) = (self.amount, self.pool.available(), self.pool.total());
        Err(if self.pool.0.rule.is_classic() {
            PoolError::ClassicStandstill {
                wanted,
                available,
                files,
            }
        } else {
            PoolError::Standstill {
                wanted,
                available,
                total,
                files,
            }
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
            self.pool.release(self.taker, self.amount);
        } else {
            // Who stood behind may fit now.
            self.pool.serve();
        }
    }
}
