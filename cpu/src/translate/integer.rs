//! Integer arithmetic, moves, shifts and bit instructions.

use iced_x86::{ConditionCode, Mnemonic, OpKind, Register};

use super::operand::by_width;
use super::{Emit, index_of_segment};
use crate::exec::alu::{
    self, Adc, Add, And, Cmp, Dec, Inc, Neg, Not, Or, Sbb, Sub, Test, Unary, Xor,
};
use crate::exec::shift::{self, Rcl, Rcr, Rol, Ror, Sar, Shift, Shl, Shr};
use crate::exec::{bcd, bits, flags, mov, muldiv};
use crate::flags as cond;
use crate::op::{Handler, Op};

pub(super) fn emit(e: &mut Emit) -> bool {
    arithmetic(e) || moves(e) || conditional(e) || shifts(e) || bit_instructions(e) || others(e)
}

fn arithmetic(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Add => binary::<Add>(e),
        Mnemonic::Adc => binary::<Adc>(e),
        Mnemonic::Sub => binary::<Sub>(e),
        Mnemonic::Sbb => binary::<Sbb>(e),
        Mnemonic::Cmp => binary::<Cmp>(e),
        Mnemonic::And => binary::<And>(e),
        Mnemonic::Or => binary::<Or>(e),
        Mnemonic::Xor => binary::<Xor>(e),
        Mnemonic::Test => binary::<Test>(e),
        Mnemonic::Inc => unary::<Inc>(e),
        Mnemonic::Dec => unary::<Dec>(e),
        Mnemonic::Neg => unary::<Neg>(e),
        Mnemonic::Not => unary::<Not>(e),
        Mnemonic::Mul => one_operand(e, |w| by_width!(w, muldiv::mul)),
        Mnemonic::Div => one_operand(e, |w| by_width!(w, muldiv::div)),
        Mnemonic::Idiv => one_operand(e, |w| by_width!(w, muldiv::idiv)),
        Mnemonic::Imul => match e.insn.op_count() {
            1 => one_operand(e, |w| by_width!(w, muldiv::imul)),
            2 => source(e, |w| by_width!(w, muldiv::imul_two)),
            _ => source(e, |w| by_width!(w, muldiv::imul_three)),
        },
        _ => return false,
    }
    true
}

/// Two operands, any of the five forms.
fn binary<O: alu::Binary>(e: &mut Emit) {
    let width = e.width(0);
    if e.is_memory(0) {
        if e.is_register(1) {
            let op = Op {
                src: e.register(1),
                ..e.op(by_width!(width, alu::mr::<O>))
            };
            let op = e.memory(op);
            e.push(op);
        } else {
            let op = Op {
                imm: e.immediate(1),
                ..e.op(by_width!(width, alu::mi::<O>))
            };
            let op = e.memory(op);
            e.push(op);
        }
        return;
    }
    let dst = e.register(0);
    let op = if e.is_register(1) {
        Op {
            dst,
            src: e.register(1),
            ..e.op(by_width!(width, alu::rr::<O>))
        }
    } else if e.is_memory(1) {
        let op = Op {
            dst,
            ..e.op(by_width!(width, alu::rm::<O>))
        };
        e.memory(op)
    } else {
        Op {
            dst,
            imm: e.immediate(1),
            ..e.op(by_width!(width, alu::ri::<O>))
        }
    };
    e.push(op);
}

fn unary<O: Unary>(e: &mut Emit) {
    let width = e.width(0);
    let op = if e.is_memory(0) {
        let op = e.op(by_width!(width, alu::m::<O>));
        e.memory(op)
    } else {
        Op {
            dst: e.register(0),
            ..e.op(by_width!(width, alu::r::<O>))
        }
    };
    e.push(op);
}

/// One explicit source operand, register or memory (`aux`).
fn one_operand(e: &mut Emit, pick: fn(usize) -> Handler) {
    let op = e.op(pick(e.width(0)));
    let op = register_or_memory(e, op, 0);
    e.push(op);
}

/// Destination register, source register or memory (`aux`), maybe an immediate.
fn source(e: &mut Emit, pick: fn(usize) -> Handler) {
    let imm = if e.insn.op_count() > 2 {
        e.immediate(2)
    } else {
        0
    };
    let op = Op {
        dst: e.register(0),
        imm,
        ..e.op(pick(e.width(1)))
    };
    let op = register_or_memory(e, op, 1);
    e.push(op);
}

