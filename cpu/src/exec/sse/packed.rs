//! Packed integer operations of MMX and SSE2 (SDM vol. 1, 9.4 and 11.4), logical ones included.

use core::arch::x86_64::*;

use super::vector::sse2;
use super::{Done, Source, V, with_source};
use crate::cpu::Cpu;
use crate::op::Op;

/// An integer operation `d = f(d, s)`.
pub(crate) trait Packed {
    /// On XMM registers.
    fn xmm(d: V, s: V) -> V;

    /// On MMX registers. Lanes that don't mix behave as in the lower half of an XMM register.
    #[inline(always)]
    fn mm(d: u64, s: u64) -> u64 {
        Self::xmm(V::from_low(d), V::from_low(s)).low()
    }
}

/// An integer operation on XMM registers; the source from a register or from memory.
pub(crate) fn packed<O: Packed, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    with_source::<S>(cpu, op, |cpu, op, s| {
        let r = O::xmm(cpu.xmm(op.dst), s);
        cpu.set_xmm(op.dst, r);
        Ok(())
    })
}

/// Operations that an intrinsic does, lane by lane.
macro_rules! lanewise {
    ($($name:ident = $f:ident;)*) => {$(
        pub(crate) struct $name;
        impl Packed for $name {
            #[inline(always)]
            fn xmm(d: V, s: V) -> V {
                V(sse2!($f(d.0, s.0)))
            }
        }
    )*};
}

lanewise! {
    Paddb = _mm_add_epi8;
    Paddw = _mm_add_epi16;
    Paddd = _mm_add_epi32;
    Paddq = _mm_add_epi64;
    Paddsb = _mm_adds_epi8;
    Paddsw = _mm_adds_epi16;
    Paddusb = _mm_adds_epu8;
    Paddusw = _mm_adds_epu16;
    Psubb = _mm_sub_epi8;
    Psubw = _mm_sub_epi16;
    Psubd = _mm_sub_epi32;
    Psubq = _mm_sub_epi64;
    Psubsb = _mm_subs_epi8;
    Psubsw = _mm_subs_epi16;
    Psubusb = _mm_subs_epu8;
    Psubusw = _mm_subs_epu16;
    Pmullw = _mm_mullo_epi16;
    Pmulhw = _mm_mulhi_epi16;
    Pmulhuw = _mm_mulhi_epu16;
    Pmuludq = _mm_mul_epu32;
    Pmaddwd = _mm_madd_epi16;
    Pavgb = _mm_avg_epu8;
    Pavgw = _mm_avg_epu16;
    Psadbw = _mm_sad_epu8;
    Pminub = _mm_min_epu8;
    Pmaxub = _mm_max_epu8;
    Pminsw = _mm_min_epi16;
    Pmaxsw = _mm_max_epi16;
    Pcmpeqb = _mm_cmpeq_epi8;
    Pcmpeqw = _mm_cmpeq_epi16;
    Pcmpeqd = _mm_cmpeq_epi32;
    Pcmpgtb = _mm_cmpgt_epi8;
    Pcmpgtw = _mm_cmpgt_epi16;
    Pcmpgtd = _mm_cmpgt_epi32;
    Pand = _mm_and_si128;
    Pandn = _mm_andnot_si128;
    Por = _mm_or_si128;
    Pxor = _mm_xor_si128;
    // Shift counts: all 64 bits of the lower half of the source.
    Psllw = _mm_sll_epi16;
    Pslld = _mm_sll_epi32;
    Psllq = _mm_sll_epi64;
    Psrlw = _mm_srl_epi16;
    Psrld = _mm_srl_epi32;
    Psrlq = _mm_srl_epi64;
    Psraw = _mm_sra_epi16;
    Psrad = _mm_sra_epi32;
    // These two exist for XMM registers only.
    Punpcklqdq = _mm_unpacklo_epi64;
    Punpckhqdq = _mm_unpackhi_epi64;
    // So do these.
    Unpcklps = _mm_unpacklo_epi32;
    Unpckhps = _mm_unpackhi_epi32;
}

/// Interleaving: the halves of the MMX form are the lower and the upper half of what the lower
/// halves of XMM registers interleave to.
macro_rules! interleaving {
    ($($low:ident = $fl:ident, $high:ident = $fh:ident;)*) => {$(
        pub(crate) struct $low;
        impl Packed for $low {
            #[inline(always)]
            fn xmm(d: V, s: V) -> V {
                V(sse2!($fl(d.0, s.0)))
            }
        }
        pub(crate) struct $high;
        impl Packed for $high {
            #[inline(always)]
            fn xmm(d: V, s: V) -> V {
                V(sse2!($fh(d.0, s.0)))
            }
            #[inline(always)]
            fn mm(d: u64, s: u64) -> u64 {
                let (d, s) = (V::from_low(d), V::from_low(s));
                V(sse2!($fl(d.0, s.0))).high().low()
            }
        }
    )*};
}

interleaving! {
    Punpcklbw = _mm_unpacklo_epi8, Punpckhbw = _mm_unpackhi_epi8;
    Punpcklwd = _mm_unpacklo_epi16, Punpckhwd = _mm_unpackhi_epi16;
    Punpckldq = _mm_unpacklo_epi32, Punpckhdq = _mm_unpackhi_epi32;
}

/// Operations whose result's lower half comes from the destination and the upper half from the
/// source: the MMX form is the XMM form of both operands side by side.
macro_rules! halving {
    ($($name:ident = |$d:ident, $s:ident| $r:expr;)*) => {$(
        pub(crate) struct $name;
        impl $crate::exec::sse::packed::Packed for $name {
            #[inline(always)]
            fn xmm($d: V, $s: V) -> V {
                $r
            }
            #[inline(always)]
            fn mm(d: u64, s: u64) -> u64 {
                let both = V::pair(d, s);
                <$name as $crate::exec::sse::packed::Packed>::xmm(both, both).low()
            }
        }
    )*};
}
pub(super) use halving;

halving! {
    Packsswb = |d, s| V(sse2!(_mm_packs_epi16(d.0, s.0)));
    Packssdw = |d, s| V(sse2!(_mm_packs_epi32(d.0, s.0)));
    Packuswb = |d, s| V(sse2!(_mm_packus_epi16(d.0, s.0)));
}
