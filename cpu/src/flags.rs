//! The arithmetic flags, kept lazily.
//!
//! An arithmetic instruction stores its sign-extended result and the carries it produced; the
//! six flags are read off those two words only when somebody looks. Most results are overwritten
//! before anybody does.
//!
//! `carry` holds, besides CF and the carry into the sign bit, correction bits that let POPF, SAHF
//! and friends express combinations no single result has (ZF together with SF, say):
//!
//! | bit | meaning |
//! |---|---|
//! | 63 | CF |
//! | 62 | carry into the sign bit; OF is bit 63 xor bit 62 |
//! | 16 | xor'ed into SF |
//! | 15..8 | xor'ed into the low result byte before parity |
//! | 3 | AF |

use crate::width::Width;

/// Bits of RFLAGS (SDM vol. 1, 3.4.3).
pub(crate) mod bit {
    pub(crate) const CF: u64 = 1 << 0;
    pub(crate) const FIXED: u64 = 1 << 1;
    pub(crate) const PF: u64 = 1 << 2;
    pub(crate) const AF: u64 = 1 << 4;
    pub(crate) const ZF: u64 = 1 << 6;
    pub(crate) const SF: u64 = 1 << 7;
    pub(crate) const TF: u64 = 1 << 8;
    pub(crate) const IF: u64 = 1 << 9;
    pub(crate) const DF: u64 = 1 << 10;
    pub(crate) const OF: u64 = 1 << 11;
    pub(crate) const IOPL: u64 = 3 << 12;
    pub(crate) const NT: u64 = 1 << 14;
    pub(crate) const RF: u64 = 1 << 16;
    pub(crate) const VM: u64 = 1 << 17;
    pub(crate) const AC: u64 = 1 << 18;
    pub(crate) const VIF: u64 = 1 << 19;
    pub(crate) const VIP: u64 = 1 << 20;
    pub(crate) const ID: u64 = 1 << 21;

    /// The six flags that arithmetic sets.
    pub(crate) const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;
    /// All bits that software can keep in RFLAGS.
    pub(crate) const WRITABLE: u64 =
        ARITHMETIC | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

const CARRY: u64 = 1 << 63;
const CARRY_IN: u64 = 1 << 62;
const SIGN_FIX: u64 = 1 << 16;
const HALF: u64 = 1 << 3;
const KEEP: u64 = CARRY | CARRY_IN | HALF;

/// The arithmetic flags in their lazy form; see the module's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    result: u64,
    carry: u64,
}

impl Flags {
    /// The flags of the arithmetic bits of an RFLAGS value.
    #[inline]
    pub(crate) fn from_bits(f: u64) -> Flags {
        let mut flags = Flags {
            result: u64::from(f & bit::ZF == 0),
            carry: 0,
        };
        flags.set_carry_overflow(f & bit::CF != 0, f & bit::OF != 0);
        if f & bit::AF != 0 {
            flags.carry |= HALF;
        }
        if f & bit::SF != 0 {
            flags.carry |= SIGN_FIX;
        }
        if flags.parity() != (f & bit::PF != 0) {
            flags.carry |= 1 << 8;
        }
        flags
    }

