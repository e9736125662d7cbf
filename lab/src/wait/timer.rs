//! Points in guest time and host time that a future can wait for (L-248).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use provium_devices::Clock;
use provium_vmm::{Machine, MachineState};

use super::World;

/// Ready when a machine's guest time has reached a point, or the machine no longer runs towards it.
pub(crate) struct GuestTimer {
    machine: Arc<Machine>,
    at_ns: u64,
    alarm: Option<provium_devices::AlarmId>,
    world: Arc<World>,
}

impl GuestTimer {
    pub(crate) fn at(world: &Arc<World>, machine: &Arc<Machine>, at_ns: u64) -> Self {
        Self {
            machine: machine.clone(),
            at_ns,
            alarm: None,
            world: world.clone(),
        }
    }

    pub(crate) fn after(world: &Arc<World>, machine: &Arc<Machine>, span: Duration) -> Self {
        let at = machine.now_ns().saturating_add(nanos(span));
        Self::at(world, machine, at)
    }

    /// Whether guest time has come that far.
    fn reached(&self) -> bool {
        self.machine.now_ns() >= self.at_ns
    }
}

/// A duration in nanoseconds; what does not fit is for ever.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Future for GuestTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let stopped = matches!(self.machine.state(), MachineState::Stopped(_));
        if stopped || self.reached() {
            return Poll::Ready(());
        }
        if self.alarm.is_none() {
            let bell = self.world.bell().clone();
            self.alarm = Some(
                self.machine
                    .alarm(self.at_ns, Box::new(move || bell.ring())),
            );
        }
        Poll::Pending
    }
}

impl Drop for GuestTimer {
    fn drop(&mut self) {
        if let Some(id) = self.alarm.take() {
            // False means that it has rung already.
            let _was_pending = self.machine.clock().cancel(id);
        }
    }
}

/// Ready when host time has reached a point.
pub(crate) struct HostTimer {
    world: Arc<World>,
    at: Instant,
    id: u64,
}

impl HostTimer {
    pub(crate) fn at(world: &Arc<World>, at: Instant) -> Self {
        Self {
            world: world.clone(),
            at,
            id: world.add_timer(at),
        }
    }

    pub(crate) fn after(world: &Arc<World>, span: Duration) -> Self {
        // What lies beyond the host clock's range is far enough away.
        let far = Duration::from_secs(100 * 365 * 24 * 3600);
        let now = Instant::now();
        Self::at(world, now.checked_add(span).unwrap_or(now + far))
    }
}

impl Future for HostTimer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for HostTimer {
    fn drop(&mut self) {
        self.world.remove_timer(self.at, self.id);
    }
}

/// A duration that bounds guest work: guest time, with a host-time backstop (L-248); host time for a machine that is
/// paused when the wait begins.
pub(crate) struct Limit {
    guest: Option<GuestTimer>,
    host: HostTimer,
}

/// Which end of a [`Limit`] was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    Guest,
    Host,
    /// The machine stopped before: the time was not used up.
    Stopped,
}

impl Limit {
    pub(crate) fn new(world: &Arc<World>, machine: &Arc<Machine>, span: Duration) -> Self {
        // A paused guest has no time of its own that could pass.
        let host = match machine.state() {
            MachineState::Paused => span,
            _ => provium_vmm::host_backstop(span),
        };
        let host = HostTimer::after(world, host);
        Self {
            guest: Some(GuestTimer::after(world, machine, span)),
            host,
        }
    }

    /// A limit in host time alone: boot timeouts, joins (L-248).
    pub(crate) fn host(world: &Arc<World>, span: Duration) -> Self {
        Self {
            guest: None,
            host: HostTimer::after(world, span),
        }
    }
}

impl Future for Limit {
    type Output = LimitReached;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LimitReached> {
        if let Some(guest) = &mut self.guest
            && Pin::new(&mut *guest).poll(cx).is_ready()
        {
            return Poll::Ready(match guest.reached() {
                true => LimitReached::Guest,
                false => LimitReached::Stopped,
            });
        }
        Pin::new(&mut self.host)
            .poll(cx)
            .map(|()| LimitReached::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Pending;

    #[test]
    fn a_host_timer_wakes_a_world_without_machines() {
        let world = World::new();
        let timer = HostTimer::after(&world, Duration::from_millis(2));
        let pending = Pending::new(&world, "test", "timer", async move {
            timer.await;
            Ok(3)
        });
        assert_eq!(pending.wait().unwrap(), 3);
    }

    #[test]
    fn an_endless_duration_is_no_overflow() {
        let world = World::new();
        let _timer = HostTimer::after(&world, Duration::MAX);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
