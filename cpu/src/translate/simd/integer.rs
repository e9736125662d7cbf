//! Packed integers: arithmetic, shifts, shuffles, and the string comparisons.

use iced_x86::{Mnemonic as M, OpKind};

use super::{Pair, binary, pair, store};
use crate::exec::sse::packed::packed;
use crate::exec::sse::{
    M128, blend, check_sse, insert, mmx, moves, packed as p, packed_more as q, shift, shuffle, text,
};
use crate::op::{Handler, Op};
use crate::translate::Emit;

pub(super) fn emit(e: &mut Emit) -> bool {
    both_kinds(e) || shifts(e) || xmm_only(e) || widening(e) || shuffles(e) || lanes(e) || texts(e)
}

/// Instructions that exist for MMX and XMM registers alike.
fn both_kinds(e: &mut Emit) -> bool {
    /// The pair for MMX or XMM registers, by the destination; `$w` is the MMX memory operand.
    macro_rules! arms {
        ($($name:ident = $o:ty, $w:ty;)*) => {
            match e.insn.mnemonic() {
                $(M::$name if e.insn.op0_register().is_mm() => Pair {
                    register: mmx::packed::<$o, mmx::Reg>,
                    memory: mmx::packed::<$o, mmx::Mem<$w>>,
                },
                M::$name => pair!(M128: packed::<$o>),)*
                _ => return false,
            }
        };
    }
    let handlers = arms! {
        Paddb = p::Paddb, u64;
        Paddw = p::Paddw, u64;
        Paddd = p::Paddd, u64;
        Paddq = p::Paddq, u64;
        Paddsb = p::Paddsb, u64;
        Paddsw = p::Paddsw, u64;
        Paddusb = p::Paddusb, u64;
        Paddusw = p::Paddusw, u64;
        Psubb = p::Psubb, u64;
        Psubw = p::Psubw, u64;
        Psubd = p::Psubd, u64;
        Psubq = p::Psubq, u64;
        Psubsb = p::Psubsb, u64;
        Psubsw = p::Psubsw, u64;
        Psubusb = p::Psubusb, u64;
        Psubusw = p::Psubusw, u64;
        Pmullw = p::Pmullw, u64;
        Pmulhw = p::Pmulhw, u64;
        Pmulhuw = p::Pmulhuw, u64;
        Pmuludq = p::Pmuludq, u64;
        Pmaddwd = p::Pmaddwd, u64;
        Pavgb = p::Pavgb, u64;
        Pavgw = p::Pavgw, u64;
        Psadbw = p::Psadbw, u64;
        Pminub = p::Pminub, u64;
        Pmaxub = p::Pmaxub, u64;
        Pminsw = p::Pminsw, u64;
        Pmaxsw = p::Pmaxsw, u64;
        Pcmpeqb = p::Pcmpeqb, u64;
        Pcmpeqw = p::Pcmpeqw, u64;
        Pcmpeqd = p::Pcmpeqd, u64;
        Pcmpgtb = p::Pcmpgtb, u64;
        Pcmpgtw = p::Pcmpgtw, u64;
        Pcmpgtd = p::Pcmpgtd, u64;
        Pand = p::Pand, u64;
        Pandn = p::Pandn, u64;
        Por = p::Por, u64;
        Pxor = p::Pxor, u64;
        Punpcklbw = p::Punpcklbw, u32;
        Punpcklwd = p::Punpcklwd, u32;
        Punpckldq = p::Punpckldq, u32;
        Punpckhbw = p::Punpckhbw, u64;
        Punpckhwd = p::Punpckhwd, u64;
        Punpckhdq = p::Punpckhdq, u64;
        Packsswb = p::Packsswb, u64;
        Packssdw = p::Packssdw, u64;
        Packuswb = p::Packuswb, u64;
        Pabsb = q::Pabsb, u64;
        Pabsw = q::Pabsw, u64;
        Pabsd = q::Pabsd, u64;
        Psignb = q::Psignb, u64;
        Psignw = q::Psignw, u64;
        Psignd = q::Psignd, u64;
        Pmulhrsw = q::Pmulhrsw, u64;
        Pmaddubsw = q::Pmaddubsw, u64;
        Phaddw = q::Phaddw, u64;
        Phaddd = q::Phaddd, u64;
        Phaddsw = q::Phaddsw, u64;
        Phsubw = q::Phsubw, u64;
        Phsubd = q::Phsubd, u64;
        Phsubsw = q::Phsubsw, u64;
    };
    binary(e, handlers)
}

