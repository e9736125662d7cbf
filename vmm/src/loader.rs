//! What a machine boots, read once and kept, so that a restart in place needs no file (L-062).

use std::fs;
use std::sync::{Arc, OnceLock};

use provium_devices::GuestMemory;

use crate::boot::{self, BootConfig, BootInfo, KernelImage};
use crate::config::{BootFiles, InitrdPart, MachineConfig};
use crate::error::Error;
use crate::layout::{self, Slot};
use crate::memory;

pub(crate) struct Loader {
    config: MachineConfig,
    files: OnceLock<Files>,
}

/// What was read.
struct Files {
    kernel: Arc<KernelImage>,
    initrd: Vec<Arc<[u8]>>,
    cmdline: String,
}

impl Loader {
    /// Reads and checks the files that `config` names.
    pub(crate) fn new(config: &MachineConfig) -> Result<Self, Error> {
        let this = Self::lazy(config);
        this.files()?;
        Ok(this)
    }

    /// Reads the files when they are needed: a machine that goes on from a snapshot may never be
    /// reset.
    pub(crate) fn lazy(config: &MachineConfig) -> Self {
        Self {
            config: config.clone(),
            files: OnceLock::new(),
        }
    }

    fn files(&self) -> Result<&Files, Error> {
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        let found = match &self.config.boot_later {
            Some(later) => later().map_err(|reason| Error::Config {
                name: self.config.name.clone(),
                reason,
            })?,
            None => BootFiles {
                kernel: self.config.kernel.clone(),
                initrd: self.config.initrd.clone(),
                cmdline: self.config.cmdline.clone(),
            },
        };
        let kernel = KernelImage::open(&found.kernel).map_err(boot::BootError::from)?;
        let parts = found.initrd.iter().map(read_part);
        let files = Files {
            kernel,
            initrd: parts.collect::<Result<_, _>>()?,
            cmdline: found.cmdline,
        };
        Ok(self.files.get_or_init(|| files))
    }

    /// Loads into fresh memory.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<BootInfo, Error> {
        let files = self.files()?;
        let initrd: Vec<&[u8]> = files.initrd.iter().map(|part| &**part).collect();
        let slots: Vec<Slot> = (0..crate::board::VIRTIO_DEVICES)
            .filter_map(layout::virtio_slot)
            .collect();
        let config = BootConfig {
            kernel: &files.kernel,
            initrd: &initrd,
            cmdline: &files.cmdline,
            cpus: self.config.cpus,
            virtio_slots: &slots,
            rng_seed: &expand_seed(self.config.rng_seed),
        };
        Ok(boot::load(&config, memory)?)
    }

    /// Wipes memory and loads again.
    pub(crate) fn load_anew(&self, memory: &GuestMemory) -> Result<BootInfo, Error> {
        // Before anything is lost.
        self.files()?;
        memory::wipe(memory)?;
        if self.config.mergeable {
            memory::mark_mergeable(memory);
        }
        self.load(memory)
    }
}

fn read_part(part: &InitrdPart) -> Result<Arc<[u8]>, Error> {
    match part {
        InitrdPart::Bytes(bytes) => Ok(bytes.clone()),
        InitrdPart::File(path) => match fs::read(path) {
            Ok(bytes) => Ok(bytes.into()),
            Err(source) => Err(Error::Initrd {
                path: path.clone(),
                source,
            }),
        },
    }
}

/// Spreads the machine's seed over the 32 bytes that the kernel's pool takes in (SplitMix64's
/// finaliser per word; the kernel hashes them anyway).
fn expand_seed(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (index, word) in (1..).zip(bytes.chunks_exact_mut(8)) {
        let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_spread_and_differ() {
        // L-068
        assert_eq!(expand_seed(7), expand_seed(7));
        assert_ne!(expand_seed(7), expand_seed(8));
        assert!(expand_seed(0).chunks(8).all(|w| w != [0; 8]));
    }

    #[test]
    fn an_initrd_that_is_not_there_is_named() {
        let error = read_part(&InitrdPart::File("/nonexistent/initrd".into())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "initrd /nonexistent/initrd: cannot read it"
        );
    }
}
