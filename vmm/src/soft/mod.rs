//! The software backend: Provium's own processor and I/O APIC, everything on one thread in virtual
//! time.

mod convert;
mod core;
mod cpus;
mod engine;
mod ioapic;

use std::sync::{Arc, Mutex};

use provium_devices::Interrupt;

pub use cpus::{SoftCpus, SoftVcpu};
pub use ioapic::IoApic;

use crate::board::{Board, Lines};
use crate::engine::Engine;
use crate::error::Error;
use crate::layout::{IOAPIC_PINS, IOAPIC_START};
use crate::loader::Loader;
use crate::machine::parts;
use crate::shared::Shared;
use ioapic::{PinLine, Pins};

/// Hands out the I/O APIC's pins as interrupt lines.
struct SoftLines(Arc<Pins>);

impl Lines for SoftLines {
    fn line(&self, gsi: u32) -> Result<Arc<dyn Interrupt>, Error> {
        debug_assert!(gsi < IOAPIC_PINS, "the layout has no interrupt {gsi}");
        Ok(Arc::new(PinLine {
            pins: self.0.clone(),
            pin: gsi,
        }))
    }
}

/// Builds the backend's part of a machine, loads the kernel if there is one to be `booted`, and
/// starts the machine's thread.
pub(crate) fn start(
    shared: &Arc<Shared>,
    loader: Arc<Loader>,
    booted: Option<&Loader>,
) -> Result<(Arc<Board>, Arc<dyn Engine>), Error> {
    let pins = Arc::new(Pins::default());
    let ioapic = Arc::new(Mutex::new(IoApic::new()));
    let mut board = Board::build(shared, &SoftLines(pins.clone()))?;
    let window = IOAPIC_START..IOAPIC_START + ioapic::WINDOW;
    board.add_mmio(shared.name(), window, ioapic.clone())?;
    let boot = booted
        .map(|loader| loader.load(&shared.memory))
        .transpose()?;
    let parts = parts(shared, board, &loader);
    let board = parts.board.clone();
    let engine = engine::SoftEngine::start(parts, boot.as_ref(), ioapic, pins)?;
    Ok((board, engine))
}
