//! Moves between vector registers, general registers and memory (SDM vol. 1, 10.4.1, 11.4.1).

use core::arch::x86_64::*;

use super::vector::sse2;
use super::{Done, Source, V, with_source};
use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::Op;
use crate::width::Width;

/// Loads a register, or copies one; what the source lacks is zero.
pub(crate) fn load<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    with_source::<S>(cpu, op, |cpu, op, v| {
        cpu.set_xmm(op.dst, v);
        Ok(())
    })
}

/// Stores a register at a 16-byte boundary.
pub(crate) fn store_aligned(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.aligned(op)?;
    let v = cpu.xmm(op.src);
    cpu.store(at, v)
}

/// Stores a register anywhere.
pub(crate) fn store(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.src);
    cpu.store(cpu.ea(op), v)
}

/// Stores the lower half.
pub(crate) fn store_low(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.src).low();
    cpu.store(cpu.ea(op), v)
}

/// Stores the upper half.
pub(crate) fn store_high(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.src).high().low();
    cpu.store(cpu.ea(op), v)
}

/// Stores the lowest 32 bits.
pub(crate) fn store_low32(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.src).low32();
    cpu.store(cpu.ea(op), v)
}

/// MOVQ between registers: zeros above.
pub(crate) fn movq_rr(cpu: &mut Cpu, op: &Op) -> Done {
    let v = V(sse2!(_mm_move_epi64(cpu.xmm(op.src).0)));
    cpu.set_xmm(op.dst, v);
    Ok(())
}

/// MOVSS between registers: the rest stays.
pub(crate) fn movss_rr(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.dst).with_low32(cpu.xmm(op.src));
    cpu.set_xmm(op.dst, v);
    Ok(())
}

/// Replaces the lower half: MOVSD between registers, MOVLPS and MOVLPD.
pub(crate) fn set_low<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    with_source::<S>(cpu, op, |cpu, op, s| {
        let v = cpu.xmm(op.dst).with_low(s);
        cpu.set_xmm(op.dst, v);
        Ok(())
    })
}

/// Replaces the upper half by the source's lower one: MOVLHPS, MOVHPS and MOVHPD.
pub(crate) fn set_high<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    with_source::<S>(cpu, op, |cpu, op, s| {
        let v = cpu.xmm(op.dst).with_high(s);
        cpu.set_xmm(op.dst, v);
        Ok(())
    })
}

/// MOVHLPS.
pub(crate) fn movhlps(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.xmm(op.dst).with_low(cpu.xmm(op.src).high());
    cpu.set_xmm(op.dst, v);
    Ok(())
}

/// MOVD and MOVQ from a general register.
pub(crate) fn from_general<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = V::from_low(cpu.get::<W>(op.src).zx());
    cpu.set_xmm(op.dst, v);
    Ok(())
}

/// MOVD and MOVQ to a general register.
pub(crate) fn to_general<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = W::cut(cpu.xmm(op.src).low());
    cpu.set(op.dst, v);
    Ok(())
}

/// PMOVMSKB.
pub(crate) fn pmovmskb(cpu: &mut Cpu, op: &Op) -> Done {
    let v = sse2!(_mm_movemask_epi8(cpu.xmm(op.src).0)) as u32;
    cpu.set(op.dst, v);
    Ok(())
}

/// MOVMSKPS.
pub(crate) fn movmskps(cpu: &mut Cpu, op: &Op) -> Done {
    let v = sse2!(_mm_movemask_ps(cpu.xmm(op.src).singles())) as u32;
    cpu.set(op.dst, v);
    Ok(())
}

/// MOVMSKPD.
pub(crate) fn movmskpd(cpu: &mut Cpu, op: &Op) -> Done {
    let v = sse2!(_mm_movemask_pd(cpu.xmm(op.src).doubles())) as u32;
    cpu.set(op.dst, v);
    Ok(())
}

/// MOVDDUP.
pub(crate) fn movddup<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    cpu.set_xmm(op.dst, s.with_high(s));
    Ok(())
}

/// MOVSHDUP: the odd singles, twice each.
pub(crate) fn movshdup<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    cpu.set_xmm(op.dst, V(sse2!(_mm_shuffle_epi32::<0b11_11_01_01>(s.0))));
    Ok(())
}

/// MOVSLDUP: the even singles, twice each.
pub(crate) fn movsldup<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    cpu.set_xmm(op.dst, V(sse2!(_mm_shuffle_epi32::<0b10_10_00_00>(s.0))));
    Ok(())
}

/// MOVNTI.
pub(crate) fn movnti<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.get::<W>(op.src);
    cpu.store(cpu.ea(op), v)
}
