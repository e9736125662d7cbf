//! Packed shifts by an immediate (SDM vol. 1, 11.4.1).

use super::packed::Packed;
use super::{Done, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// A shift of lanes by `imm`.
pub(crate) fn by_immediate<O: Packed>(cpu: &mut Cpu, op: &Op) -> Done {
    let r = O::xmm(cpu.xmm(op.dst), V::from_low(op.imm));
    cpu.set_xmm(op.dst, r);
    Ok(())
}

/// PSLLDQ: the whole register by bytes.
pub(crate) fn pslldq(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.dst).bits();
    let shifted = v.checked_shl(op.imm as u32 * 8).unwrap_or(0);
    cpu.set_xmm(op.dst, V::from_bits(shifted));
    Ok(())
}

/// PSRLDQ.
pub(crate) fn psrldq(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.dst).bits();
    let shifted = v.checked_shr(op.imm as u32 * 8).unwrap_or(0);
    cpu.set_xmm(op.dst, V::from_bits(shifted));
    Ok(())
}
