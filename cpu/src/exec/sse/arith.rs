//! Floating-point arithmetic and conversions within vector registers (SDM vol. 1, 10.4.1, 11.4.1
//! and 12.3): one host instruction each.

use core::arch::asm;

use super::unbounded::{Calculation, Lanes, review};
use super::{Done, Source, V, with_source};
use crate::cpu::Cpu;
use crate::op::{Op, Stop};

/// A floating-point operation `d = f(d, s)` under MXCSR.
pub(crate) trait Float {
    /// What is computed for each lane, if it can overflow or underflow.
    const BOUNDED: Option<(Calculation, Lanes)> = None;

    fn apply(d: V, s: V) -> V;

    /// The operands of each lane, where they come from other lanes.
    fn operands(d: V, s: V) -> (V, V) {
        (d, s)
    }
}

impl Cpu {
    /// Applies a floating-point operation under the guest's MXCSR.
    #[inline(always)]
    pub(super) fn float<O: Float>(&mut self, d: V, s: V) -> Result<V, Stop> {
        self.under_mxcsr(
            || O::apply(d, s),
            |&r, guest, masked| review::<O>(d, s, r, guest, masked),
        )
    }
}

/// A floating-point operation; the source from a register or from memory.
pub(crate) fn float<O: Float, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.default_mxcsr() {
        return float_unusual::<O, S>(cpu, op);
    }
    with_source::<S>(cpu, op, |cpu, op, s| {
        let r = O::apply(cpu.xmm(op.dst), s);
        cpu.set_xmm(op.dst, r);
        Ok(())
    })
}

#[cold]
#[inline(never)]
fn float_unusual<O: Float, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let r = cpu.float::<O>(cpu.xmm(op.dst), s)?;
    cpu.set_xmm(op.dst, r);
    Ok(())
}

/// Operations that are one instruction of SSE or SSE2.
macro_rules! instructions {
    ($($name:ident = $insn:literal $(, $calculation:ident $lanes:ident)?;)*) => {$(
        pub(crate) struct $name;
        impl Float for $name {
            $(const BOUNDED: Option<(Calculation, Lanes)> =
                Some((Calculation::$calculation, Lanes::$lanes));)?

            #[inline(always)]
            fn apply(d: V, s: V) -> V {
                let mut r = d.0;
                // SAFETY: the instruction belongs to the SSE2 that every x86-64 host has. It
                // touches its two operands and flags in MXCSR, where every exception is masked.
                unsafe {
                    asm!(concat!($insn, " {}, {}"), inout(xmm_reg) r, in(xmm_reg) s.0,
                        options(nomem, nostack));
                }
                V(r)
            }
        }
    )*};
}

instructions! {
    Addps = "addps", Add Singles;
    Addpd = "addpd", Add Doubles;
    Addss = "addss", Add Single;
    Addsd = "addsd", Add Double;
    Subps = "subps", Sub Singles;
    Subpd = "subpd", Sub Doubles;
    Subss = "subss", Sub Single;
    Subsd = "subsd", Sub Double;
    Mulps = "mulps", Mul Singles;
    Mulpd = "mulpd", Mul Doubles;
    Mulss = "mulss", Mul Single;
    Mulsd = "mulsd", Mul Double;
    Divps = "divps", Div Singles;
    Divpd = "divpd", Div Doubles;
    Divss = "divss", Div Single;
    Divsd = "divsd", Div Double;
    Minps = "minps";
    Minpd = "minpd";
    Minss = "minss";
    Minsd = "minsd";
    Maxps = "maxps";
    Maxpd = "maxpd";
    Maxss = "maxss";
    Maxsd = "maxsd";
    Sqrtps = "sqrtps";
    Sqrtpd = "sqrtpd";
    Sqrtss = "sqrtss";
    Sqrtsd = "sqrtsd";
    // Approximations: the bits below their guaranteed precision are the host's.
    Rcpps = "rcpps";
    Rcpss = "rcpss";
    Rsqrtps = "rsqrtps";
    Rsqrtss = "rsqrtss";
    Cvtps2pd = "cvtps2pd";
    Cvtpd2ps = "cvtpd2ps", Narrow Singles;
    Cvtss2sd = "cvtss2sd";
    Cvtsd2ss = "cvtsd2ss", Narrow Single;
    Cvtdq2ps = "cvtdq2ps";
    Cvtdq2pd = "cvtdq2pd";
    Cvtps2dq = "cvtps2dq";
    Cvttps2dq = "cvttps2dq";
    Cvtpd2dq = "cvtpd2dq";
    Cvttpd2dq = "cvttpd2dq";
}

