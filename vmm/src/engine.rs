//! What a backend is to the machine: threads that run vCPUs, and access to their states while they
//! stand still.

use std::sync::{Arc, PoisonError};

use crate::board::Board;
use crate::boot::BootInfo;
use crate::control::ResetBy;
use crate::error::Error;
use crate::lifecycle::StopCause;
use crate::loader::Loader;
use crate::shared::Shared;
use crate::snapshot::EngineState;
use crate::vcpu::{VcpuError, VcpuState};

/// What becomes of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryChange {
    /// Pages that were written go back to the image under them; the others stay.
    Rewound,
    /// All of it becomes something else.
    Replaced,
}

/// A backend's part of one machine.
pub(crate) trait Engine: Send + Sync {
    /// Puts the vCPUs and interrupt controllers into power-on state with the boot processor at the
    /// kernel's entry. The world stands still.
    fn reset(&self, boot: &BootInfo) -> Result<(), Error>;

    /// Reads all vCPUs. The world stands still.
    fn states(&self) -> Result<Vec<VcpuState>, VcpuError>;

    /// The machine has been paused (true; all executors stand still) or is about to run on.
    fn paused(&self, paused: bool) -> Result<(), Error>;

    /// Everything of vCPUs and interrupt controllers. The machine is paused.
    fn save(&self) -> Result<EngineState, Error>;

    /// RAM is about to change as a whole; the machine is paused. What was decoded of it stays good
    /// where it stays the same.
    fn memory_changes(&self, change: MemoryChange);

    /// Puts back what `save` of either backend gave. The machine is paused, its clock set, its
    /// memory that of the snapshot, announced by [`Engine::memory_changes`].
    fn load(&self, state: &EngineState) -> Result<(), Error>;

    /// Guest instructions retired, where the backend counts them.
    fn instructions(&self) -> Option<u64>;

    /// Instructions that the backend lacks, by name, with how often they were met.
    fn unknown_instructions(&self) -> Vec<(String, u64)>;

    /// Waits for the threads to leave, after [`Shared::stop`].
    fn join(&self);
}

/// Restarts a machine in place: devices, memory and vCPUs as at power-on, the kernel loaded anew.
/// Called by the executor that was handed the reset, with the world standing still.
pub(crate) fn restart(
    shared: &Shared,
    board: &Board,
    loader: &Loader,
    engine: &dyn Engine,
    by: ResetBy,
) {
    board.reset();
    let result = loader
        .load_anew(&shared.memory)
        .and_then(|boot| engine.reset(&boot));
    // Memory was wiped: no snapshot lies under it any more.
    shared
        .under
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match result {
        Ok(()) => shared.life.restarted(by == ResetBy::Guest),
        Err(e) => shared.stop(StopCause::ResetFailed(chain(&e))),
    }
    shared.bell.ring();
}

/// An error with its causes, for stop causes that outlive it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The parts that every thread of a backend works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) board: Arc<Board>,
    pub(crate) loader: Arc<Loader>,
}
