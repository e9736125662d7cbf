//! MXCSR: the guest's rounding, denormal handling and exceptions around the host's arithmetic.
//!
//! Floating-point instructions are executed by the host's own SSE unit, so results, NaN payloads
//! and exception flags are exact. While a vCPU runs, the host's MXCSR holds its default control
//! bits (round to nearest, everything masked) and, in its sticky flags, what the guest's
//! operations have raised since [`Cpu::collect_mxcsr`] last moved the flags to the guest's
//! register. As long as the guest's control bits are the default ones too, an operation costs no
//! more than the host instruction; otherwise [`Cpu::under_mxcsr`] loads them around it.
//!
//! [`enter`] and [`Cpu::collect_mxcsr`] bracket every run, so flags never pass from one vCPU to
//! another nor between guest and harness.

use core::arch::asm;

use super::vector::V;
use crate::cpu::{Cpu, cr};
use crate::op::Stop;

/// Bits of MXCSR (SDM vol. 1, 10.2.3).
pub(crate) mod bit {
    pub(crate) const IE: u32 = 1 << 0;
    pub(crate) const DE: u32 = 1 << 1;
    pub(crate) const ZE: u32 = 1 << 2;
    pub(crate) const UE: u32 = 1 << 4;
    pub(crate) const PE: u32 = 1 << 5;
    /// All six exception flags.
    pub(crate) const FLAGS: u32 = 0x3f;
    pub(crate) const DAZ: u32 = 1 << 6;
    /// The mask bits, in the order of the flags.
    pub(crate) const MASKS: u32 = 0x3f << MASK_SHIFT;
    pub(crate) const MASK_SHIFT: u32 = 7;
    /// Rounding control.
    pub(crate) const RC: u32 = 3 << 13;
    pub(crate) const FTZ: u32 = 1 << 15;
}

/// Control bits after reset: to nearest, all exceptions masked.
pub(crate) const DEFAULT: u32 = bit::MASKS;
/// Everything but the flags.
const CONTROL: u32 = bit::DAZ | bit::MASKS | bit::RC | bit::FTZ;

fn host() -> u32 {
    let mut v = 0u32;
    // SAFETY: STMXCSR stores 32 bits to the local.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &raw mut v, options(nostack, preserves_flags));
    }
    v
}

fn set_host(v: u32) {
    // SAFETY: LDMXCSR loads 32 bits with no reserved bit set, see the callers. Control bits other
    // than the default are set only within `unusual`, around asm of this crate.
    unsafe {
        asm!("ldmxcsr [{}]", in(reg) &raw const v, options(nostack, readonly));
    }
}

/// A vCPU starts to run: whatever the harness has computed before is none of the guest's.
pub(crate) fn enter() {
    set_host(DEFAULT);
}

impl Cpu {
    /// Moves the flags raised so far to the guest's MXCSR. To be called before anybody looks at
    /// that register or replaces it.
    pub(crate) fn collect_mxcsr(&mut self) {
        let flags = host() & bit::FLAGS;
        if flags != 0 {
            self.fpu.mxcsr |= flags;
            set_host(DEFAULT);
        }
    }

    /// Executes an operation of the host's SSE unit under the guest's MXCSR; `tiny` tells whether
    /// a result is denormal. On an unmasked exception the answer is its fault: #XM, or #UD if the
    /// system does not handle that (SDM vol. 1, 11.5).
    #[inline(always)]
    pub(super) fn under_mxcsr<R>(
        &mut self,
        operation: impl FnOnce() -> R,
        tiny: impl FnOnce(&R) -> bool,
    ) -> Result<R, Stop> {
        if self.fpu.mxcsr & CONTROL == DEFAULT {
            Ok(operation())
        } else {
            self.unusual(operation, tiny)
        }
    }

    #[cold]
    #[inline(never)]
    fn unusual<R>(
        &mut self,
        operation: impl FnOnce() -> R,
        tiny: impl FnOnce(&R) -> bool,
    ) -> Result<R, Stop> {
        self.collect_mxcsr();
        let guest = self.fpu.mxcsr;
        let enabled = !(guest >> bit::MASK_SHIFT) & bit::FLAGS;
        // Results are flushed to zero only where the underflow is masked (SDM vol. 1, 10.2.3.3).
        let flush = if enabled & bit::UE == 0 { bit::FTZ } else { 0 };
        set_host(bit::MASKS | guest & (bit::DAZ | bit::RC | flush));
        let result = operation();
        let mut raised = host() & bit::FLAGS;
        set_host(DEFAULT);
        // A masked underflow has to be inexact, an unmasked one only tiny (SDM vol. 1, 4.9.1.5).
        if enabled & bit::UE != 0 && tiny(&result) {
            raised |= bit::UE;
        }
        self.settle(raised)?;
        Ok(result)
    }

    /// Sets the flags that an operation has raised, and faults if one is not masked.
    pub(super) fn settle(&mut self, mut raised: u32) -> Result<(), Stop> {
        let enabled = !(self.fpu.mxcsr >> bit::MASK_SHIFT) & bit::FLAGS;
        // Faults found before the computation keep it from raising others (SDM vol. 1, 11.5.3.2).
        const BEFORE: u32 = bit::IE | bit::DE | bit::ZE;
        if raised & enabled & BEFORE != 0 {
            raised &= BEFORE;
        }
        self.fpu.mxcsr |= raised;
        if raised & enabled == 0 {
            return Ok(());
        }
        Err(if self.cr4 & cr::CR4_OSXMMEXCPT != 0 {
            self.xm()
        } else {
            self.ud()
        })
    }
}

/// How the lanes of a result are to be searched for denormals.
pub(crate) trait Tiny {
    fn tiny(result: V) -> bool;
}

fn denormal32(v: u32) -> bool {
    v & 0x7f80_0000 == 0 && v & 0x007f_ffff != 0
}

fn denormal64(v: u64) -> bool {
    v & 0x7ff0_0000_0000_0000 == 0 && v & 0x000f_ffff_ffff_ffff != 0
}

/// The operation cannot underflow.
pub(crate) struct Never;
impl Tiny for Never {
    fn tiny(_: V) -> bool {
        false
    }
}

/// One single.
pub(crate) struct Single;
impl Tiny for Single {
    fn tiny(result: V) -> bool {
        denormal32(result.low32())
    }
}

/// Four singles.
pub(crate) struct Singles;
impl Tiny for Singles {
    fn tiny(result: V) -> bool {
        result.u32s().into_iter().any(denormal32)
    }
}

/// One double.
pub(crate) struct Double;
impl Tiny for Double {
    fn tiny(result: V) -> bool {
        denormal64(result.low())
    }
}

/// Two doubles.
pub(crate) struct Doubles;
impl Tiny for Doubles {
    fn tiny(result: V) -> bool {
        result.u64s().into_iter().any(denormal64)
    }
}
