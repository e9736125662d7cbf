//! The value of an XMM register, and its lanes.

use core::arch::x86_64::*;

use crate::mem::Plain;

/// A call of an intrinsic of SSE or SSE2.
macro_rules! sse2 {
    ($f:ident $(::<$imm:tt>)? ($($arg:expr),*)) => {
        // SAFETY: every x86-64 host has SSE2, and the compiler counts on it; intrinsics that
        // access memory are not used.
        unsafe { $f $(::<$imm>)? ($($arg),*) }
    };
}
pub(super) use sse2;

/// 128 bits in a host vector register.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct V(pub(crate) __m128i);

// SAFETY: `__m128i` takes every pattern of its 128 bits.
unsafe impl Plain for V {}

impl Default for V {
    #[inline(always)]
    fn default() -> V {
        V(sse2!(_mm_setzero_si128()))
    }
}

/// Conversions to and from arrays of lanes, lowest first.
macro_rules! lanes {
    ($($to:ident $from:ident [$t:ty; $n:literal];)*) => {$(
        #[inline(always)]
        pub(crate) fn $to(self) -> [$t; $n] {
            // SAFETY: same size, and every bit pattern is a value of either type.
            unsafe { core::mem::transmute(self) }
        }
        #[inline(always)]
        pub(crate) fn $from(lanes: [$t; $n]) -> V {
            // SAFETY: as above.
            unsafe { core::mem::transmute(lanes) }
        }
    )*};
}

impl V {
    lanes! {
        u8s from_u8s [u8; 16];
        i8s from_i8s [i8; 16];
        u16s from_u16s [u16; 8];
        i16s from_i16s [i16; 8];
        u32s from_u32s [u32; 4];
        i32s from_i32s [i32; 4];
        u64s from_u64s [u64; 2];
        i64s from_i64s [i64; 2];
    }

    /// The same bits, as intrinsics for floating point want them.
    #[inline(always)]
    pub(crate) fn singles(self) -> __m128 {
        sse2!(_mm_castsi128_ps(self.0))
    }
    #[inline(always)]
    pub(crate) fn from_singles(v: __m128) -> V {
        V(sse2!(_mm_castps_si128(v)))
    }
    #[inline(always)]
    pub(crate) fn doubles(self) -> __m128d {
        sse2!(_mm_castsi128_pd(self.0))
    }
    #[inline(always)]
    pub(crate) fn from_doubles(v: __m128d) -> V {
        V(sse2!(_mm_castpd_si128(v)))
    }

    /// The whole as one integer.
    #[inline(always)]
    pub(crate) fn bits(self) -> u128 {
        u128::from_le_bytes(self.u8s())
    }

    #[inline(always)]
    pub(crate) fn from_bits(v: u128) -> V {
        V::from_u8s(v.to_le_bytes())
    }

    /// The lower half.
    #[inline(always)]
    pub(crate) fn low(self) -> u64 {
        sse2!(_mm_cvtsi128_si64(self.0)) as u64
    }

    /// The lowest 32 bits.
    #[inline(always)]
    pub(crate) fn low32(self) -> u32 {
        sse2!(_mm_cvtsi128_si32(self.0)) as u32
    }

    /// `v` in the lower half, zeros above.
    #[inline(always)]
    pub(crate) fn from_low(v: u64) -> V {
        V(sse2!(_mm_cvtsi64_si128(v as i64)))
    }

    /// `v` in the lowest 32 bits, zeros above.
    #[inline(always)]
    pub(crate) fn from_low32(v: u32) -> V {
        V(sse2!(_mm_cvtsi32_si128(v as i32)))
    }

    /// Two halves.
    #[inline(always)]
    pub(crate) fn pair(low: u64, high: u64) -> V {
        V(sse2!(_mm_set_epi64x(high as i64, low as i64)))
    }

    /// The lower half from `low`, the upper one from `self`.
    #[inline(always)]
    pub(crate) fn with_low(self, low: V) -> V {
        V::from_doubles(sse2!(_mm_move_sd(self.doubles(), low.doubles())))
    }

    /// The lowest 32 bits from `low`, the rest from `self`.
    #[inline(always)]
    pub(crate) fn with_low32(self, low: V) -> V {
        V::from_singles(sse2!(_mm_move_ss(self.singles(), low.singles())))
    }

    /// The lower half from `self`, the upper one from the lower half of `high`.
    #[inline(always)]
    pub(crate) fn with_high(self, high: V) -> V {
        V(sse2!(_mm_unpacklo_epi64(self.0, high.0)))
    }

    /// The upper half in the lower one's place; what is above is unspecified.
    #[inline(always)]
    pub(crate) fn high(self) -> V {
        V(sse2!(_mm_unpackhi_epi64(self.0, self.0)))
    }
}