    /// The six flags as RFLAGS bits.
    #[inline]
    pub(crate) fn bits(&self) -> u64 {
        u64::from(self.cf())
            | u64::from(self.parity()) << 2
            | u64::from(self.carry & HALF != 0) << 4
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of()) << 11
    }

    #[inline(always)]
    pub(crate) fn cf(&self) -> bool {
        self.carry & CARRY != 0
    }
    #[inline(always)]
    pub(crate) fn zf(&self) -> bool {
        self.result == 0
    }
    #[inline(always)]
    pub(crate) fn sf(&self) -> bool {
        ((self.result >> 63) ^ (self.carry >> 16)) & 1 != 0
    }
    #[inline(always)]
    pub(crate) fn of(&self) -> bool {
        (self.carry ^ (self.carry << 1)) & CARRY != 0
    }
    #[inline(always)]
    pub(crate) fn parity(&self) -> bool {
        ((self.result ^ (self.carry >> 8)) as u8).count_ones() & 1 == 0
    }
    #[inline(always)]
    pub(crate) fn af(&self) -> bool {
        self.carry & HALF != 0
    }

    /// Flags of a logical operation: CF, OF and AF clear (SDM leaves AF undefined; processors
    /// clear it).
    #[inline(always)]
    pub(crate) fn logic<W: Width>(&mut self, result: W) {
        self.result = result.sx();
        self.carry = 0;
    }

    /// Flags of `result = a + b (+ carry)`.
    #[inline(always)]
    pub(crate) fn add<W: Width>(&mut self, a: u64, b: u64, result: u64) {
        self.store::<W>((a & b) | ((a | b) & !result), result);
    }

    /// Flags of `result = a - b (- borrow)`.
    #[inline(always)]
    pub(crate) fn sub<W: Width>(&mut self, a: u64, b: u64, result: u64) {
        self.store::<W>((!a & b) | ((!a | b) & result), result);
    }

    #[inline(always)]
    fn store<W: Width>(&mut self, carries: u64, result: u64) {
        self.result = W::cut(result).sx();
        self.carry = if W::BITS == 64 {
            carries & KEEP
        } else {
            carries << (64 - W::BITS) & (CARRY | CARRY_IN) | carries & HALF
        };
    }

    /// Keeps CF while the other flags stay as set: INC and DEC.
    #[inline(always)]
    pub(crate) fn with_carry(&mut self, cf: bool) {
        let of = self.of();
        self.set_carry_overflow(cf, of);
    }

    /// Replaces CF and OF.
    #[inline(always)]
    pub(crate) fn set_carry_overflow(&mut self, cf: bool, of: bool) {
        self.carry =
            self.carry & !(CARRY | CARRY_IN) | u64::from(cf) << 63 | u64::from(cf ^ of) << 62;
    }

    /// Replaces CF alone, OF unchanged.
    #[inline(always)]
    pub(crate) fn set_cf(&mut self, cf: bool) {
        let of = self.of();
        self.set_carry_overflow(cf, of);
    }

    /// Sets ZF alone: BSF, BSR, CMPXCHG16B, LAR and others that leave the rest.
    #[inline]
    pub(crate) fn set_zf(&mut self, zf: bool) {
        let bits = self.bits() & !bit::ZF | if zf { bit::ZF } else { 0 };
        *self = Flags::from_bits(bits);
    }

    /// Sets the result and CF/OF: shifts, which clear AF as processors do.
    #[inline(always)]
    pub(crate) fn shift<W: Width>(&mut self, result: W, cf: bool, of: bool) {
        self.result = result.sx();
        self.carry = u64::from(cf) << 63 | u64::from(cf ^ of) << 62;
    }
}

/// The sixteen conditions of Jcc, SETcc and CMOVcc (SDM vol. 1, appendix B), as types so that each
/// is tested without a dispatch.
pub(crate) trait Condition {
    /// Whether the condition holds.
    fn holds(f: &Flags) -> bool;
}

macro_rules! conditions {
    ($($name:ident = |$f:ident| $test:expr;)*) => {$(
        pub(crate) struct $name;
        impl Condition for $name {
            #[inline(always)]
            fn holds($f: &Flags) -> bool { $test }
        }
    )*};
}

conditions! {
    O = |f| f.of();
    No = |f| !f.of();
    B = |f| f.cf();
    Ae = |f| !f.cf();
    E = |f| f.zf();
    Ne = |f| !f.zf();
    Be = |f| f.cf() || f.zf();
    A = |f| !f.cf() && !f.zf();
    S = |f| f.sf();
    Ns = |f| !f.sf();
    P = |f| f.parity();
    Np = |f| !f.parity();
    L = |f| f.sf() != f.of();
    Ge = |f| f.sf() == f.of();
    Le = |f| f.zf() || f.sf() != f.of();
    G = |f| !f.zf() && f.sf() == f.of();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives_a_round_trip() {
        for n in 0..64u64 {
            let f = (n & 1)
                | (n & 2) << 1
                | (n & 4) << 2
                | (n & 8) << 3
                | (n & 16) << 3
                | (n & 32) << 6;
            assert_eq!(Flags::from_bits(f).bits(), f, "{f:#x}");
        }
    }

    #[test]
    fn carries_of_an_addition() {
        let mut f = Flags::from_bits(0);
        f.add::<u8>(0xff, 1, 0x100);
        assert_eq!(f.bits(), bit::CF | bit::ZF | bit::PF | bit::AF);
        f.add::<u32>(0x7fff_ffff, 1, 0x8000_0000);
        assert_eq!(f.bits(), bit::OF | bit::SF | bit::PF | bit::AF);
        f.sub::<u64>(0, 1, u64::MAX);
        assert_eq!(f.bits(), bit::CF | bit::SF | bit::PF | bit::AF);
    }
}
