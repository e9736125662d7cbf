//! Is the guest still there? The rules by which a VM is given up while operations wait for it (lua-api L-061,
//! events-and-protocol E-100).

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use provium_vmm::{Machine, MachineState};

use super::Instance;
use crate::agent::Link;
use crate::wait::{GuestTimer, both, nanos};

/// A panicked kernel whose agent says nothing for this long is dead.
const PANIC_SILENCE: Duration = Duration::from_secs(2);
/// A link without a frame for this long is asked for one.
const PING_AFTER: Duration = Duration::from_secs(10);
/// A ping without an answer for this long is the end of the link.
const PING_ANSWER: Duration = Duration::from_secs(5);

/// Why a wait for an answer makes no sense any more.
pub(super) enum Verdict {
    /// The VM is dead, or was stopped.
    Ended,
    /// The guest has suspended to RAM (L-245).
    Suspended,
    /// The agent is silent: the link is lost, the VM may be not.
    Silent,
}

/// Ends when the guest is gone or its agent silent; otherwise never. Times are guest times.
pub(super) async fn watch(
    instance: &Arc<Instance>,
    machine: &Arc<Machine>,
    link: &Link,
) -> Verdict {
    let world = instance.session.world();
    let started = machine.now_ns();
    loop {
        let now = machine.now_ns();
        let heard = link.last_frame_ns();
        let panicked = machine.panic_line();
        if let Some(line) = &panicked {
            let silent_since = heard.max(started);
            if now >= silent_since.saturating_add(nanos(PANIC_SILENCE)) {
                instance.die(&format!("the guest kernel panicked: {line}"));
                return Verdict::Ended;
            }
        }
        let ping_at = heard.max(started).saturating_add(nanos(PING_AFTER));
        let lost_at = ping_at.saturating_add(nanos(PING_ANSWER));
        if now >= lost_at {
            return Verdict::Silent;
        }
        if now >= ping_at {
            link.ping();
        }
        let mut due = if now >= ping_at { lost_at } else { ping_at };
        if panicked.is_some() {
            due = due.min(heard.max(started).saturating_add(nanos(PANIC_SILENCE)));
        }
        let timer = GuestTimer::at(world, machine, due);
        let _either = both(news(machine, panicked.is_some()), timer).await;
        if matches!(machine.state(), MachineState::Stopped(_)) {
            return Verdict::Ended;
        }
        if machine.is_suspended() {
            return Verdict::Suspended;
        }
    }
}

/// Ready when the machine has stopped or its guest suspended, or its kernel panicked and that was not known before.
fn news(machine: &Machine, panic_known: bool) -> impl Future<Output = ()> {
    std::future::poll_fn(move |_| {
        let stopped = matches!(machine.state(), MachineState::Stopped(_));
        let panicked = !panic_known && machine.panic_line().is_some();
        if stopped || panicked || machine.is_suspended() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
}

/// For a boot: ready with the cause when the machine has stopped, or its kernel panicked two seconds ago.
pub(super) async fn gone_or_panicked(instance: &Arc<Instance>, machine: &Arc<Machine>) -> String {
    news(machine, false).await;
    if let Some(line) = machine.panic_line() {
        // The rest of the report is worth the wait, and an agent that answers after all wins.
        GuestTimer::after(instance.session.world(), machine, PANIC_SILENCE).await;
        return format!("the guest kernel panicked: {line}");
    }
    if machine.is_suspended() {
        return "the guest suspended to RAM before its agent answered".to_owned();
    }
    instance
        .end()
        .unwrap_or_else(|| "the machine stopped".to_owned())
}
