//! The line of requests that wait for room in the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use provium_protocol::Amount;

use crate::World;

/// A request that waits, or has been served and not been picked up yet.
struct Request {
    amount: Amount,
    file: String,
    world: Weak<World>,
    since: Instant,
    served: bool,
}

/// Requests by their number, the oldest first.
#[derive(Default)]
pub(super) struct Line {
    next: u64,
    requests: BTreeMap<u64, Request>,
}

impl Line {
    /// Joins the line; answers the request's number.
    pub(super) fn join(&mut self, amount: Amount, file: &str, world: &Arc<World>) -> u64 {
        self.next += 1;
        let request = Request {
            amount,
            file: file.to_owned(),
            world: Arc::downgrade(world),
            since: Instant::now(),
            served: false,
        };
        self.requests.insert(self.next, request);
        self.next
    }

    /// Leaves the line. True if the request had been served.
    pub(super) fn leave(&mut self, number: u64) -> bool {
        self.requests
            .remove(&number)
            .is_some_and(|request| request.served)
    }

    pub(super) fn is_served(&self, number: u64) -> bool {
        self.requests
            .get(&number)
            .is_some_and(|request| request.served)
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.requests.values().any(|request| !request.served)
    }

    /// Serves each waiting request for which `take` finds room, in order; answers whom to wake.
    pub(super) fn serve(&mut self, mut take: impl FnMut(Amount) -> bool) -> Vec<Arc<World>> {
        let waiting = self.requests.values_mut().filter(|request| !request.served);
        waiting
            .filter_map(|request| {
                request.served = take(request.amount);
                request.served.then(|| request.world.upgrade()).flatten()
            })
            .collect()
    }

    /// True when `number` is the youngest request, has waited for `patience`, and each of `files` files waits: then
    /// nobody will ever make room.
    pub(super) fn stands_still(&self, number: u64, files: usize, patience: Duration) -> bool {
        let waiting = || self.requests.iter().filter(|(_, request)| !request.served);
        let Some((youngest, request)) = waiting().next_back() else {
            return false;
        };
        let distinct: BTreeSet<&str> = waiting().map(|(_, request)| &*request.file).collect();
        *youngest == number && distinct.len() >= files && request.since.elapsed() >= patience
    }
}
