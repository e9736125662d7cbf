//! Pushes, pops and frames.

use iced_x86::{Code, Mnemonic, Register};

use super::operand::by_width;
use super::{Emit, index_of_segment};
use crate::exec::stack;
use crate::op::{Handler, Op, reg};

pub(super) fn emit(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Push => push(e),
        Mnemonic::Pop => pop(e),
        Mnemonic::Pusha => sized(e, stack::pusha, 2),
        Mnemonic::Pushad => sized(e, stack::pusha, 4),
        Mnemonic::Popa => sized(e, stack::popa, 2),
        Mnemonic::Popad => sized(e, stack::popa, 4),
        Mnemonic::Pushf => sized(e, stack::pushf, 2),
        Mnemonic::Pushfd => sized(e, stack::pushf, 4),
        Mnemonic::Pushfq => sized(e, stack::pushf, 8),
        Mnemonic::Popf => sized(e, stack::popf, 2),
        Mnemonic::Popfd => sized(e, stack::popf, 4),
        Mnemonic::Popfq => sized(e, stack::popf, 8),
        Mnemonic::Enter => {
            let size = match e.insn.code() {
                Code::Enterw_imm16_imm8 => 2,
                Code::Enterd_imm16_imm8 => 4,
                _ => 8,
            };
            let op = Op {
                imm: e.immediate(0) & 0xffff,
                dst: e.insn.immediate8_2nd(),
                aux: size,
                ..e.op(stack::enter)
            };
            e.push(op);
        }
        Mnemonic::Leave => {
            let size = match e.insn.code() {
                Code::Leavew => 2,
                Code::Leaved => 4,
                _ => 8,
            };
            sized(e, stack::leave, size);
        }
        _ => return false,
    }
    true
}

fn sized(e: &mut Emit, run: Handler, size: u8) {
    let op = Op {
        aux: size,
        ..e.op(run)
    };
    e.push(op);
}

/// Bytes pushed or popped.
fn stack_bytes(e: &Emit) -> u8 {
    e.insn.stack_pointer_increment().unsigned_abs() as u8
}

fn push(e: &mut Emit) {
    let size = stack_bytes(e);
    let register = e.insn.op0_register();
    let op = if register.is_segment_register() {
        Op {
            imm: index_of_segment(register),
            aux: size,
            ..e.op(stack::push_segment)
        }
    } else if e.is_register(0) {
        let run: Handler = if size == 8 && e.bits == 64 {
            stack::push64_r
        } else {
            stack::push_r
        };
        Op {
            src: e.register(0),
            aux: size,
            ..e.op(run)
        }
    } else if e.is_memory(0) {
        let op = e.op(by_width!(usize::from(size), stack::push_m));
        e.memory(op)
    } else {
        Op {
            imm: e.immediate(0),
            aux: size,
            ..e.op(stack::push_i)
        }
    };
    e.push(op);
}

fn pop(e: &mut Emit) {
    let size = stack_bytes(e);
    let register = e.insn.op0_register();
    let op = if register.is_segment_register() {
        Op {
            imm: index_of_segment(register),
            aux: size,
            ..e.op(stack::pop_segment)
        }
    } else if e.is_register(0) {
        let run: Handler = if size == 8 && e.bits == 64 {
            stack::pop64_r
        } else {
            by_width!(usize::from(size), stack::pop_r)
        };
        Op {
            dst: e.register(0),
            ..e.op(run)
        }
    } else {
        let op = e.op(by_width!(usize::from(size), stack::pop_m));
        let op = e.memory(op);
        // An address worked out beforehand has not seen the pop yet.
        let based_on_sp = e.insn.memory_base().full_register() == Register::RSP;
        let imm = if based_on_sp && op.base == reg::TEMP as u8 {
            u64::from(size)
        } else {
            0
        };
        Op { imm, ..op }
    };
    e.push(op);
}