/// Fills operand `n` into `src`, or as memory with `aux` set.
fn register_or_memory(e: &mut Emit, op: Op, n: u32) -> Op {
    if e.is_memory(n) {
        e.memory(Op { aux: 1, ..op })
    } else {
        Op {
            src: e.register(n),
            ..op
        }
    }
}

fn moves(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Mov => return mov_any(e),
        Mnemonic::Movzx => extend(e, zero_extension),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(e, sign_extension),
        Mnemonic::Lea => {
            let op = Op {
                dst: e.register(0),
                ..e.op(by_width!(e.width(0), mov::lea))
            };
            let op = e.offset(op);
            e.push(op);
        }
        Mnemonic::Xchg => exchange(
            e,
            |w| by_width!(w, mov::xchg_rr),
            |w| by_width!(w, mov::xchg_mr),
        ),
        Mnemonic::Xadd => exchange(
            e,
            |w| by_width!(w, mov::xadd_rr),
            |w| by_width!(w, mov::xadd_mr),
        ),
        Mnemonic::Cmpxchg => {
            exchange(
                e,
                |w| by_width!(w, mov::cmpxchg_rr),
                |w| by_width!(w, mov::cmpxchg_mr),
            );
        }
        Mnemonic::Cmpxchg8b => memory_only(e, mov::cmpxchg8b),
        Mnemonic::Cmpxchg16b => memory_only(e, mov::cmpxchg16b),
        Mnemonic::Movnti => {
            let op = Op {
                src: e.register(1),
                ..e.op(by_width!(e.width(1), mov::mr))
            };
            let op = e.memory(op);
            e.push(op);
        }
        Mnemonic::Bswap => {
            let op = Op {
                dst: e.register(0),
                ..e.op(by_width!(e.width(0), mov::bswap))
            };
            e.push(op);
        }
        Mnemonic::Cbw => e.plain(mov::extend_acc::<u16>),
        Mnemonic::Cwde => e.plain(mov::extend_acc::<u32>),
        Mnemonic::Cdqe => e.plain(mov::extend_acc::<u64>),
        Mnemonic::Cwd => e.plain(mov::spread_acc::<u16>),
        Mnemonic::Cdq => e.plain(mov::spread_acc::<u32>),
        Mnemonic::Cqo => e.plain(mov::spread_acc::<u64>),
        Mnemonic::Xlatb => {
            let mask = match e.insn.memory_base() {
                Register::RBX => u64::MAX,
                Register::EBX => 0xffff_ffff,
                _ => 0xffff,
            };
            let op = Op {
                imm: mask,
                seg: e.segment(),
                ..e.op(mov::xlat)
            };
            e.push(op);
        }
        Mnemonic::Les | Mnemonic::Lds | Mnemonic::Lss | Mnemonic::Lfs | Mnemonic::Lgs => {
            far_pointer(e)
        }
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Endbr32 | Mnemonic::Reservednop => {
            e.plain(mov::nop)
        }
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => e.plain(mov::nop),
        Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchwt1 => e.plain(mov::nop),
        _ => return false,
    }
    true
}

fn memory_only(e: &mut Emit, run: Handler) {
    let op = e.op(run);
    let op = e.memory(op);
    e.push(op);
}

fn far_pointer(e: &mut Emit) {
    let segment = match e.insn.mnemonic() {
        Mnemonic::Les => Register::ES,
        Mnemonic::Lds => Register::DS,
        Mnemonic::Lss => Register::SS,
        Mnemonic::Lfs => Register::FS,
        _ => Register::GS,
    };
    let op = Op {
        dst: e.register(0),
        imm: index_of_segment(segment),
        ..e.op(by_width!(e.width(0), mov::load_far_pointer))
    };
    let op = e.memory(op);
    e.push(op);
}

