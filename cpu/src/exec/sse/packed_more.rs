//! Packed integer operations of SSSE3, SSE4.1 and SSE4.2 (SDM vol. 1, 12.6, 12.10 and 12.11).
//!
//! Hosts need not have them: they are plain Rust or composed of SSE2, but for the byte shuffle,
//! which cryptography leans on and SSE2 can't help with.

use core::arch::asm;

use super::packed::{Packed, halving};
use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// Operations on arrays of lanes.
macro_rules! lanewise {
    ($($name:ident = $lanes:ident $from:ident |$d:ident, $s:ident| $r:expr;)*) => {$(
        pub(crate) struct $name;
        impl Packed for $name {
            #[inline(always)]
            fn xmm(d: V, s: V) -> V {
                let (mut lanes, source) = (d.$lanes(), s.$lanes());
                for ($d, &$s) in lanes.iter_mut().zip(&source) {
                    *$d = { let $d = *$d; $r };
                }
                V::$from(lanes)
            }
        }
    )*};
}

lanewise! {
    Pabsb = i8s from_i8s |_d, s| s.wrapping_abs();
    Pabsw = i16s from_i16s |_d, s| s.wrapping_abs();
    Pabsd = i32s from_i32s |_d, s| s.wrapping_abs();
    Psignb = i8s from_i8s |d, s| d.wrapping_mul(s.signum());
    Psignw = i16s from_i16s |d, s| d.wrapping_mul(s.signum());
    Psignd = i32s from_i32s |d, s| d.wrapping_mul(s.signum());
    Pmulhrsw = i16s from_i16s |d, s| ((((i32::from(d) * i32::from(s)) >> 14) + 1) >> 1) as i16;
    Pmulld = i32s from_i32s |d, s| d.wrapping_mul(s);
    Pminsb = i8s from_i8s |d, s| d.min(s);
    Pminsd = i32s from_i32s |d, s| d.min(s);
    Pminuw = u16s from_u16s |d, s| d.min(s);
    Pminud = u32s from_u32s |d, s| d.min(s);
    Pmaxsb = i8s from_i8s |d, s| d.max(s);
    Pmaxsd = i32s from_i32s |d, s| d.max(s);
    Pmaxuw = u16s from_u16s |d, s| d.max(s);
    Pmaxud = u32s from_u32s |d, s| d.max(s);
    Pcmpeqq = i64s from_i64s |d, s| -i64::from(d == s);
    Pcmpgtq = i64s from_i64s |d, s| -i64::from(d > s);
    Pmuldq = i64s from_i64s |d, s| i64::from(d as i32) * i64::from(s as i32);
    // Unsigned bytes of the destination times signed ones of the source, summed in pairs.
    Pmaddubsw = u16s from_u16s |d, s| byte_products(d, s);
}

fn byte_products(d: u16, s: u16) -> u16 {
    let product = |d: u8, s: u8| i16::from(d) * i16::from(s as i8);
    let [d0, d1] = d.to_le_bytes();
    let [s0, s1] = s.to_le_bytes();
    product(d0, s0).saturating_add(product(d1, s1)) as u16
}

/// Combines neighbouring lanes, first those of the destination, then those of the source.
macro_rules! horizontal {
    ($($name:ident = $lanes:ident $from:ident $n:literal |$a:ident, $b:ident| $r:expr;)*) => {
        halving! {$(
            $name = |d, s| {
                let (d, s) = (d.$lanes(), s.$lanes());
                V::$from(core::array::from_fn(|i| {
                    let side = if i < $n / 2 { &d } else { &s };
                    let at = i % ($n / 2) * 2;
                    let ($a, $b) = (side[at], side[at + 1]);
                    $r
                }))
            };
        )*}
    };
}

horizontal! {
    Phaddw = i16s from_i16s 8 |a, b| a.wrapping_add(b);
    Phaddd = i32s from_i32s 4 |a, b| a.wrapping_add(b);
    Phaddsw = i16s from_i16s 8 |a, b| a.saturating_add(b);
    Phsubw = i16s from_i16s 8 |a, b| a.wrapping_sub(b);
    Phsubd = i32s from_i32s 4 |a, b| a.wrapping_sub(b);
    Phsubsw = i16s from_i16s 8 |a, b| a.saturating_sub(b);
}

