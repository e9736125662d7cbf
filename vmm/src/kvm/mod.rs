//! The KVM backend: the host's processor, KVM's interrupt controllers, one thread per vCPU and one
//! for the devices.
//!
//! | question | file |
//! |---|---|
//! | the VM: memory slots, interrupt controllers, timer, clock | `vm.rs` |
//! | one vCPU: running it, its exits | `vcpu.rs`, its state `state.rs` |
//! | getting a vCPU thread out of the guest | `kick.rs` |
//! | the device thread: queue notifications, kicks, alarms | `events.rs` |
//! | the threads together | `engine.rs` |

mod engine;
mod events;
mod kick;
mod state;
mod vcpu;
mod vm;

use std::sync::Arc;

pub use vcpu::KvmVcpu;
pub use vm::{KvmVm, SavedVm};

use crate::board::Board;
use crate::engine::Engine;
use crate::error::Error;
use crate::loader::Loader;
use crate::machine::parts;
use crate::shared::Shared;

/// Builds the backend's part of a machine, loads the kernel if there is one to be `booted`, and
/// starts the threads.
pub(crate) fn start(
    shared: &Arc<Shared>,
    loader: Arc<Loader>,
    booted: Option<&Loader>,
) -> Result<(Arc<Board>, Arc<dyn Engine>), Error> {
    let vm = Arc::new(KvmVm::new(&shared.memory)?);
    let board = Board::build(shared, &*vm)?;
    let boot = booted
        .map(|loader| loader.load(&shared.memory))
        .transpose()?;
    let parts = parts(shared, board, &loader);
    let board = parts.board.clone();
    let engine = engine::KvmEngine::start(parts, vm, boot.as_ref())?;
    Ok((board, engine))
}