fn mov_any(e: &mut Emit) -> bool {
    let special = |r: Register| r.is_cr() || r.is_dr() || r.is_tr();
    if special(e.insn.op0_register()) || special(e.insn.op1_register()) {
        return false;
    }
    if e.insn.op1_register().is_segment_register() {
        let imm = index_of_segment(e.insn.op1_register());
        let op = if e.is_memory(0) {
            let op = Op {
                imm,
                ..e.op(mov::from_segment_m)
            };
            e.memory(op)
        } else {
            Op {
                imm,
                dst: e.register(0),
                ..e.op(by_width!(e.width(0), mov::from_segment_r))
            }
        };
        e.push(op);
        return true;
    }
    if e.insn.op0_register().is_segment_register() {
        if e.insn.op0_register() == Register::CS {
            e.plain(crate::exec::address::undefined);
            return true;
        }
        let imm = index_of_segment(e.insn.op0_register());
        let op = if e.is_memory(1) {
            let op = Op {
                imm,
                ..e.op(mov::to_segment_m)
            };
            e.memory(op)
        } else {
            Op {
                imm,
                src: e.register(1),
                ..e.op(mov::to_segment_r)
            }
        };
        e.push(op);
        return true;
    }
    let width = e.width(0);
    let op = match (e.kind(0), e.kind(1)) {
        (OpKind::Memory, OpKind::Register) => {
            let op = Op {
                src: e.register(1),
                ..e.op(by_width!(width, mov::mr))
            };
            e.memory(op)
        }
        (OpKind::Memory, _) => {
            let op = Op {
                imm: e.immediate(1),
                ..e.op(by_width!(width, mov::mi))
            };
            e.memory(op)
        }
        (_, OpKind::Register) => Op {
            dst: e.register(0),
            src: e.register(1),
            ..e.op(by_width!(width, mov::rr))
        },
        (_, OpKind::Memory) => {
            let op = Op {
                dst: e.register(0),
                ..e.op(by_width!(width, mov::rm))
            };
            e.memory(op)
        }
        _ => Op {
            dst: e.register(0),
            imm: e.immediate(1),
            ..e.op(by_width!(width, mov::ri))
        },
    };
    e.push(op);
    true
}

fn extend(e: &mut Emit, pick: fn(usize, usize, bool) -> Handler) {
    let memory = e.is_memory(1);
    let op = Op {
        dst: e.register(0),
        ..e.op(pick(e.width(1), e.width(0), memory))
    };
    let op = register_or_memory(e, op, 1);
    e.push(op);
}

fn zero_extension(from: usize, to: usize, memory: bool) -> Handler {
    match (from, memory) {
        (1, false) => by_width!(to, mov::zx_rr::<u8>),
        (1, true) => by_width!(to, mov::zx_rm::<u8>),
        (_, false) => by_width!(to, mov::zx_rr::<u16>),
        (_, true) => by_width!(to, mov::zx_rm::<u16>),
    }
}

fn sign_extension(from: usize, to: usize, memory: bool) -> Handler {
    match (from, memory) {
        (1, false) => by_width!(to, mov::sx_rr::<u8>),
        (1, true) => by_width!(to, mov::sx_rm::<u8>),
        (2, false) => by_width!(to, mov::sx_rr::<u16>),
        (2, true) => by_width!(to, mov::sx_rm::<u16>),
        (_, false) => by_width!(to, mov::sx_rr::<u32>),
        (_, true) => by_width!(to, mov::sx_rm::<u32>),
    }
}

/// Register or memory first, register second.
fn exchange(e: &mut Emit, register: fn(usize) -> Handler, memory: fn(usize) -> Handler) {
    // XCHG may have its memory operand second; the operation is the same.
    let (first, second) = if e.is_memory(1) { (1, 0) } else { (0, 1) };
    let width = e.width(second);
    let op = if e.is_memory(first) {
        let op = Op {
            src: e.register(second),
            ..e.op(memory(width))
        };
        e.memory(op)
    } else {
        Op {
            dst: e.register(first),
            src: e.register(second),
            ..e.op(register(width))
        }
    };
    e.push(op);
}

/// Picks a handler that is generic over the condition.
macro_rules! by_condition {
    ($cc:expr, $pick:ident) => {
        match $cc {
            ConditionCode::o => $pick!(cond::O),
            ConditionCode::no => $pick!(cond::No),
            ConditionCode::b => $pick!(cond::B),
            ConditionCode::ae => $pick!(cond::Ae),
            ConditionCode::e => $pick!(cond::E),
            ConditionCode::ne => $pick!(cond::Ne),
            ConditionCode::be => $pick!(cond::Be),
            ConditionCode::a => $pick!(cond::A),
            ConditionCode::s => $pick!(cond::S),
            ConditionCode::ns => $pick!(cond::Ns),
            ConditionCode::p => $pick!(cond::P),
            ConditionCode::np => $pick!(cond::Np),
            ConditionCode::l => $pick!(cond::L),
            ConditionCode::ge => $pick!(cond::Ge),
            ConditionCode::le => $pick!(cond::Le),
            _ => $pick!(cond::G),
        }
    };
}
pub(super) use by_condition;

