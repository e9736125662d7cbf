//! The decoded form of an instruction: one or a few [`Op`]s.

use crate::cpu::Cpu;

/// The function that executes an operation.
///
/// On `Err` the reason is in [`Cpu`]'s `stop` and nothing of the instruction has taken effect,
/// unless the reason says that the instruction is complete.
pub(crate) type Handler = fn(&mut Cpu, &Op) -> Result<(), Stop>;

/// Execution can't simply go on to the next operation; the reason is in [`Cpu`]'s `stop`.
///
/// Empty on purpose: results of the hot path stay in registers.
#[derive(Debug)]
pub(crate) struct Stop;

/// A decoded operation. Register operands are indices into [`Cpu`]'s register file, which holds
/// more than the sixteen general registers; see [`reg`].
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Op {
    pub(crate) run: Handler,
    /// Immediate operand, or a branch target relative to the page.
    pub(crate) imm: u64,
    /// Displacement of the memory operand.
    pub(crate) disp: i32,
    /// Destination register, bit 5 marking AH, CH, DH or BH.
    pub(crate) dst: u8,
    /// Source register, likewise.
    pub(crate) src: u8,
    /// Base register of the memory operand.
    pub(crate) base: u8,
    /// Index register of the memory operand.
    pub(crate) index: u8,
    /// Shift count of the index.
    pub(crate) scale: u8,
    /// Register that holds the segment's base.
    pub(crate) seg: u8,
    /// Offset of this instruction in its page.
    pub(crate) at: u16,
    /// Offset of the next instruction, which may lie in the next page.
    pub(crate) next: u16,
    /// Instructions of the block before this one.
    pub(crate) nth: u8,
    /// Whatever else the handler wants to know.
    pub(crate) aux: u8,
}

const _: () = assert!(size_of::<Op>() == 40 || size_of::<Op>() == 32);

/// Indices of [`Cpu`]'s register file.
pub(crate) mod reg {
    pub(crate) const RAX: usize = 0;
    pub(crate) const RCX: usize = 1;
    pub(crate) const RDX: usize = 2;
    pub(crate) const RBX: usize = 3;
    pub(crate) const RSP: usize = 4;
    pub(crate) const RBP: usize = 5;
    pub(crate) const RSI: usize = 6;
    pub(crate) const RDI: usize = 7;
    pub(crate) const R11: usize = 11;
    /// Always zero: the absent base, index or segment.
    pub(crate) const ZERO: usize = 16;
    /// RIP less the page offset of the current instruction.
    pub(crate) const PAGE: usize = 17;
    /// The effective address that an operation before this one has worked out.
    pub(crate) const TEMP: usize = 18;
    /// Always zero too: the segment of stack accesses in 64-bit mode, where a bad address raises
    /// #SS instead of #GP.
    pub(crate) const STACK: usize = 19;
    /// Base of ES; CS, SS, DS, FS and GS follow in encoding order.
    pub(crate) const ES_BASE: usize = 20;
    /// Marks the high byte of one of the first four registers.
    pub(crate) const HIGH: u8 = 32;
}
