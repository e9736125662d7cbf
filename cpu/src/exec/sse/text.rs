//! PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM: string comparison (SDM vol. 1, 12.11; vol. 2,
//! 4.1 "Imm8 Control Byte Operation").

use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::flags::{Flags, bit};
use crate::op::{Op, reg};

/// The control byte.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    /// Elements are words, not bytes.
    fn words(self) -> bool {
        self.0 & 1 != 0
    }
    fn signed(self) -> bool {
        self.0 & 2 != 0
    }
    fn aggregation(self) -> u8 {
        self.0 >> 2 & 3
    }
    /// The result is complemented; all of it, or only where the second string is valid.
    fn negative(self) -> bool {
        self.0 & 0x10 != 0
    }
    fn masked(self) -> bool {
        self.0 & 0x20 != 0
    }
    /// The last index or a mask of whole elements, instead of the first or one of bits.
    fn alternative(self) -> bool {
        self.0 & 0x40 != 0
    }
    fn elements(self) -> usize {
        if self.words() { 8 } else { 16 }
    }
}

/// One operand: its elements and how many are valid.
struct Text {
    elements: [i32; 16],
    len: usize,
}

impl Text {
    fn new(c: Control, v: V, len: usize) -> Text {
        let mut elements = [0; 16];
        match (c.words(), c.signed()) {
            (false, false) => fill(&mut elements, v.u8s()),
            (false, true) => fill(&mut elements, v.i8s()),
            (true, false) => fill(&mut elements, v.u16s()),
            (true, true) => fill(&mut elements, v.i16s()),
        }
        Text { elements, len }
    }

    /// As long as the first zero element.
    fn implicit(c: Control, v: V) -> Text {
        let mut t = Text::new(c, v, c.elements());
        let zero = t.elements[..c.elements()].iter().position(|&e| e == 0);
        t.len = zero.unwrap_or(c.elements());
        t
    }

    /// As long as a register says; too much is cut off, the sign ignored.
    fn explicit(c: Control, v: V, len: i64) -> Text {
        let len = len.unsigned_abs().min(c.elements() as u64);
        Text::new(c, v, len as usize)
    }
}

fn fill<T: Into<i32> + Copy, const N: usize>(to: &mut [i32; 16], from: [T; N]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.into();
    }
}

/// Compares and aggregates: the intermediate result 2, a bit per element of the second operand.
fn compare(c: Control, a: &Text, b: &Text) -> u32 {
    let n = c.elements();
    let mut result = 0;
    for j in 0..n {
        let hit = match c.aggregation() {
            0 => j < b.len && a.elements[..a.len].contains(&b.elements[j]),
            1 => j < b.len && in_ranges(a, b.elements[j]),
            2 => match (j < a.len, j < b.len) {
                (true, true) => a.elements[j] == b.elements[j],
                (valid_a, valid_b) => valid_a == valid_b,
            },
            _ => is_substring(a, b, j, n),
        };
        result |= u32::from(hit) << j;
    }
    if c.negative() {
        let valid = if c.masked() {
            (1 << b.len) - 1
        } else {
            (1 << n) - 1
        };
        result ^= valid;
    }
    result
}

/// Pairs of elements of `a` are ranges; an odd one left over is none.
fn in_ranges(a: &Text, e: i32) -> bool {
    a.elements[..a.len]
        .chunks_exact(2)
        .any(|r| (r[0]..=r[1]).contains(&e))
}

/// Whether `a` starts at `j` in `b`, as far as the operand shows.
fn is_substring(a: &Text, b: &Text, j: usize, n: usize) -> bool {
    (0..a.len.min(n - j)).all(|i| j + i < b.len && a.elements[i] == b.elements[j + i])
}

fn flags(c: Control, a: &Text, b: &Text, result: u32) -> Flags {
    let set = |on: bool, flag: u64| if on { flag } else { 0 };
    let n = c.elements();
    Flags::from_bits(
        set(result != 0, bit::CF)
            | set(b.len < n, bit::ZF)
            | set(a.len < n, bit::SF)
            | set(result & 1 != 0, bit::OF),
    )
}

/// Index of the first or last hit, the number of elements if there is none.
fn index(c: Control, result: u32) -> u64 {
    let at = match (result, c.alternative()) {
        (0, _) => c.elements() as u32,
        (r, false) => r.trailing_zeros(),
        (r, true) => 31 - r.leading_zeros(),
    };
    u64::from(at)
}

/// The hits as bits or as whole elements.
fn mask(c: Control, result: u32) -> V {
    let hit = |i: usize| result >> i & 1 != 0;
    match (c.alternative(), c.words()) {
        (false, _) => V::from_low(u64::from(result)),
        (true, false) => V::from_u8s(core::array::from_fn(|i| if hit(i) { 0xff } else { 0 })),
        (true, true) => V::from_u16s(core::array::from_fn(|i| if hit(i) { 0xffff } else { 0 })),
    }
}

/// How long the operands are.
pub(crate) trait Length {
    fn of(cpu: &Cpu, register: usize) -> Option<i64>;
}

/// Up to a zero element.
pub(crate) struct Implicit;
impl Length for Implicit {
    fn of(_: &Cpu, _: usize) -> Option<i64> {
        None
    }
}

/// As EAX and EDX say.
pub(crate) struct Explicit32;
impl Length for Explicit32 {
    fn of(cpu: &Cpu, register: usize) -> Option<i64> {
        Some(i64::from(cpu.regs[register] as i32))
    }
}

/// As RAX and RDX say.
pub(crate) struct Explicit64;
impl Length for Explicit64 {
    fn of(cpu: &Cpu, register: usize) -> Option<i64> {
        Some(cpu.regs[register] as i64)
    }
}

fn outcome<L: Length>(cpu: &Cpu, c: Control, a: V, b: V) -> (u32, Flags) {
    let text = |v: V, register: usize| match L::of(cpu, register) {
        Some(len) => Text::explicit(c, v, len),
        None => Text::implicit(c, v),
    };
    let (a, b) = (text(a, reg::RAX), text(b, reg::RDX));
    let result = compare(c, &a, &b);
    (result, flags(c, &a, &b, result))
}

/// PCMPxSTRI: an index to ECX.
pub(crate) fn to_index<L: Length, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let c = Control(op.imm as u8);
    let (result, flags) = outcome::<L>(cpu, c, cpu.xmm(op.dst), s);
    cpu.regs[reg::RCX] = index(c, result);
    cpu.flags = flags;
    Ok(())
}

/// PCMPxSTRM: a mask to XMM0.
pub(crate) fn to_mask<L: Length, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let c = Control(op.imm as u8);
    let (result, flags) = outcome::<L>(cpu, c, cpu.xmm(op.dst), s);
    cpu.set_xmm(0, mask(c, result));
    cpu.flags = flags;
    Ok(())
}
