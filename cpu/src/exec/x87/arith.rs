//! Basic arithmetic (SDM vol. 1, 8.3.5).

use super::native::Native;
use super::status::C1;
use super::{BEFORE, Done, INDEFINITE};
use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::Op;
use crate::width::Width;

/// FADD and its like between registers: ST(dst) = ST(dst) op ST(src), then a pop if `aux` says so.
pub(crate) fn registers<O: Native>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let (v, counts) = if cpu.fpu.is_empty(op.dst) || cpu.fpu.is_empty(op.src) {
        (INDEFINITE, cpu.x87_underflow(op, 0))
    } else {
        let f = &cpu.fpu;
        let o = O::run(f.control, f.st(op.dst), f.st(op.src), 0);
        (o.value, cpu.x87_raise(op, o.status, C1, BEFORE))
    };
    if counts {
        cpu.fpu.set_st(op.dst, v);
        if op.aux != 0 {
            cpu.fpu.pop();
        }
    }
    Ok(())
}

/// The same with a source in memory, of the type that the instruction implies.
pub(crate) fn memory<O: Native, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let m = cpu.load::<W>(cpu.ea(op))?;
    let (v, counts) = if cpu.fpu.is_empty(0) {
        (INDEFINITE, cpu.x87_underflow(op, 0))
    } else {
        let o = O::run(cpu.fpu.control, cpu.fpu.st(0), 0, m.zx());
        (o.value, cpu.x87_raise(op, o.status, C1, BEFORE))
    };
    if counts {
        cpu.fpu.set_st(0, v);
    }
    Ok(())
}
