//! Overflow and underflow that are not masked.
//!
//! The host executes with everything masked and so reports what a masked operation raises. An
//! unmasked underflow needs no loss of precision, and together with either exception the precision
//! flag tells whether the result would be inexact even if exponents had no bounds (SDM vol. 1,
//! 4.9.1.4 to 4.9.1.6). The x87 unit's exponents are wide enough to find out.

use super::V;
use super::arith::Float;
use super::mxcsr::bit;
use crate::exec::x87::native::{Fadd, Fdiv, FldDouble, FldSingle, Fmul, Fsub, Native};

/// Lanes that an operation computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    Single,
    Singles,
    Double,
    Doubles,
}

impl Lanes {
    fn count(self) -> usize {
        match self {
            Lanes::Single | Lanes::Double => 1,
            Lanes::Doubles => 2,
            Lanes::Singles => 4,
        }
    }

    fn single(self) -> bool {
        matches!(self, Lanes::Single | Lanes::Singles)
    }

    /// Whether a result is denormal.
    fn any_denormal(self, v: V) -> bool {
        (0..self.count()).any(|i| match self.single() {
            true => denormal(u64::from(v.u32s()[i]), 23, 0xff),
            false => denormal(v.u64s()[i], 52, 0x7ff),
        })
    }
}

fn denormal(v: u64, fraction: u32, exponents: u64) -> bool {
    v >> fraction & exponents == 0 && v & ((1 << fraction) - 1) != 0
}

/// What an operation computes from two lanes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calculation {
    Add,
    Sub,
    /// The even lanes subtracted, the odd ones added.
    SubAdd,
    Mul,
    Div,
    /// Doubles rounded to singles, the second operand alone.
    Narrow,
}

/// What an operation raises, given what it raised when masked. `guest` is its MXCSR.
pub(super) fn review<O: Float>(d: V, s: V, result: V, guest: u32, masked: u32) -> u32 {
    let Some((calculation, lanes)) = O::BOUNDED else {
        return masked;
    };
    let enabled = !(guest >> bit::MASK_SHIFT);
    let mut raised = masked;
    if enabled & bit::UE != 0 && lanes.any_denormal(result) {
        raised |= bit::UE;
    }
    if raised & enabled & (bit::OE | bit::UE) != 0 {
        let (a, b) = O::operands(d, s);
        let exactness = Exactness {
            calculation,
            lanes,
            guest,
        };
        let inexact = (0..lanes.count()).any(|i| exactness.inexact(a, b, i));
        raised = raised & !bit::PE | if inexact { bit::PE } else { 0 };
    }
    raised
}

/// An operation to be repeated by the x87 unit.
struct Exactness {
    calculation: Calculation,
    lanes: Lanes,
    guest: u32,
}

impl Exactness {
    /// Whether lane `i` is inexact even with an unbounded exponent.
    fn inexact(&self, a: V, b: V, i: usize) -> bool {
        if self.calculation == Calculation::Narrow {
            // Two doubles make the first two of four singles.
            return i < 2 && self.raises_precision::<Fadd>(self.double(b.u64s()[i]), 0);
        }
        let (a, b) = if self.lanes.single() {
            (self.single(a.u32s()[i]), self.single(b.u32s()[i]))
        } else {
            (self.double(a.u64s()[i]), self.double(b.u64s()[i]))
        };
        match self.calculation {
            Calculation::Sub => self.raises_precision::<Fsub>(a, b),
            Calculation::SubAdd if i & 1 == 0 => self.raises_precision::<Fsub>(a, b),
            Calculation::Mul => self.raises_precision::<Fmul>(a, b),
            Calculation::Div => self.raises_precision::<Fdiv>(a, b),
            Calculation::Add | Calculation::SubAdd | Calculation::Narrow => {
                self.raises_precision::<Fadd>(a, b)
            }
        }
    }

    fn raises_precision<O: Native>(&self, a: u128, b: u128) -> bool {
        let precision = if self.lanes.single() { SINGLE } else { DOUBLE };
        let rounding = (self.guest & bit::RC) >> 3;
        let status = O::run(MASKED | precision | rounding as u16, a, b, 0).status;
        u32::from(status) & bit::PE != 0
    }

    /// A single as an x87 register holds it; a denormal is zero if MXCSR says so.
    fn single(&self, v: u32) -> u128 {
        let zeroed = self.guest & bit::DAZ != 0 && denormal(u64::from(v), 23, 0xff);
        FldSingle::run(MASKED, 0, 0, u64::from(if zeroed { 0 } else { v })).value
    }

    fn double(&self, v: u64) -> u128 {
        let zeroed = self.guest & bit::DAZ != 0 && denormal(v, 52, 0x7ff);
        FldDouble::run(MASKED, 0, 0, if zeroed { 0 } else { v }).value
    }
}

/// x87 control word: everything masked, and the two precisions.
const MASKED: u16 = 0x7f;
const SINGLE: u16 = 0;
const DOUBLE: u16 = 2 << 8;