/// Operations of SSE3 on neighbouring lanes: the host's addition or subtraction of the operands
/// rearranged. Lanes of zeros raise nothing.
macro_rules! rearranged {
    ($($name:ident = $op:ident, |$d:ident, $s:ident| $operands:expr;)*) => {$(
        pub(crate) struct $name;
        impl Float for $name {
            const BOUNDED: Option<(Calculation, Lanes)> = $op::BOUNDED;

            #[inline(always)]
            fn apply(d: V, s: V) -> V {
                let (d, s) = Self::operands(d, s);
                $op::apply(d, s)
            }

            fn operands($d: V, $s: V) -> (V, V) {
                $operands
            }
        }
    )*};
}

fn evens(d: V, s: V) -> V {
    let (d, s) = (d.u32s(), s.u32s());
    V::from_u32s([d[0], d[2], s[0], s[2]])
}

fn odds(d: V, s: V) -> V {
    let (d, s) = (d.u32s(), s.u32s());
    V::from_u32s([d[1], d[3], s[1], s[3]])
}

fn lows(d: V, s: V) -> V {
    d.with_high(s)
}

fn highs(d: V, s: V) -> V {
    V::pair(d.u64s()[1], s.u64s()[1])
}

/// Lanes 0 and 2 of `v`, or 1 and 3, the others zero.
fn only_singles(v: V, odd: bool) -> V {
    let v = v.u32s();
    V::from_u32s(if odd {
        [0, v[1], 0, v[3]]
    } else {
        [v[0], 0, v[2], 0]
    })
}

/// One half of `v`, the other zero.
fn only_double(v: V, high: bool) -> V {
    let v = v.u64s();
    if high {
        V::pair(0, v[1])
    } else {
        V::pair(v[0], 0)
    }
}

rearranged! {
    Haddps = Addps, |d, s| (evens(d, s), odds(d, s));
    Haddpd = Addpd, |d, s| (lows(d, s), highs(d, s));
    Hsubps = Subps, |d, s| (evens(d, s), odds(d, s));
    Hsubpd = Subpd, |d, s| (lows(d, s), highs(d, s));
}

/// ADDSUBPS.
pub(crate) struct Addsubps;
impl Float for Addsubps {
    const BOUNDED: Option<(Calculation, Lanes)> = Some((Calculation::SubAdd, Lanes::Singles));

    #[inline(always)]
    fn apply(d: V, s: V) -> V {
        let sub = Subps::apply(only_singles(d, false), only_singles(s, false));
        let add = Addps::apply(only_singles(d, true), only_singles(s, true));
        // Lanes of zeros come out as -0 when rounding down.
        V::from_bits(only_singles(sub, false).bits() | only_singles(add, true).bits())
    }
}

/// ADDSUBPD.
pub(crate) struct Addsubpd;
impl Float for Addsubpd {
    const BOUNDED: Option<(Calculation, Lanes)> = Some((Calculation::SubAdd, Lanes::Doubles));

    #[inline(always)]
    fn apply(d: V, s: V) -> V {
        let sub = Subpd::apply(only_double(d, false), only_double(s, false));
        let add = Addpd::apply(only_double(d, true), only_double(s, true));
        V::from_bits(only_double(sub, false).bits() | only_double(add, true).bits())
    }
}
