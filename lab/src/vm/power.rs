//! Pause, resume, shutdown, reset, power button, kill (lua-api L-048..L-053, L-074..L-078, L-245).

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use provium_protocol::ops;
use provium_vmm::{Machine, MachineState, StopCause};

use super::{Connection, Instance, Vm, VmCore};
use crate::error::{Reason, Result};
use crate::state::{Need, VmState};
use crate::wait::{Either, Limit, Pending, both};

/// How long the guest may take to power off when asked in order (L-075).
const GRACE: Duration = Duration::from_secs(2);

/// The same for classic VMs (classic-api C-015).
pub(crate) const CLASSIC_GRACE: Duration = Duration::from_secs(10);

/// How long the guest may take to obey its power button (L-078).
const BUTTON_GRACE: Duration = Duration::from_secs(10);

/// While the guest goes on its button is pressed this often: Linux drops a press that nobody listens
/// for yet, as in a guest whose user space is still starting.
const BUTTON_EVERY: Duration = Duration::from_secs(1);

impl Vm {
    /// Stops vCPUs and guest time (L-074).
    pub fn pause(&self) -> Result<()> {
        let call = "vm:pause";
        self.core.check(call, Need::Booted)?;
        let machine = self.core.up_machine(call)?;
        machine
            .pause()
            .map_err(|error| self.core.error(call, Reason::Machine(error)))?;
        self.core.session.world().notify();
        Ok(())
    }

    /// Lets vCPUs and guest time go on (L-074).
    pub fn resume(&self) -> Result<()> {
        let call = "vm:resume";
        self.core.check(call, Need::Paused)?;
        let machine = self.core.up_machine(call)?;
        machine
            .resume()
            .map_err(|error| self.core.error(call, Reason::Machine(error)))?;
        self.core.session.world().notify();
        Ok(())
    }

    /// Asks the guest to sync and power off, at most 2 s, then stops the machine (L-075). In `shutdown` nothing.
    pub fn shutdown(&self) -> Result<()> {
        self.start_shutdown().wait()
    }

    /// Starts [`Vm::shutdown`].
    pub fn start_shutdown(&self) -> Pending<()> {
        self.start_shutdown_within(GRACE)
    }

    /// As [`Vm::shutdown`], giving the guest 10 s, as classic VMs do (classic-api C-015).
    pub fn start_classic_shutdown(&self) -> Pending<()> {
        self.start_shutdown_within(CLASSIC_GRACE)
    }

    fn start_shutdown_within(&self, grace: Duration) -> Pending<()> {
        let core = self.core.clone();
        Pending::new(
            self.core.session.world(),
            "vm:shutdown",
            self.core.resource(),
            async move {
                shut_down(&core, grace).await;
                Ok(())
            },
        )
    }

    /// Stops it at once; idempotent, never fails (L-051, L-076).
    pub fn close(&self) {
        self.core.put_down();
    }

    /// The same under the name of the classic dialect (L-051).
    pub fn kill(&self) {
        self.close();
    }

    /// Hardware reset; returns when the agent is back (L-077).
    pub fn reset(&self) -> Result<()> {
        self.start_reset().wait()
    }

    /// Starts [`Vm::reset`].
    pub fn start_reset(&self) -> Pending<()> {
        self.start_again("vm:reset", |machine| {
            machine.reset().map_err(Reason::Machine)
        })
    }

    /// Wakes a guest that has suspended to RAM, and waits until its agent is back (L-245).
    ///
    /// # Errors
    /// Unless it is suspended.
    pub fn wakeup(&self) -> Result<()> {
        self.start_wakeup().wait()
    }

    /// Starts [`Vm::wakeup`].
    pub fn start_wakeup(&self) -> Pending<()> {
        self.start_again("vm:wakeup", |machine| {
            let why = "the guest has not suspended to RAM (`echo mem > /sys/power/state`)";
            match machine.wake() {
                true => Ok(()),
                false => Err(Reason::Refused(why.to_owned())),
            }
        })
    }

    /// Does something to a booted machine after which its agent has to be met again.
    fn start_again(
        &self,
        call: &'static str,
        act: impl FnOnce(&Machine) -> Result<(), Reason> + Send + 'static,
    ) -> Pending<()> {
        let core = self.core.clone();
        Pending::new(
            self.core.session.world(),
            call,
            self.core.resource(),
            async move {
                core.check(call, Need::Booted)?;
                let instance = core.live(call)?;
                let machine = core.up_machine(call)?;
                act(&machine).map_err(|reason| core.error(call, reason))?;
                Connection::main(&instance, call, &core.resource())
                    .await
                    .map(drop)
            },
        )
    }

    /// Presses the ACPI power button: up to 10 s for the guest to power off, then power-off by the agent, then stop.
    /// True if the guest obeyed (L-078).
    pub fn power_button(&self) -> Result<bool> {
        self.start_power_button().wait()
    }

    /// Starts [`Vm::power_button`].
    pub fn start_power_button(&self) -> Pending<bool> {
        let call = "vm:power_button";
        let core = self.core.clone();
        Pending::new(
            self.core.session.world(),
            call,
            self.core.resource(),
            async move {
                core.check(call, Need::Booted)?;
                let instance = core.live(call)?;
                let machine = core.up_machine(call)?;
                for _ in 0..BUTTON_GRACE.as_secs() / BUTTON_EVERY.as_secs() {
                    machine.power_button();
                    if stopped_within(&core, &machine, BUTTON_EVERY).await {
                        finish(&instance);
                        return Ok(true);
                    }
                }
                shut_down(&core, GRACE).await;
                Ok(false)
            },
        )
    }
}

/// Brings a VM down in good order if it can, and down in any case (L-050).
pub(super) async fn shut_down(core: &Arc<VmCore>, grace: Duration) {
    if let (VmState::Booted, Some(instance), Some(machine)) =
        (core.state(), core.instance(), core.running_machine())
    {
        let goodbye = async {
            // The answer may be cut off by the power-off itself; whether the machine stops is what counts.
            let connection = Connection::main(&instance, "vm:shutdown", &core.resource()).await;
            if let Ok(connection) = connection {
                let op = ops::Shutdown { sync: true };
                let _asked = connection.link().request(&op).await;
            }
            std::future::pending::<()>().await;
        };
        let _either = both(goodbye, stopped_within(core, &machine, grace)).await;
    }
    core.put_down();
}

/// Waits for the machine to stop by itself, at most `grace`; whether it did.
async fn stopped_within(core: &VmCore, machine: &Arc<Machine>, grace: Duration) -> bool {
    let stopped = std::future::poll_fn(|_| match machine.state() {
        MachineState::Stopped(_) => Poll::Ready(()),
        _ => Poll::Pending,
    });
    let limit = Limit::new(core.session.world(), machine, grace);
    let ended = matches!(both(stopped, limit).await, Either::First(()));
    ended || matches!(machine.state(), MachineState::Stopped(_))
}

/// Frees what a machine that stopped by itself still holds.
fn finish(instance: &Instance) {
    instance.stop_machine(StopCause::Killed);
}

impl VmCore {
    /// Stops whatever runs; the state is `shutdown` then, unless it never left `created` (L-051).
    pub(crate) fn put_down(&self) {
        let never_booted = self.instance().is_none();
        if never_booted {
            crate::wait::lock(&self.slot).closed = true;
        } else if let Some(instance) = self.instance() {
            instance.put_down();
        }
    }
}
