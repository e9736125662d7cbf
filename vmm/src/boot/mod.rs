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
    /// The command line; a machine with little memory adds what it needs.
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

/// Stands for what every guest is told of the machine: a guest that has booted on another one is
/// not a guest of this one.
#[must_use]
pub fn platform_id() -> u32 {
    let slots: Vec<Slot> = (0..).map_while(layout::virtio_slot).collect();
    let tables = acpi::build(&AcpiConfig {
        cpus: 1,
        virtio_slots: &slots,
    });
    crc32fast::hash(&tables.bytes)
}

/// Writes everything that the guest needs to boot into `memory`, which must be all zero.
///
/// What can be wrong with the configuration is found before the first write.
pub fn load(config: &BootConfig<'_>, memory: &GuestMemory) -> Result<BootInfo, BootError> {
    let ram: Vec<RamRegion> = memory.iter().map(ram_region).collect();
    let cmdline = cmdline::fit_memory(config.cmdline, ram.iter().map(|region| region.size).sum());
    check(config, &cmdline)?;
    let (_, initrd_size) = place::lay_archives(config.initrd);
    let placement = place::place(config.kernel, initrd_size, &ram)?;

    load::kernel(memory, config.kernel, &placement)?;
    load::initrd(memory, config.initrd, &placement)?;
    memory.write_slice(cmdline.as_bytes(), GuestAddress(layout::CMDLINE_START))?;
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

fn check(config: &BootConfig<'_>, cmdline: &str) -> Result<(), BootError> {
    if !(1..=layout::MAX_CPUS).contains(&config.cpus) {
        return Err(BootError::CpuCount(config.cpus));
    }
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    let limit = params::cmdline_size(config.kernel).min(layout::CMDLINE_ROOM as u32 - 1) as usize;
    if cmdline.len() > limit {
        let (path, length) = (config.kernel.path().to_path_buf(), cmdline.len());
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

#[cfg(test)]
mod tests {
    use super::image::tests::{tiny_bzimage, tiny_vmlinux};
    use super::*;
    use std::path::Path;

    const MIB: u64 = 1 << 20;

    fn memory(bytes: u64) -> GuestMemory {
        GuestMemory::from_ranges(&layout::ram_ranges(bytes).unwrap()).unwrap()
    }

    fn config<'a>(kernel: &'a KernelImage, cmdline: &'a str) -> BootConfig<'a> {
        BootConfig {
            kernel,
            initrd: &[b"first", b"second"],
            cmdline,
            cpus: 1,
            virtio_slots: &[],
            rng_seed: &[7; 32],
        }
    }

    fn read(memory: &GuestMemory, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    #[test]
    fn everything_is_where_the_boot_processor_will_look() {
        let kernel = tiny_bzimage(b"kernel code");
        let memory = memory(128 * MIB);
        let info = load(&config(&kernel, "console=ttyS0"), &memory).unwrap();
        let zero_page = layout::ZERO_PAGE_START;
        assert_eq!(
            info.entry,
            CpuEntry::Long {
                rip: 16 * MIB,
                zero_page
            }
        );
        assert_eq!(read(&memory, info.kernel.start, 11), b"kernel code");
        assert_eq!(read(&memory, info.initrd.start, 14), b"first\0\0\0second");
        assert_eq!(read(&memory, layout::CMDLINE_START, 14), b"console=ttyS0\0");
        assert_eq!(read(&memory, layout::ACPI_START, 8), b"RSD PTR ");
        assert_ne!(read(&memory, layout::PAGE_TABLES_START, 1), [0]);
        assert_eq!(info.initial_state().regs.rip, 16 * MIB);
    }

    #[test]
    fn a_moved_kernel_is_entered_where_it_went() {
        let kernel = tiny_bzimage(b"kernel code");
        let memory = memory(16 * MIB);
        let info = load(&config(&kernel, ""), &memory).unwrap();
        assert!(matches!(info.entry, CpuEntry::Long { rip, .. } if rip == 2 * MIB));
        assert_eq!(read(&memory, 2 * MIB, 11), b"kernel code");
    }

    #[test]
    fn a_foreign_kernel_is_entered_by_its_pvh_note() {
        let pvh = (b"Xen\0".as_slice(), 18, &(MIB as u32).to_le_bytes()[..]);
        let file = elf::tests::build(0, &[(MIB, b"code", 4)], &[pvh]);
        let kernel = KernelImage::parse(Path::new("foreign"), file).unwrap();
        let memory = memory(16 * MIB);
        let info = load(&config(&kernel, ""), &memory).unwrap();
        let start_info = layout::PVH_INFO_START as u32;
        assert_eq!(
            info.entry,
            CpuEntry::Protected {
                eip: MIB as u32,
                start_info
            }
        );
        assert_eq!(
            read(&memory, layout::PVH_INFO_START, 4),
            0x336e_c578u32.to_le_bytes()
        );
    }

    #[test]
    fn wrong_configurations_are_refused_before_anything_is_written() {
        let kernel = tiny_bzimage(b"code");
        let memory = memory(16 * MIB);
        let refuse = |change: &dyn Fn(&mut BootConfig<'_>)| {
            let mut config = config(&kernel, "");
            change(&mut config);
            load(&config, &memory).unwrap_err().to_string()
        };
        assert!(refuse(&|config| config.cpus = 0).contains("0 processors"));
        assert!(refuse(&|config| config.cpus = 65).contains("65 processors"));
        assert!(refuse(&|config| config.cmdline = "a\0b").contains("NUL"));
        let long = refuse(&|config| config.cmdline = Box::leak("x".repeat(2048).into_boxed_str()));
        assert!(
            long.contains("/boot/tiny") && long.contains("2047"),
            "{long}"
        );
        assert_eq!(read(&memory, 0, MIB as usize), vec![0; MIB as usize]);
    }

    #[test]
    fn sizes_in_errors_name_kernel_and_machine() {
        let file = tiny_vmlinux(b"code");
        let kernel = KernelImage::parse(Path::new("/boot/big"), file).unwrap();
        let error = load(&config(&kernel, ""), &memory(16 * MIB))
            .unwrap_err()
            .to_string();
        for fact in ["/boot/big", "2 MiB", "16 MiB"] {
            assert!(error.contains(fact), "{error}");
        }
    }
}
