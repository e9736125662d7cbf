//! Moving a vCPU's state in and out of KVM, in the order that KVM needs.

use std::io;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_xcrs, kvm_xsave};
use kvm_ioctls::VcpuFd;

use crate::vcpu::{VcpuError, VcpuState, XSAVE_LEN};

/// MSRs that make up the model's state, in the order in which they are written back: the same that
/// the software processor keeps. The TSC comes first and the TSC deadline (after the local APIC)
/// last, since each depends on what is before it. EFER and the APIC base are part of the special
/// registers.
const SAVED_MSRS: &[u32] = &[
    MSR_TSC,
    0x3b,        // TSC_ADJUST
    0x48,        // SPEC_CTRL
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0x1a0,       // MISC_ENABLE
    0x277,       // PAT
    0x2ff,       // MTRR_DEF_TYPE
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0102, // KERNEL_GS_BASE
    0xc000_0103, // TSC_AUX
    0x4b56_4d00, // kvmclock: wall clock
    0x4b56_4d01, // kvmclock: system time
    MSR_TSC_DEADLINE,
];
/// Time-stamp counter.
pub(super) const MSR_TSC: u32 = 0x10;
/// Local APIC timer deadline.
pub(super) const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// XSTATE_BV in the XSAVE header, as an index of 32-bit words.
const XSTATE_BV_WORD: usize = 512 / 4;

/// Names the ioctl that failed.
pub(super) fn failed(
    index: u32,
    operation: &'static str,
) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |error| VcpuError::Operation {
        index,
        operation,
        source: io::Error::from_raw_os_error(error.errno()),
    }
}

/// Reads the whole state. The caller has let a pending access retire.
pub(super) fn save(fd: &VcpuFd, index: u32) -> Result<VcpuState, VcpuError> {
    let xcrs = fd.get_xcrs().map_err(failed(index, "KVM_GET_XCRS"))?;
    Ok(VcpuState {
        // Asked first: reading it may let the kernel act on a pending INIT or SIPI.
        mp_state: fd
            .get_mp_state()
            .map_err(failed(index, "KVM_GET_MP_STATE"))?,
        regs: fd.get_regs().map_err(failed(index, "KVM_GET_REGS"))?,
        sregs: fd.get_sregs().map_err(failed(index, "KVM_GET_SREGS"))?,
        xsave: save_xsave(fd, index)?,
        xcr0: (0..xcrs.nr_xcrs.min(16))
            .map(|i| xcrs.xcrs[i as usize])
            .find(|x| x.xcr == 0)
            .map_or(1, |x| x.value),
        msrs: read_msrs(fd, index, SAVED_MSRS)?,
        lapic: fd.get_lapic().map_err(failed(index, "KVM_GET_LAPIC"))?,
        events: fd
            .get_vcpu_events()
            .map_err(failed(index, "KVM_GET_VCPU_EVENTS"))?,
        debugregs: fd
            .get_debug_regs()
            .map_err(failed(index, "KVM_GET_DEBUGREGS"))?,
    })
}

/// Writes the whole state.
pub(super) fn load(fd: &VcpuFd, index: u32, state: &VcpuState) -> Result<(), VcpuError> {
    if state.xsave.len() != XSAVE_LEN {
        let reason = format!(
            "XSAVE area of {} bytes instead of {XSAVE_LEN}",
            state.xsave.len()
        );
        return Err(VcpuError::BadState { index, reason });
    }
    fd.set_mp_state(state.mp_state)
        .map_err(failed(index, "KVM_SET_MP_STATE"))?;
    fd.set_regs(&masked_regs(&state.regs))
        .map_err(failed(index, "KVM_SET_REGS"))?;
    fd.set_sregs(&state.sregs)
        .map_err(failed(index, "KVM_SET_SREGS"))?;
    load_xsave(fd, index, &state.xsave)?;
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0].value = state.xcr0;
    fd.set_xcrs(&xcrs).map_err(failed(index, "KVM_SET_XCRS"))?;
    fd.set_debug_regs(&state.debugregs)
        .map_err(failed(index, "KVM_SET_DEBUGREGS"))?;
    // The TSC first: the kvmclock page and the timers are computed from it.
    write_msrs(
        fd,
        index,
        state.msrs.iter().filter(|m| m.index != MSR_TSC_DEADLINE),
    )?;
    fd.set_lapic(&state.lapic)
        .map_err(failed(index, "KVM_SET_LAPIC"))?;
    write_msrs(
        fd,
        index,
        state.msrs.iter().filter(|m| m.index == MSR_TSC_DEADLINE),
    )?;
    fd.set_vcpu_events(&state.events)
        .map_err(failed(index, "KVM_SET_VCPU_EVENTS"))
}

