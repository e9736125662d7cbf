//! Effective addresses that do not fit the plain form, worked out ahead of the instruction proper.

use crate::cpu::Cpu;
use crate::op::{Op, Stop, reg};

type Done = Result<(), Stop>;

/// `TEMP = ((base + index * scale + disp) & mask) + segment`, the mask in `imm`: address sizes of
/// 16 and 32 bits.
pub(crate) fn masked(cpu: &mut Cpu, op: &Op) -> Done {
    let offset = cpu
        .r(op.base)
        .wrapping_add(cpu.r(op.index) << (op.scale & 3))
        .wrapping_add(op.disp as i64 as u64)
        & op.imm;
    let linear = offset.wrapping_add(cpu.r(op.seg));
    // Outside 64-bit mode linear addresses have 32 bits.
    cpu.regs[reg::TEMP] = if cpu.bits == 64 {
        linear
    } else {
        linear & 0xffff_ffff
    };
    Ok(())
}

/// `TEMP = base + imm + segment`: displacements of more than 32 bits.
pub(crate) fn wide(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.regs[reg::TEMP] = cpu
        .r(op.base)
        .wrapping_add(op.imm)
        .wrapping_add(cpu.r(op.seg));
    Ok(())
}

/// Ends a block that no branch ends: RIP is the next instruction.
pub(crate) fn fall_through(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.rip = cpu.next_rip(op);
    Ok(())
}

/// An instruction that the processor lacks: counted by name, and #UD.
pub(crate) fn unknown(cpu: &mut Cpu, op: &Op) -> Done {
    let code = iced_x86::Code::try_from(op.imm as usize).unwrap_or_default();
    let name = format!("{code:?}");
    *cpu.shared.unknown.entry(name).or_insert(0) += 1;
    Err(cpu.ud())
}

/// Bytes that are no instruction, and UD0, UD1 and UD2.
pub(crate) fn undefined(cpu: &mut Cpu, _: &Op) -> Done {
    Err(cpu.ud())
}

/// #GP(0): an instruction longer than 15 bytes.
pub(crate) fn too_long(cpu: &mut Cpu, _: &Op) -> Done {
    Err(cpu.gp(0))
}
