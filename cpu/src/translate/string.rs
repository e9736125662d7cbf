//! String instructions.

use iced_x86::{Mnemonic, OpKind};

use super::Emit;
use crate::exec::string::{self, REP, REP_NONE, REPNE};
use crate::op::{Handler, Op};

pub(super) fn emit(e: &mut Emit) -> bool {
    let run: Handler = match e.insn.mnemonic() {
        Mnemonic::Movsb => string::movs::<u8>,
        Mnemonic::Movsw => string::movs::<u16>,
        Mnemonic::Movsd if e.insn.is_string_instruction() => string::movs::<u32>,
        Mnemonic::Movsq => string::movs::<u64>,
        Mnemonic::Stosb => string::stos::<u8>,
        Mnemonic::Stosw => string::stos::<u16>,
        Mnemonic::Stosd => string::stos::<u32>,
        Mnemonic::Stosq => string::stos::<u64>,
        Mnemonic::Lodsb => string::lods::<u8>,
        Mnemonic::Lodsw => string::lods::<u16>,
        Mnemonic::Lodsd => string::lods::<u32>,
        Mnemonic::Lodsq => string::lods::<u64>,
        Mnemonic::Scasb => string::scas::<u8>,
        Mnemonic::Scasw => string::scas::<u16>,
        Mnemonic::Scasd => string::scas::<u32>,
        Mnemonic::Scasq => string::scas::<u64>,
        Mnemonic::Cmpsb => string::cmps::<u8>,
        Mnemonic::Cmpsw => string::cmps::<u16>,
        Mnemonic::Cmpsd if e.insn.is_string_instruction() => string::cmps::<u32>,
        Mnemonic::Cmpsq => string::cmps::<u64>,
        Mnemonic::Insb => string::ins::<u8>,
        Mnemonic::Insw => string::ins::<u16>,
        Mnemonic::Insd => string::ins::<u32>,
        Mnemonic::Outsb => string::outs::<u8>,
        Mnemonic::Outsw => string::outs::<u16>,
        Mnemonic::Outsd => string::outs::<u32>,
        _ => return false,
    };
    let repeat = match (e.insn.has_repe_prefix(), e.insn.has_repne_prefix()) {
        (true, _) => REP,
        (_, true) => REPNE,
        _ => REP_NONE,
    };
    let op = Op {
        dst: repeat,
        aux: address_size(e),
        seg: e.segment(),
        ..e.op(run)
    };
    e.push(op);
    true
}

/// Address size of the implicit operands, in bytes.
fn address_size(e: &Emit) -> u8 {
    let kinds = (0..e.insn.op_count()).map(|n| e.kind(n));
    kinds
        .filter_map(|k| match k {
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Some(8),
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Some(4),
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Some(2),
            _ => None,
        })
        .next()
        .unwrap_or(8)
}
