//! Machines into images and back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::error::SnapshotError;
use super::format::PAGE;
use super::image::Image;
use super::state::MachineState;
use super::writer::{Content, Extent, SaveTo, save};
use crate::config::{Backend, MachineConfig};
use crate::engine::MemoryChange;
use crate::error::Error;
use crate::lifecycle::MachineState as Life;
use crate::loader::Loader;
use crate::machine::{Machine, check};
use crate::memory;
use crate::shared::Shared;
use crate::{kvm, soft};
use provium_devices::Clock;

/// Changes to what an image holds, for a machine that goes on from it as somebody new.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fresh {
    /// The entropy device starts a stream of its own.
    pub rng_seed: Option<u64>,
    /// The wall clock is here now, in nanoseconds since the epoch, instead of where it stood.
    pub wall_ns: Option<u64>,
}

impl Fresh {
    fn apply(&self, state: &mut MachineState) {
        use provium_devices::virtio::DeviceState;
        use provium_devices::virtio::rng::RngState;
        if let Some(seed) = self.rng_seed {
            for transport in &mut state.board.virtio {
                if let DeviceState::Rng(rng) = transport.device_mut() {
                    *rng = RngState { seed, position: 0 };
                }
            }
        }
        if let Some(wall) = self.wall_ns {
            state.wall_base_ns = wall.saturating_sub(state.now_ns);
        }
    }
}

impl Machine {
    /// Saves the machine as of one instant; `owner` are bytes of the caller's to be kept with it.
    /// A running machine stands still meanwhile and then goes on; afterwards its memory lies on
    /// the image, so that going back to it ([`Machine::rewind`]) costs what was written since.
    ///
    /// Connections of the host are not part of it: the guest finds them reset when it goes on.
    ///
    /// # Errors
    /// When the machine has stopped, or the image cannot be written; then nothing has changed.
    pub fn save(
        &self,
        to: SaveTo<'_>,
        extent: Extent<'_>,
        owner: &[u8],
    ) -> Result<Arc<Image>, Error> {
        let was_running = self.state() == Life::Running;
        self.pause()?;
        let saved = self.save_paused(to, extent, owner);
        if was_running {
            self.resume()?;
        }
        saved
    }

    fn save_paused(
        &self,
        to: SaveTo<'_>,
        extent: Extent<'_>,
        owner: &[u8],
    ) -> Result<Arc<Image>, Error> {
        let shared = self.shared();
        let state = self.capture()?;
        let console = shared.console.read_log();
        let mut under = under(shared);
        let content = Content {
            state: &state,
            owner,
            console: &console,
            memory: &shared.memory,
            under: under.as_ref(),
        };
        let image = save(to, extent, &content)?;
        // The same bytes are there before and after, so nobody notices.
        image.map_saved(&shared.memory, under.as_ref())?;
        *under = Some(image.clone());
        Ok(image)
    }

    fn capture(&self) -> Result<MachineState, Error> {
        let shared = self.shared();
        let engine = self.engine().save()?;
        Ok(MachineState {
            engine,
            board: self.board().save(),
            now_ns: shared.clock.now_ns(),
            wall_base_ns: shared.clock.wall_base_ns(),
            panic_line: shared.life.panic_line(),
        })
    }

    /// Guest-physical addresses at which `needle` stands in RAM, ascending within each region of it.
    /// Looks only at pages that exist, and interrupts the guest meanwhile.
    ///
    /// # Errors
    /// When the host does not tell which pages exist.
    pub fn phys_find(&self, needle: &[u8]) -> Result<Vec<u64>, Error> {
        let shared = self.shared();
        shared.bell.interrupt();
        let found = shared.control.with_still_world(|| {
            let mut pages = BTreeSet::new();
            if let Some(image) = &*under(shared) {
                let ranges = image.present();
                pages.extend(ranges.flat_map(|range| range.step_by(PAGE as usize)));
            }
            memory::for_each_own_page(&shared.memory, |page| {
                pages.insert(page);
            })?;
            memory::find(&shared.memory, &pages, needle)
        });
        found.map_err(|source| Error::Search {
            name: self.name().to_owned(),
            source,
        })
    }

