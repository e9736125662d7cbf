//! Loads: FLD, FILD, FBLD, constants; FXCH and FCMOVcc (SDM vol. 1, 8.3.2 and 8.3.4).

use super::native::Native;
use super::status::{C1, IE};
use super::{Done, INDEFINITE};
use crate::cpu::Cpu;
use crate::flags::Condition;
use crate::mem::Plain;
use crate::op::{Op, Stop};
use crate::width::Width;

impl Cpu {
    /// Pushes a value that raised what `sw` says, or the indefinite if the stack is full. A
    /// denormal is loaded even if that exception is unmasked, since what it becomes is none.
    #[inline(always)]
    fn x87_push(&mut self, op: &Op, v: u128, sw: u16) {
        if !self.fpu.is_empty(7) {
            if self.x87_overflow(op, 0) {
                self.fpu.push(INDEFINITE);
            }
        } else if self.x87_raise(op, sw, C1, IE) {
            self.fpu.push(v);
        }
    }

    /// Loads the ten bytes of an extended-precision number.
    pub(super) fn load_extended(&mut self, at: u64) -> Result<u128, Stop> {
        let low = self.load::<u64>(at)?;
        let high = self.load::<u16>(at.wrapping_add(8))?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }
}

/// FLD of a single or double, FILD; the instruction knows the operand's size.
pub(crate) fn from_memory<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let m = cpu.load::<W>(cpu.ea(op))?;
    let o = O::run(cpu.fpu.control, 0, 0, m.zx());
    cpu.x87_push(op, o.value, o.status);
    Ok(())
}

/// FLD of an extended-precision number, which is not looked at.
pub(crate) fn extended(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = cpu.load_extended(cpu.ea(op))?;
    cpu.x87_push(op, v, 0);
    Ok(())
}

/// FBLD.
pub(crate) fn decimal<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = cpu.load_extended(cpu.ea(op))?;
    let o = O::run(cpu.fpu.control, v, 0, 0);
    cpu.x87_push(op, o.value, o.status);
    Ok(())
}

/// FLD1, FLDPI and the like: their last bit depends on the rounding control.
pub(crate) fn constant<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let o = O::run(cpu.fpu.control, 0, 0, 0);
    cpu.x87_push(op, o.value, o.status & !C1);
    Ok(())
}

/// FLD ST(i).
pub(crate) fn register(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    if cpu.fpu.is_empty(op.src) {
        if cpu.x87_underflow(op, 0) {
            cpu.fpu.push(INDEFINITE);
        }
        return Ok(());
    }
    let v = cpu.fpu.st(op.src);
    cpu.x87_push(op, v, 0);
    Ok(())
}

/// FXCH: an empty register holds the indefinite.
pub(crate) fn exchange(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let any_empty = cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src);
    if any_empty {
        if !cpu.x87_underflow(op, 0) {
            return Ok(());
        }
        for i in [0, op.src] {
            if cpu.fpu.is_empty(i) {
                cpu.fpu.set_st(i, INDEFINITE);
            }
        }
    } else {
        cpu.x87_raise(op, 0, C1, 0);
    }
    let (a, b) = (cpu.fpu.st(0), cpu.fpu.st(op.src));
    cpu.fpu.set_st(0, b);
    cpu.fpu.set_st(op.src, a);
    Ok(())
}

/// FCMOVcc.
pub(crate) fn conditional<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src) {
        // Whether or not the condition holds.
        if cpu.x87_underflow(op, 0) {
            cpu.fpu.set_st(0, INDEFINITE);
        }
        return Ok(());
    }
    cpu.x87_raise(op, 0, 0, 0);
    if C::holds(&cpu.flags) {
        let v = cpu.fpu.st(op.src);
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}
