//! Integer arithmetic and logic with two operands or one.

use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::{Op, Stop};
use crate::width::Width;

type Done = Result<(), Stop>;

/// An operation on two operands that sets the flags.
pub(crate) trait Binary {
    /// The result is stored; CMP and TEST only set flags.
    const STORES: bool = true;
    fn apply<W: Width>(cpu: &mut Cpu, a: W, b: W) -> W;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident $($stores:literal)? = |$cpu:ident, $a:ident, $b:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;
        impl Binary for $name {
            $(const STORES: bool = $stores;)?
            #[inline(always)]
            fn apply<W: Width>($cpu: &mut Cpu, a: W, b: W) -> W {
                let ($a, $b) = (a.zx(), b.zx());
                $body
            }
        }
    )*};
}

binary! {
    Add = |cpu, a, b| {
        let r = a.wrapping_add(b);
        cpu.flags.add::<W>(a, b, r);
        W::cut(r)
    };
    Adc = |cpu, a, b| {
        let r = a.wrapping_add(b).wrapping_add(u64::from(cpu.flags.cf()));
        cpu.flags.add::<W>(a, b, r);
        W::cut(r)
    };
    Sub = |cpu, a, b| {
        let r = a.wrapping_sub(b);
        cpu.flags.sub::<W>(a, b, r);
        W::cut(r)
    };
    Sbb = |cpu, a, b| {
        let r = a.wrapping_sub(b).wrapping_sub(u64::from(cpu.flags.cf()));
        cpu.flags.sub::<W>(a, b, r);
        W::cut(r)
    };
    Cmp false = |cpu, a, b| {
        let r = a.wrapping_sub(b);
        cpu.flags.sub::<W>(a, b, r);
        W::cut(r)
    };
    And = |cpu, a, b| {
        let r = W::cut(a & b);
        cpu.flags.logic(r);
        r
    };
    Or = |cpu, a, b| {
        let r = W::cut(a | b);
        cpu.flags.logic(r);
        r
    };
    Xor = |cpu, a, b| {
        let r = W::cut(a ^ b);
        cpu.flags.logic(r);
        r
    };
    Test false = |cpu, a, b| {
        let r = W::cut(a & b);
        cpu.flags.logic(r);
        r
    };
}

/// Register, register.
pub(crate) fn rr<O: Binary, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b) = (cpu.get::<W>(op.dst), cpu.get::<W>(op.src));
    let r = O::apply(cpu, a, b);
    if O::STORES {
        cpu.set(op.dst, r);
    }
    Ok(())
}

/// Register, immediate.
pub(crate) fn ri<O: Binary, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let a = cpu.get::<W>(op.dst);
    let r = O::apply(cpu, a, W::cut(op.imm));
    if O::STORES {
        cpu.set(op.dst, r);
    }
    Ok(())
}

/// Register, memory.
pub(crate) fn rm<O: Binary, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = cpu.load::<W>(cpu.ea(op))?;
    let a = cpu.get::<W>(op.dst);
    let r = O::apply(cpu, a, b);
    if O::STORES {
        cpu.set(op.dst, r);
    }
    Ok(())
}

#[inline(always)]
fn memory<O: Binary, W: Width + Plain>(cpu: &mut Cpu, op: &Op, b: W) -> Done {
    let at = cpu.ea(op);
    if !O::STORES {
        let a = cpu.load::<W>(at)?;
        O::apply(cpu, a, b);
        return Ok(());
    }
    let a = cpu.load_for_store::<W>(at)?;
    let flags = cpu.flags;
    let r = O::apply(cpu, a, b);
    let stored = cpu.store(at, r);
    if stored.is_err() {
        cpu.flags = flags;
    }
    stored
}

/// Memory, register.
pub(crate) fn mr<O: Binary, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = cpu.get::<W>(op.src);
    memory::<O, W>(cpu, op, b)
}

/// Memory, immediate.
pub(crate) fn mi<O: Binary, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    memory::<O, W>(cpu, op, W::cut(op.imm))
}

/// An operation on one operand.
pub(crate) trait Unary {
    fn apply<W: Width>(cpu: &mut Cpu, a: W) -> W;
}

/// INC: CF stays.
pub(crate) struct Inc;
impl Unary for Inc {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W) -> W {
        let cf = cpu.flags.cf();
        let r = a.zx().wrapping_add(1);
        cpu.flags.add::<W>(a.zx(), 1, r);
        cpu.flags.with_carry(cf);
        W::cut(r)
    }
}

/// DEC: CF stays.
pub(crate) struct Dec;
impl Unary for Dec {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W) -> W {
        let cf = cpu.flags.cf();
        let r = a.zx().wrapping_sub(1);
        cpu.flags.sub::<W>(a.zx(), 1, r);
        cpu.flags.with_carry(cf);
        W::cut(r)
    }
}

/// NEG.
pub(crate) struct Neg;
impl Unary for Neg {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W) -> W {
        let r = 0u64.wrapping_sub(a.zx());
        cpu.flags.sub::<W>(0, a.zx(), r);
        W::cut(r)
    }
}

/// NOT: no flags.
pub(crate) struct Not;
impl Unary for Not {
    #[inline(always)]
    fn apply<W: Width>(_: &mut Cpu, a: W) -> W {
        W::cut(!a.zx())
    }
}

/// Register operand.
pub(crate) fn r<O: Unary, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let a = cpu.get::<W>(op.dst);
    let r = O::apply(cpu, a);
    cpu.set(op.dst, r);
    Ok(())
}

/// Memory operand.
pub(crate) fn m<O: Unary, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let a = cpu.load_for_store::<W>(at)?;
    let flags = cpu.flags;
    let r = O::apply(cpu, a);
    let stored = cpu.store(at, r);
    if stored.is_err() {
        cpu.flags = flags;
    }
    stored
}
