//! Partial remainders, scaling, roots, rounding, and the transcendental functions (SDM vol. 1,
//! 8.3.5, 8.3.7 and 8.3.10). The last bits of the latter are the host's.

use super::native::{Native, Outcome};
use super::status::{C1, C2, CODES, IE};
use super::{BEFORE, Done, INDEFINITE};
use crate::cpu::Cpu;
use crate::op::Op;

/// FSQRT, FRNDINT, F2XM1: ST(0) = f(ST(0)).
pub(crate) fn unary<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    one_operand::<O>(cpu, op, 0)
}

/// FSIN and FCOS: C2 says that the operand is out of range and has been left alone.
pub(crate) fn angle<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    one_operand::<O>(cpu, op, C2)
}

#[inline(always)]
fn one_operand<O: Native>(cpu: &mut Cpu, op: &Op, codes: u16) -> Done {
    cpu.x87_pending()?;
    let (v, counts) = if cpu.fpu.is_empty(0) {
        (INDEFINITE, cpu.x87_underflow(op, codes))
    } else {
        let o = O::run(cpu.fpu.control, cpu.fpu.st(0), 0, 0);
        (o.value, cpu.x87_raise(op, o.status, codes | C1, BEFORE))
    };
    if counts {
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}

/// FSCALE: ST(0) = f(ST(0), ST(1)).
pub(crate) fn binary<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    two_operands::<O, false>(cpu, op, 0, |_| C1)
}

/// FYL2X, FYL2XP1, FPATAN: ST(1) = f(ST(0), ST(1)), and a pop.
pub(crate) fn binary_pop<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    two_operands::<O, true>(cpu, op, 0, |_| C1)
}

/// FPREM and FPREM1: C2 says whether the remainder is final, the others show bits of the quotient
/// and stay as they are if there is none.
pub(crate) fn remainder<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    let unmasked = cpu.fpu.enabled() & BEFORE;
    two_operands::<O, false>(cpu, op, C2, |o| {
        let computed = o.status & (IE | unmasked) == 0 && !is_nan(o.value);
        if computed { CODES } else { C1 | C2 }
    })
}

fn is_nan(v: u128) -> bool {
    v >> 64 & 0x7fff == 0x7fff && v << 1 & u128::from(u64::MAX) != 0
}

/// `codes` are cleared if a register is empty; else those that `codes_of` answers are the host's.
#[inline(always)]
fn two_operands<O: Native, const POP: bool>(
    cpu: &mut Cpu,
    op: &Op,
    codes: u16,
    codes_of: impl FnOnce(&Outcome) -> u16,
) -> Done {
    cpu.x87_pending()?;
    let (v, counts) = if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(1) {
        (INDEFINITE, cpu.x87_underflow(op, codes))
    } else {
        let f = &cpu.fpu;
        let o = O::run(f.control, f.st(0), f.st(1), 0);
        (o.value, cpu.x87_raise(op, o.status, codes_of(&o), BEFORE))
    };
    if counts {
        if POP {
            cpu.fpu.pop();
        }
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}

/// FXTRACT, FSINCOS, FPTAN: one operand to two results, or none if it is out of range.
pub(crate) fn two_results<O: Native, const PARTIAL: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let codes = if PARTIAL { C2 } else { 0 };
    if cpu.fpu.is_empty(0) {
        if cpu.x87_underflow(op, codes) {
            cpu.fpu.set_st(0, INDEFINITE);
            cpu.fpu.push(INDEFINITE);
        }
        return Ok(());
    }
    if !cpu.fpu.is_empty(7) {
        if cpu.x87_overflow(op, codes) {
            cpu.fpu.set_st(0, INDEFINITE);
            cpu.fpu.push(INDEFINITE);
        }
        return Ok(());
    }
    let o = O::run(cpu.fpu.control, cpu.fpu.st(0), 0, 0);
    let out_of_range = PARTIAL && o.status & C2 != 0;
    if cpu.x87_raise(op, o.status, codes | C1, BEFORE) && !out_of_range {
        cpu.fpu.set_st(0, o.second);
        cpu.fpu.push(o.value);
    }
    Ok(())
}

/// FABS and FCHS: the sign bit alone, whatever the value.
pub(crate) fn sign<const CHANGE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    const SIGN: u128 = 1 << 79;
    cpu.x87_pending()?;
    let v = cpu.fpu.st(0);
    let (v, counts) = if cpu.fpu.is_empty(0) {
        (INDEFINITE, cpu.x87_underflow(op, 0))
    } else {
        (
            if CHANGE { v ^ SIGN } else { v & !SIGN },
            cpu.x87_raise(op, 0, C1, 0),
        )
    };
    if counts {
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}