/// Shifts: by a register, by memory, or by an immediate.
fn shifts(e: &mut Emit) -> bool {
    macro_rules! arms {
        ($($name:ident),*) => {
            match e.insn.mnemonic() {
                $(M::$name if e.insn.op0_register().is_mm() => (
                    Pair {
                        register: mmx::packed::<p::$name, mmx::Reg>,
                        memory: mmx::packed::<p::$name, mmx::Mem<u64>>,
                    },
                    mmx::packed::<p::$name, mmx::Immediate> as Handler,
                ),
                M::$name => (
                    pair!(M128: packed::<p::$name>),
                    shift::by_immediate::<p::$name> as Handler,
                ),)*
                M::Pslldq => return by_immediate(e, shift::pslldq),
                M::Psrldq => return by_immediate(e, shift::psrldq),
                _ => return false,
            }
        };
    }
    let (handlers, immediate) = arms!(Psllw, Pslld, Psllq, Psrlw, Psrld, Psrlq, Psraw, Psrad);
    if e.kind(1) == OpKind::Immediate8 {
        by_immediate(e, immediate)
    } else {
        binary(e, handlers)
    }
}

fn by_immediate(e: &mut Emit, run: Handler) -> bool {
    let xmm = e.insn.op0_register().is_xmm();
    e.require(if xmm { check_sse } else { mmx::check_mmx });
    let op = Op {
        dst: e.register(0),
        imm: e.immediate(1) & 0xff,
        ..e.op(run)
    };
    e.push(op);
    true
}

/// Instructions on XMM registers alone.
fn xmm_only(e: &mut Emit) -> bool {
    let handlers = match e.insn.mnemonic() {
        // The logical ones of floating point differ in name only.
        M::Andps | M::Andpd => pair!(M128: packed::<p::Pand>),
        M::Andnps | M::Andnpd => pair!(M128: packed::<p::Pandn>),
        M::Orps | M::Orpd => pair!(M128: packed::<p::Por>),
        M::Xorps | M::Xorpd => pair!(M128: packed::<p::Pxor>),
        M::Punpcklqdq | M::Unpcklpd => pair!(M128: packed::<p::Punpcklqdq>),
        M::Punpckhqdq | M::Unpckhpd => pair!(M128: packed::<p::Punpckhqdq>),
        M::Unpcklps => pair!(M128: packed::<p::Unpcklps>),
        M::Unpckhps => pair!(M128: packed::<p::Unpckhps>),
        M::Pmulld => pair!(M128: packed::<q::Pmulld>),
        M::Pmuldq => pair!(M128: packed::<q::Pmuldq>),
        M::Pminsb => pair!(M128: packed::<q::Pminsb>),
        M::Pminsd => pair!(M128: packed::<q::Pminsd>),
        M::Pminuw => pair!(M128: packed::<q::Pminuw>),
        M::Pminud => pair!(M128: packed::<q::Pminud>),
        M::Pmaxsb => pair!(M128: packed::<q::Pmaxsb>),
        M::Pmaxsd => pair!(M128: packed::<q::Pmaxsd>),
        M::Pmaxuw => pair!(M128: packed::<q::Pmaxuw>),
        M::Pmaxud => pair!(M128: packed::<q::Pmaxud>),
        M::Pcmpeqq => pair!(M128: packed::<q::Pcmpeqq>),
        M::Pcmpgtq => pair!(M128: packed::<q::Pcmpgtq>),
        M::Packusdw => pair!(M128: packed::<q::Packusdw>),
        M::Phminposuw => pair!(M128: packed::<q::Phminposuw>),
        M::Mpsadbw => pair!(M128: q::mpsadbw),
        M::Ptest => pair!(M128: q::ptest),
        M::Pblendvb => pair!(M128: blend::pblendvb),
        M::Blendvps => pair!(M128: blend::blendvps),
        M::Blendvpd => pair!(M128: blend::blendvpd),
        M::Pblendw => pair!(M128: blend::pblendw),
        M::Blendps => pair!(M128: blend::blendps),
        M::Blendpd => pair!(M128: blend::blendpd),
        _ => return false,
    };
    binary(e, handlers)
}

/// PMOVSX and PMOVZX, whose source is as small as the lanes demand.
fn widening(e: &mut Emit) -> bool {
    let handlers = match e.insn.mnemonic() {
        M::Pmovsxbw => pair!(M64: packed::<q::Pmovsxbw>),
        M::Pmovsxbd => pair!(M32: packed::<q::Pmovsxbd>),
        M::Pmovsxbq => pair!(M16: packed::<q::Pmovsxbq>),
        M::Pmovsxwd => pair!(M64: packed::<q::Pmovsxwd>),
        M::Pmovsxwq => pair!(M32: packed::<q::Pmovsxwq>),
        M::Pmovsxdq => pair!(M64: packed::<q::Pmovsxdq>),
        M::Pmovzxbw => pair!(M64: packed::<q::Pmovzxbw>),
        M::Pmovzxbd => pair!(M32: packed::<q::Pmovzxbd>),
        M::Pmovzxbq => pair!(M16: packed::<q::Pmovzxbq>),
        M::Pmovzxwd => pair!(M64: packed::<q::Pmovzxwd>),
        M::Pmovzxwq => pair!(M32: packed::<q::Pmovzxwq>),
        M::Pmovzxdq => pair!(M64: packed::<q::Pmovzxdq>),
        _ => return false,
    };
    binary(e, handlers)
}