/// PACKUSDW.
pub(crate) struct Packusdw;
impl Packed for Packusdw {
    #[inline(always)]
    fn xmm(d: V, s: V) -> V {
        let (d, s) = (d.i32s(), s.i32s());
        V::from_u16s(core::array::from_fn(|i| {
            let v = if i < 4 { d[i] } else { s[i - 4] };
            v.clamp(0, 0xffff) as u16
        }))
    }
}

/// PSHUFB.
pub(crate) struct Pshufb;
impl Packed for Pshufb {
    #[inline(always)]
    fn xmm(d: V, s: V) -> V {
        let (d, s) = (d.u8s(), s.u8s());
        V::from_u8s(s.map(|i| {
            if i & 0x80 != 0 {
                0
            } else {
                d[usize::from(i & 15)]
            }
        }))
    }
    #[inline(always)]
    fn mm(d: u64, s: u64) -> u64 {
        let d = d.to_le_bytes();
        let pick = |i: u8| {
            if i & 0x80 != 0 {
                0
            } else {
                d[usize::from(i & 7)]
            }
        };
        u64::from_le_bytes(s.to_le_bytes().map(pick))
    }
}

/// PSHUFB by the host's own; only where [`host_shuffles_bytes`].
pub(crate) fn pshufb_host<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let mut d = cpu.xmm(op.dst).0;
    // SAFETY: the translator picks this handler only if the host has SSSE3; the instruction
    // touches its two operands alone.
    unsafe {
        asm!("pshufb {}, {}", inout(xmm_reg) d, in(xmm_reg) s.0,
            options(pure, nomem, nostack, preserves_flags));
    }
    cpu.set_xmm(op.dst, V(d));
    Ok(())
}

/// Whether the host has SSSE3.
pub(crate) fn host_shuffles_bytes() -> bool {
    std::arch::is_x86_feature_detected!("ssse3")
}

/// PHMINPOSUW: the least word and its index.
pub(crate) struct Phminposuw;
impl Packed for Phminposuw {
    #[inline(always)]
    fn xmm(_: V, s: V) -> V {
        let words = s.u16s();
        let mut at = 0;
        for i in 1..8 {
            if words[i] < words[at] {
                at = i;
            }
        }
        V::from_low32(u32::from(words[at]) | (at as u32) << 16)
    }
}

/// PMOVSX and PMOVZX: the low lanes of the source, widened.
macro_rules! widening {
    ($($name:ident = $lanes:ident $from:ident as $to:ty;)*) => {$(
        pub(crate) struct $name;
        impl Packed for $name {
            #[inline(always)]
            fn xmm(_: V, s: V) -> V {
                let s = s.$lanes();
                V::$from(core::array::from_fn(|i| <$to>::from(s[i])))
            }
        }
    )*};
}

widening! {
    Pmovsxbw = i8s from_i16s as i16;
    Pmovsxbd = i8s from_i32s as i32;
    Pmovsxbq = i8s from_i64s as i64;
    Pmovsxwd = i16s from_i32s as i32;
    Pmovsxwq = i16s from_i64s as i64;
    Pmovsxdq = i32s from_i64s as i64;
    Pmovzxbw = u8s from_u16s as u16;
    Pmovzxbd = u8s from_u32s as u32;
    Pmovzxbq = u8s from_u64s as u64;
    Pmovzxwd = u16s from_u32s as u32;
    Pmovzxwq = u16s from_u64s as u64;
    Pmovzxdq = u32s from_u64s as u64;
}

/// MPSADBW: sums of absolute differences between one group of four source bytes and eight
/// overlapping groups of the destination; the immediate picks where they start.
pub(crate) fn mpsadbw<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.u8s();
    let d = cpu.xmm(op.dst).u8s();
    let from = (op.imm & 3) as usize * 4;
    let to = (op.imm >> 2 & 1) as usize * 4;
    let sum = |i: usize| {
        (0..4)
            .map(|n| u16::from(d[to + i + n].abs_diff(s[from + n])))
            .sum()
    };
    cpu.set_xmm(op.dst, V::from_u16s(core::array::from_fn(sum)));
    Ok(())
}

/// PTEST: ZF if the source has no bit of the destination, CF if it has none outside it.
pub(crate) fn ptest<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.bits();
    let d = cpu.xmm(op.dst).bits();
    let zf = if s & d == 0 { crate::flags::bit::ZF } else { 0 };
    let cf = if s & !d == 0 {
        crate::flags::bit::CF
    } else {
        0
    };
    cpu.flags = crate::flags::Flags::from_bits(zf | cf);
    Ok(())
}