    /// A machine that goes on from `image`, paused. Memory size and number of vCPUs are the
    /// image's; kernel and initial RAM file system of `config` are read only when the machine is
    /// reset.
    ///
    /// # Errors
    /// When the image's state does not fit, or the backend refuses; nothing is left behind then.
    pub fn restore(
        mut config: MachineConfig,
        image: &Arc<Image>,
        fresh: Fresh,
    ) -> Result<Self, Error> {
        config.memory = image.memory();
        config.cpus = image.cpus();
        check(&config)?;
        let loader = Arc::new(Loader::lazy(&config));
        let memory = crate::machine::guest_memory(&config)?;
        let backend = config.backend;
        let shared = Shared::new(config, memory);
        shared.control.pause();
        shared.life.set_paused(true);
        let (board, engine) = match backend {
            Backend::Soft => soft::start(&shared, loader, None)?,
            Backend::Kvm => kvm::start(&shared, loader, None)?,
        };
        let machine = Self::assembled(shared, board, engine);
        machine.load(image, fresh)?;
        Ok(machine)
    }

    /// Puts this machine back to `image`, which is of a machine of its kind, and leaves it paused.
    /// If its memory lies on that image already, this costs what was written since.
    ///
    /// # Errors
    /// When the machine has stopped or the image does not fit; it is of no use any more then.
    pub fn rewind(&self, image: &Arc<Image>, fresh: Fresh) -> Result<(), Error> {
        let config = &self.shared().config;
        if (config.memory, config.cpus) != (image.memory(), image.cpus()) {
            return Err(Error::Config {
                name: self.name().to_owned(),
                reason: format!(
                    "a snapshot of {} bytes of memory and {} vCPUs does not fit a machine of {} bytes and {}",
                    image.memory(),
                    image.cpus(),
                    config.memory,
                    config.cpus
                ),
            });
        }
        self.pause()?;
        self.load(image, fresh)
    }

    /// Takes over an image's content; the machine is paused.
    fn load(&self, image: &Arc<Image>, fresh: Fresh) -> Result<(), Error> {
        let shared = self.shared();
        let mut state = image.state().clone();
        fresh.apply(&mut state);
        let console = image.console()?;
        let mut under = under(shared);
        match &*under {
            Some(there) if Arc::ptr_eq(there, image) => {
                self.engine().memory_changes(MemoryChange::Rewound);
                memory::rewind(&shared.memory).map_err(|source| SnapshotError::Io {
                    path: image.display_path(),
                    step: "going back to it",
                    source,
                })?;
            }
            _ => {
                self.engine().memory_changes(MemoryChange::Replaced);
                image.map(&shared.memory)?;
                if shared.config.mergeable {
                    memory::mark_mergeable(&shared.memory);
                }
            }
        }
        *under = Some(image.clone());
        drop(under);
        shared.clock.set(state.now_ns, state.wall_base_ns);
        let refused = |part| {
            let path = image.display_path();
            move |source| SnapshotError::State { path, part, source }
        };
        self.board()
            .restore(&state.board)
            .map_err(refused("the devices"))?;
        self.engine()
            .load(&state.engine)
            .map_err(|e| refused("the processors")(e.into()))?;
        shared.console.replace(&console);
        shared.life.set_panic_line(state.panic_line);
        shared.bell.ring();
        Ok(())
    }

    /// As [`Machine::restore`], for a file that nobody has opened yet.
    ///
    /// # Errors
    /// As there, and those of [`Image::open`].
    pub fn restore_from(config: MachineConfig, path: &Path) -> Result<Self, Error> {
        Self::restore(config, &Image::open(path)?, Fresh::default())
    }
}

fn under(shared: &Shared) -> MutexGuard<'_, Option<Arc<Image>>> {
    shared.under.lock().unwrap_or_else(PoisonError::into_inner)
}