fn shuffles(e: &mut Emit) -> bool {
    let imm = if e.insn.op_count() > 2 {
        e.insn.immediate8()
    } else {
        0
    };
    let mm = e.insn.op0_register().is_mm();
    let handlers = match e.insn.mnemonic() {
        M::Pshufd => Pair {
            register: shuffle::between_registers::<shuffle::Pshufd>(imm),
            memory: shuffle::pshufd::<M128>,
        },
        M::Pshuflw => Pair {
            register: shuffle::between_registers::<shuffle::Pshuflw>(imm),
            memory: shuffle::pshuflw::<M128>,
        },
        M::Pshufhw => Pair {
            register: shuffle::between_registers::<shuffle::Pshufhw>(imm),
            memory: shuffle::pshufhw::<M128>,
        },
        M::Shufps => Pair {
            register: shuffle::between_registers::<shuffle::Shufps>(imm),
            memory: shuffle::shufps::<M128>,
        },
        M::Shufpd => pair!(M128: shuffle::shufpd),
        M::Pshufw => Pair {
            register: mmx::pshufw::<mmx::Reg>,
            memory: mmx::pshufw::<mmx::Mem<u64>>,
        },
        M::Palignr if mm => Pair {
            register: mmx::palignr::<mmx::Reg>,
            memory: mmx::palignr::<mmx::Mem<u64>>,
        },
        M::Palignr => pair!(M128: shuffle::palignr),
        M::Pshufb if mm => Pair {
            register: mmx::packed::<q::Pshufb, mmx::Reg>,
            memory: mmx::packed::<q::Pshufb, mmx::Mem<u64>>,
        },
        M::Pshufb if q::host_shuffles_bytes() => pair!(M128: q::pshufb_host),
        M::Pshufb => pair!(M128: packed::<q::Pshufb>),
        _ => return false,
    };
    binary(e, handlers)
}

/// Single lanes in and out.
fn lanes(e: &mut Emit) -> bool {
    match e.insn.mnemonic() {
        M::Pinsrw if e.insn.op0_register().is_mm() => binary(
            e,
            Pair {
                register: mmx::pinsrw::<mmx::General<u32>>,
                memory: mmx::pinsrw::<mmx::Mem<u16>>,
            },
        ),
        M::Pinsrb => inserted::<u8>(e),
        M::Pinsrw => inserted::<u16>(e),
        M::Pinsrd => inserted::<u32>(e),
        M::Pinsrq => inserted::<u64>(e),
        M::Insertps => binary(
            e,
            Pair {
                register: insert::insertps_rr,
                memory: insert::insertps_rm,
            },
        ),
        M::Pextrw if e.insn.op1_register().is_mm() => store(
            e,
            Pair {
                register: mmx::pextrw,
                memory: mmx::pextrw,
            },
        ),
        M::Pextrb => extracted::<u8>(e),
        M::Pextrw => extracted::<u16>(e),
        M::Pextrd | M::Extractps => extracted::<u32>(e),
        M::Pextrq => extracted::<u64>(e),
        M::Pmovmskb if e.insn.op1_register().is_mm() => store(
            e,
            Pair {
                register: mmx::pmovmskb,
                memory: mmx::pmovmskb,
            },
        ),
        M::Pmovmskb => mask(e, moves::pmovmskb),
        M::Movmskps => mask(e, moves::movmskps),
        M::Movmskpd => mask(e, moves::movmskpd),
        _ => false,
    }
}

fn inserted<W: crate::width::Width + crate::mem::Plain>(e: &mut Emit) -> bool {
    binary(
        e,
        Pair {
            register: insert::from_general::<W>,
            memory: insert::from_memory::<W>,
        },
    )
}

fn extracted<W: crate::width::Width + crate::mem::Plain>(e: &mut Emit) -> bool {
    store(
        e,
        Pair {
            register: insert::to_general::<W>,
            memory: insert::to_memory::<W>,
        },
    )
}

fn mask(e: &mut Emit, run: Handler) -> bool {
    store(
        e,
        Pair {
            register: run,
            memory: run,
        },
    )
}

/// PCMPxSTRx; their memory operand need not be aligned.
fn texts(e: &mut Emit) -> bool {
    use text::{Explicit32, Explicit64, Implicit, to_index, to_mask};
    let handlers = match e.insn.mnemonic() {
        M::Pcmpistri => pair!(U128: to_index::<Implicit>),
        M::Pcmpistrm => pair!(U128: to_mask::<Implicit>),
        M::Pcmpestri => pair!(U128: to_index::<Explicit32>),
        M::Pcmpestrm => pair!(U128: to_mask::<Explicit32>),
        M::Pcmpestri64 => pair!(U128: to_index::<Explicit64>),
        M::Pcmpestrm64 => pair!(U128: to_mask::<Explicit64>),
        _ => return false,
    };
    binary(e, handlers)
}
