//! Boot: from a kernel file, an initramfs and a command line to guest memory and a first CPU state.
//!
//! The steps, each in its file (design "Boot"; more in `docs/boot.md`):
//!
//! 1. [`image`]: recognise the kernel file and unpack it on the host ([`bzimage`], [`elf`],
//!    [`decompress`]);
//! 2. [`cmdline`]: assemble the command line; [`initramfs`]: make the archive that is appended;
//! 3. `place`: decide where everything goes, and whether it fits, before anything is written;
//! 4. `load`, `params` or `pvh`, [`acpi`]: write kernel, initramfs, boot parameters and tables;
//! 5. [`entry`]: write page tables, and tell in which state the boot processor begins.
//!
//! Nothing here knows which backend will run the result.

pub mod acpi;
pub mod bzimage;
pub mod cmdline;
pub mod cpio;
pub mod decompress;
pub mod elf;
pub mod entry;
pub mod image;
pub mod initramfs;
mod load;
mod params;
mod place;
mod pvh;

use std::ops::Range;
use std::path::PathBuf;

use provium_devices::GuestMemory;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
};

pub use entry::{CpuEntry, VcpuStart, initial_state};
pub use image::{ImageError, KernelImage};

use crate::layout::{self, RamRegion, Slot};
use acpi::AcpiConfig;
use elf::Entry;
use place::Placement;

/// Why a machine cannot be booted with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel is no kernel.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Kernel larger than the machine.
    #[error(
        "kernel {}: needs {} of memory below 3 GiB for itself, the machine has {}",
        .path.display(), Mib(*.kernel_size), Mib(*.ram)
    )]
    KernelTooLarge {
        /// The kernel's file.
        path: PathBuf,
        /// Its size in memory.
        kernel_size: u64,
        /// RAM of the machine.
        ram: u64,
    },
    /// The kernel fits, but not together with the initramfs.
    #[error(
        "initramfs of {}: does not fit below 3 GiB beside kernel {} ({}) in a machine with {} of memory",
        Mib(*.initrd_size), .path.display(), Mib(*.kernel_size), Mib(*.ram)
    )]
    InitrdTooLarge {
        /// The kernel's file.
        path: PathBuf,
        /// All archives together.
        initrd_size: u64,
        /// Size of the kernel in memory.
        kernel_size: u64,
        /// RAM of the machine.
        ram: u64,
    },
    /// A kernel that wants the memory where our tables are.
    #[error("kernel {}: wants to be loaded at {address:#x}; below 1 MiB is no room", .path.display())]
    KernelTooLow {
        /// The kernel's file.
        path: PathBuf,
        /// Where its first segment goes.
        address: u64,
    },
    /// More than the kernel would keep: it cuts silently, losing what comes last.
    #[error("command line of {length} bytes: kernel {} takes at most {limit}", .path.display())]
    CmdlineTooLong {
        /// The kernel's file.
        path: PathBuf,
        /// Length of the command line.
        length: usize,
        /// What the kernel keeps.
        limit: usize,
    },
    /// A NUL would end it early.
    #[error("the command line contains a NUL byte")]
    CmdlineNul,
    /// No such machine.
    #[error("{0} processors: a machine has 1 to {max}", max = layout::MAX_CPUS)]
    CpuCount(u32),
    /// Memory that the layout has is missing: a machine built wrongly.
    #[error("cannot write to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// A size as people read it: whole MiB, rounded up.
struct Mib(u64);

impl std::fmt::Display for Mib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct BootConfig<'a> {
    /// The kernel.
    pub kernel: &'a KernelImage,
    /// Archives of the initramfs, in order; files of later ones replace those of earlier ones.
    pub initrd: &'a [&'a [u8]],
    /// The whole command line.
    pub cmdline: &'a str,
    /// Number of processors.
    pub cpus: u32,
    /// virtio-mmio slots that hold a device.
    pub virtio_slots: &'a [Slot],
    /// Entropy for the kernel's random number generator; empty for none (lua-api L-068).
    pub rng_seed: &'a [u8],
}

/// What was booted, and how to begin.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// State in which the boot processor begins; see [`initial_state`].
    pub entry: CpuEntry,
    /// Physical range of the kernel.
    pub kernel: Range<u64>,
    /// Physical range of the initramfs; empty if there is none.
    pub initrd: Range<u64>,
}

impl BootInfo {
    /// First state of the boot processor.
    pub fn initial_state(&self) -> VcpuStart {
        initial_state(self.entry)
    }
}

/// Writes everything that the guest needs to boot into `memory`, which must be all zero.
///
/// What can be wrong with the configuration is found before the first write.
pub fn load(config: &BootConfig<'_>, memory: &GuestMemory) -> Result<BootInfo, BootError> {
    let ram: Vec<RamRegion> = memory.iter().map(ram_region).collect();
    check(config)?;
    let (_, initrd_size) = place::lay_archives(config.initrd);
    let placement = place::place(config.kernel, initrd_size, &ram)?;

    load::kernel(memory, config.kernel, &placement)?;
    load::initrd(memory, config.initrd, &placement)?;
    memory.write_slice(
        config.cmdline.as_bytes(),
        GuestAddress(layout::CMDLINE_START),
    )?;
    let tables = acpi::build(&AcpiConfig {
        cpus: config.cpus,
        virtio_slots: config.virtio_slots,
    });
    memory.write_slice(&tables.bytes, GuestAddress(layout::ACPI_START))?;
    let entry = write_parameters(config, memory, &placement, &ram)?;
    entry::write_tables(memory, entry)?;
    Ok(BootInfo {
        entry,
        kernel: placement.kernel,
        initrd: placement.initrd,
    })
}

fn ram_region(region: &impl GuestMemoryRegion) -> RamRegion {
    RamRegion {
        start: region.start_addr().raw_value(),
        size: region.len(),
    }
}

fn check(config: &BootConfig<'_>) -> Result<(), BootError> {
    if !(1..=layout::MAX_CPUS).contains(&config.cpus) {
        return Err(BootError::CpuCount(config.cpus));
    }
    if config.cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    let limit = params::cmdline_size(config.kernel).min(layout::CMDLINE_ROOM as u32 - 1) as usize;
    if config.cmdline.len() > limit {
        let (path, length) = (config.kernel.path().to_path_buf(), config.cmdline.len());
        return Err(BootError::CmdlineTooLong {
            path,
            length,
            limit,
        });
    }
    Ok(())
}

/// Writes the parameters in the shape that the kernel's entry point expects.
fn write_parameters(
    config: &BootConfig<'_>,
    memory: &GuestMemory,
    placement: &Placement,
    ram: &[RamRegion],
) -> Result<CpuEntry, BootError> {
    match config.kernel.elf().entry {
        Entry::Linux64(linked) => {
            params::write(memory, config.kernel, placement, ram, config.rng_seed)?;
            let rip = linked.wrapping_add(placement.shift);
            Ok(CpuEntry::Long {
                rip,
                zero_page: layout::ZERO_PAGE_START,
            })
        }
        Entry::Pvh(eip) => {
            pvh::write(memory, placement, ram)?;
            Ok(CpuEntry::Protected {
                eip,
                start_info: layout::PVH_INFO_START as u32,
            })
        }
    }
}
