//! Jumps, calls, returns, interrupts.

use iced_x86::{ConditionCode, Mnemonic, OpKind};

use super::Emit;
use super::integer::by_condition;
use crate::exec::branch;
use crate::flags as cond;
use crate::op::{Handler, Op};

pub(super) fn emit(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Jmp => jump(e),
        Mnemonic::Call => call(e),
        Mnemonic::Ret => {
            let imm = if e.insn.op_count() > 0 {
                e.immediate(0)
            } else {
                0
            };
            let size = operand_size(e);
            let run: Handler = if size == 8 {
                branch::ret64
            } else {
                branch::ret
            };
            let op = Op {
                imm,
                aux: size,
                ..e.op(run)
            };
            e.push(op);
        }
        Mnemonic::Retf => {
            let imm = if e.insn.op_count() > 0 {
                e.immediate(0)
            } else {
                0
            };
            let op = Op {
                imm,
                aux: far_size(e),
                ..e.op(branch::ret_far)
            };
            e.push(op);
        }
        Mnemonic::Iret => sized(e, branch::iret, 2),
        Mnemonic::Iretd => sized(e, branch::iret, 4),
        Mnemonic::Iretq => sized(e, branch::iret, 8),
        Mnemonic::Int => interrupt(e, branch::int, e.immediate(0)),
        Mnemonic::Int3 => interrupt(e, branch::int, 3),
        Mnemonic::Int1 => interrupt(e, branch::int1, 1),
        Mnemonic::Into => interrupt(e, branch::into, 4),
        Mnemonic::Hlt => e.plain(branch::hlt),
        Mnemonic::Pause => e.plain(branch::pause),
        Mnemonic::Loop => looping(e, 0),
        Mnemonic::Loope => looping(e, 1),
        Mnemonic::Loopne => looping(e, 2),
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => looping(e, 3),
        Mnemonic::Bound => {
            let op = Op {
                dst: e.register(0),
                aux: e.width(0) as u8,
                ..e.op(branch::bound)
            };
            let op = e.memory(op);
            e.push(op);
        }
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => e.plain(crate::exec::address::undefined),
        _ if e.insn.is_jcc_short_or_near() => conditional(e),
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

fn interrupt(e: &mut Emit, run: Handler, vector: u64) {
    let op = Op {
        imm: vector,
        ..e.op(run)
    };
    e.push(op);
}

/// The page-relative target of a near branch.
fn target(e: &Emit) -> u64 {
    e.insn.near_branch_target()
}

/// Operand size of a near branch or return. In 64-bit mode it is 64 bits whatever the prefixes
/// say, as on Intel's processors.
fn operand_size(e: &Emit) -> u8 {
    if e.bits == 64 {
        return 8;
    }
    use iced_x86::Code;
    match e.insn.code() {
        Code::Retnw
        | Code::Retnw_imm16
        | Code::Call_rel16
        | Code::Call_rm16
        | Code::Jmp_rm16
        | Code::Jmp_rel16
        | Code::Jmp_rel8_16 => 2,
        _ => 4,
    }
}

fn far_size(e: &Emit) -> u8 {
    use iced_x86::Code;
    match e.insn.code() {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfq | Code::Retfq_imm16 => 8,
        _ => 4,
    }
}

fn is_near(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
}

/// Whether a direct branch has an operand size of 16 bits.
fn is_word(e: &Emit) -> bool {
    e.kind(0) == OpKind::NearBranch16
}

fn jump(e: &mut Emit) {
    if is_near(e.kind(0)) {
        let run: Handler = if is_word(e) {
            branch::jmp_word
        } else {
            branch::jmp
        };
        let op = Op {
            imm: target(e),
            ..e.op(run)
        };
        e.push(op);
    } else if e.is_register(0) {
        let op = Op {
            src: e.register(0),
            aux: operand_size(e),
            ..e.op(branch::jmp_r)
        };
        e.push(op);
    } else {
        indirect_or_far(e, branch::jmp_m, 0);
    }
}

fn call(e: &mut Emit) {
    if is_near(e.kind(0)) {
        let size = operand_size(e);
        let run: Handler = if size == 8 {
            branch::call64
        } else {
            branch::call
        };
        let op = Op {
            imm: target(e),
            aux: size,
            ..e.op(run)
        };
        e.push(op);
    } else if e.is_register(0) {
        let op = Op {
            src: e.register(0),
            aux: operand_size(e),
            ..e.op(branch::call_r)
        };
        e.push(op);
    } else {
        indirect_or_far(e, branch::call_m, 1);
    }
}

/// Through memory, near or far, or to an immediate far pointer.
fn indirect_or_far(e: &mut Emit, near: Handler, push: u8) {
    use iced_x86::Code;
    let op = match e.kind(0) {
        OpKind::FarBranch16 => Op {
            imm: u64::from(e.insn.far_branch16()) | u64::from(e.insn.far_branch_selector()) << 32,
            aux: 2,
            dst: push,
            ..e.op(branch::far_immediate)
        },
        OpKind::FarBranch32 => Op {
            imm: u64::from(e.insn.far_branch32()) | u64::from(e.insn.far_branch_selector()) << 32,
            aux: 4,
            dst: push,
            ..e.op(branch::far_immediate)
        },
        _ => {
            let far = match e.insn.code() {
                Code::Jmp_m1616 | Code::Call_m1616 => 2,
                Code::Jmp_m1632 | Code::Call_m1632 => 4,
                Code::Jmp_m1664 | Code::Call_m1664 => 8,
                _ => 0,
            };
            let op = if far != 0 {
                Op {
                    aux: far,
                    dst: push,
                    ..e.op(branch::far_memory)
                }
            } else {
                Op {
                    aux: operand_size(e),
                    ..e.op(near)
                }
            };
            e.memory(op)
        }
    };
    e.push(op);
}

fn conditional(e: &mut Emit) {
    macro_rules! pick {
        ($c:ty) => {
            branch::jcc::<$c> as Handler
        };
    }
    macro_rules! pick_word {
        ($c:ty) => {
            branch::jcc_word::<$c> as Handler
        };
    }
    let run = if is_word(e) {
        by_condition!(e.insn.condition_code(), pick_word)
    } else {
        by_condition!(e.insn.condition_code(), pick)
    };
    let op = Op {
        imm: target(e),
        ..e.op(run)
    };
    e.push(op);
}

fn looping(e: &mut Emit, kind: u8) {
    use iced_x86::Code;
    let width = match e.insn.code() {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => 2,
        Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_64_RCX
        | Code::Jrcxz_rel8_16
        | Code::Jrcxz_rel8_64 => 8,
        Code::Loop_rel8_16_RCX | Code::Loope_rel8_16_RCX | Code::Loopne_rel8_16_RCX => 8,
        _ => 4,
    };
    let op = Op {
        imm: target(e),
        src: u8::from(is_word(e)),
        dst: kind,
        aux: width,
        ..e.op(branch::loop_or_jcxz)
    };
    e.push(op);
}