fn conditional(e: &mut Emit) -> bool {
    let code = e.insn.condition_code();
    if code == ConditionCode::None {
        return false;
    }
    let width = e.width(0);
    if is_setcc(e.insn.mnemonic()) {
        let op = if e.is_memory(0) {
            macro_rules! memory {
                ($c:ty) => {
                    mov::setcc_m::<$c> as Handler
                };
            }
            let op = e.op(by_condition!(code, memory));
            e.memory(op)
        } else {
            macro_rules! register {
                ($c:ty) => {
                    mov::setcc_r::<$c> as Handler
                };
            }
            Op {
                dst: e.register(0),
                ..e.op(by_condition!(code, register))
            }
        };
        e.push(op);
        return true;
    }
    if !is_cmov(e.insn.mnemonic()) {
        return false;
    }
    let op = if e.is_memory(1) {
        macro_rules! memory {
            ($c:ty) => {
                by_width!(width, mov::cmov_rm::<$c>)
            };
        }
        let op = Op {
            dst: e.register(0),
            ..e.op(by_condition!(code, memory))
        };
        e.memory(op)
    } else {
        macro_rules! register {
            ($c:ty) => {
                by_width!(width, mov::cmov_rr::<$c>)
            };
        }
        Op {
            dst: e.register(0),
            src: e.register(1),
            ..e.op(by_condition!(code, register))
        }
    };
    e.push(op);
    true
}

fn is_setcc(m: Mnemonic) -> bool {
    matches!(
        m,
        Mnemonic::Seto
            | Mnemonic::Setno
            | Mnemonic::Setb
            | Mnemonic::Setae
            | Mnemonic::Sete
            | Mnemonic::Setne
            | Mnemonic::Setbe
            | Mnemonic::Seta
            | Mnemonic::Sets
            | Mnemonic::Setns
            | Mnemonic::Setp
            | Mnemonic::Setnp
            | Mnemonic::Setl
            | Mnemonic::Setge
            | Mnemonic::Setle
            | Mnemonic::Setg
    )
}

fn is_cmov(m: Mnemonic) -> bool {
    matches!(
        m,
        Mnemonic::Cmovo
            | Mnemonic::Cmovno
            | Mnemonic::Cmovb
            | Mnemonic::Cmovae
            | Mnemonic::Cmove
            | Mnemonic::Cmovne
            | Mnemonic::Cmovbe
            | Mnemonic::Cmova
            | Mnemonic::Cmovs
            | Mnemonic::Cmovns
            | Mnemonic::Cmovp
            | Mnemonic::Cmovnp
            | Mnemonic::Cmovl
            | Mnemonic::Cmovge
            | Mnemonic::Cmovle
            | Mnemonic::Cmovg
    )
}

fn shifts(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => shift_any::<Shl>(e),
        Mnemonic::Shr => shift_any::<Shr>(e),
        Mnemonic::Sar => shift_any::<Sar>(e),
        Mnemonic::Rol => shift_any::<Rol>(e),
        Mnemonic::Ror => shift_any::<Ror>(e),
        Mnemonic::Rcl => shift_any::<Rcl>(e),
        Mnemonic::Rcr => shift_any::<Rcr>(e),
        Mnemonic::Shld => double_shift::<true>(e),
        Mnemonic::Shrd => double_shift::<false>(e),
        _ => return false,
    }
    true
}

fn shift_any<O: Shift>(e: &mut Emit) {
    let width = e.width(0);
    let by_cl = e.is_register(1);
    let run = match (e.is_memory(0), by_cl) {
        (false, false) => by_width!(width, shift::ri::<O>),
        (false, true) => by_width!(width, shift::rc::<O>),
        (true, false) => by_width!(width, shift::mi::<O>),
        (true, true) => by_width!(width, shift::mc::<O>),
    };
    let imm = if by_cl { 0 } else { e.immediate(1) };
    let op = Op { imm, ..e.op(run) };
    let op = if e.is_memory(0) {
        e.memory(op)
    } else {
        Op {
            dst: e.register(0),
            ..op
        }
    };
    e.push(op);
}

