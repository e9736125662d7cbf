//! MASKMOVDQU and MASKMOVQ: stores of selected bytes (SDM vol. 2).

use super::Done;
use crate::cpu::Cpu;
use crate::op::Op;

/// Stores those bytes of `data` whose mask byte has its sign bit set.
pub(super) fn store_selected(cpu: &mut Cpu, at: u64, data: &[u8], mask: &[u8]) -> Done {
    // The whole operand has to be writable, even if nothing of it is selected.
    cpu.probe_write(at, data.len() as u64)?;
    let selected = |i: &usize| mask[*i] & 0x80 != 0;
    for i in (0..data.len()).filter(selected) {
        cpu.store(at.wrapping_add(i as u64), data[i])?;
    }
    Ok(())
}

/// MASKMOVDQU; the address is that of the implicit operand, DS:rDI.
pub(crate) fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Done {
    let (data, mask) = (cpu.xmm(op.dst).u8s(), cpu.xmm(op.src).u8s());
    store_selected(cpu, cpu.ea(op), &data, &mask)
}
