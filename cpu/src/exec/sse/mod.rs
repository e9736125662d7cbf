//! MMX and SSE to SSE4.2: instructions on vector registers.
//!
//! An instruction is a type that implements one of a few traits, such as [`packed::Packed`] or
//! [`arith::Float`]; handlers are generic over it and over where the source comes from, so every
//! combination is a function of its own. Integer operations are plain Rust or intrinsics of the
//! SSE2 that every host has; floating-point ones are host instructions, see [`mxcsr`].
//!
//! Whether the system has enabled SSE is checked once per block, by [`check_sse`]: the control
//! bits can't change within one.

pub(crate) mod arith;
pub(crate) mod blend;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod dot;
pub(crate) mod insert;
pub(crate) mod masked;
pub(crate) mod mmx;
pub(crate) mod moves;
pub(crate) mod mxcsr;
pub(crate) mod packed;
pub(crate) mod packed_more;
pub(crate) mod round;
pub(crate) mod shift;
pub(crate) mod shuffle;
pub(crate) mod text;
pub(crate) mod unbounded;
pub(crate) mod vector;

pub(crate) use vector::V;

use crate::cpu::{Cpu, cr};
use crate::op::{Op, Stop};

type Done = Result<(), Stop>;

/// Heads the SSE instructions of a block: #UD or #NM where they are not available (SDM vol. 3,
/// 14.1). CR0 and CR4 change only at the end of a block.
pub(crate) fn check_sse(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cr0 & cr::CR0_EM != 0 || cpu.cr4 & cr::CR4_OSFXSR == 0 {
        return Err(cpu.ud());
    }
    if cpu.cr0 & cr::CR0_TS != 0 {
        return Err(cpu.nm());
    }
    Ok(())
}

impl Cpu {
    /// Value of a vector register.
    #[inline(always)]
    pub(super) fn xmm(&self, index: u8) -> V {
        self.fpu.xmm[usize::from(index & 15)]
    }

    #[inline(always)]
    pub(super) fn set_xmm(&mut self, index: u8, v: V) {
        self.fpu.xmm[usize::from(index & 15)] = v;
    }

    /// Linear address of a 16-byte operand that has to be aligned (SDM vol. 1, 10.4.2).
    #[inline(always)]
    pub(super) fn aligned(&mut self, op: &Op) -> Result<u64, Stop> {
        let at = self.ea(op);
        if at & 15 != 0 {
            return Err(self.gp(0));
        }
        Ok(at)
    }
}

/// Where a source operand comes from.
pub(crate) trait Source {
    /// The operand, if it is at hand.
    fn at_hand(cpu: &Cpu, op: &Op) -> Option<V>;

    /// The operand, whatever it takes.
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<V, Stop>;
}

/// Continues with the source operand. Getting one that is not at hand is kept out of the handler,
/// which then needs no stack frame.
#[inline(always)]
fn with_source<S: Source>(
    cpu: &mut Cpu,
    op: &Op,
    then: impl FnOnce(&mut Cpu, &Op, V) -> Done,
) -> Done {
    match S::at_hand(cpu, op) {
        Some(s) => then(cpu, op, s),
        None => with_fetched::<S>(cpu, op, then),
    }
}

#[inline(never)]
fn with_fetched<S: Source>(
    cpu: &mut Cpu,
    op: &Op,
    then: impl FnOnce(&mut Cpu, &Op, V) -> Done,
) -> Done {
    let s = S::fetch(cpu, op)?;
    then(cpu, op, s)
}

/// A register.
pub(crate) struct Reg;
impl Source for Reg {
    #[inline(always)]
    fn at_hand(cpu: &Cpu, op: &Op) -> Option<V> {
        Some(cpu.xmm(op.src))
    }
    #[inline(always)]
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<V, Stop> {
        Ok(cpu.xmm(op.src))
    }
}

/// 16 aligned bytes.
pub(crate) struct M128;
impl Source for M128 {
    #[inline(always)]
    fn at_hand(cpu: &Cpu, op: &Op) -> Option<V> {
        let at = cpu.ea(op);
        if at & 15 == 0 {
            cpu.load_cached(at)
        } else {
            None
        }
    }
    #[inline(always)]
    fn fetch(cpu: &mut Cpu, op: &Op) -> Result<V, Stop> {
        let at = cpu.aligned(op)?;
        cpu.load(at)
    }
}

/// Other operands in memory, with zeros above what they are.
macro_rules! in_memory {
    ($($(#[$doc:meta])* $name:ident = $t:ty, $widen:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;
        impl Source for $name {
            #[inline(always)]
            fn at_hand(cpu: &Cpu, op: &Op) -> Option<V> {
                cpu.load_cached::<$t>(cpu.ea(op)).map($widen)
            }
            #[inline(always)]
            fn fetch(cpu: &mut Cpu, op: &Op) -> Result<V, Stop> {
                cpu.load::<$t>(cpu.ea(op)).map($widen)
            }
        }
    )*};
}

in_memory! {
    /// 16 bytes wherever they lie.
    U128 = V, |v| v;
    /// Eight bytes.
    M64 = u64, V::from_low;
    /// Four bytes.
    M32 = u32, V::from_low32;
    /// Two bytes.
    M16 = u16, |v| V::from_low32(u32::from(v));
}
