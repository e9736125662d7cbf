//! The machine as its owner holds it.
//!
//! ```text
//!   owner threads          Machine: wait, demand, pause, reset, stop, phys_read, console, vsock
//!        |                    |
//!        v                    v
//!   Control (who may run) - Shared (memory, clock, bell, console, life) - Board (devices)
//!        |
//!        v
//!   executors: one thread on `soft`; one per vCPU and the device loop on KVM
//! ```

use std::sync::Arc;
use std::time::Duration;

use provium_devices::virtio::vsock::VsockHost;
use provium_devices::{AlarmId, Clock, GuestMemory, Signal, serial::SerialHost};
use vm_memory::GuestAddress;

use crate::bell::Bell;
use crate::board::Board;
use crate::clock::{AlarmAction, MachineClock};
use crate::config::{Backend, MachineConfig};
use crate::console::Console;
use crate::engine::{Engine, Parts};
use crate::error::Error;
use crate::lifecycle::{EventHook, MachineEvent, MachineState, StopCause};
use crate::loader::Loader;
use crate::phys;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::vcpu::{VcpuPlace, VcpuState};
use crate::{kvm, layout, memory, soft};

/// A running (or paused, or ended) virtual machine. Dropping it stops it and joins its threads.
pub struct Machine {
    shared: Arc<Shared>,
    board: Arc<Board>,
    engine: Arc<dyn Engine>,
}

/// A subscription to a machine's events; dropping it ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.life.unsubscribe(self.id);
    }
}

pub(crate) fn guest_memory(config: &MachineConfig) -> Result<GuestMemory, Error> {
    let ranges = layout::ram_ranges(config.memory).map_err(|e| Error::Config {
        name: config.name.clone(),
        reason: e.to_string(),
    })?;
    let memory = GuestMemory::from_ranges(&ranges).map_err(|e| Error::Memory {
        name: config.name.clone(),
        bytes: config.memory,
        source: Box::new(e),
    })?;
    if config.mergeable {
        memory::mark_mergeable(&memory);
    }
    Ok(memory)
}

pub(crate) fn check(config: &MachineConfig) -> Result<(), Error> {
    let fail = |reason: String| {
        Err(Error::Config {
            name: config.name.clone(),
            reason,
        })
    };
    if config.cpus == 0 || config.cpus > layout::MAX_CPUS {
        return fail(format!(
            "{} vCPUs: must be 1 to {}",
            config.cpus,
            layout::MAX_CPUS
        ));
    }
    if config.cid < 3 || config.cid >= u64::from(u32::MAX) {
        return fail(format!(
            "vsock cid {}: must be 3 to {}",
            config.cid,
            u32::MAX - 1
        ));
    }
    Ok(())
}

impl Machine {
    /// Builds the machine, loads the kernel and starts the vCPUs. On `soft` nothing moves until
    /// there is a [`Demand`](crate::Demand).
    ///
    /// # Errors
    /// When the configuration, the boot files or the backend do not allow it; nothing is left
    /// behind then.
    pub fn start(config: MachineConfig) -> Result<Self, Error> {
        check(&config)?;
        let loader = Arc::new(Loader::new(&config)?);
        let memory = guest_memory(&config)?;
        let backend = config.backend;
        let shared = Shared::new(config, memory);
        let (board, engine) = match backend {
            Backend::Soft => soft::start(&shared, loader.clone(), Some(&loader))?,
            Backend::Kvm => kvm::start(&shared, loader.clone(), Some(&loader))?,
        };
        Ok(Self::assembled(shared, board, engine))
    }

    pub(crate) fn assembled(
        shared: Arc<Shared>,
        board: Arc<Board>,
        engine: Arc<dyn Engine>,
    ) -> Self {
        Self {
            shared,
            board,
            engine,
        }
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The machine's name as configured.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name()
    }

    /// Its RAM in bytes.
    #[must_use]
    pub fn memory_len(&self) -> u64 {
        self.shared.config.memory
    }

