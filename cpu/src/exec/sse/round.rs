//! ROUNDPS, ROUNDPD, ROUNDSS and ROUNDSD (SDM vol. 1, 12.10.5), in plain Rust, since not every
//! host has them.

use super::mxcsr::bit;
use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// Bits of a format's fraction and exponent.
struct Format {
    fraction: u32,
    exponent: u32,
}

const SINGLE: Format = Format {
    fraction: 23,
    exponent: 8,
};
const DOUBLE: Format = Format {
    fraction: 52,
    exponent: 11,
};

/// How to round: the mode in the encoding of the immediate and of MXCSR.
struct How {
    mode: u64,
    denormals_are_zero: bool,
}

/// The integer that `v` rounds to, and the exceptions that this raises.
fn round(f: &Format, how: &How, v: u64) -> (u64, u32) {
    let sign = v >> (f.fraction + f.exponent) & 1;
    let ones = (1 << f.exponent) - 1;
    let exponent = v >> f.fraction & ones;
    let fraction = v & ((1 << f.fraction) - 1);
    let bias = ones >> 1;
    if exponent == ones && fraction != 0 {
        let quiet = 1 << (f.fraction - 1);
        return (v | quiet, if v & quiet == 0 { bit::IE } else { 0 });
    }
    if exponent >= bias + u64::from(f.fraction) {
        return (v, 0);
    }
    let zero = sign << (f.fraction + f.exponent);
    if exponent == 0 && (fraction == 0 || how.denormals_are_zero) {
        return (zero, 0);
    }
    if exponent < bias {
        // What is cut off, in any unit that tells it from a half.
        let half = 2;
        let rest = if exponent + 1 < bias {
            1
        } else {
            half + u64::from(fraction != 0)
        };
        let up = rounds_up(how.mode, sign, false, rest, half);
        return (if up { zero | bias << f.fraction } else { zero }, bit::PE);
    }
    let dropped = u64::from(f.fraction) - (exponent - bias);
    let unit = 1u64 << dropped;
    let rest = v & (unit - 1);
    if rest == 0 {
        return (v, 0);
    }
    // From 1 to 2 the unit's bit is the exponent's lowest one, which is set as the number is odd.
    let up = rounds_up(how.mode, sign, v & unit != 0, rest, unit >> 1);
    // A carry out of the fraction goes where it belongs, to the exponent.
    ((v & !(unit - 1)) + if up { unit } else { 0 }, bit::PE)
}

/// Whether the magnitude rounds up, given what is cut off and half a unit.
fn rounds_up(mode: u64, sign: u64, odd: bool, rest: u64, half: u64) -> bool {
    match mode {
        0 => rest > half || rest == half && odd,
        1 => sign != 0,
        2 => sign == 0,
        _ => false,
    }
}

fn how(cpu: &Cpu, imm: u64) -> How {
    let mxcsr = cpu.fpu.mxcsr;
    let mode = if imm & 4 != 0 {
        u64::from(mxcsr & bit::RC) >> 13
    } else {
        imm & 3
    };
    How {
        mode,
        denormals_are_zero: mxcsr & bit::DAZ != 0,
    }
}

/// Rounds the first `$n` lanes of the source; the destination keeps the others.
macro_rules! rounding {
    ($($name:ident = $lanes:ident $from:ident $t:ty, $n:literal, $format:expr;)*) => {$(
        pub(crate) fn $name<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
            let s = S::fetch(cpu, op)?.$lanes();
            let mut d = cpu.xmm(op.dst).$lanes();
            let how = how(cpu, op.imm);
            let mut raised = 0;
            for (d, s) in d.iter_mut().zip(s).take($n) {
                let (v, flags) = round(&$format, &how, u64::from(s));
                *d = v as $t;
                raised |= flags;
            }
            if op.imm & 8 != 0 {
                raised &= !bit::PE;
            }
            cpu.settle(raised)?;
            cpu.set_xmm(op.dst, V::$from(d));
            Ok(())
        }
    )*};
}

rounding! {
    roundps = u32s from_u32s u32, 4, SINGLE;
    roundss = u32s from_u32s u32, 1, SINGLE;
    roundpd = u64s from_u64s u64, 2, DOUBLE;
    roundsd = u64s from_u64s u64, 1, DOUBLE;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubles(mode: u64, v: f64) -> f64 {
        let how = How {
            mode,
            denormals_are_zero: false,
        };
        f64::from_bits(round(&DOUBLE, &how, v.to_bits()).0)
    }

    /// SDM vol. 1, 4.8.4: the four rounding modes.
    #[test]
    fn modes_agree_with_the_standard_library() {
        let values = [
            0.0,
            0.25,
            0.5,
            0.75,
            1.0,
            1.5,
            2.5,
            3.5,
            4.75,
            1e15 + 0.5,
            1e300,
            f64::INFINITY,
        ];
        for v in values.into_iter().flat_map(|v| [v, -v]) {
            let modes = [v.round_ties_even(), v.floor(), v.ceil(), v.trunc()];
            for (mode, expected) in modes.into_iter().enumerate() {
                assert_eq!(
                    doubles(mode as u64, v).to_bits(),
                    expected.to_bits(),
                    "{v} mode {mode}"
                );
            }
        }
    }

    #[test]
    fn a_signalling_nan_is_invalid_and_comes_out_quiet() {
        let how = How {
            mode: 0,
            denormals_are_zero: false,
        };
        assert_eq!(round(&SINGLE, &how, 0x7f80_0001), (0x7fc0_0001, bit::IE));
        assert_eq!(round(&SINGLE, &how, 0x7fc0_0001), (0x7fc0_0001, 0));
    }
}
