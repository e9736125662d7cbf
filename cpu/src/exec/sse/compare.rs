//! Floating-point comparisons (SDM vol. 1, 10.4.1 and 11.4.1).

use core::arch::asm;

use super::arith::Float;
use super::mxcsr::as_raised;
use super::{Done, Source, V, with_source};
use crate::cpu::Cpu;
use crate::flags::Flags;
use crate::op::Op;

/// CMPPS, CMPPD, CMPSS and CMPSD for one predicate.
macro_rules! masks {
    ($($name:ident = $insn:literal;)*) => {$(
        pub(crate) struct $name<const PREDICATE: u8>;
        impl<const PREDICATE: u8> Float for $name<PREDICATE> {
            #[inline(always)]
            fn apply(d: V, s: V) -> V {
                let mut r = d.0;
                // SAFETY: an instruction of SSE2; it touches its operands and flags in MXCSR.
                unsafe {
                    asm!(concat!($insn, " {}, {}, {}"), inout(xmm_reg) r, in(xmm_reg) s.0,
                        const PREDICATE, options(nomem, nostack));
                }
                V(r)
            }
        }
    )*};
}

masks! {
    Cmpps = "cmpps";
    Cmppd = "cmppd";
    Cmpss = "cmpss";
    Cmpsd = "cmpsd";
}

/// A comparison that sets EFLAGS.
pub(crate) trait Ordering {
    /// AH of LAHF after the comparison.
    fn compare(a: V, b: V) -> u8;
}

macro_rules! orderings {
    ($($name:ident = $insn:literal;)*) => {$(
        pub(crate) struct $name;
        impl Ordering for $name {
            #[inline(always)]
            fn compare(a: V, b: V) -> u8 {
                let flags: u64;
                // SAFETY: an instruction of SSE2; it touches flags in EFLAGS and MXCSR,
                // and LAHF, which every 64-bit host of today has, copies the former to AH.
                unsafe {
                    asm!(
                        concat!($insn, " {a}, {b}"),
                        "lahf",
                        a = in(xmm_reg) a.0, b = in(xmm_reg) b.0,
                        out("rax") flags, options(nomem, nostack),
                    );
                }
                (flags >> 8) as u8
            }
        }
    )*};
}

orderings! {
    Comiss = "comiss";
    Comisd = "comisd";
    Ucomiss = "ucomiss";
    Ucomisd = "ucomisd";
}

/// COMISS and its like: ZF, PF and CF as for unsigned integers, all three if unordered.
pub(crate) fn order<O: Ordering, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.default_mxcsr() {
        return order_unusual::<O, S>(cpu, op);
    }
    with_source::<S>(cpu, op, |cpu, op, s| {
        cpu.flags = flags(O::compare(cpu.xmm(op.dst), s));
        Ok(())
    })
}

#[cold]
#[inline(never)]
fn order_unusual<O: Ordering, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let d = cpu.xmm(op.dst);
    cpu.flags = flags(cpu.under_mxcsr(|| O::compare(d, s), as_raised)?);
    Ok(())
}

/// ZF, PF and CF of AH; the others are clear.
#[inline(always)]
fn flags(ah: u8) -> Flags {
    Flags::from_bits(u64::from(ah) & 0x45)
}
