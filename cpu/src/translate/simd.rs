//! MMX and SSE instructions, and those that save and restore their state.

mod float;
mod integer;
mod moves;

use iced_x86::{Mnemonic, OpKind};

use super::Emit;
use crate::exec::fpu;
use crate::exec::sse::check_sse;
use crate::exec::sse::mmx::check_mmx;
use crate::op::{Handler, Op};

pub(super) fn emit(e: &mut Emit) -> bool {
    moves::emit(e) || integer::emit(e) || float::emit(e) || state(e)
}

/// Handlers for a source in a register and for one in memory.
#[derive(Clone, Copy)]
struct Pair {
    register: Handler,
    memory: Handler,
}

/// Handlers of one function for a register and for the kind of memory operand that is named.
macro_rules! pair {
    ($memory:ident: $($f:ident)::+ $(::<$($g:ty),*>)?) => {
        $crate::translate::simd::Pair {
            register: $($f)::+::<$($($g,)*)? $crate::exec::sse::Reg>,
            memory: $($f)::+::<$($($g,)*)? $crate::exec::sse::$memory>,
        }
    };
}
use pair;

/// Appends an operation on vector registers: `dst` is operand 0, the source operand 1, and an
/// immediate follows.
fn binary(e: &mut Emit, handlers: Pair) -> bool {
    e.require(if uses_xmm(e) { check_sse } else { check_mmx });
    let imm = if e.insn.op_count() > 2 && e.kind(2) == OpKind::Immediate8 {
        e.immediate(2) & 0xff
    } else {
        0
    };
    let dst = e.register(0);
    let op = if e.is_memory(1) {
        let op = Op {
            dst,
            imm,
            ..e.op(handlers.memory)
        };
        e.memory(op)
    } else {
        Op {
            dst,
            imm,
            src: e.register(1),
            ..e.op(handlers.register)
        }
    };
    e.push(op);
    true
}

/// Appends an operation of which operand 0 is the destination, register or memory.
fn store(e: &mut Emit, handlers: Pair) -> bool {
    e.require(if uses_xmm(e) { check_sse } else { check_mmx });
    let imm = if e.insn.op_count() > 2 {
        e.immediate(2) & 0xff
    } else {
        0
    };
    let src = e.register(1);
    let op = if e.is_memory(0) {
        let op = Op {
            src,
            imm,
            ..e.op(handlers.memory)
        };
        e.memory(op)
    } else {
        Op {
            src,
            imm,
            dst: e.register(0),
            ..e.op(handlers.register)
        }
    };
    e.push(op);
    true
}

/// Whether an operand is an XMM register; if none is, the instruction is one of MMX.
fn uses_xmm(e: &Emit) -> bool {
    (0..e.insn.op_count()).any(|n| e.is_register(n) && e.insn.op_register(n).is_xmm())
}

/// FXSAVE, XSAVE and their like.
fn state(e: &mut Emit) -> bool {
    let (run, wide): (Handler, u8) = match e.insn.mnemonic() {
        Mnemonic::Fxsave => (fpu::fxsave, 0),
        Mnemonic::Fxsave64 => (fpu::fxsave, 1),
        Mnemonic::Fxrstor => (fpu::fxrstor, 0),
        Mnemonic::Fxrstor64 => (fpu::fxrstor, 1),
        Mnemonic::Xsave => (fpu::xsave, 0),
        Mnemonic::Xsave64 => (fpu::xsave, 1),
        Mnemonic::Xrstor => (fpu::xrstor, 0),
        Mnemonic::Xrstor64 => (fpu::xrstor, 1),
        Mnemonic::Ldmxcsr => (fpu::ldmxcsr, 0),
        Mnemonic::Stmxcsr => (fpu::stmxcsr, 0),
        _ => return false,
    };
    if matches!(e.insn.mnemonic(), Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr) {
        e.require(check_sse);
    }
    let op = Op {
        aux: wide,
        ..e.op(run)
    };
    let op = e.memory(op);
    e.push(op);
    true
}
