//! System instructions and port I/O.

use iced_x86::{Code, Mnemonic, Register};

use super::Emit;
use super::operand::by_width;
use crate::cpu::seg;
use crate::exec::{control, io, syscall, system, tables};
use crate::op::{Handler, Op};

pub(super) fn emit(e: &mut Emit) -> bool {
    registers(e) || descriptor_tables(e) || entries(e) || ports(e)
}

fn registers(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Mov => return special_mov(e),
        Mnemonic::Rdmsr => e.plain(control::rdmsr),
        Mnemonic::Wrmsr => e.plain(control::wrmsr),
        Mnemonic::Xgetbv => e.plain(control::xgetbv),
        Mnemonic::Xsetbv => e.plain(control::xsetbv),
        Mnemonic::Clts => e.plain(control::clts),
        Mnemonic::Lmsw => register_or_memory(e, control::lmsw, 0),
        Mnemonic::Smsw => store(e, control::smsw, 0),
        Mnemonic::Invlpg => memory(e, control::invlpg),
        Mnemonic::Wbinvd | Mnemonic::Invd => e.plain(control::cache_control),
        Mnemonic::Clflush => memory(e, control::clflush),
        Mnemonic::Cpuid => e.plain(system::cpuid),
        Mnemonic::Rdtsc => e.plain(system::rdtsc),
        Mnemonic::Rdtscp => {
            let op = Op {
                aux: 1,
                ..e.op(system::rdtsc)
            };
            e.push(op);
        }
        Mnemonic::Rdpmc => e.plain(system::rdpmc),
        Mnemonic::Rdfsbase => base(e, true, seg::FS),
        Mnemonic::Rdgsbase => base(e, true, seg::GS),
        Mnemonic::Wrfsbase => base(e, false, seg::FS),
        Mnemonic::Wrgsbase => base(e, false, seg::GS),
        Mnemonic::Swapgs => e.plain(system::swapgs),
        _ => return false,
    }
    true
}

/// MOV to and from control and debug registers.
fn special_mov(e: &mut Emit) -> bool {
    let (to, from) = (e.insn.op0_register(), e.insn.op1_register());
    let op = if to.is_cr() {
        Op {
            imm: number(to),
            src: e.register(1),
            ..e.op(control::write_cr)
        }
    } else if from.is_cr() {
        Op {
            imm: number(from),
            dst: e.register(0),
            ..e.op(control::read_cr)
        }
    } else if to.is_dr() {
        Op {
            imm: number(to),
            src: e.register(1),
            ..e.op(control::write_dr)
        }
    } else if from.is_dr() {
        Op {
            imm: number(from),
            dst: e.register(0),
            ..e.op(control::read_dr)
        }
    } else {
        return false;
    };
    e.push(op);
    true
}

fn number(r: Register) -> u64 {
    r.number() as u64
}

fn base(e: &mut Emit, read: bool, segment: usize) {
    let imm = segment as u64;
    let op = match (read, e.width(0)) {
        (true, 4) => Op {
            dst: e.register(0),
            imm,
            ..e.op(system::read_base::<u32>)
        },
        (true, _) => Op {
            dst: e.register(0),
            imm,
            ..e.op(system::read_base::<u64>)
        },
        (false, 4) => Op {
            src: e.register(0),
            imm,
            ..e.op(system::write_base::<u32>)
        },
        (false, _) => Op {
            src: e.register(0),
            imm,
            ..e.op(system::write_base::<u64>)
        },
    };
    e.push(op);
}

fn memory(e: &mut Emit, run: Handler) {
    let op = e.op(run);
    let op = e.memory(op);
    e.push(op);
}

/// A 16-bit source, register or memory (`aux`).
fn register_or_memory(e: &mut Emit, run: Handler, imm: u64) {
    let op = Op { imm, ..e.op(run) };
    let op = if e.is_memory(0) {
        e.memory(Op { aux: 1, ..op })
    } else {
        Op {
            src: e.register(0),
            ..op
        }
    };
    e.push(op);
}

/// A destination of which the operand size is in `aux`, 0 for memory.
fn store(e: &mut Emit, run: Handler, imm: u64) {
    let op = Op { imm, ..e.op(run) };
    let op = if e.is_memory(0) {
        e.memory(op)
    } else {
        Op {
            dst: e.register(0),
            aux: e.width(0) as u8,
            ..op
        }
    };
    e.push(op);
}

fn descriptor_tables(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Lgdt => load_table(e, tables::lgdt),
        Mnemonic::Lidt => load_table(e, tables::lidt),
        Mnemonic::Sgdt => memory(e, tables::sgdt),
        Mnemonic::Sidt => memory(e, tables::sidt),
        Mnemonic::Ltr => register_or_memory(e, tables::load_system, 1),
        Mnemonic::Lldt => register_or_memory(e, tables::load_system, 0),
        Mnemonic::Str => store(e, tables::store_system, 1),
        Mnemonic::Sldt => store(e, tables::store_system, 0),
        Mnemonic::Verr => register_or_memory(e, tables::verify, 0),
        Mnemonic::Verw => register_or_memory(e, tables::verify, 1),
        Mnemonic::Lar => rights(e, |w| by_width!(w, tables::lar)),
        Mnemonic::Lsl => rights(e, |w| by_width!(w, tables::lsl)),
        Mnemonic::Arpl => {
            let op = Op {
                src: e.register(1),
                ..e.op(tables::arpl)
            };
            let op = if e.is_memory(0) {
                e.memory(Op { aux: 1, ..op })
            } else {
                Op {
                    dst: e.register(0),
                    ..op
                }
            };
            e.push(op);
        }
        _ => return false,
    }
    true
}

fn load_table(e: &mut Emit, run: Handler) {
    let size = match e.insn.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => 2,
        Code::Lgdt_m1664 | Code::Lidt_m1664 => 8,
        _ => 4,
    };
    let op = Op {
        aux: size,
        ..e.op(run)
    };
    let op = e.memory(op);
    e.push(op);
}

fn rights(e: &mut Emit, pick: fn(usize) -> Handler) {
    let op = Op {
        dst: e.register(0),
        ..e.op(pick(e.width(0)))
    };
    let op = if e.is_memory(1) {
        e.memory(Op { aux: 1, ..op })
    } else {
        Op {
            src: e.register(1),
            ..op
        }
    };
    e.push(op);
}

fn entries(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        Mnemonic::Syscall => e.plain(syscall::syscall),
        Mnemonic::Sysret => sized(e, syscall::sysret, 4),
        Mnemonic::Sysretq => sized(e, syscall::sysret, 8),
        Mnemonic::Sysenter => e.plain(syscall::sysenter),
        Mnemonic::Sysexit => sized(e, syscall::sysexit, 4),
        Mnemonic::Sysexitq => sized(e, syscall::sysexit, 8),
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

fn ports(e: &mut Emit) -> bool {
    let (width, port, pick): (usize, u32, fn(usize) -> Handler) = match e.insn.mnemonic() {
        Mnemonic::In => (e.width(0), 1, |w| match w {
            1 => io::input::<u8>,
            2 => io::input::<u16>,
            _ => io::input::<u32>,
        }),
        Mnemonic::Out => (e.width(1), 0, |w| match w {
            1 => io::output::<u8>,
            2 => io::output::<u16>,
            _ => io::output::<u32>,
        }),
        _ => return false,
    };
    let by_dx = e.is_register(port);
    let imm = if by_dx { 0 } else { e.immediate(port) & 0xff };
    let op = Op {
        imm,
        aux: u8::from(by_dx),
        ..e.op(pick(width))
    };
    e.push(op);
    true
}
