//! Why the pool refuses.

use provium_protocol::Amount;

/// A request that the pool can never meet, or will not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A claim larger than the pool (L-039, R-108).
    #[error(
        "a claim of {} is more than the pool has: {}, of which {} are for the file itself; lower the claim, or run with a larger --mem or --cpus",
        show_amount(*.claim), show_amount(*.total), show_size(super::FILE_OVERHEAD)
    )]
    Claim {
        /// What was claimed.
        claim: Amount,
        /// The whole pool.
        total: Amount,
    },
    /// A VM that does not fit into what is left of the file's claim.
    #[error(
        "{} for this VM are more than is left of the file's claim: {} of {} are taken; claim at least {}",
        show_size(*.memory), show_size(*.charged), show_size(*.claim), show_size(.charged.saturating_add(*.memory))
    )]
    Budget {
        /// Memory of the VM with its overhead.
        memory: u64,
        /// Taken by the file's other VMs.
        charged: u64,
        /// The claim.
        claim: u64,
    },
    /// A VM that cannot fit beside what its own file holds.
    #[error(
        "{} for this VM and {} that this file holds are more than the pool's {}; run with a larger --mem, or shut VMs down first",
        show_size(*.memory), show_size(*.held), show_size(*.total)
    )]
    Vm {
        /// Memory of the VM with its overhead.
        memory: u64,
        /// Held by its file.
        held: u64,
        /// The whole pool.
        total: u64,
    },
    /// A VM that cannot fit into the budget of a classic run, beside what its own file holds.
    #[error(
        "{} for this VM{} are more than the budget of {}; give it less, shut VMs down first, or run with a larger --mem or --cpus",
        show_amount(*.vm), show_held(*.held), show_limits(*.total)
    )]
    BudgetVm {
        /// What the VM takes.
        vm: Amount,
        /// Taken by the file's other VMs.
        held: Amount,
        /// The whole budget.
        total: Amount,
    },
    /// All files of a classic run wait for each other.
    #[error(
        "no VM can start: {} wanted, {} left, and all {files} files in flight wait for room; lower -p, give VMs less, or run with a larger --mem or --cpus",
        show_amount(*.wanted), show_limits(*.available)
    )]
    ClassicStandstill {
        /// What was asked for.
        wanted: Amount,
        /// What is left of the budget, or on the host.
        available: Amount,
        /// How many files wait.
        files: usize,
    },
    /// All files in flight wait for each other.
    #[error(
        "the pool is exhausted: {} wanted, {} left of {}, and all {files} files in flight wait for room; claim what the file needs with provium:claim at file level, lower -j, or run with a larger --mem",
        show_amount(*.wanted), show_amount(*.available), show_amount(*.total)
    )]
    Standstill {
        /// What was asked for.
        wanted: Amount,
        /// What is left.
        available: Amount,
        /// The whole pool.
        total: Amount,
        /// How many files wait.
        files: usize,
    },
}

/// An amount for people.
pub(super) fn show_amount(amount: Amount) -> String {
    match (amount.memory_bytes, amount.cpus) {
        (memory, 0) => show_size(memory),
        (0, cpus) => format!("{cpus} CPUs"),
        (memory, cpus) => format!("{} and {cpus} CPUs", show_size(memory)),
    }
}

/// What is limited of an amount, for people.
fn show_limits(amount: Amount) -> String {
    // What is taken of something without limits does not make it one.
    let unlimited = Amount {
        memory_bytes: u64::MAX / 2,
        cpus: u32::MAX / 2,
    };
    match (
        amount.memory_bytes < unlimited.memory_bytes,
        amount.cpus < unlimited.cpus,
    ) {
        (true, true) => format!(
            "{} and {} CPUs",
            show_size(amount.memory_bytes),
            amount.cpus
        ),
        (true, false) => show_size(amount.memory_bytes),
        (false, _) => format!("{} CPUs", amount.cpus),
    }
}

/// What a file holds already, if anything.
fn show_held(held: Amount) -> String {
    if held == Amount::default() {
        return String::new();
    }
    format!(" beside the {} of this file's other VMs", show_amount(held))
}

/// A size for people: exact enough to reckon with, short enough to read.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn show_size(bytes: u64) -> String {
    if bytes < 10 << 30 {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    } else {
        format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
    }
}
