//! Which instructions may stand together in one case, and which flags they leave undefined.

use iced_x86::{CpuidFeature, FlowControl, Instruction, Mnemonic, OpKind};

use crate::compare::flags_from_iced;

/// Flags undefined after all of `insns`, whatever their operands' values.
pub(crate) fn undefined_flags(insns: &[Instruction]) -> u64 {
    insns.iter().fold(0, after)
}

fn after(before: u64, insn: &Instruction) -> u64 {
    use Mnemonic as M;
    let undefined = flags_from_iced(insn.rflags_undefined());
    match insn.mnemonic() {
        // A count of zero changes nothing; others leave OF or CF undefined, depending on it.
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => {
            before | undefined | flags_from_iced(insn.rflags_modified()) & OVERFLOW_CARRY_ADJUST
        }
        _ => {
            let written = insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set();
            before & !flags_from_iced(written) | undefined
        }
    }
}

/// OF, CF and AF.
const OVERFLOW_CARRY_ADJUST: u64 = 1 << 11 | 1 | 1 << 4;

/// Whether `next` may follow `before` in a case: its result is defined, as far as the inputs are
/// known now.
pub(crate) fn may_follow(before: &[Instruction], next: &Instruction) -> bool {
    let ends = before
        .last()
        .is_some_and(|b| b.flow_control() != FlowControl::Next);
    let reads = flags_from_iced(next.rflags_read());
    !ends && plain(next) && reads & undefined_flags(before) == 0
}

/// Integer and SSE instructions without effects beyond registers, flags and memory.
fn plain(insn: &Instruction) -> bool {
    use CpuidFeature as F;
    use Mnemonic as M;
    let units = [
        F::FPU,
        F::FPU287,
        F::FPU387,
        F::MMX,
        F::FXSR,
        F::XSAVE,
        F::FSGSBASE,
    ];
    if insn.cpuid_features().iter().any(|f| units.contains(f)) || insn.is_privileged() {
        return false;
    }
    if !matches!(
        insn.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch
    ) {
        return false;
    }
    let registers = (0..insn.op_count())
        .filter(|&n| insn.op_kind(n) == OpKind::Register)
        .map(|n| insn.op_register(n));
    let mut registers = registers.filter(|r| r.is_mm() || r.is_segment_register());
    let locks = insn.has_lock_prefix()
        || insn.mnemonic() == M::Xchg && insn.op_kinds().any(|k| k == OpKind::Memory);
    let undefined = matches!(
        insn.mnemonic(),
        M::Bsf | M::Bsr | M::Shld | M::Shrd | M::Bswap | M::Lar | M::Dpps | M::Dppd
    );
    let control = matches!(
        insn.mnemonic(),
        M::Popf | M::Popfd | M::Popfq | M::Les | M::Lds | M::Lss | M::Lfs | M::Lgs
    );
    // Selectors that a sequence has made itself mean other descriptors on the host.
    let special = matches!(
        insn.mnemonic(),
        M::Fisttp | M::Maskmovdqu | M::Xlatb | M::Enter | M::Verr | M::Verw | M::Lsl
    );
    registers.next().is_none()
        && !locks
        && !undefined
        && !control
        && !special
        && !insn.has_rep_prefix()
        && !insn.has_repne_prefix()
}
