//! The x87 unit (SDM vol. 1, chapter 8).
//!
//! The register stack, tags and exceptions are ours; arithmetic is the host's. [`native`] loads
//! the operands, sets the guest's control word and executes the very instruction, so that results,
//! rounding, condition codes and the responses to unmasked exceptions are exact. The host's unit
//! is left empty, with its default control word, after each.
//!
//! An exception is not raised by the instruction that meets it but by the next one that waits
//! ([`Cpu::x87_pending`]; SDM vol. 1, 8.6).
//!
//! FIP is that of the last instruction; FDP and FOP are recorded only together with an unmasked
//! exception, FCS and FDS read as zero: the behaviour that CPUID leaf 7 EBX bits 6 and 13 announce.

pub(crate) mod arith;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod function;
pub(crate) mod load;
pub(crate) mod native;
pub(crate) mod store;

use crate::cpu::{Cpu, cr};
use crate::exec::fpu::Fpu;
use crate::op::{Op, Stop};
use crate::paging::Who;

type Done = Result<(), Stop>;

/// Bits of the status word (SDM vol. 1, 8.1.3).
pub(crate) mod status {
    pub(crate) const IE: u16 = 1 << 0;
    pub(crate) const DE: u16 = 1 << 1;
    pub(crate) const ZE: u16 = 1 << 2;
    pub(crate) const OE: u16 = 1 << 3;
    pub(crate) const UE: u16 = 1 << 4;
    /// The six exception flags.
    pub(crate) const FLAGS: u16 = 0x3f;
    /// Stack fault.
    pub(crate) const SF: u16 = 1 << 6;
    /// Exception summary: one is pending.
    pub(crate) const ES: u16 = 1 << 7;
    pub(crate) const C0: u16 = 1 << 8;
    pub(crate) const C1: u16 = 1 << 9;
    pub(crate) const C2: u16 = 1 << 10;
    pub(crate) const C3: u16 = 1 << 14;
    /// The condition code.
    pub(crate) const CODES: u16 = C0 | C1 | C2 | C3;
    pub(crate) const TOP: u16 = 7 << 11;
    /// Busy: a copy of ES.
    pub(crate) const B: u16 = 1 << 15;
}

use status::{B, C1, DE, ES, FLAGS, IE, SF, TOP, ZE};

/// Exceptions found before an instruction computes anything.
const BEFORE: u16 = IE | DE | ZE;

/// In an operation's `imm`, where else the number of the segment base's register is: no operand in
/// memory.
pub(crate) const NO_MEMORY: u64 = 0xff;

/// Longest instruction.
const MAX_LEN: u64 = 15;

/// The default quiet NaN, "real indefinite" (SDM vol. 1, 4.8.3.7).
pub(crate) const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// Heads the x87 instructions of a block: #NM where the unit is not available (SDM vol. 3, 2.5).
pub(crate) fn check_x87(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 {
        return Err(cpu.nm());
    }
    Ok(())
}

impl Fpu {
    /// Physical number of ST(`i`).
    #[inline(always)]
    fn physical(&self, i: u8) -> usize {
        usize::from((self.status >> 11) as u8).wrapping_add(usize::from(i)) & 7
    }

    #[inline(always)]
    fn st(&self, i: u8) -> u128 {
        self.st[self.physical(i)]
    }

    /// Writes ST(`i`), which is in use from now on.
    #[inline(always)]
    fn set_st(&mut self, i: u8, v: u128) {
        let at = self.physical(i);
        self.st[at] = v;
        self.tags |= 1 << at;
    }

    #[inline(always)]
    fn is_empty(&self, i: u8) -> bool {
        self.tags >> self.physical(i) & 1 == 0
    }

    fn free(&mut self, i: u8) {
        self.tags &= !(1 << self.physical(i));
    }

    /// Moves the top of the stack by `n` registers.
    fn rotate(&mut self, n: u16) {
        self.status = self.status & !TOP | self.status.wrapping_add(n << 11) & TOP;
    }

    fn pop(&mut self) {
        self.free(0);
        self.rotate(1);
    }

    fn push(&mut self, v: u128) {
        self.rotate(7);
        self.set_st(0, v);
    }

    /// The exceptions that are not masked.
    fn enabled(&self) -> u16 {
        !self.control & FLAGS
    }

    /// Works out the summary bits after flags or masks have changed.
    pub(crate) fn summarize(&mut self) {
        let pending = self.status & self.enabled() != 0;
        self.status = self.status & !(ES | B) | if pending { ES | B } else { 0 };
    }
}

impl Cpu {
    /// #MF if an exception is pending: what every waiting instruction does first.
    #[inline(always)]
    pub(crate) fn x87_pending(&mut self) -> Done {
        if self.fpu.status & ES != 0 {
            return Err(self.mf());
        }
        Ok(())
    }

    /// Records flags and condition code of an instruction, and where it was: of `sw`, a status word
    /// of the host, the exceptions and the codes in `mask`. Answers whether the result is to be
    /// stored, that is, none of the exceptions `keeps` is met unmasked.
    #[inline(always)]
    fn x87_raise(&mut self, op: &Op, sw: u16, mask: u16, keeps: u16) -> bool {
        let ip = self.this_rip(op);
        let f = &mut self.fpu;
        f.ip = ip;
        f.status = f.status & !mask | sw & (mask | FLAGS | SF);
        let unmasked = sw & f.enabled();
        if unmasked == 0 {
            return true;
        }
        self.x87_unmasked(op);
        unmasked & keeps == 0
    }

    #[cold]
    fn x87_unmasked(&mut self, op: &Op) {
        self.fpu.summarize();
        self.fpu.opcode = self.x87_opcode();
        self.fpu.dp = match op.imm {
            NO_MEMORY => 0,
            segment => self.ea(op).wrapping_sub(self.r(segment as u8)),
        };
    }

    /// The lower eleven bits of the current opcode, read from memory: nobody else needs them.
    fn x87_opcode(&mut self) -> u16 {
        let base = self.regs[crate::op::reg::ES_BASE + crate::cpu::seg::CS];
        let base = if self.bits == 64 { 0 } else { base };
        let mut previous = None;
        for i in 0..MAX_LEN {
            let mut byte = [0];
            let at = self.fpu.ip.wrapping_add(base).wrapping_add(i);
            if self.read_bytes(at, &mut byte, Who::System).is_err() {
                return 0;
            }
            if let Some(escape) = previous {
                return u16::from(escape & 7) << 8 | u16::from(byte[0]);
            }
            // What comes before is prefixes.
            previous = (byte[0] & 0xf8 == 0xd8).then_some(byte[0]);
        }
        0
    }

    /// A register that is read is empty: IE and SF. Answers whether the masked response is due
    /// (SDM vol. 1, 8.5.1.1). C1 is cleared, and so are `codes`.
    #[cold]
    fn x87_underflow(&mut self, op: &Op, codes: u16) -> bool {
        self.x87_raise(op, IE | SF, codes | C1, IE)
    }

    /// A register to be pushed to is in use: IE, SF and C1; `codes` are cleared.
    #[cold]
    fn x87_overflow(&mut self, op: &Op, codes: u16) -> bool {
        self.x87_raise(op, IE | SF | C1, codes | C1, IE)
    }
}
