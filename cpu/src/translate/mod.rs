//! From instructions to operations.
//!
//! `iced-x86` decodes; the functions here pick the handler and fill in the operands. Each family
//! has its own file, asked in turn; an instruction that none knows becomes
//! [`address::unknown`], which raises #UD in the guest and counts it by name.

mod integer;
mod operand;
mod privileged;
mod simd;
mod stack;
mod string;
mod transfer;
mod x87;

use iced_x86::{Code, Decoder, FlowControl, Instruction, Mnemonic};

use crate::exec::address;
use crate::op::Op;

pub(crate) use operand::Emit;

/// Longest instruction.
pub(crate) const MAX_LEN: usize = 15;

/// Most instructions of a block, so that interrupts are not kept waiting.
const MAX_INSTRUCTIONS: u16 = 64;

/// Decodes the block that starts at `start` of a page; answers the offset of its end and the
/// number of instructions, zero if the first one crosses into the next page.
pub(crate) fn block(
    page: &[u8; 4096],
    start: usize,
    bits: u8,
    options: u32,
    ops: &mut Vec<Op>,
) -> (usize, u16) {
    let mut decoder = Decoder::with_ip(u32::from(bits), &page[start..], start as u64, options);
    let mut count = 0;
    let mut last = Instruction::default();
    while count < MAX_INSTRUCTIONS && decoder.can_decode() {
        let insn = decoder.decode();
        if insn.is_invalid() && decoder.last_error() == iced_x86::DecoderError::NoMoreBytes {
            break;
        }
        let bytes = &page[insn.ip() as usize & 0xfff..];
        one(&insn, bytes, bits, count as u8, ops);
        count += 1;
        last = insn;
        if ends_block(&insn) {
            break;
        }
    }
    if count > 0 {
        finish(ops, &last);
    }
    (last.next_ip() as usize & 0x1fff, count)
}

/// Appends the operations of one instruction, the `nth` of its block, which starts at `bytes`.
pub(crate) fn one(insn: &Instruction, bytes: &[u8], bits: u8, nth: u8, ops: &mut Vec<Op>) {
    let mut e = Emit::new(insn, bits, nth, ops);
    if insn.is_invalid() {
        let long = insn.len() == MAX_LEN && needs_more(bytes, bits);
        e.plain(if long {
            address::too_long
        } else {
            address::undefined
        });
        return;
    }
    if insn.has_lock_prefix() && !lockable(insn) {
        e.plain(address::undefined);
        return;
    }
    let known = integer::emit(&mut e)
        || transfer::emit(&mut e)
        || stack::emit(&mut e)
        || string::emit(&mut e)
        || simd::emit(&mut e)
        || privileged::emit(&mut e)
        || x87::emit(&mut e);
    if !known {
        let op = Op {
            imm: insn.code() as u64,
            ..e.op(address::unknown)
        };
        e.push(op);
    }
}

/// Whether bytes that the decoder refuses after the longest possible instruction are one that is
/// longer still, which is #GP and not #UD: without their first byte, a prefix, they still have no
/// end.
fn needs_more(bytes: &[u8], bits: u8) -> bool {
    let Some(rest) = bytes.get(1..MAX_LEN) else {
        return false;
    };
    let mut decoder = Decoder::new(u32::from(bits), rest, iced_x86::DecoderOptions::NONE);
    decoder.decode().is_invalid() && decoder.last_error() == iced_x86::DecoderError::NoMoreBytes
}

/// Appends what makes RIP right after `last`, unless it is a branch and does so itself.
pub(crate) fn finish(ops: &mut Vec<Op>, last: &Instruction) {
    if !sets_rip(last) {
        let mut e = Emit::new(last, 64, 0, ops);
        let op = e.op(address::fall_through);
        e.push(op);
    }
}

/// The decoder refuses LOCK on most instructions itself; register destinations remain.
fn lockable(insn: &Instruction) -> bool {
    insn.op0_kind() == iced_x86::OpKind::Memory
}

/// Whether the instruction's handler sets RIP.
fn sets_rip(insn: &Instruction) -> bool {
    match insn.flow_control() {
        FlowControl::Next | FlowControl::Exception | FlowControl::XbeginXabortXend => {
            insn.mnemonic() == Mnemonic::Hlt
        }
        FlowControl::Interrupt => matches!(
            insn.mnemonic(),
            Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Int1 | Mnemonic::Into
        ),
        FlowControl::Call => insn.code() != Code::Vmcall && insn.code() != Code::Vmmcall,
        _ => true,
    }
}

/// Whether a block has to end after the instruction: it branches, or what it changes matters to
/// how the next one is found, decoded or interrupted.
fn ends_block(insn: &Instruction) -> bool {
    if sets_rip(insn) || insn.is_invalid() {
        return true;
    }
    if matches!(
        insn.op0_register(),
        iced_x86::Register::CS | iced_x86::Register::SS
    ) && matches!(insn.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
    {
        return true;
    }
    if insn.op0_register().is_cr() {
        return true;
    }
    matches!(
        insn.mnemonic(),
        Mnemonic::Sti
            | Mnemonic::Popf
            | Mnemonic::Popfd
            | Mnemonic::Popfq
            | Mnemonic::Lss
            | Mnemonic::Wrmsr
            | Mnemonic::Invlpg
            | Mnemonic::Lmsw
            | Mnemonic::Clts
            | Mnemonic::Pause
            | Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Insb
            | Mnemonic::Insw
            | Mnemonic::Insd
            | Mnemonic::Outsb
            | Mnemonic::Outsw
            | Mnemonic::Outsd
            | Mnemonic::Stac
            | Mnemonic::Clac
            | Mnemonic::Cpuid
            | Mnemonic::Xsetbv
            | Mnemonic::Hlt
            | Mnemonic::Ud2
            | Mnemonic::Swapgs
    )
}

/// Number of a segment register in encoding order.
fn index_of_segment(r: iced_x86::Register) -> u64 {
    r.number() as u64
}
