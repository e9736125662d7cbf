//! By which rule a pool gives room: what files and VMs take of it, and who is served first.

use provium_protocol::Amount;

use super::{FILE_OVERHEAD, VM_OVERHEAD, sum};

/// What bounds a pool.
pub(super) enum Rule {
    /// `provium run`: files reserve and claim, and the memory of their VMs is charged with its overhead (R-107, R-108,
    ///
    Shared,
    /// `provium test` with `--mem` or `--cpus`: VMs take their memory and CPUs, files take nothing.
    Budget,
    /// `provium test`: VMs start while the host has memory to spare, which this tells in bytes.
    Host(Box<dyn Fn() -> u64 + Send + Sync>),
}

impl Rule {
    /// What a file takes when it starts.
    pub(super) fn of_file(&self, claim: Amount) -> Amount {
        match self {
            Self::Shared => sum(
                claim,
                Amount {
                    memory_bytes: FILE_OVERHEAD,
                    cpus: 0,
                },
            ),
            Self::Budget | Self::Host(_) => Amount::default(),
        }
    }

    /// What a VM takes when it boots or resumes.
    pub(super) fn of_vm(&self, vm: Amount) -> Amount {
        match self {
            Self::Shared => Amount {
                memory_bytes: vm.memory_bytes.saturating_add(VM_OVERHEAD),
                cpus: 0,
            },
            Self::Budget | Self::Host(_) => vm,
        }
    }

    /// True for classic runs, in which waiting does not count against a file's deadline.
    pub(super) fn is_classic(&self) -> bool {
        !matches!(self, Self::Shared)
    }

    /// What the host can spare, if that is what bounds the pool.
    pub(super) fn spare(&self) -> Option<u64> {
        match self {
            Self::Host(spare) => Some(spare()),
            Self::Shared | Self::Budget => None,
        }
    }
}
