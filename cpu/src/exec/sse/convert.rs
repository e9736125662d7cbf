//! Conversions between floating point and general or MMX registers (SDM vol. 1, 11.4.1.6).

use core::arch::asm;

use super::arith::{Cvtdq2pd, Cvtdq2ps, Cvtpd2dq, Cvtps2dq, Cvttpd2dq, Cvttps2dq, Float};
use super::mxcsr::as_raised;
use super::{Done, Source, V, with_source};
use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::Op;
use crate::width::Width;

/// A conversion of a general operand into the lowest lane.
pub(crate) trait FromInteger {
    type Integer: Width + Plain;
    fn apply(d: V, s: Self::Integer) -> V;
}

macro_rules! from_integer {
    ($($name:ident = $insn:literal $modifier:literal $t:ty;)*) => {$(
        pub(crate) struct $name;
        impl FromInteger for $name {
            type Integer = $t;

            #[inline(always)]
            fn apply(d: V, s: $t) -> V {
                let mut r = d.0;
                // SAFETY: an instruction of SSE2; it touches its operands and flags in MXCSR.
                unsafe {
                    asm!(concat!($insn, " {}, {:", $modifier, "}"), inout(xmm_reg) r, in(reg) s,
                        options(nomem, nostack));
                }
                V(r)
            }
        }
    )*};
}

from_integer! {
    Cvtsi2ss32 = "cvtsi2ss" "e" u32;
    Cvtsi2ss64 = "cvtsi2ss" "r" u64;
    Cvtsi2sd32 = "cvtsi2sd" "e" u32;
    Cvtsi2sd64 = "cvtsi2sd" "r" u64;
}

/// CVTSI2SS and CVTSI2SD from a register.
pub(crate) fn from_register<O: FromInteger>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = cpu.get::<O::Integer>(op.src);
    from_integer::<O>(cpu, op, s)
}

/// The same from memory.
pub(crate) fn from_memory<O: FromInteger>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = cpu.load::<O::Integer>(cpu.ea(op))?;
    from_integer::<O>(cpu, op, s)
}

#[inline(always)]
fn from_integer<O: FromInteger>(cpu: &mut Cpu, op: &Op, s: O::Integer) -> Done {
    if !cpu.default_mxcsr() {
        return from_integer_unusual::<O>(cpu, op, s);
    }
    let r = O::apply(cpu.xmm(op.dst), s);
    cpu.set_xmm(op.dst, r);
    Ok(())
}

#[cold]
#[inline(never)]
fn from_integer_unusual<O: FromInteger>(cpu: &mut Cpu, op: &Op, s: O::Integer) -> Done {
    let d = cpu.xmm(op.dst);
    let r = cpu.under_mxcsr(|| O::apply(d, s), as_raised)?;
    cpu.set_xmm(op.dst, r);
    Ok(())
}

/// A conversion of the lowest lane to an integer.
pub(crate) trait ToInteger {
    type Integer: Width;
    fn apply(s: V) -> Self::Integer;
}

macro_rules! to_integer {
    ($($name:ident = $insn:literal $modifier:literal $t:ty;)*) => {$(
        pub(crate) struct $name;
        impl ToInteger for $name {
            type Integer = $t;

            #[inline(always)]
            fn apply(s: V) -> $t {
                let r: $t;
                // SAFETY: an instruction of SSE2; it touches its operands and flags in MXCSR.
                unsafe {
                    asm!(concat!($insn, " {:", $modifier, "}, {}"), out(reg) r, in(xmm_reg) s.0,
                        options(nomem, nostack));
                }
                r
            }
        }
    )*};
}

to_integer! {
    Cvtss2si32 = "cvtss2si" "e" u32;
    Cvtss2si64 = "cvtss2si" "r" u64;
    Cvtsd2si32 = "cvtsd2si" "e" u32;
    Cvtsd2si64 = "cvtsd2si" "r" u64;
    Cvttss2si32 = "cvttss2si" "e" u32;
    Cvttss2si64 = "cvttss2si" "r" u64;
    Cvttsd2si32 = "cvttsd2si" "e" u32;
    Cvttsd2si64 = "cvttsd2si" "r" u64;
}

/// CVTSS2SI and its like.
pub(crate) fn to_register<O: ToInteger, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.default_mxcsr() {
        return to_register_unusual::<O, S>(cpu, op);
    }
    with_source::<S>(cpu, op, |cpu, op, s| {
        cpu.set(op.dst, O::apply(s));
        Ok(())
    })
}

#[cold]
#[inline(never)]
fn to_register_unusual<O: ToInteger, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let r = cpu.under_mxcsr(|| O::apply(s), as_raised)?;
    cpu.set(op.dst, r);
    Ok(())
}

/// CVTPI2PS: two integers to the two low singles. The host converts four, of which two are zero.
fn cvtpi2ps(cpu: &mut Cpu, op: &Op, s: u64) -> Done {
    let d = cpu.xmm(op.dst);
    let r = cpu.float::<Cvtdq2ps>(d, V::from_low(s))?;
    cpu.set_xmm(op.dst, d.with_low(r));
    Ok(())
}

pub(crate) fn cvtpi2ps_rr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    cvtpi2ps(cpu, op, cpu.mm(op.src))?;
    cpu.enter_mmx();
    Ok(())
}

/// From memory, processors leave the x87 unit alone here, too.
pub(crate) fn cvtpi2ps_rm(cpu: &mut Cpu, op: &Op) -> Done {
    let s = cpu.load(cpu.ea(op))?;
    cvtpi2ps(cpu, op, s)
}

/// CVTPI2PD from an MMX register.
pub(crate) fn cvtpi2pd_rr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let s = V::from_low(cpu.mm(op.src));
    cpu.set_xmm(op.dst, Cvtdq2pd::apply(s, s));
    cpu.enter_mmx();
    Ok(())
}

/// CVTPI2PD from memory leaves the x87 unit alone (SDM vol. 2).
pub(crate) fn cvtpi2pd_rm(cpu: &mut Cpu, op: &Op) -> Done {
    let s = V::from_low(cpu.load(cpu.ea(op))?);
    cpu.set_xmm(op.dst, Cvtdq2pd::apply(s, s));
    Ok(())
}

/// CVTPS2PI and its like, by way of the conversion `O` to an XMM register.
pub(crate) fn to_mmx<O: Float, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let s = S::fetch(cpu, op)?;
    let r = cpu.float::<O>(s, s)?;
    cpu.enter_mmx();
    cpu.set_mm(op.dst, r.low());
    Ok(())
}

/// The two low singles converted, with nothing raised by the others.
pub(crate) struct Low<O>(core::marker::PhantomData<O>);
impl<O: Float> Float for Low<O> {
    #[inline(always)]
    fn apply(d: V, s: V) -> V {
        O::apply(d, V::from_low(s.low()))
    }
}

/// What CVTPS2PI, CVTTPS2PI, CVTPD2PI and CVTTPD2PI do.
pub(crate) type Cvtps2pi = Low<Cvtps2dq>;
pub(crate) type Cvttps2pi = Low<Cvttps2dq>;
pub(crate) type Cvtpd2pi = Cvtpd2dq;
pub(crate) type Cvttpd2pi = Cvttpd2dq;
