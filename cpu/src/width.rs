//! Operand widths: one trait over `u8`, `u16`, `u32` and `u64`, so that an instruction is written
//! once and compiled for each.

/// An unsigned integer as wide as an instruction's operand.
pub(crate) trait Width: Copy + Eq + 'static {
    /// Bits in an operand.
    const BITS: u32;
    /// Bytes in an operand.
    const BYTES: u64;
    /// All ones in the low [`Self::BITS`] bits.
    const MASK: u64;

    /// The low bits of `v`.
    fn cut(v: u64) -> Self;
    /// Zero-extended to 64 bits.
    fn zx(self) -> u64;
    /// Sign-extended to 64 bits.
    fn sx(self) -> u64;
}

macro_rules! width {
    ($u:ty, $i:ty) => {
        impl Width for $u {
            const BITS: u32 = <$u>::BITS;
            const BYTES: u64 = (<$u>::BITS / 8) as u64;
            const MASK: u64 = <$u>::MAX as u64;

            #[inline(always)]
            fn cut(v: u64) -> Self {
                v as $u
            }
            #[inline(always)]
            fn zx(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sx(self) -> u64 {
                self as $i as i64 as u64
            }
        }
    };
}

width!(u8, i8);
width!(u16, i16);
width!(u32, i32);
width!(u64, i64);
