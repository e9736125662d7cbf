//! What a machine is made of, as its owner states it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::bell::Bell;

/// Which backend runs the vCPUs; `auto` is resolved by [`crate::probe`] before a machine is
/// built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The host's processor through `/dev/kvm`.
    Kvm,
    /// Provium's own software processor.
    Soft,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Soft => "soft",
        })
    }
}

/// One part of the initial RAM file system; the parts are laid one after another, later files
/// winning (L-244).
#[derive(Debug, Clone)]
pub enum InitrdPart {
    /// Read from this file when the machine starts.
    File(PathBuf),
    /// These bytes.
    Bytes(Arc<[u8]>),
}

/// What a guest is booted from.
pub struct BootFiles {
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// The initial RAM file system, in order.
    pub initrd: Vec<InitrdPart>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// Finds out what to boot when that is needed, or why it cannot be known.
pub type BootLater = Arc<dyn Fn() -> Result<BootFiles, String> + Send + Sync>;

/// Everything that defines a machine. With equal values, two machines on `soft` behave the same to
/// the last instruction.
#[derive(Clone)]
pub struct MachineConfig {
    /// Used in thread names and messages.
    pub name: String,
    /// Who executes the vCPUs.
    pub backend: Backend,
    /// RAM in bytes, a multiple of 4 KiB (L-065).
    pub memory: u64,
    /// Number of vCPUs (L-066).
    pub cpus: u32,
    /// bzImage or ELF kernel.
    pub kernel: PathBuf,
    /// The initial RAM file system, in order; may be empty.
    pub initrd: Vec<InitrdPart>,
    /// The kernel's command line as the owner assembled it.
    pub cmdline: String,
    /// Seeds virtio-rng and the kernel's early random pool (L-068).
    pub rng_seed: u64,
    /// Wall clock at guest time 0, in nanoseconds since the epoch (L-069).
    pub wall_clock_ns: u64,
    /// The guest's vsock context id, 3 or more.
    pub cid: u64,
    /// For a machine that goes on from a snapshot: asked instead of `kernel`, `initrd` and
    /// `cmdline` when it is reset.
    pub boot_later: Option<BootLater>,
    /// The host may keep pages that are equal to those of other guests once.
    pub mergeable: bool,
    /// The bell to share with other machines; a new one if absent.
    pub bell: Option<Arc<Bell>>,
}

impl MachineConfig {
    /// A machine of one vCPU and 512 MiB (L-064) with nothing but a kernel.
    #[must_use]
    pub fn new(name: impl Into<String>, backend: Backend, kernel: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            backend,
            memory: 512 << 20,
            cpus: 1,
            kernel: kernel.into(),
            initrd: Vec::new(),
            cmdline: String::new(),
            rng_seed: 0,
            wall_clock_ns: 0,
            cid: 3,
            boot_later: None,
            mergeable: false,
            bell: None,
        }
    }
}
