//! Moves, conversions and exchanges.

use crate::cpu::Cpu;
use crate::flags::Condition;
use crate::mem::Plain;
use crate::op::{Op, Stop, reg};
use crate::width::Width;

type Done = Result<(), Stop>;

pub(crate) fn rr<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<W>(op.src);
    cpu.set(op.dst, v);
    Ok(())
}

pub(crate) fn ri<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.set(op.dst, W::cut(op.imm));
    Ok(())
}

pub(crate) fn rm<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.load::<W>(cpu.ea(op))?;
    cpu.set(op.dst, v);
    Ok(())
}

pub(crate) fn mr<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<W>(op.src);
    cpu.store(cpu.ea(op), v)
}

pub(crate) fn mi<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.store(cpu.ea(op), W::cut(op.imm))
}

pub(crate) fn zx_rr<F: Width, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<F>(op.src);
    cpu.set(op.dst, T::cut(v.zx()));
    Ok(())
}

pub(crate) fn zx_rm<F: Width + Plain, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.load::<F>(cpu.ea(op))?;
    cpu.set(op.dst, T::cut(v.zx()));
    Ok(())
}

pub(crate) fn sx_rr<F: Width, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<F>(op.src);
    cpu.set(op.dst, T::cut(v.sx()));
    Ok(())
}

pub(crate) fn sx_rm<F: Width + Plain, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.load::<F>(cpu.ea(op))?;
    cpu.set(op.dst, T::cut(v.sx()));
    Ok(())
}

/// LEA: the segment is left out at decoding.
pub(crate) fn lea<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    cpu.set(op.dst, W::cut(at));
    Ok(())
}

/// CMOVcc: a 32-bit destination is zero-extended even if not moved to.
pub(crate) fn cmov_rr<C: Condition, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = if C::holds(&cpu.flags) {
        cpu.get::<W>(op.src)
    } else {
        cpu.get::<W>(op.dst)
    };
    cpu.set(op.dst, v);
    Ok(())
}

/// CMOVcc from memory, which is read in any case.
pub(crate) fn cmov_rm<C: Condition, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let loaded = cpu.load::<W>(cpu.ea(op))?;
    let v = if C::holds(&cpu.flags) {
        loaded
    } else {
        cpu.get::<W>(op.dst)
    };
    cpu.set(op.dst, v);
    Ok(())
}

pub(crate) fn setcc_r<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = u8::from(C::holds(&cpu.flags));
    cpu.set(op.dst, v);
    Ok(())
}

pub(crate) fn setcc_m<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = u8::from(C::holds(&cpu.flags));
    cpu.store(cpu.ea(op), v)
}

pub(crate) fn xchg_rr<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b) = (cpu.get::<W>(op.dst), cpu.get::<W>(op.src));
    cpu.set(op.dst, b);
    cpu.set(op.src, a);
    Ok(())
}

pub(crate) fn xchg_mr<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let old = cpu.load_for_store::<W>(at)?;
    let new = cpu.get::<W>(op.src);
    cpu.store(at, new)?;
    cpu.set(op.src, old);
    Ok(())
}

pub(crate) fn xadd_rr<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b) = (cpu.get::<W>(op.dst), cpu.get::<W>(op.src));
    let r = a.zx().wrapping_add(b.zx());
    cpu.flags.add::<W>(a.zx(), b.zx(), r);
    cpu.set(op.src, a);
    cpu.set(op.dst, W::cut(r));
    Ok(())
}

pub(crate) fn xadd_mr<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let a = cpu.load_for_store::<W>(at)?;
    let b = cpu.get::<W>(op.src);
    let r = a.zx().wrapping_add(b.zx());
    cpu.store(at, W::cut(r))?;
    cpu.flags.add::<W>(a.zx(), b.zx(), r);
    cpu.set(op.src, a);
    Ok(())
}

pub(crate) fn cmpxchg_rr<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (acc, old) = (cpu.get::<W>(0), cpu.get::<W>(op.dst));
    cpu.flags
        .sub::<W>(acc.zx(), old.zx(), acc.zx().wrapping_sub(old.zx()));
    if acc == old {
        let new = cpu.get::<W>(op.src);
        cpu.set(op.dst, new);
    } else {
        cpu.set(0, old);
    }
    Ok(())
}

/// CMPXCHG writes its destination in either case (SDM vol. 2), so it faults like a write.
pub(crate) fn cmpxchg_mr<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let old = cpu.load_for_store::<W>(at)?;
    let acc = cpu.get::<W>(0);
    let equal = acc == old;
    let new = if equal { cpu.get::<W>(op.src) } else { old };
    cpu.store(at, new)?;
    cpu.flags
        .sub::<W>(acc.zx(), old.zx(), acc.zx().wrapping_sub(old.zx()));
    if !equal {
        cpu.set(0, old);
    }
    Ok(())
}

