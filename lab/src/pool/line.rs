//! The line of requests that wait for room in the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use provium_protocol::Amount;

use super::Taker;
use crate::World;

/// A request that waits, or has been served and not been picked up yet.
struct Request {
    taker: Taker,
    amount: Amount,
    /// Its file has VMs up, so that others may wait for its end.
    holds: bool,
    file: String,
    world: Weak<World>,
    since: Instant,
    served: bool,
}

/// What a request is for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) taker: Taker,
    pub(super) amount: Amount,
    pub(super) file: &'a str,
    pub(super) holds: bool,
}

/// Requests by their number, the oldest first.
#[derive(Default)]
pub(super) struct Line {
    next: u64,
    requests: BTreeMap<u64, Request>,
}

impl Line {
    /// Joins the line; answers the request's number.
    pub(super) fn join(&mut self, wanted: Wanted<'_>, world: &Arc<World>) -> u64 {
        self.next += 1;
        let request = Request {
            taker: wanted.taker,
            amount: wanted.amount,
            holds: wanted.holds,
            file: wanted.file.to_owned(),
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

    /// Serves waiting requests for which `take` finds room, the oldest first; answers whom to wake.
    ///
    /// When `strict`, nobody is served past an older request, except files that have VMs up: before those give back
    /// what they have, there may never be room for anybody.
    pub(super) fn serve(
        &mut self,
        strict: bool,
        mut take: impl FnMut(Taker, Amount) -> bool,
    ) -> Vec<Arc<World>> {
        let mut woken = Vec::new();
        let turns: &[Option<bool>] = if strict {
            &[Some(true), Some(false)]
        } else {
            &[None]
        };
        let mut blocked = false;
        for turn in turns {
            let of_turn = |request: &&mut Request| turn.is_none_or(|holds| request.holds == holds);
            let waiting = self.requests.values_mut().filter(|request| !request.served);
            for request in waiting.filter(of_turn) {
                if blocked && *turn == Some(false) {
                    break;
                }
                request.served = take(request.taker, request.amount);
                blocked |= !request.served;
                if request.served {
                    woken.extend(request.world.upgrade());
                }
            }
        }
        woken
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
