//! Operands: how an instruction's registers, memory and immediates go into an [`Op`].

use iced_x86::{Instruction, OpKind, Register};

use crate::exec::address;
use crate::op::{Handler, Op, reg};

/// Appends the operations of one instruction.
pub(crate) struct Emit<'a> {
    /// The instruction.
    pub(crate) insn: &'a Instruction,
    /// Operand size of the code segment: 16, 32 or 64.
    pub(crate) bits: u8,
    nth: u8,
    ops: &'a mut Vec<Op>,
}

/// Picks a handler by operand width in bytes.
macro_rules! by_width {
    ($width:expr, $($f:ident)::+ $(::<$($g:ty),*>)?) => {
        match $width {
            1 => $($f)::+::<$($($g,)*)? u8> as $crate::op::Handler,
            2 => $($f)::+::<$($($g,)*)? u16>,
            4 => $($f)::+::<$($($g,)*)? u32>,
            _ => $($f)::+::<$($($g,)*)? u64>,
        }
    };
}
pub(crate) use by_width;

impl<'a> Emit<'a> {
    pub(crate) fn new(insn: &'a Instruction, bits: u8, nth: u8, ops: &'a mut Vec<Op>) -> Emit<'a> {
        Emit {
            insn,
            bits,
            nth,
            ops,
        }
    }

    /// An operation with no operands yet.
    pub(crate) fn op(&self, run: Handler) -> Op {
        Op {
            run,
            imm: 0,
            disp: 0,
            dst: reg::ZERO as u8,
            src: reg::ZERO as u8,
            base: reg::ZERO as u8,
            index: reg::ZERO as u8,
            scale: 0,
            seg: if self.insn.is_stack_instruction() && self.bits == 64 {
                reg::STACK as u8
            } else {
                reg::ZERO as u8
            },
            at: self.insn.ip() as u16 & 0xfff,
            next: self.insn.next_ip() as u16 & 0x1fff,
            nth: self.nth,
            aux: 0,
        }
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Appends a check of whether a unit is available, unless the block has it already: what it
    /// looks at changes only between blocks.
    pub(crate) fn require(&mut self, check: Handler) {
        if !self.ops.iter().any(|op| op.run as usize == check as usize) {
            self.plain(check);
        }
    }

    /// Appends an operation without operands.
    pub(crate) fn plain(&mut self, run: Handler) {
        let op = self.op(run);
        self.push(op);
    }

    /// Kind of operand `n`.
    pub(crate) fn kind(&self, n: u32) -> OpKind {
        self.insn.op_kind(n)
    }

    pub(crate) fn is_register(&self, n: u32) -> bool {
        self.insn.op_count() > n && self.kind(n) == OpKind::Register
    }

    pub(crate) fn is_memory(&self, n: u32) -> bool {
        self.insn.op_count() > n && self.kind(n) == OpKind::Memory
    }

    /// Register file index of register operand `n`; for vector registers their number.
    pub(crate) fn register(&self, n: u32) -> u8 {
        index_of(self.insn.op_register(n))
    }

    /// Bytes of operand `n`.
    pub(crate) fn width(&self, n: u32) -> usize {
        match self.kind(n) {
            OpKind::Register => self.insn.op_register(n).size(),
            _ => self.insn.memory_size().size(),
        }
    }

    /// Immediate operand `n`, sign-extended as the instruction says.
    pub(crate) fn immediate(&self, n: u32) -> u64 {
        self.insn.immediate(n)
    }

    /// Register that holds the base of the memory operand's segment.
    pub(crate) fn segment(&self) -> u8 {
        self.segment_index(self.insn.memory_segment())
    }

    fn segment_index(&self, segment: Register) -> u8 {
        let number = segment.number() as u8;
        // Bases of ES, CS, SS and DS are zero in 64-bit mode.
        if self.bits == 64 && number < 4 {
            // Prefixes that name them mean nothing; the base register alone tells stack from data.
            match self.insn.memory_base() {
                Register::RSP | Register::RBP => reg::STACK as u8,
                _ => reg::ZERO as u8,
            }
        } else {
            reg::ES_BASE as u8 + number
        }
    }

    /// Fills the memory operand into `op`; an address that does not fit the plain form is worked
    /// out by an operation of its own, appended here.
    pub(crate) fn memory(&mut self, op: Op) -> Op {
        let segment = self.segment();
        self.memory_in(op, segment)
    }

    /// The memory operand's offset alone, without its segment: LEA.
    pub(crate) fn offset(&mut self, op: Op) -> Op {
        self.memory_in(op, reg::ZERO as u8)
    }

    fn memory_in(&mut self, mut op: Op, segment: u8) -> Op {
        let insn = self.insn;
        let base = insn.memory_base();
        let index = insn.memory_index();
        let size = self.address_size();
        let displacement = insn.memory_displacement64();
        if size == 8 {
            op.seg = segment;
            if base == Register::RIP {
                op.base = reg::PAGE as u8;
            } else {
                op.base = optional(base);
                op.index = optional(index);
                op.scale = insn.memory_index_scale().trailing_zeros() as u8;
            }
            if let Ok(disp) = i32::try_from(displacement as i64) {
                op.disp = disp;
                return op;
            }
            let ea = Op {
                base: op.base,
                imm: displacement,
                seg: segment,
                ..self.op(address::wide)
            };
            self.push(ea);
        } else {
            let rip_relative = base == Register::EIP;
            let ea = Op {
                base: if rip_relative {
                    reg::PAGE as u8
                } else {
                    optional(base)
                },
                index: optional(index),
                scale: insn.memory_index_scale().trailing_zeros() as u8,
                disp: displacement as i32,
                seg: segment,
                imm: if size == 4 { 0xffff_ffff } else { 0xffff },
                ..self.op(address::masked)
            };
            self.push(ea);
        }
        Op {
            base: reg::TEMP as u8,
            index: reg::ZERO as u8,
            scale: 0,
            disp: 0,
            seg: reg::ZERO as u8,
            ..op
        }
    }

    /// Address size in bytes.
    pub(crate) fn address_size(&self) -> usize {
        let insn = self.insn;
        let register = match (insn.memory_base(), insn.memory_index()) {
            (Register::None, Register::None) => {
                return match insn.memory_displ_size() {
                    8 => 8,
                    2 => 2,
                    // A displacement alone has the size of its address.
                    _ => 4,
                };
            }
            (Register::None, index) => index,
            (base, _) => base,
        };
        match register {
            Register::RIP => 8,
            Register::EIP => 4,
            r => r.size(),
        }
    }
}

fn optional(r: Register) -> u8 {
    if r == Register::None {
        reg::ZERO as u8
    } else {
        index_of(r)
    }
}

/// Register file index; AH, CH, DH and BH are marked.
pub(crate) fn index_of(r: Register) -> u8 {
    match r {
        Register::AH | Register::CH | Register::DH | Register::BH => {
            (r as u32 - Register::AH as u32) as u8 | reg::HIGH
        }
        r if r.is_gpr() => r.full_register().number() as u8,
        r => r.number() as u8,
    }
}
