//! Cases that had better not run on the host.

use iced_x86::{Instruction, Mnemonic};

use crate::case::Case;
use crate::operands::{effective_address, explicit_memory, register};

/// Whether a direct branch leads to the tested bytes, and likely there again.
pub(crate) fn loops(case: &Case, insn: &Instruction) -> bool {
    let target = insn.near_branch_target();
    target != 0 && target.wrapping_sub(case.rip) < case.code_len
}

/// Whether XSAVE or XRSTOR is asked for state components beyond x87 and SSE, of which the host may
/// have more than the model.
pub(crate) fn asks_for_too_much(case: &Case, insn: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        insn.mnemonic(),
        M::Xsave | M::Xsave64 | M::Xrstor | M::Xrstor64
    ) && (case.gpr[0] as u32 & !3 != 0 || case.gpr[2] as u32 != 0)
}

/// Whether the instruction locks two cache lines at once, for which kernels punish programs by
/// tens of milliseconds.
pub(crate) fn splits_lock(case: &Case, insn: &Instruction) -> bool {
    if !insn.has_lock_prefix() && insn.mnemonic() != Mnemonic::Xchg || !explicit_memory(insn) {
        return false;
    }
    let size = insn.memory_size().size() as u64;
    let Some(mut at) = effective_address(case, insn) else {
        return false;
    };
    let offset = insn.op1_register();
    if matches!(
        insn.mnemonic(),
        Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && offset.is_gpr()
    {
        let bits = register(case, offset) << (64 - 8 * size) >> (64 - 8 * size);
        let signed = (bits << (64 - 8 * size)) as i64 >> (64 - 8 * size);
        at = at.wrapping_add((signed >> 3) as u64 & !(size - 1));
    }
    at % 64 + size > 64
}
