//! Letting guests run for a while without asking them anything: the pauses of `wait_until` (lua-api L-217, L-248).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use provium_vmm::{Machine, host_backstop};

use super::{Limit, Pending, World, join_all};

impl World {
    /// Lets every guest that runs now have `span` of its time, with the host-time backstop of L-248; without running
    /// guests it is host time.
    pub fn start_pause(self: &Arc<Self>, call: &'static str, span: Duration) -> Pending<()> {
        let machines = self.running();
        let limits: Vec<_> = match machines.is_empty() {
            true => vec![Limit::host(self, span)],
            false => machines
                .iter()
                .map(|machine| Limit::new(self, machine, span))
                .collect(),
        };
        Pending::new(self, call, "pause", async move {
            join_all(
                limits
                    .into_iter()
                    .map(|limit| Box::pin(limit) as _)
                    .collect(),
            )
            .await;
            Ok(())
        })
    }

    /// Ends after `span` of host time: what bounds joins (L-248).
    pub fn start_timer(self: &Arc<Self>, call: &'static str, span: Duration) -> Pending<()> {
        let limit = Limit::host(self, span);
        Pending::new(self, call, "timer", async move {
            limit.await;
            Ok(())
        })
    }
}

/// Time passed for the guests of a world since it was started: the largest that any of them saw; host time when there
/// is none. Host time past the backstop counts as well, so that a limit on it always comes (L-248).
pub struct Stopwatch {
    world: Arc<World>,
    started: Instant,
    marks: Vec<(Weak<Machine>, u64)>,
}

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start(world: &Arc<World>) -> Self {
        let mut watch = Self {
            world: world.clone(),
            started: Instant::now(),
            marks: Vec::new(),
        };
        watch.meet();
        watch
    }

    /// Notes machines not seen before; their time counts from here.
    fn meet(&mut self) {
        for machine in self.world.running() {
            let weak = Arc::downgrade(&machine);
            if !self.marks.iter().any(|(known, _)| known.ptr_eq(&weak)) {
                self.marks.push((weak, machine.now_ns()));
            }
        }
    }

    /// Whether `limit` has passed.
    pub fn passed(&mut self, limit: Duration) -> bool {
        self.elapsed() >= limit || self.started.elapsed() >= host_backstop(limit)
    }

    /// Time passed so far.
    pub fn elapsed(&mut self) -> Duration {
        let seen = self.marks.iter().filter_map(|(machine, mark)| {
            let machine = machine.upgrade()?;
            Some(Duration::from_nanos(machine.now_ns().saturating_sub(*mark)))
        });
        let elapsed = seen.max().unwrap_or_else(|| self.started.elapsed());
        self.meet();
        elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l217_without_guests_a_pause_is_host_time() {
        let world = World::new();
        let mut watch = Stopwatch::start(&world);
        world
            .start_pause("wait_until", Duration::from_millis(2))
            .wait()
            .unwrap();
        world
            .start_timer("task:join", Duration::from_millis(1))
            .wait()
            .unwrap();
        assert!(watch.elapsed() >= Duration::from_millis(3));
        assert!(watch.passed(Duration::from_millis(3)));
        assert!(!watch.passed(Duration::from_secs(3600)));
    }

    #[test]
    fn l221_a_pause_is_broken_off_with_its_world() {
        let world = World::new();
        world.interrupt("timed out after 1s");
        let error = world
            .start_pause("wait_until", Duration::from_secs(3600))
            .wait()
            .unwrap_err();
        assert!(error.is_interrupted());
    }
}