/// Bit 1 of RFLAGS is always set on a processor; KVM_SET_REGS takes what it is given.
fn masked_regs(regs: &kvm_regs) -> kvm_regs {
    kvm_regs {
        rflags: regs.rflags | 2,
        ..*regs
    }
}

fn save_xsave(fd: &VcpuFd, index: u32) -> Result<Vec<u8>, VcpuError> {
    let area = fd.get_xsave().map_err(failed(index, "KVM_GET_XSAVE"))?;
    let mut bytes: Vec<u8> = area
        .region
        .iter()
        .take(XSAVE_LEN / 4)
        .flat_map(|w| w.to_le_bytes())
        .collect();
    // Only the model's components are kept. Words 464..512 of the legacy area are software-defined:
    // KVM reports the host's feature mask there, which is no guest state.
    bytes[464..512].fill(0);
    bytes[512..].fill(0);
    bytes[512] = 3;
    Ok(bytes)
}

fn load_xsave(fd: &VcpuFd, index: u32, bytes: &[u8]) -> Result<(), VcpuError> {
    let mut area = kvm_xsave::default();
    for (word, chunk) in area.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    // Without both bits a fresh vCPU keeps its initial x87/SSE state whatever the area says.
    area.region[XSTATE_BV_WORD] |= 3;
    area.region[XSTATE_BV_WORD] &= 3;
    // SAFETY: the model enables no feature beyond x87 and SSE (no KVM_ENABLE_CAP of dynamic
    // features), so the kernel reads at most the 4096 bytes of the fixed part.
    unsafe { fd.set_xsave(&area) }.map_err(failed(index, "KVM_SET_XSAVE"))
}

/// Reads those of `indices` that this KVM has.
pub(super) fn read_msrs(
    fd: &VcpuFd,
    index: u32,
    indices: &[u32],
) -> Result<Vec<kvm_msr_entry>, VcpuError> {
    let mut found = Vec::with_capacity(indices.len());
    for msr in indices {
        let entry = kvm_msr_entry {
            index: *msr,
            ..Default::default()
        };
        let mut msrs = wrap(index, &[entry])?;
        // One at a time, because KVM stops at the first MSR that it lacks.
        if fd
            .get_msrs(&mut msrs)
            .map_err(failed(index, "KVM_GET_MSRS"))?
            == 1
        {
            found.extend_from_slice(msrs.as_slice());
        }
    }
    Ok(found)
}

/// Writes MSRs in order; those that this KVM lacks are skipped.
pub(super) fn write_msrs<'a>(
    fd: &VcpuFd,
    index: u32,
    entries: impl Iterator<Item = &'a kvm_msr_entry>,
) -> Result<(), VcpuError> {
    for entry in entries {
        let msrs = wrap(index, &[*entry])?;
        fd.set_msrs(&msrs).map_err(failed(index, "KVM_SET_MSRS"))?;
    }
    Ok(())
}

fn wrap(index: u32, entries: &[kvm_msr_entry]) -> Result<Msrs, VcpuError> {
    Msrs::from_entries(entries).map_err(|e| VcpuError::BadState {
        index,
        reason: format!("MSR list: {e:?}"),
    })
}
