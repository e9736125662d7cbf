//! Moves.

use iced_x86::{Code, Mnemonic as M, OpKind};

use super::{Pair, binary, pair, store};
use crate::exec::address;
use crate::exec::sse::{M32, M64, Reg, check_sse, masked, mmx, moves as m};
use crate::op::{Handler, Op, reg};
use crate::translate::Emit;

pub(super) fn emit(e: &mut Emit) -> bool {
    whole(e) || parts(e) || general(e) || others(e)
}

/// Moves of all 128 bits.
fn whole(e: &mut Emit) -> bool {
    let to_memory = e.is_memory(0);
    let handlers = match e.insn.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntdqa if !to_memory => pair!(M128: m::load),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu if !to_memory => pair!(U128: m::load),
        M::Movddup => pair!(M64: m::movddup),
        M::Movshdup => pair!(M128: m::movshdup),
        M::Movsldup => pair!(M128: m::movsldup),
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq => {
            return stored(e, m::store_aligned);
        }
        M::Movups | M::Movupd | M::Movdqu => return stored(e, m::store),
        _ => return false,
    };
    binary(e, handlers)
}

fn stored(e: &mut Emit, run: Handler) -> bool {
    store(
        e,
        Pair {
            register: run,
            memory: run,
        },
    )
}

/// Moves of one lane or one half, within the vector registers or to and from memory.
fn parts(e: &mut Emit) -> bool {
    let handlers = match e.insn.code() {
        Code::Movss_xmm_xmmm32 => Pair {
            register: m::movss_rr,
            memory: m::load::<M32>,
        },
        Code::Movsd_xmm_xmmm64 => Pair {
            register: m::set_low::<Reg>,
            memory: m::load::<M64>,
        },
        Code::Movq_xmm_xmmm64 => Pair {
            register: m::movq_rr,
            memory: m::load::<M64>,
        },
        Code::Movlps_xmm_m64 | Code::Movlpd_xmm_m64 => pair!(M64: m::set_low),
        Code::Movhps_xmm_m64 | Code::Movhpd_xmm_m64 | Code::Movlhps_xmm_xmm => {
            pair!(M64: m::set_high)
        }
        Code::Movhlps_xmm_xmm => Pair {
            register: m::movhlps,
            memory: m::movhlps,
        },
        Code::Movss_xmmm32_xmm => {
            return store(
                e,
                Pair {
                    register: m::movss_rr,
                    memory: m::store_low32,
                },
            );
        }
        Code::Movsd_xmmm64_xmm => {
            return store(
                e,
                Pair {
                    register: m::set_low::<Reg>,
                    memory: m::store_low,
                },
            );
        }
        Code::Movq_xmmm64_xmm => {
            return store(
                e,
                Pair {
                    register: m::movq_rr,
                    memory: m::store_low,
                },
            );
        }
        Code::Movlps_m64_xmm | Code::Movlpd_m64_xmm => return stored(e, m::store_low),
        Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm => return stored(e, m::store_high),
        _ => return false,
    };
    binary(e, handlers)
}

/// MOVD and MOVQ between vector and general registers, and those of MMX.
fn general(e: &mut Emit) -> bool {
    let handlers = match e.insn.code() {
        Code::Movd_xmm_rm32 => Pair {
            register: m::from_general::<u32>,
            memory: m::load::<M32>,
        },
        Code::Movq_xmm_rm64 => Pair {
            register: m::from_general::<u64>,
            memory: m::load::<M64>,
        },
        Code::Movd_mm_rm32 => Pair {
            register: mmx::load::<mmx::General<u32>>,
            memory: mmx::load::<mmx::Mem<u32>>,
        },
        Code::Movq_mm_rm64 => Pair {
            register: mmx::load::<mmx::General<u64>>,
            memory: mmx::load::<mmx::Mem<u64>>,
        },
        Code::Movq_mm_mmm64 => Pair {
            register: mmx::load::<mmx::Reg>,
            memory: mmx::load::<mmx::Mem<u64>>,
        },
        Code::Movd_rm32_xmm => {
            let handlers = Pair {
                register: m::to_general::<u32>,
                memory: m::store_low32,
            };
            return store(e, handlers);
        }
        Code::Movq_rm64_xmm => {
            return store(
                e,
                Pair {
                    register: m::to_general::<u64>,
                    memory: m::store_low,
                },
            );
        }
        Code::Movd_rm32_mm => {
            let handlers = Pair {
                register: mmx::to_general::<u32>,
                memory: mmx::store::<u32>,
            };
            return store(e, handlers);
        }
        Code::Movq_rm64_mm => {
            let handlers = Pair {
                register: mmx::to_general::<u64>,
                memory: mmx::store::<u64>,
            };
            return store(e, handlers);
        }
        Code::Movq_mmm64_mm | Code::Movntq_m64_mm => {
            let handlers = Pair {
                register: mmx::load::<mmx::Reg>,
                memory: mmx::store::<u64>,
            };
            return store(e, handlers);
        }
        _ => return false,
    };
    binary(e, handlers)
}

fn others(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        // Operands are the other way round: the destination is the first.
        M::Movdq2q => binary(
            e,
            Pair {
                register: mmx::movdq2q,
                memory: mmx::movdq2q,
            },
        ),
        M::Movq2dq => binary(
            e,
            Pair {
                register: mmx::movq2dq,
                memory: mmx::movq2dq,
            },
        ),
        M::Emms => {
            e.require(mmx::check_mmx);
            e.plain(mmx::emms);
            true
        }
        M::Movnti => {
            let run: Handler = if e.width(1) == 8 {
                m::movnti::<u64>
            } else {
                m::movnti::<u32>
            };
            let op = Op {
                src: e.register(1),
                ..e.op(run)
            };
            let op = e.memory(op);
            e.push(op);
            true
        }
        M::Maskmovdqu => {
            e.require(check_sse);
            selected(e, masked::maskmovdqu)
        }
        M::Maskmovq => {
            e.require(mmx::check_mmx);
            selected(e, mmx::maskmovq)
        }
        _ => false,
    }
}

/// MASKMOVDQU and MASKMOVQ: the memory operand, DS:rDI, is operand 0 but not shown as others are.
fn selected(e: &mut Emit, run: Handler) -> bool {
    let mask = match e.kind(0) {
        OpKind::MemorySegRDI => u64::MAX,
        OpKind::MemorySegEDI => 0xffff_ffff,
        _ => 0xffff,
    };
    let seg = e.segment();
    let ea = Op {
        base: reg::RDI as u8,
        seg,
        imm: mask,
        ..e.op(address::masked)
    };
    e.push(ea);
    let op = Op {
        dst: e.register(1),
        src: e.register(2),
        base: reg::TEMP as u8,
        ..e.op(run)
    };
    e.push(op);
    true
}
