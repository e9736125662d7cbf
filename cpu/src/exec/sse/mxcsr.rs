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

use crate::cpu::{Cpu, cr};
use crate::op::Stop;

/// Bits of MXCSR (SDM vol. 1, 10.2.3).
pub(crate) mod bit {
    pub(crate) const IE: u32 = 1 << 0;
    pub(crate) const DE: u32 = 1 << 1;
    pub(crate) const ZE: u32 = 1 << 2;
    pub(crate) const OE: u32 = 1 << 3;
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
/// No correction: the operation neither overflows nor underflows.
pub(super) fn as_raised<R>(_: &R, _: u32, masked: u32) -> u32 {
    masked
}

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

    /// Whether the guest's control bits are those that the host has while a vCPU runs.
    #[inline(always)]
    pub(super) fn default_mxcsr(&self) -> bool {
        self.fpu.mxcsr & CONTROL == DEFAULT
    }

    /// Executes an operation of the host's SSE unit under the guest's MXCSR. `review` corrects what
    /// it raised, given the result and the guest's MXCSR, for exceptions that are not masked. On
    /// such an exception the answer is its fault: #XM, or #UD if the system does not handle that
    /// (SDM vol. 1, 11.5).
    #[inline(always)]
    pub(super) fn under_mxcsr<R>(
        &mut self,
        operation: impl FnOnce() -> R,
        review: impl FnOnce(&R, u32, u32) -> u32,
    ) -> Result<R, Stop> {
        if self.default_mxcsr() {
            Ok(operation())
        } else {
            self.unusual(operation, review)
        }
    }

    #[cold]
    #[inline(never)]
    fn unusual<R>(
        &mut self,
        operation: impl FnOnce() -> R,
        review: impl FnOnce(&R, u32, u32) -> u32,
    ) -> Result<R, Stop> {
        self.collect_mxcsr();
        let guest = self.fpu.mxcsr;
        // Results are flushed to zero only where the underflow is masked (SDM vol. 1, 10.2.3.3).
        let underflow_masked = guest & bit::UE << bit::MASK_SHIFT != 0;
        let flush = if underflow_masked { bit::FTZ } else { 0 };
        set_host(bit::MASKS | guest & (bit::DAZ | bit::RC | flush));
        let result = operation();
        let masked = host() & bit::FLAGS;
        set_host(DEFAULT);
        let raised = review(&result, guest, masked);
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
