//! Named barriers of a lab (lua-api L-040).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use crate::error::Reason;
use crate::wait::{Either, Limit, World, both, lock};

/// The barriers of one lab, by name.
#[derive(Default)]
pub(super) struct Barriers(Mutex<BTreeMap<String, Barrier>>);

#[derive(Default)]
struct Barrier {
    /// Wanted number, fixed by the first arrival of a round.
    wanted: i64,
    arrived: i64,
    round: u64,
}

impl Barriers {
    /// Ready when `count` callers are at `name`; a new round may start then.
    pub(super) async fn arrive(
        &self,
        world: &Arc<World>,
        name: &str,
        count: i64,
        timeout: Duration,
    ) -> Result<(), Reason> {
        let Some(round) = self.join(world, name, count)? else {
            return Ok(());
        };
        let mut place = Place {
            barriers: self,
            name,
            round,
            waiting: true,
        };
        let complete = std::future::poll_fn(|_| match self.round(name) != round {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        match both(complete, Limit::host(world, timeout)).await {
            Either::First(()) => {
                place.waiting = false;
                Ok(())
            }
            Either::Second(_) => {
                let arrived = lock(&self.0).get(name).map_or(0, |barrier| barrier.arrived);
                let what = format!("barrier {name:?}: {arrived} of {count} arrived");
                Err(Reason::Timeout {
                    what,
                    after: timeout,
                })
            }
        }
    }

    /// Counts a caller in: the round it waits for, or none when it completed one.
    fn join(&self, world: &World, name: &str, count: i64) -> Result<Option<u64>, Reason> {
        if count < 1 {
            let problem = format!("must be at least 1, not {count}");
            return Err(Reason::BadArgument {
                name: "count".to_owned(),
                problem,
            });
        }
        {
            let mut barriers = lock(&self.0);
            let barrier = barriers.entry(name.to_owned()).or_default();
            if barrier.arrived == 0 {
                barrier.wanted = count;
            } else if barrier.wanted != count {
                let wanted = barrier.wanted;
                let problem = format!("{count} callers, but this round waits for {wanted}");
                return Err(Reason::BadArgument {
                    name: "count".to_owned(),
                    problem,
                });
            }
            barrier.arrived += 1;
            if barrier.arrived < count {
                return Ok(Some(barrier.round));
            }
            barrier.arrived = 0;
            barrier.round += 1;
        }
        world.notify();
        Ok(None)
    }

    fn round(&self, name: &str) -> u64 {
        lock(&self.0).get(name).map_or(0, |barrier| barrier.round)
    }
}

/// A caller's place; given up when it stops waiting.
struct Place<'a> {
    barriers: &'a Barriers,
    name: &'a str,
    round: u64,
    waiting: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut barriers = lock(&self.barriers.0);
        if let Some(barrier) = barriers.get_mut(self.name)
            && self.waiting
            && barrier.round == self.round
        {
            barrier.arrived -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::wait::Pending;

    const LONG: Duration = Duration::from_secs(60);

    fn arrive(
        barriers: &Arc<Barriers>,
        world: &Arc<World>,
        count: i64,
        timeout: Duration,
    ) -> Pending<()> {
        let (b, w) = (barriers.clone(), world.clone());
        Pending::new(world, "lab:barrier", "lab x", async move {
            let result = b.arrive(&w, "go", count, timeout).await;
            result.map_err(|reason| Error::new("lab:barrier", "lab x", reason))
        })
    }

    #[test]
    fn l040_all_callers_go_on_together_and_a_new_round_may_start() {
        let (barriers, world) = (Arc::new(Barriers::default()), World::new());
        for _ in 0..2 {
            let mut first = arrive(&barriers, &world, 2, LONG);
            assert!(first.poll().is_none());
            arrive(&barriers, &world, 2, LONG).wait().unwrap();
            first.wait().unwrap();
        }
    }

    #[test]
    fn l040_counts_are_checked() {
        let (barriers, world) = (Arc::new(Barriers::default()), World::new());
        assert!(arrive(&barriers, &world, 0, LONG).wait().is_err());
        arrive(&barriers, &world, 1, LONG).wait().unwrap();
        let _first = arrive(&barriers, &world, 2, LONG);
        let text = arrive(&barriers, &world, 3, LONG)
            .wait()
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("3 callers") && text.contains("waits for 2"),
            "{text}"
        );
    }

    #[test]
    fn l040_a_timeout_names_the_barrier_and_both_counts() {
        let (barriers, world) = (Arc::new(Barriers::default()), World::new());
        let text = arrive(&barriers, &world, 3, Duration::from_millis(2))
            .wait()
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("barrier \"go\": 1 of 3 arrived after 0.002s"),
            "{text}"
        );
        // Who gave up no longer counts.
        let mut first = arrive(&barriers, &world, 2, LONG);
        assert!(first.poll().is_none());
        arrive(&barriers, &world, 2, LONG).wait().unwrap();
        first.wait().unwrap();
    }

    #[test]
    fn l040_threads_of_the_host_meet_round_after_round() {
        let (barriers, world) = (Arc::new(Barriers::default()), World::new());
        let arrived = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 1..=20 {
                        arrived.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        arrive(&barriers, &world, 4, LONG).wait().unwrap();
                        let there = arrived.load(std::sync::atomic::Ordering::SeqCst);
                        assert!(there >= 4 * round, "{there} in round {round}");
                    }
                });
            }
        });
    }
}
