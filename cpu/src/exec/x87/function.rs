//! Partial remainders, scaling, roots, rounding, and the transcendental functions (SDM vol. 1,
//! 8.3.5, 8.3.7 and 8.3.10). The last bits of the latter are the host's.

use super::native::Native;
use super::status::{C0, C2, C3};
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
        (INDEFINITE, cpu.x87_underflow(op))
    } else {
        let o = O::run(cpu.fpu.control, cpu.fpu.st(0), 0, 0);
        (o.value, cpu.x87_raise(op, o.status, codes, BEFORE))
    };
    if counts {
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}

/// FSCALE: ST(0) = f(ST(0), ST(1)).
pub(crate) fn binary<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    two_operands::<O>(cpu, op, 0, false)
}

/// FPREM and FPREM1: bits of the quotient, and whether the remainder is final, in the condition
/// code.
pub(crate) fn remainder<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    two_operands::<O>(cpu, op, C0 | C2 | C3, false)
}

/// FYL2X, FYL2XP1, FPATAN: ST(1) = f(ST(0), ST(1)), and a pop.
pub(crate) fn binary_pop<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    two_operands::<O>(cpu, op, 0, true)
}

#[inline(always)]
fn two_operands<O: Native>(cpu: &mut Cpu, op: &Op, codes: u16, pop: bool) -> Done {
    cpu.x87_pending()?;
    let (v, counts) = if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(1) {
        (INDEFINITE, cpu.x87_underflow(op))
    } else {
        let f = &cpu.fpu;
        let o = O::run(f.control, f.st(0), f.st(1), 0);
        (o.value, cpu.x87_raise(op, o.status, codes, BEFORE))
    };
    if counts {
        if pop {
            cpu.fpu.pop();
        }
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}

/// FXTRACT, FSINCOS, FPTAN: one operand to two results, or none if it is out of range.
pub(crate) fn two_results<O: Native, const PARTIAL: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    if cpu.fpu.is_empty(0) {
        if cpu.x87_underflow(op) {
            cpu.fpu.set_st(0, INDEFINITE);
            cpu.fpu.push(INDEFINITE);
        }
        return Ok(());
    }
    if !cpu.fpu.is_empty(7) {
        if cpu.x87_overflow(op) {
            cpu.fpu.set_st(0, INDEFINITE);
            cpu.fpu.push(INDEFINITE);
        }
        return Ok(());
    }
    let o = O::run(cpu.fpu.control, cpu.fpu.st(0), 0, 0);
    let out_of_range = PARTIAL && o.status & C2 != 0;
    let codes = if PARTIAL { C2 } else { 0 };
    if cpu.x87_raise(op, o.status, codes, BEFORE) && !out_of_range {
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
        (INDEFINITE, cpu.x87_underflow(op))
    } else {
        (
            if CHANGE { v ^ SIGN } else { v & !SIGN },
            cpu.x87_raise(op, 0, 0, 0),
        )
    };
    if counts {
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}
