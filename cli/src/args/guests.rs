//! Which guests: configuration, backend, kernel.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which CPU runs the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    /// KVM where it really executes guest code (at least 50 million instructions a second in a
    /// short probe), the software CPU elsewhere
    Auto,
    /// Hardware virtualisation through /dev/kvm
    Kvm,
    /// Provium's own x86-64 CPU; works everywhere
    Soft,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Configuration file; without it provium.toml is searched upward from here
    #[arg(long, value_name = "PATH", help_heading = "Guests", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// CPU that runs the guests
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        env = "PROVIUM_VMM",
        help_heading = "Guests"
    )]
    pub(crate) vmm: Vmm,
    /// Kernel image of the profile `minimal` (or of --profile); `host` takes this machine's
    #[arg(
        long,
        value_name = "PATH|host",
        env = "PROVIUM_KERNEL",
        help_heading = "Guests"
    )]
    pub(crate) kernel: Option<PathBuf>,
    /// Initramfs of the profile `minimal` (or of --profile)
    #[arg(
        long,
        value_name = "PATH",
        env = "PROVIUM_INITRD",
        help_heading = "Guests"
    )]
    pub(crate) initrd: Option<PathBuf>,
    /// Profile whose kernel and initramfs --kernel and --initrd replace
    #[arg(
        long,
        value_name = "NAME",
        default_value = "minimal",
        help_heading = "Guests"
    )]
    pub(crate) profile: String,
    /// Boot every VM from its kernel, instead of going on from the state that an earlier boot left
    #[arg(long, help_heading = "Guests")]
    pub(crate) cold: bool,
}
