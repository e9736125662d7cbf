//! Comparison and classification (SDM vol. 1, 8.3.6).

use super::native::Native;
use super::status::{C0, C1, C2, C3, CODES};
use super::{BEFORE, Done};
use crate::cpu::Cpu;
use crate::flags::{Flags, bit};
use crate::mem::Plain;
use crate::op::Op;
use crate::width::Width;

/// The condition code of operands that can't be ordered.
const UNORDERED: u16 = C0 | C2 | C3;

impl Cpu {
    /// Compares ST(0) with ST(`op.src`) or with `m`. Answers C0, C2 and C3, and whether no
    /// unmasked exception keeps the operands from being popped.
    #[inline(always)]
    fn x87_compare<O: Native>(&mut self, op: &Op, m: Option<u64>) -> (u16, bool) {
        if self.fpu.is_empty(0) || m.is_none() && self.fpu.is_empty(op.src) {
            return (UNORDERED, self.x87_underflow(op, 0));
        }
        let f = &self.fpu;
        let b = if m.is_none() { f.st(op.src) } else { 0 };
        let o = O::run(f.control, f.st(0), b, m.unwrap_or(0));
        (
            o.status & UNORDERED,
            self.x87_raise(op, o.status, 0, BEFORE),
        )
    }

    /// Sets the condition code, in any case, and pops as often as `aux` says.
    #[inline(always)]
    fn x87_ordered(&mut self, op: &Op, (codes, counts): (u16, bool)) {
        self.fpu.status = self.fpu.status & !CODES | codes;
        if counts {
            for _ in 0..op.aux {
                self.fpu.pop();
            }
        }
    }
}

/// FCOM, FUCOM and their popping forms.
pub(crate) fn registers<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let outcome = cpu.x87_compare::<O>(op, None);
    cpu.x87_ordered(op, outcome);
    Ok(())
}

/// FCOM and FICOM with memory.
pub(crate) fn memory<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let m = cpu.load::<W>(cpu.ea(op))?;
    let outcome = cpu.x87_compare::<O>(op, Some(m.zx()));
    cpu.x87_ordered(op, outcome);
    Ok(())
}

/// FTST.
pub(crate) fn zero<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let outcome = cpu.x87_compare::<O>(op, Some(0));
    cpu.x87_ordered(op, outcome);
    Ok(())
}

/// FCOMI and FUCOMI: C3, C2 and C0 as ZF, PF and CF, in any case.
pub(crate) fn to_eflags<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let (codes, counts) = cpu.x87_compare::<O>(op, None);
    let flag = |code: u16, flag: u64| if codes & code != 0 { flag } else { 0 };
    cpu.flags = Flags::from_bits(flag(C3, bit::ZF) | flag(C2, bit::PF) | flag(C0, bit::CF));
    if counts && op.aux != 0 {
        cpu.fpu.pop();
    }
    Ok(())
}

/// FXAM: class of ST(0), its sign in C1.
pub(crate) fn examine(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = cpu.fpu.st(0);
    let class = if cpu.fpu.is_empty(0) {
        C3 | C0
    } else {
        class(v)
    };
    let sign = if v >> 79 & 1 != 0 { C1 } else { 0 };
    cpu.x87_raise(op, class | sign, CODES, 0);
    Ok(())
}

/// Condition code of a value's class (SDM vol. 2, FXAM).
fn class(v: u128) -> u16 {
    let exponent = v >> 64 & 0x7fff;
    let integer = v >> 63 & 1 != 0;
    let fraction = v & (u128::MAX >> 65);
    match (exponent, integer, fraction) {
        (0, false, 0) => C3,
        (0, ..) => C3 | C2,
        (_, false, _) => 0,
        (0x7fff, true, 0) => C2 | C0,
        (0x7fff, true, _) => C0,
        _ => C2,
    }
}
