//! The software backend's thread, and what other threads see of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use provium_devices::Clock;

use super::core::{Core, Progress};
use super::ioapic::{IoApic, Pins};
use crate::boot::BootInfo;
use crate::config::Backend;
use crate::control::Go;
use crate::engine::{Engine, MemoryChange, Parts, restart};
use crate::error::Error;
use crate::lifecycle::StopCause;
use crate::snapshot::EngineState;
use crate::vcpu::{VcpuError, VcpuState};

pub(super) struct SoftEngine {
    /// Held by the machine's thread while it runs, by others while the world stands still.
    core: Mutex<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SoftEngine {
    /// Builds the core and starts the machine's thread.
    pub(super) fn start(
        parts: Parts,
        boot: Option<&BootInfo>,
        ioapic: Arc<Mutex<IoApic>>,
        pins: Arc<Pins>,
    ) -> Result<Arc<Self>, Error> {
        let core = Core::new(parts.clone(), boot, ioapic, pins)?;
        let engine = Arc::new(Self {
            core: Mutex::new(core),
            thread: Mutex::new(None),
        });
        let shared = parts.shared.clone();
        let bell = shared.bell.clone();
        shared.control.set_kick(Box::new(move || bell.interrupt()));
        let member = Arc::downgrade(&shared);
        let seat = shared.bell.pace().join(Arc::new(move || {
            if let Some(shared) = member.upgrade() {
                shared.control.look_again();
            }
        }));
        shared.control.set_seat(seat);
        shared.control.enter();
        let runner = Runner {
            parts,
            engine: engine.clone(),
        };
        let name = format!("vm-{}", shared.name());
        match thread::Builder::new()
            .name(name)
            .spawn(move || runner.run())
        {
            Ok(handle) => *lock(&engine.thread) = Some(handle),
            Err(source) => {
                shared.control.leave();
                return Err(Error::Backend {
                    backend: Backend::Soft,
                    step: "starting its thread",
                    source,
                });
            }
        }
        Ok(engine)
    }
}

impl Engine for SoftEngine {
    fn reset(&self, boot: &BootInfo) -> Result<(), Error> {
        lock(&self.core).reset(boot)
    }

    fn states(&self) -> Result<Vec<VcpuState>, VcpuError> {
        lock(&self.core).states()
    }

    fn paused(&self, _paused: bool) -> Result<(), Error> {
        // Virtual time stands still by itself.
        Ok(())
    }

    fn save(&self) -> Result<EngineState, Error> {
        lock(&self.core).save()
    }

    fn memory_changes(&self, change: MemoryChange) {
        lock(&self.core).memory_changes(change);
    }

    fn load(&self, state: &EngineState) -> Result<(), Error> {
        lock(&self.core).load(state)
    }

    fn instructions(&self) -> Option<u64> {
        Some(lock(&self.core).retired())
    }

    fn unknown_instructions(&self) -> Vec<(String, u64)> {
        lock(&self.core).unknown()
    }

    fn join(&self) {
        let handle = lock(&self.thread).take();
        if let Some(handle) = handle
            && handle.thread().id() != thread::current().id()
        {
            // A panic of that thread has been turned into a stop cause by `Departure`.
            drop(handle.join());
        }
    }
}

/// The machine's thread.
struct Runner {
    parts: Parts,
    engine: Arc<SoftEngine>,
}

/// Leaves the control when the thread ends, in whatever way.
struct Departure<'a>(&'a Parts);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let cause = "the machine's thread failed (a fault of Provium's own)".to_owned();
            self.0.shared.stop(StopCause::VcpuError(cause));
        }
        self.0.shared.control.leave();
    }
}

impl Runner {
    fn run(&self) {
        let _departure = Departure(&self.parts);
        let shared = &self.parts.shared;
        let mut idle_ns = 0;
        loop {
            let go = shared
                .control
                .checkpoint(|| shared.clock.now_ns(), std::mem::take(&mut idle_ns));
            match go {
                Go::Stop => return,
                Go::Reset(by) => {
                    restart(
                        shared,
                        &self.parts.board,
                        &self.parts.loader,
                        &*self.engine,
                        by,
                    );
                    shared.control.reset_done();
                }
                Go::Run { until_ns, from_ns } => idle_ns = self.stretch(from_ns, until_ns),
            }
        }
    }

    /// Moves the guest until something wants the thread's attention elsewhere; for how long it then
    /// has nothing to do.
    fn stretch(&self, from_ns: u64, until_ns: u64) -> u64 {
        let shared = &self.parts.shared;
        let mut core = lock(&self.engine.core);
        loop {
            // What is due before comes first.
            let late = shared.clock.now_ns() < from_ns;
            if !late && shared.control.wants_attention() && shared.control.take_activity() {
                core.take_up_activity();
            }
            let progress = core.run(if late { from_ns } else { until_ns });
            shared.clock.fire_due();
            shared.console.announce();
            core.settle();
            match progress {
                Progress::TripleFault => {
                    shared.triple_fault();
                    return 0;
                }
                Progress::Asleep if !shared.control.wants_attention() => {
                    drop(core);
                    shared.control.idle(None);
                    return 0;
                }
                Progress::Asleep | Progress::Ran => {}
            }
            if shared.clock.now_ns() >= until_ns || shared.control.wants_checkpoint() {
                return core.idle_ns();
            }
        }
    }
}
