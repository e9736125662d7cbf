//! Shuffles by an immediate (SDM vol. 1, 10.4.4, 11.4.1 and 12.6).

use core::arch::x86_64::*;

use super::vector::sse2;
use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::{Handler, Op};

/// Which of four lanes the immediate picks for lane `i`.
#[inline(always)]
fn pick(imm: u64, i: usize) -> usize {
    (imm >> (2 * i) & 3) as usize
}

/// A shuffle whose immediate is known when the handler is compiled.
pub(crate) trait Shuffle {
    fn apply<const IMM: i32>(d: V, s: V) -> V;
}

/// PSHUFD.
pub(crate) struct Pshufd;
impl Shuffle for Pshufd {
    #[inline(always)]
    fn apply<const IMM: i32>(_: V, s: V) -> V {
        V(sse2!(_mm_shuffle_epi32::<IMM>(s.0)))
    }
}

/// PSHUFLW.
pub(crate) struct Pshuflw;
impl Shuffle for Pshuflw {
    #[inline(always)]
    fn apply<const IMM: i32>(_: V, s: V) -> V {
        V(sse2!(_mm_shufflelo_epi16::<IMM>(s.0)))
    }
}

/// PSHUFHW.
pub(crate) struct Pshufhw;
impl Shuffle for Pshufhw {
    #[inline(always)]
    fn apply<const IMM: i32>(_: V, s: V) -> V {
        V(sse2!(_mm_shufflehi_epi16::<IMM>(s.0)))
    }
}

/// SHUFPS.
pub(crate) struct Shufps;
impl Shuffle for Shufps {
    #[inline(always)]
    fn apply<const IMM: i32>(d: V, s: V) -> V {
        V::from_singles(sse2!(_mm_shuffle_ps::<IMM>(d.singles(), s.singles())))
    }
}

/// A shuffle between registers.
fn registers<O: Shuffle, const IMM: i32>(cpu: &mut Cpu, op: &Op) -> Done {
    let r = O::apply::<IMM>(cpu.xmm(op.dst), cpu.xmm(op.src));
    cpu.set_xmm(op.dst, r);
    Ok(())
}

/// The handlers of one shuffle for sixteen immediates, of which the upper digit is given.
macro_rules! row {
    ($o:ty, $high:literal) => {
        row!($o, $high; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($o:ty, $high:literal; $($low:literal)*) => {
        [$(registers::<$o, { $high << 4 | $low }>),*]
    };
}

/// The handler of a register-to-register shuffle, one for each immediate.
pub(crate) fn between_registers<O: Shuffle>(imm: u8) -> Handler {
    let table: [[Handler; 16]; 16] = [
        row!(O, 0),
        row!(O, 1),
        row!(O, 2),
        row!(O, 3),
        row!(O, 4),
        row!(O, 5),
        row!(O, 6),
        row!(O, 7),
        row!(O, 8),
        row!(O, 9),
        row!(O, 10),
        row!(O, 11),
        row!(O, 12),
        row!(O, 13),
        row!(O, 14),
        row!(O, 15),
    ];
    table[usize::from(imm >> 4)][usize::from(imm & 15)]
}

/// PSHUFD from memory.
pub(crate) fn pshufd<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.u32s();
    let r = core::array::from_fn(|i| s[pick(op.imm, i)]);
    cpu.set_xmm(op.dst, V::from_u32s(r));
    Ok(())
}

/// PSHUFW's and PSHUFLW's rearrangement of four words.
fn four_words(v: u64, imm: u64) -> u64 {
    (0..4).fold(0, |r, i| {
        r | (v >> (16 * pick(imm, i)) & 0xffff) << (16 * i)
    })
}

/// PSHUFLW from memory.
pub(crate) fn pshuflw<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let [low, high] = S::fetch(cpu, op)?.u64s();
    cpu.set_xmm(op.dst, V::pair(four_words(low, op.imm), high));
    Ok(())
}

/// PSHUFHW from memory.
pub(crate) fn pshufhw<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let [low, high] = S::fetch(cpu, op)?.u64s();
    cpu.set_xmm(op.dst, V::pair(low, four_words(high, op.imm)));
    Ok(())
}

/// PSHUFW.
pub(crate) fn pshufw(_: u64, s: u64, imm: u64) -> u64 {
    four_words(s, imm)
}

/// SHUFPS from memory: two lanes of the destination, then two of the source.
pub(crate) fn shufps<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.u32s();
    let d = cpu.xmm(op.dst).u32s();
    let lane = |i: usize| {
        if i < 2 {
            d[pick(op.imm, i)]
        } else {
            s[pick(op.imm, i)]
        }
    };
    cpu.set_xmm(op.dst, V::from_u32s(core::array::from_fn(lane)));
    Ok(())
}

/// SHUFPD.
pub(crate) fn shufpd<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.u64s();
    let d = cpu.xmm(op.dst).u64s();
    let r = V::pair(d[(op.imm & 1) as usize], s[(op.imm >> 1 & 1) as usize]);
    cpu.set_xmm(op.dst, r);
    Ok(())
}

/// PALIGNR: destination and source side by side, shifted right by bytes.
pub(crate) fn palignr<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.bits();
    let d = cpu.xmm(op.dst).bits();
    let bits = (op.imm & 0xff) as u32 * 8;
    let r = match bits {
        0 => s,
        1..128 => s >> bits | d << (128 - bits),
        _ => d.checked_shr(bits - 128).unwrap_or(0),
    };
    cpu.set_xmm(op.dst, V::from_bits(r));
    Ok(())
}

/// PALIGNR on MMX registers.
pub(crate) fn palignr_mm(d: u64, s: u64, imm: u64) -> u64 {
    let both = u128::from(d) << 64 | u128::from(s);
    both.checked_shr((imm & 0xff) as u32 * 8).unwrap_or(0) as u64
}
