//! Floating point in vector registers.

use iced_x86::{Code, Mnemonic as M};

use super::{Pair, binary, pair};
use crate::exec::sse::arith::{self as a, float};
use crate::exec::sse::compare::{self, order};
use crate::exec::sse::{convert, dot, round};
use crate::translate::Emit;

pub(super) fn emit(e: &mut Emit) -> bool {
    arithmetic(e) || comparison(e) || conversion(e) || conversion_to_integer(e) || with_immediate(e)
}

fn arithmetic(e: &mut Emit) -> bool {
    macro_rules! arms {
        ($($memory:ident: $($name:ident)*;)*) => {
            match e.insn.mnemonic() {
                $($(M::$name => pair!($memory: float::<a::$name>),)*)*
                _ => return false,
            }
        };
    }
    // Two mnemonics are shared with string instructions, which have been dealt with before.
    let handlers = arms! {
        M128: Addps Addpd Subps Subpd Mulps Mulpd Divps Divpd Minps Minpd Maxps Maxpd Sqrtps Sqrtpd
            Rcpps Rsqrtps Haddps Haddpd Hsubps Hsubpd Addsubps Addsubpd
            Cvtpd2ps Cvtdq2ps Cvtps2dq Cvttps2dq Cvtpd2dq Cvttpd2dq;
        M64: Addsd Subsd Mulsd Divsd Minsd Maxsd Sqrtsd Cvtps2pd Cvtsd2ss Cvtdq2pd;
        M32: Addss Subss Mulss Divss Minss Maxss Sqrtss Rcpss Rsqrtss Cvtss2sd;
    };
    binary(e, handlers)
}

/// CMPPS and its like: one handler for each predicate.
fn comparison(e: &mut Emit) -> bool {
    macro_rules! predicates {
        ($memory:ident: $name:ident) => {
            match e.insn.immediate8() & 7 {
                0 => pair!($memory: float::<compare::$name<0>>),
                1 => pair!($memory: float::<compare::$name<1>>),
                2 => pair!($memory: float::<compare::$name<2>>),
                3 => pair!($memory: float::<compare::$name<3>>),
                4 => pair!($memory: float::<compare::$name<4>>),
                5 => pair!($memory: float::<compare::$name<5>>),
                6 => pair!($memory: float::<compare::$name<6>>),
                _ => pair!($memory: float::<compare::$name<7>>),
            }
        };
    }
    let handlers = match e.insn.mnemonic() {
        M::Cmpps => predicates!(M128: Cmpps),
        M::Cmppd => predicates!(M128: Cmppd),
        M::Cmpss => predicates!(M32: Cmpss),
        M::Cmpsd => predicates!(M64: Cmpsd),
        M::Comiss => pair!(M32: order::<compare::Comiss>),
        M::Comisd => pair!(M64: order::<compare::Comisd>),
        M::Ucomiss => pair!(M32: order::<compare::Ucomiss>),
        M::Ucomisd => pair!(M64: order::<compare::Ucomisd>),
        _ => return false,
    };
    binary(e, handlers)
}

/// Conversions from general and MMX registers.
fn conversion(e: &mut Emit) -> bool {
    macro_rules! general {
        ($o:ty) => {
            Pair {
                register: convert::from_register::<$o>,
                memory: convert::from_memory::<$o>,
            }
        };
    }
    let handlers = match e.insn.code() {
        Code::Cvtsi2ss_xmm_rm32 => general!(convert::Cvtsi2ss32),
        Code::Cvtsi2ss_xmm_rm64 => general!(convert::Cvtsi2ss64),
        Code::Cvtsi2sd_xmm_rm32 => general!(convert::Cvtsi2sd32),
        Code::Cvtsi2sd_xmm_rm64 => general!(convert::Cvtsi2sd64),
        Code::Cvtpi2ps_xmm_mmm64 => Pair {
            register: convert::cvtpi2ps_rr,
            memory: convert::cvtpi2ps_rm,
        },
        Code::Cvtpi2pd_xmm_mmm64 => Pair {
            register: convert::cvtpi2pd_rr,
            memory: convert::cvtpi2pd_rm,
        },
        _ => return false,
    };
    binary(e, handlers)
}

/// Conversions to general and MMX registers.
fn conversion_to_integer(e: &mut Emit) -> bool {
    macro_rules! general {
        ($memory:ident: $narrow:ident $wide:ident) => {
            if e.insn.op0_register().size() == 8 {
                pair!($memory: convert::to_register::<convert::$wide>)
            } else {
                pair!($memory: convert::to_register::<convert::$narrow>)
            }
        };
    }
    let handlers = match e.insn.mnemonic() {
        M::Cvtss2si => general!(M32: Cvtss2si32 Cvtss2si64),
        M::Cvttss2si => general!(M32: Cvttss2si32 Cvttss2si64),
        M::Cvtsd2si => general!(M64: Cvtsd2si32 Cvtsd2si64),
        M::Cvttsd2si => general!(M64: Cvttsd2si32 Cvttsd2si64),
        M::Cvtps2pi => pair!(M64: convert::to_mmx::<convert::Cvtps2pi>),
        M::Cvttps2pi => pair!(M64: convert::to_mmx::<convert::Cvttps2pi>),
        M::Cvtpd2pi => pair!(M128: convert::to_mmx::<convert::Cvtpd2pi>),
        M::Cvttpd2pi => pair!(M128: convert::to_mmx::<convert::Cvttpd2pi>),
        _ => return false,
    };
    binary(e, handlers)
}

fn with_immediate(e: &mut Emit) -> bool {
    let handlers = match e.insn.mnemonic() {
        M::Roundps => pair!(M128: round::roundps),
        M::Roundpd => pair!(M128: round::roundpd),
        M::Roundss => pair!(M32: round::roundss),
        M::Roundsd => pair!(M64: round::roundsd),
        M::Dpps => pair!(M128: dot::dpps),
        M::Dppd => pair!(M128: dot::dppd),
        _ => return false,
    };
    binary(e, handlers)
}
