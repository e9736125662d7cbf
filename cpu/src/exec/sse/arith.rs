//! Floating-point arithmetic and conversions within vector registers (SDM vol. 1, 10.4.1, 11.4.1
//! and 12.3): one host instruction each.

use core::arch::asm;

use super::mxcsr::{Double, Doubles, Never, Single, Singles, Tiny};
use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::{Op, Stop};

/// A floating-point operation `d = f(d, s)` under MXCSR.
pub(crate) trait Float {
    /// Which results can be denormal.
    type Result: Tiny;

    fn apply(d: V, s: V) -> V;
}

impl Cpu {
    /// Applies a floating-point operation under the guest's MXCSR.
    #[inline(always)]
    pub(super) fn float<O: Float>(&mut self, d: V, s: V) -> Result<V, Stop> {
        self.under_mxcsr(|| O::apply(d, s), |r| O::Result::tiny(*r))
    }
}

/// A floating-point operation; the source from a register or from memory.
pub(crate) fn float<O: Float, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let r = cpu.float::<O>(cpu.xmm(op.dst), s)?;
    cpu.set_xmm(op.dst, r);
    Ok(())
}

/// Operations that are one instruction of SSE or SSE2.
macro_rules! instructions {
    ($($name:ident = $insn:literal, $result:ty;)*) => {$(
        pub(crate) struct $name;
        impl Float for $name {
            type Result = $result;

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
    Addps = "addps", Singles;
    Addpd = "addpd", Doubles;
    Addss = "addss", Single;
    Addsd = "addsd", Double;
    Subps = "subps", Singles;
    Subpd = "subpd", Doubles;
    Subss = "subss", Single;
    Subsd = "subsd", Double;
    Mulps = "mulps", Singles;
    Mulpd = "mulpd", Doubles;
    Mulss = "mulss", Single;
    Mulsd = "mulsd", Double;
    Divps = "divps", Singles;
    Divpd = "divpd", Doubles;
    Divss = "divss", Single;
    Divsd = "divsd", Double;
    Minps = "minps", Never;
    Minpd = "minpd", Never;
    Minss = "minss", Never;
    Minsd = "minsd", Never;
    Maxps = "maxps", Never;
    Maxpd = "maxpd", Never;
    Maxss = "maxss", Never;
    Maxsd = "maxsd", Never;
    Sqrtps = "sqrtps", Never;
    Sqrtpd = "sqrtpd", Never;
    Sqrtss = "sqrtss", Never;
    Sqrtsd = "sqrtsd", Never;
    // Approximations: the bits below their guaranteed precision are the host's.
    Rcpps = "rcpps", Never;
    Rcpss = "rcpss", Never;
    Rsqrtps = "rsqrtps", Never;
    Rsqrtss = "rsqrtss", Never;
    Cvtps2pd = "cvtps2pd", Never;
    Cvtpd2ps = "cvtpd2ps", Singles;
    Cvtss2sd = "cvtss2sd", Never;
    Cvtsd2ss = "cvtsd2ss", Single;
    Cvtdq2ps = "cvtdq2ps", Never;
    Cvtdq2pd = "cvtdq2pd", Never;
    Cvtps2dq = "cvtps2dq", Never;
    Cvttps2dq = "cvttps2dq", Never;
    Cvtpd2dq = "cvtpd2dq", Never;
    Cvttpd2dq = "cvttpd2dq", Never;
}

/// Operations of SSE3 on neighbouring lanes: the host's addition or subtraction of the operands
/// rearranged. Lanes of zeros raise nothing.
macro_rules! rearranged {
    ($($name:ident = $result:ty, |$d:ident, $s:ident| $r:expr;)*) => {$(
        pub(crate) struct $name;
        impl Float for $name {
            type Result = $result;

            #[inline(always)]
            fn apply($d: V, $s: V) -> V {
                $r
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

/// The even lanes subtracted, the odd ones added.
fn alternate(sub: V, add: V) -> V {
    V::from_bits(sub.bits() | add.bits())
}

rearranged! {
    Haddps = Singles, |d, s| Addps::apply(evens(d, s), odds(d, s));
    Haddpd = Doubles, |d, s| Addpd::apply(lows(d, s), highs(d, s));
    Hsubps = Singles, |d, s| Subps::apply(evens(d, s), odds(d, s));
    Hsubpd = Doubles, |d, s| Subpd::apply(lows(d, s), highs(d, s));
    Addsubps = Singles, |d, s| alternate_singles(d, s);
    Addsubpd = Doubles, |d, s| alternate_doubles(d, s);
}

fn alternate_singles(d: V, s: V) -> V {
    let sub = Subps::apply(only_singles(d, false), only_singles(s, false));
    let add = Addps::apply(only_singles(d, true), only_singles(s, true));
    // A lane of zeros comes out as -0 when rounding down.
    alternate(only_singles(sub, false), only_singles(add, true))
}

fn alternate_doubles(d: V, s: V) -> V {
    let sub = Subpd::apply(only_double(d, false), only_double(s, false));
    let add = Addpd::apply(only_double(d, true), only_double(s, true));
    alternate(only_double(sub, false), only_double(add, true))
}
