//! Why a machine could not be built or an operation on it failed.

use std::path::PathBuf;

use crate::lifecycle::StopCause;
use crate::vcpu::VcpuError;

/// Errors of [`Machine`](crate::Machine).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be built.
    #[error("machine {name}: {reason}")]
    Config {
        /// The machine.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A part of the initial RAM file system cannot be read.
    #[error("initrd {}: cannot read it", path.display())]
    Initrd {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Guest RAM could not be reserved.
    #[error("machine {name}: cannot reserve {bytes} bytes of guest memory")]
    Memory {
        /// The machine.
        name: String,
        /// How much.
        bytes: u64,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Guest RAM could not be wiped for a restart.
    #[error("cannot wipe guest memory")]
    Wipe {
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Guest RAM could not be searched.
    #[error("machine {name}: cannot search its memory")]
    Search {
        /// The machine.
        name: String,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel or what goes with it cannot be loaded.
    #[error(transparent)]
    Boot(#[from] crate::boot::BootError),
    /// A device could not be put on its bus.
    #[error("machine {name}: cannot build its {device}")]
    Device {
        /// The machine.
        name: String,
        /// Which device.
        device: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The backend is not usable or refused a step.
    #[error("backend {backend}: {step} failed")]
    Backend {
        /// `kvm` or `soft`.
        backend: crate::Backend,
        /// What was tried.
        step: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A snapshot could not be written or used.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshot::SnapshotError),
    /// A vCPU refused.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The machine is not in a state for this.
    #[error("machine {name}: cannot {operation}: {cause}")]
    Stopped {
        /// The machine.
        name: String,
        /// What was asked for.
        operation: &'static str,
        /// Why it stopped.
        cause: StopCause,
    },
    /// A guest-physical range that is not all RAM (L-238).
    #[error(
        "guest-physical range {address:#x}..{:#x} is not RAM (RAM is {})",
        u128::from(*address) + u128::from(*len),
        ram
    )]
    PhysRange {
        /// First address.
        address: u64,
        /// Length in bytes.
        len: u64,
        /// The machine's RAM ranges, for the message.
        ram: String,
    },
}