fn double_shift<const LEFT: bool>(e: &mut Emit) {
    let by_cl = e.is_register(2);
    let run: Handler = match (e.width(1), e.is_memory(0)) {
        (2, false) => shift::double_r::<u16, LEFT>,
        (4, false) => shift::double_r::<u32, LEFT>,
        (_, false) => shift::double_r::<u64, LEFT>,
        (2, true) => shift::double_m::<u16, LEFT>,
        (4, true) => shift::double_m::<u32, LEFT>,
        (_, true) => shift::double_m::<u64, LEFT>,
    };
    let imm = if by_cl { 0 } else { e.immediate(2) };
    let op = Op {
        src: e.register(1),
        imm,
        aux: u8::from(by_cl),
        ..e.op(run)
    };
    let op = if e.is_memory(0) {
        e.memory(op)
    } else {
        Op {
            dst: e.register(0),
            ..op
        }
    };
    e.push(op);
}

fn bit_instructions(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Bt => bit_test::<bits::Bt>(e),
        Mnemonic::Bts => bit_test::<bits::Bts>(e),
        Mnemonic::Btr => bit_test::<bits::Btr>(e),
        Mnemonic::Btc => bit_test::<bits::Btc>(e),
        Mnemonic::Bsf => source(e, |w| by_width!(w, bits::bsf)),
        Mnemonic::Bsr => source(e, |w| by_width!(w, bits::bsr)),
        Mnemonic::Popcnt => source(e, |w| by_width!(w, bits::popcnt)),
        Mnemonic::Crc32 => source(e, |w| by_width!(w, bits::crc32)),
        _ => return false,
    }
    true
}

fn bit_test<O: bits::BitOp>(e: &mut Emit) {
    let width = e.width(0);
    let op = match (e.is_memory(0), e.is_register(1)) {
        (false, true) => Op {
            dst: e.register(0),
            src: e.register(1),
            ..e.op(by_width!(width, bits::bt_rr::<O>))
        },
        (false, false) => Op {
            dst: e.register(0),
            imm: e.immediate(1),
            ..e.op(by_width!(width, bits::bt_ri::<O>))
        },
        (true, true) => {
            let mask = match e.address_size() {
                8 => u64::MAX,
                4 => 0xffff_ffff,
                _ => 0xffff,
            };
            let op = Op {
                src: e.register(1),
                imm: mask,
                ..e.op(by_width!(width, bits::bt_mr::<O>))
            };
            // The bit string's address wraps before the segment's base is added.
            Op {
                seg: e.segment(),
                ..e.offset(op)
            }
        }
        (true, false) => {
            let op = Op {
                imm: e.immediate(1),
                ..e.op(by_width!(width, bits::bt_mi::<O>))
            };
            e.memory(op)
        }
    };
    e.push(op);
}

fn others(e: &mut Emit) -> bool {
    let imm_op = |e: &mut Emit, run: Handler, imm: u64| {
        let op = Op { imm, ..e.op(run) };
        e.push(op);
    };
    match e.insn.mnemonic() {
        Mnemonic::Clc => e.plain(flags::clc),
        Mnemonic::Stc => e.plain(flags::stc),
        Mnemonic::Cmc => e.plain(flags::cmc),
        Mnemonic::Cld => e.plain(flags::cld),
        Mnemonic::Std => e.plain(flags::std),
        Mnemonic::Cli => e.plain(flags::cli),
        Mnemonic::Sti => e.plain(flags::sti),
        Mnemonic::Lahf => e.plain(flags::lahf),
        Mnemonic::Sahf => e.plain(flags::sahf),
        Mnemonic::Salc => e.plain(flags::salc),
        Mnemonic::Stac => imm_op(e, flags::set_ac, 1),
        Mnemonic::Clac => imm_op(e, flags::set_ac, 0),
        Mnemonic::Daa => imm_op(e, bcd::decimal_adjust, 0),
        Mnemonic::Das => imm_op(e, bcd::decimal_adjust, 1),
        Mnemonic::Aaa => imm_op(e, bcd::ascii_adjust, 0),
        Mnemonic::Aas => imm_op(e, bcd::ascii_adjust, 1),
        Mnemonic::Aam => imm_op(e, bcd::aam, e.immediate(0)),
        Mnemonic::Aad => imm_op(e, bcd::aad, e.immediate(0)),
        _ => return false,
    }
    true
}