pub(crate) fn cmpxchg8b(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let old = cpu.load_for_store::<u64>(at)?;
    let expected = cpu.regs[reg::RAX] & 0xffff_ffff | cpu.regs[reg::RDX] << 32;
    let new = cpu.regs[reg::RBX] & 0xffff_ffff | cpu.regs[reg::RCX] << 32;
    cpu.store(at, if old == expected { new } else { old })?;
    if old != expected {
        cpu.regs[reg::RAX] = old & 0xffff_ffff;
        cpu.regs[reg::RDX] = old >> 32;
    }
    cpu.flags.set_zf(old == expected);
    Ok(())
}

pub(crate) fn cmpxchg16b(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    if at & 15 != 0 {
        return Err(cpu.gp(0));
    }
    let old = cpu.load_for_store::<u128>(at)?;
    let pair = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let expected = pair(cpu.regs[reg::RDX], cpu.regs[reg::RAX]);
    let new = pair(cpu.regs[reg::RCX], cpu.regs[reg::RBX]);
    cpu.store(at, if old == expected { new } else { old })?;
    if old != expected {
        cpu.regs[reg::RAX] = old as u64;
        cpu.regs[reg::RDX] = (old >> 64) as u64;
    }
    cpu.flags.set_zf(old == expected);
    Ok(())
}

/// BSWAP; of a 16-bit register it is undefined, and clears it on processors.
pub(crate) fn bswap<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<W>(op.dst).zx();
    let swapped = match W::BITS {
        64 => v.swap_bytes(),
        32 => v.swap_bytes() >> 32,
        _ => 0,
    };
    cpu.set(op.dst, W::cut(swapped));
    Ok(())
}

/// CBW, CWDE, CDQE: the accumulator's lower half is sign-extended.
pub(crate) fn extend_acc<W: Width>(cpu: &mut Cpu, _: &Op) -> Done {
    let shift = 64 - W::BITS / 2;
    let v = (cpu.regs[reg::RAX] << shift) as i64 >> shift;
    cpu.set(0, W::cut(v as u64));
    Ok(())
}

/// CWD, CDQ, CQO: the sign of the accumulator fills the data register.
pub(crate) fn spread_acc<W: Width>(cpu: &mut Cpu, _: &Op) -> Done {
    let sign = (cpu.get::<W>(0).sx() as i64 >> 63) as u64;
    cpu.set(reg::RDX as u8, W::cut(sign));
    Ok(())
}

/// XLAT: base and index are set at decoding.
pub(crate) fn xlat(cpu: &mut Cpu, op: &Op) -> Done {
    let offset = cpu.regs[reg::RBX].wrapping_add(cpu.regs[reg::RAX] & 0xff) & op.imm;
    let v = cpu.load::<u8>(offset.wrapping_add(cpu.r(op.seg)))?;
    cpu.set(0, v);
    Ok(())
}

pub(crate) fn nop(_: &mut Cpu, _: &Op) -> Done {
    Ok(())
}

/// A multi-byte move with the bytes reversed is MOVBE, which the model lacks; moves of segment
/// registers follow. `imm` is the segment's number.
pub(crate) fn from_segment_r<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = u64::from(cpu.seg[op.imm as usize % 6].selector);
    cpu.set(op.dst, W::cut(v));
    Ok(())
}

pub(crate) fn from_segment_m(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.seg[op.imm as usize % 6].selector;
    cpu.store(cpu.ea(op), v)
}

fn load_segment(cpu: &mut Cpu, op: &Op, selector: u16) -> Done {
    let which = op.imm as usize % 6;
    cpu.load_segment(which, selector)?;
    if which == crate::cpu::seg::SS {
        cpu.shadow = true;
    }
    Ok(())
}

pub(crate) fn to_segment_r(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<u16>(op.src);
    load_segment(cpu, op, v)
}

pub(crate) fn to_segment_m(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.load::<u16>(cpu.ea(op))?;
    load_segment(cpu, op, v)
}

/// LES, LDS, LSS, LFS, LGS: offset and selector from memory; `imm` is the segment's number.
pub(crate) fn load_far_pointer<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let offset = cpu.load::<W>(at)?;
    let selector = cpu.load::<u16>(at.wrapping_add(W::BYTES))?;
    load_segment(cpu, op, selector)?;
    cpu.set(op.dst, offset);
    Ok(())
}
