//! Stores: FST, FIST, FISTTP, FBSTP (SDM vol. 1, 8.3.2).

use super::native::Native;
use super::status::{C1, OE, UE};
use super::{BEFORE, Done, INDEFINITE};
use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::{Op, Stop};
use crate::width::Width;

/// Rounding control: toward zero.
const TRUNCATE: u16 = 3 << 10;

/// Exceptions that keep a value from being stored to memory.
const KEEPS: u16 = BEFORE | OE | UE;

impl Cpu {
    /// Stores the ten bytes of an extended-precision or decimal number: processors store the
    /// significand even if the rest then meets a fault.
    pub(super) fn store_extended(&mut self, at: u64, v: u128) -> Done {
        self.store(at, v as u64)?;
        self.store(at.wrapping_add(8), (v >> 64) as u16)
    }

    /// Stores a conversion of ST(0) by `store`, or `indefinite` if that is empty, and pops it if
    /// `op.aux` says so.
    #[inline(always)]
    fn x87_store<O: Native>(
        &mut self,
        op: &Op,
        control: u16,
        indefinite: u128,
        store: impl FnOnce(&mut Cpu, u128) -> Result<(), Stop>,
    ) -> Done {
        if self.fpu.is_empty(0) {
            if self.fpu.enabled() & super::status::IE == 0 {
                store(self, indefinite)?;
            }
            if self.x87_underflow(op, 0) && op.aux != 0 {
                self.fpu.pop();
            }
            return Ok(());
        }
        let o = O::run(control, self.fpu.st(0), 0, 0);
        if o.status & KEEPS & self.fpu.enabled() == 0 {
            store(self, o.value)?;
        }
        let sw = if control == self.fpu.control {
            o.status
        } else {
            o.status & !C1
        };
        if self.x87_raise(op, sw, C1, KEEPS) && op.aux != 0 {
            self.fpu.pop();
        }
        Ok(())
    }
}

/// The indefinite integer of a width, and the indefinite of a floating-point format.
fn integer_indefinite<W: Width>() -> u128 {
    1 << (W::BITS - 1)
}

fn float_indefinite<W: Width>() -> u128 {
    if W::BITS == 32 {
        0xffc0_0000
    } else {
        0xfff8_0000_0000_0000
    }
}

/// FST and FSTP of a single or double.
pub(crate) fn float<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let at = cpu.ea(op);
    let control = cpu.fpu.control;
    cpu.x87_store::<O>(op, control, float_indefinite::<W>(), |cpu, v| {
        cpu.store(at, W::cut(v as u64))
    })
}

/// FIST and FISTP.
pub(crate) fn integer<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let control = cpu.fpu.control;
    store_integer::<O, W>(cpu, op, control)
}

/// FISTTP: FISTP that rounds toward zero, and says nothing about it in C1.
pub(crate) fn truncated<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let control = cpu.fpu.control | TRUNCATE;
    store_integer::<O, W>(cpu, op, control)
}

fn store_integer<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op, control: u16) -> Done {
    let at = cpu.ea(op);
    cpu.x87_store::<O>(op, control, integer_indefinite::<W>(), |cpu, v| {
        cpu.store(at, W::cut(v as u64))
    })
}

/// FBSTP.
pub(crate) fn decimal<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    const INDEFINITE_DECIMAL: u128 = 0xffff_c000_0000_0000_0000;
    cpu.x87_pending()?;
    let at = cpu.ea(op);
    let control = cpu.fpu.control;
    cpu.x87_store::<O>(op, control, INDEFINITE_DECIMAL, |cpu, v| {
        cpu.store_extended(at, v)
    })
}

/// FSTP of an extended-precision number: stored as it is.
pub(crate) fn extended(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let at = cpu.ea(op);
    let empty = cpu.fpu.is_empty(0);
    if !empty || cpu.fpu.enabled() & super::status::IE == 0 {
        let v = if empty { INDEFINITE } else { cpu.fpu.st(0) };
        cpu.store_extended(at, v)?;
    }
    let counts = if empty {
        cpu.x87_underflow(op, 0)
    } else {
        cpu.x87_raise(op, 0, C1, 0)
    };
    if counts {
        cpu.fpu.pop();
    }
    Ok(())
}

/// FST and FSTP to ST(i).
pub(crate) fn register(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let empty = cpu.fpu.is_empty(0);
    let counts = if empty {
        cpu.x87_underflow(op, 0)
    } else {
        cpu.x87_raise(op, 0, C1, 0)
    };
    if counts {
        let v = if empty { INDEFINITE } else { cpu.fpu.st(0) };
        cpu.fpu.set_st(op.dst, v);
        if op.aux != 0 {
            cpu.fpu.pop();
        }
    }
    Ok(())
}

/// FSTPNCE: a popping store that takes no notice of an empty register.
pub(crate) fn register_unchecked(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.fpu.is_empty(0) {
        cpu.x87_pending()?;
        cpu.x87_raise(op, 0, C1, 0);
        cpu.fpu.pop();
        return Ok(());
    }
    register(cpu, op)
}
