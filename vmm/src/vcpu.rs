//! What a virtual CPU is to the machine, whoever executes it.
//!
//! The machine's loops know the trait below and nothing of KVM or of the software processor. A
//! vCPU's state is kept in the shapes of the KVM API on both backends, which is what makes a saved
//! machine portable between them.

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_UNINITIALIZED, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events,
};
use serde::{Deserialize, Serialize};

/// Length of the state-component area kept per vCPU: legacy x87/SSE area and XSAVE header (the CPU
/// model has no further components).
pub const XSAVE_LEN: usize = 576;

/// Why a vCPU came back from [`Vcpu::run`]. The slices of reads are to be filled in before it runs
/// again.
#[derive(Debug)]
pub enum Exit<'a> {
    /// An IN instruction.
    PioRead {
        /// I/O port.
        port: u16,
        /// Bytes per element: 1, 2 or 4.
        size: usize,
        /// The elements; more than one for a string instruction.
        data: &'a mut [u8],
    },
    /// An OUT instruction.
    PioWrite {
        /// I/O port.
        port: u16,
        /// Bytes per element: 1, 2 or 4.
        size: usize,
        /// The elements; more than one for a string instruction.
        data: &'a [u8],
    },
    /// A load from an address without RAM.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// A store to an address without RAM.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// HLT, where the backend leaves the waiting to its caller.
    Hlt,
    /// A triple fault.
    Shutdown,
    /// The budget is used up, or a kick arrived; nothing is pending.
    Interrupted,
}

/// Why a vCPU cannot run or its state cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// The backend refused an operation.
    #[error("vCPU {index}: {operation} failed")]
    Operation {
        /// Which vCPU.
        index: u32,
        /// The KVM ioctl or step by name.
        operation: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The processor met something that it cannot execute.
    #[error("vCPU {index} stopped at rip {rip:#x}: {reason}")]
    Stuck {
        /// Which vCPU.
        index: u32,
        /// Where.
        rip: u64,
        /// In the backend's words.
        reason: String,
    },
    /// A state does not fit this vCPU.
    #[error("vCPU {index}: unusable state: {reason}")]
    BadState {
        /// Which vCPU.
        index: u32,
        /// What is wrong with it.
        reason: String,
    },
}

/// One virtual CPU.
pub trait Vcpu {
    /// Runs until something needs the machine, or until about `budget` nanoseconds of guest time
    /// have been executed where the backend can count them (KVM cannot: there a kick ends it).
    ///
    /// # Errors
    /// When the guest cannot go on for a reason that is not the guest architecture's own.
    fn run(&mut self, budget: u64) -> Result<Exit<'_>, VcpuError>;

    /// Lets the instruction of the last access retire, without executing anything after it. An
    /// instruction may make several accesses: then the next one comes out, to be answered before
    /// the next call. `None` once nothing is under way.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn finish_access(&mut self) -> Result<Option<Exit<'_>>, VcpuError>;

    /// Copies the state out. No access may be under way: see [`Vcpu::finish_access`].
    ///
    /// # Errors
    /// When the backend refuses, or an access is under way.
    fn state(&mut self) -> Result<VcpuState, VcpuError>;

    /// Replaces the state.
    ///
    /// # Errors
    /// When the backend refuses or the state is malformed.
    fn set_state(&mut self, state: &VcpuState) -> Result<(), VcpuError>;
}

/// Reads a vCPU's state after finishing what is under way, `answer` being asked for further
/// accesses.
///
/// # Errors
/// As [`Vcpu::state`] and [`Vcpu::finish_access`].
pub fn settled_state(
    vcpu: &mut dyn Vcpu,
    mut answer: impl FnMut(Exit<'_>),
) -> Result<VcpuState, VcpuError> {
    while let Some(exit) = vcpu.finish_access()? {
        answer(exit);
    }
    vcpu.state()
}

/// The whole state of one vCPU between two instructions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, tables, control registers, APIC base.
    pub sregs: kvm_sregs,
    /// x87 and SSE state in the standard XSAVE format, [`XSAVE_LEN`] bytes.
    pub xsave: Vec<u8>,
    /// Extended control register 0.
    pub xcr0: u64,
    /// Model-specific registers, ascending by index.
    pub msrs: Vec<kvm_msr_entry>,
    /// The local APIC's register page.
    pub lapic: kvm_lapic_state,
    /// Pending and blocked events.
    pub events: kvm_vcpu_events,
    /// Running, halted, waiting for start-up.
    pub mp_state: kvm_mp_state,
    /// Debug registers.
    pub debugregs: kvm_debugregs,
}

impl VcpuState {
    /// What the vCPU is doing, in words for a person.
    #[must_use]
    pub fn activity(&self) -> &'static str {
        match self.mp_state.mp_state {
            KVM_MP_STATE_RUNNABLE => "running",
            KVM_MP_STATE_HALTED => "halted",
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => "not started",
            _ => "stopped",
        }
    }

    /// Where the vCPU stands, as reports of hung guests show it.
    #[must_use]
    pub fn place(&self, index: u32) -> VcpuPlace {
        VcpuPlace {
            index,
            rip: self.regs.rip,
            ring: self.sregs.cs.dpl & 3,
            interrupts_enabled: self.regs.rflags & (1 << 9) != 0,
            activity: self.activity(),
        }
    }
}

/// Where one vCPU stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuPlace {
    /// Which vCPU.
    pub index: u32,
    /// Address of the next instruction.
    pub rip: u64,
    /// Privilege level.
    pub ring: u8,
    /// RFLAGS.IF.
    pub interrupts_enabled: bool,
    /// "running", "halted", "not started" or "stopped".
    pub activity: &'static str,
}

impl std::fmt::Display for VcpuPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let interrupts = if self.interrupts_enabled { "on" } else { "off" };
        write!(
            f,
            "vCPU {}: {} at rip {:#x}, ring {}, interrupts {interrupts}",
            self.index, self.activity, self.rip, self.ring
        )
    }
}