    /// Which backend runs it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.shared.config.backend
    }

    /// The host side of the guest's sockets.
    #[must_use]
    pub fn vsock(&self) -> &VsockHost {
        &self.board.vsock
    }

    /// The host side of the second serial port, the agent's channel where the kernel has no vsock.
    #[must_use]
    pub fn agent_serial(&self) -> &SerialHost {
        &self.board.agent_serial
    }

    /// The console: log, input, watchers.
    #[must_use]
    pub fn console(&self) -> &Arc<Console> {
        &self.shared.console
    }

    /// The machine's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<MachineClock> {
        &self.shared.clock
    }

    /// Guest time since the machine was started, in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }

    /// Calls `action` at guest time `at_ns`, on a thread of the machine; it must be quick.
    pub fn alarm(&self, at_ns: u64, action: AlarmAction) -> AlarmId {
        self.shared.clock.call_at(at_ns, action)
    }

    /// The bell that waiters of this machine wait at.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        &self.shared.bell
    }

    /// The bell's signal: subscribe streams to it whose progress a waiter's condition looks at.
    #[must_use]
    pub fn signal(&self) -> &Arc<Signal> {
        self.shared.bell.signal()
    }

    /// What the machine is doing.
    #[must_use]
    pub fn state(&self) -> MachineState {
        self.shared.life.state()
    }

    /// Blocks until `until` holds of the state or `timeout` of host time has passed; returns the
    /// state then. Does not let a `soft` machine run: see [`Machine::wait`] for that.
    pub fn wait_state(
        &self,
        timeout: Option<Duration>,
        until: impl Fn(&MachineState) -> bool,
    ) -> MachineState {
        self.shared.life.wait(timeout, until)
    }

    /// Tells `hook` of every event from now on.
    #[must_use]
    pub fn subscribe(&self, hook: EventHook) -> Subscription {
        Subscription {
            shared: self.shared.clone(),
            id: self.shared.life.subscribe(hook),
        }
    }

    /// How many times the guest has been started: 1, and one more for each reset. What belongs to
    /// an earlier boot is stale (L-063).
    #[must_use]
    pub fn boots(&self) -> u64 {
        self.shared.life.boots()
    }

    /// The panic line of the current boot, if its kernel has panicked (L-061).
    #[must_use]
    pub fn panic_line(&self) -> Option<String> {
        self.shared.life.panic_line()
    }

    fn require_alive(&self, operation: &'static str) -> Result<(), Error> {
        match self.state() {
            MachineState::Stopped(cause) => Err(Error::Stopped {
                name: self.name().to_owned(),
                operation,
                cause,
            }),
            _ => Ok(()),
        }
    }

    /// Stops vCPUs and guest time (L-074); returns once nothing moves. Pausing a paused machine
    /// changes nothing.
    ///
    /// # Errors
    /// When the machine has stopped.
    pub fn pause(&self) -> Result<(), Error> {
        self.require_alive("pause")?;
        if self.state() == MachineState::Paused {
            return Ok(());
        }
        self.shared.bell.interrupt();
        if self.shared.control.pause() {
            self.engine.paused(true)?;
            self.shared.clock.set_paused(true);
            self.shared.life.set_paused(true);
            self.shared.bell.ring();
        }
        self.require_alive("pause")
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// When the machine has stopped.
    pub fn resume(&self) -> Result<(), Error> {
        self.require_alive("resume")?;
        if self.state() == MachineState::Paused {
            self.engine.paused(false)?;
            self.shared.clock.set_paused(false);
            self.shared.life.set_paused(false);
            self.shared.control.resume();
            self.shared.bell.ring();
        }
        Ok(())
    }

    /// Restarts the guest in place, as the reset button does; returns once that is done. A paused
    /// machine stays paused, at the kernel's entry.
    ///
    /// # Errors
    /// When the machine has stopped or cannot be restarted.
    pub fn reset(&self) -> Result<(), Error> {
        self.require_alive("reset")?;
        self.shared.bell.interrupt();
        self.shared.control.reset_and_wait();
        self.require_alive("reset")
    }

    /// Presses the power button: the guest sees an ACPI event once it runs (L-078).
    pub fn power_button(&self) {
        self.board.button.press();
    }

    /// Whether the guest has suspended to RAM (ACPI S3): its vCPUs stand still, time goes on.
    pub fn is_suspended(&self) -> bool {
        self.board.button.is_suspended()
    }

    /// Wakes a guest that has suspended to RAM; false if it has not (L-245).
    pub fn wake(&self) -> bool {
        self.board.button.wake()
    }

    /// Stops the machine for good and waits for its threads. Takes a bounded time whatever the
    /// guest does.
    pub fn stop(&self) {
        self.stop_for(StopCause::Killed);
    }

    /// As [`Machine::stop`], for a cause that the owner found out (an agent that fell silent after
    /// a panic, L-061).
    pub fn stop_for(&self, cause: StopCause) {
        self.shared.stop(cause);
        self.engine.join();
    }

    /// Reads guest-physical memory, also while paused or stopped (L-238).
    ///
    /// # Errors
    /// When part of the range is not RAM.
    pub fn phys_read(&self, address: u64, len: usize) -> Result<Vec<u8>, Error> {
        phys::read(&self.shared.memory, GuestAddress(address), len)
    }

    /// Writes guest-physical memory, also while paused or stopped (L-238). The guest's vCPUs see it
    /// from their next instructions on, as code too.
    ///
    /// # Errors
    /// When part of the range is not RAM; nothing is written then.
    pub fn phys_write(&self, address: u64, data: &[u8]) -> Result<(), Error> {
        let shared = &self.shared;
        shared
            .control
            .with_still_world(|| phys::write(&shared.memory, GuestAddress(address), data))?;
        // The software processor is to look for decoded code that was overwritten.
        shared.control.note_activity();
        Ok(())
    }

    /// Where each vCPU stands, for the report of a hung guest. Interrupts the guest only for the
    /// moment of looking.
    ///
    /// # Errors
    /// When the backend cannot tell.
    pub fn places(&self) -> Result<Vec<VcpuPlace>, Error> {
        Ok((0..)
            .zip(self.vcpu_states()?)
            .map(|(i, state)| state.place(i))
            .collect())
    }

    /// The state of every vCPU at one instant.
    ///
    /// # Errors
    /// When the backend cannot tell.
    pub fn vcpu_states(&self) -> Result<Vec<VcpuState>, Error> {
        self.shared.bell.interrupt();
        Ok(self
            .shared
            .control
            .with_still_world(|| self.engine.states())?)
    }

    /// Reads the machine's counters. Interrupts the guest only for the moment of looking.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.bell.interrupt();
        self.shared.control.with_still_world(|| Stats {
            instructions: self.engine.instructions(),
            unknown_instructions: self.engine.unknown_instructions(),
            exits: self.shared.exits.read(),
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The state an event leads to, for subscribers that only care about ends.
impl MachineEvent {
    /// The stop cause, if the event is the machine's end.
    #[must_use]
    pub fn stop_cause(&self) -> Option<&StopCause> {
        match self {
            Self::State(MachineState::Stopped(cause)) => Some(cause),
            _ => None,
        }
    }
}

/// The parts in the form that backends take.
pub(crate) fn parts(shared: &Arc<Shared>, board: Board, loader: &Arc<Loader>) -> Parts {
    Parts {
        shared: shared.clone(),
        board: Arc::new(board),
        loader: loader.clone(),
    }
}
