//! MMX: 64-bit vectors in the x87 registers (SDM vol. 1, chapter 9).
//!
//! Every MMX instruction sets the top of the x87 stack to 0 and marks all its registers as in use;
//! a write to an MMX register also sets the exponent field above it to ones (9.5).

use core::arch::x86_64::_mm_movemask_epi8;

use super::packed::Packed;
use super::vector::sse2;
use super::{Done, V};
use crate::cpu::{Cpu, cr};
use crate::mem::Plain;
use crate::op::{Op, Stop};
use crate::width::Width;

/// Exponent and sign of an x87 register that holds an MMX value.
const ONES_ABOVE: u128 = 0xffff << 64;

/// Heads the MMX instructions of a block: #UD or #NM where they are not available (SDM vol. 3,
/// 12.1).
pub(crate) fn check_mmx(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cr0 & cr::CR0_EM != 0 {
        return Err(cpu.ud());
    }
    if cpu.cr0 & cr::CR0_TS != 0 {
        return Err(cpu.nm());
    }
    Ok(())
}

impl Cpu {
    #[inline(always)]
    pub(super) fn mm(&self, index: u8) -> u64 {
        self.fpu.st[usize::from(index & 7)] as u64
    }

    #[inline(always)]
    pub(super) fn set_mm(&mut self, index: u8, v: u64) {
        self.fpu.st[usize::from(index & 7)] = ONES_ABOVE | u128::from(v);
    }

    /// Turns the x87 registers into MMX registers.
    #[inline(always)]
    pub(super) fn enter_mmx(&mut self) {
        self.fpu.status &= !crate::exec::x87::status::TOP;
        self.fpu.tags = 0xff;
    }
}

/// Where the source of an MMX operation comes from. A pending x87 exception is raised before
/// memory is touched.
pub(crate) trait Source {
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop>;
}

/// A register.
pub(crate) struct Reg;
impl Source for Reg {
    #[inline(always)]
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
        cpu.x87_pending()?;
        Ok(cpu.mm(op.src))
    }
}

/// Memory: four or eight bytes.
pub(crate) struct Mem<W>(core::marker::PhantomData<W>);
impl<W: Width + Plain> Source for Mem<W> {
    #[inline(always)]
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
        cpu.x87_pending()?;
        Ok(cpu.load::<W>(cpu.ea(op))?.zx())
    }
}

/// A general register.
pub(crate) struct General<W>(core::marker::PhantomData<W>);
impl<W: Width> Source for General<W> {
    #[inline(always)]
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
        cpu.x87_pending()?;
        Ok(cpu.get::<W>(op.src).zx())
    }
}

/// The immediate.
pub(crate) struct Immediate;
impl Source for Immediate {
    #[inline(always)]
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
        cpu.x87_pending()?;
        Ok(op.imm)
    }
}

/// A packed integer operation.
pub(crate) fn packed<O: Packed, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let r = O::mm(cpu.mm(op.dst), s);
    cpu.enter_mmx();
    cpu.set_mm(op.dst, r);
    Ok(())
}

/// MOVD and MOVQ to an MMX register.
pub(crate) fn load<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = S::fetch(cpu, op)?;
    cpu.enter_mmx();
    cpu.set_mm(op.dst, v);
    Ok(())
}

/// MOVD, MOVQ and MOVNTQ to memory.
pub(crate) fn store<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = W::cut(cpu.mm(op.src));
    cpu.store(cpu.ea(op), v)?;
    cpu.enter_mmx();
    Ok(())
}

/// MOVD and MOVQ to a general register.
pub(crate) fn to_general<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = W::cut(cpu.mm(op.src));
    cpu.set(op.dst, v);
    cpu.enter_mmx();
    Ok(())
}

/// PSHUFW.
pub(crate) fn pshufw<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    ternary::<S>(cpu, op, super::shuffle::pshufw)
}

/// PALIGNR.
pub(crate) fn palignr<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    ternary::<S>(cpu, op, super::shuffle::palignr_mm)
}

/// PINSRW.
pub(crate) fn pinsrw<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    ternary::<S>(cpu, op, |d, s, imm| {
        let shift = (imm & 3) * 16;
        d & !(0xffff << shift) | (s & 0xffff) << shift
    })
}

#[inline(always)]
fn ternary<S: Source>(cpu: &mut Cpu, op: &Op, f: impl Fn(u64, u64, u64) -> u64) -> Done {
    let s = S::fetch(cpu, op)?;
    let r = f(cpu.mm(op.dst), s, op.imm);
    cpu.enter_mmx();
    cpu.set_mm(op.dst, r);
    Ok(())
}

/// PEXTRW.
pub(crate) fn pextrw(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = cpu.mm(op.src) >> ((op.imm & 3) * 16) & 0xffff;
    cpu.set(op.dst, v);
    cpu.enter_mmx();
    Ok(())
}

/// PMOVMSKB.
pub(crate) fn pmovmskb(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = sse2!(_mm_movemask_epi8(V::from_low(cpu.mm(op.src)).0)) as u32;
    cpu.set(op.dst, v);
    cpu.enter_mmx();
    Ok(())
}

/// MASKMOVQ; the address is that of the implicit operand, DS:rDI.
pub(crate) fn maskmovq(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let (data, mask) = (cpu.mm(op.dst).to_le_bytes(), cpu.mm(op.src).to_le_bytes());
    super::masked::store_selected(cpu, cpu.ea(op), &data, &mask)?;
    cpu.enter_mmx();
    Ok(())
}

/// MOVDQ2Q.
pub(crate) fn movdq2q(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = cpu.xmm(op.src).low();
    cpu.enter_mmx();
    cpu.set_mm(op.dst, v);
    Ok(())
}

/// MOVQ2DQ.
pub(crate) fn movq2dq(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = V::from_low(cpu.mm(op.src));
    cpu.set_xmm(op.dst, v);
    cpu.enter_mmx();
    Ok(())
}

/// EMMS: the x87 registers are free again.
pub(crate) fn emms(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.x87_pending()?;
    cpu.fpu.status &= !crate::exec::x87::status::TOP;
    cpu.fpu.tags = 0;
    Ok(())
}
