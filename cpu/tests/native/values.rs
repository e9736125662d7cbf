//! Values worth trying: edges of every width, floats of every class, addresses of the sandbox.

use crate::rng::Rng;
use crate::sandbox::{self, Area};

const EDGES: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x0f,
    0x10,
    0x1f,
    0x20,
    0x3f,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// An integer: mostly an edge or close to one, at times any.
pub(crate) fn integer(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0..=3 => {
            let edge = rng.pick(&EDGES);
            let near = edge.wrapping_add(rng.below(5)).wrapping_sub(2);
            if rng.chance(30) {
                near.wrapping_neg()
            } else {
                near
            }
        }
        4 => rng.below(256),
        // Different edges in each half, so that partial-register results show.
        5 => rng.pick(&EDGES) << 32 | rng.pick(&EDGES) & 0xffff_ffff,
        6 => 1 << rng.below(64),
        _ => rng.next(),
    }
}

/// An address at or near accessible memory, and at times of none.
pub(crate) fn address(rng: &mut Rng, bits: u8) -> u64 {
    if rng.chance(2) {
        let wild = rng.pick(&[
            0,
            0x1000,
            0x7fff_ffff_f000,
            0xffff_8000_0000_0000,
            0x8000_0000_0000,
            1 << 63,
        ]);
        return if bits == 64 { wild } else { wild & 0xffff_ffff };
    }
    let area = pick_area(rng, bits);
    area.at + rng.below(area.len as u64)
}

/// Where a memory operand of `size` bytes should lie: mostly within an area, at times across the
/// edge of one.
pub(crate) fn target(rng: &mut Rng, bits: u8, size: usize) -> u64 {
    let area = pick_area(rng, bits);
    let size = size.max(1) as u64;
    if rng.chance(8) {
        let edge = area.at + 0x1000 * rng.below(area.len as u64 / 0x1000 + 1);
        return edge.wrapping_sub(rng.below(size + 2));
    }
    let at = area.at + rng.below((area.len as u64).saturating_sub(size).max(1));
    match rng.below(8) {
        0..=3 => at & !63,
        4 => at & !15,
        5 => at & !7,
        _ => at,
    }
}

fn pick_area(rng: &mut Rng, bits: u8) -> Area {
    match rng.below(16) {
        0 => sandbox::FIXED,
        1..=3 if bits == 64 => sandbox::HIGH,
        4 => sandbox::STACK,
        5 if rng.chance(20) => sandbox::CODE,
        _ => sandbox::DATA,
    }
}

/// An address that control may go to: it holds INT3.
pub(crate) fn code_address(rng: &mut Rng) -> u64 {
    sandbox::CODE.at + rng.below(sandbox::CODE.len as u64)
}

const F32: [u32; 26] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x4000_0000,
    0x3f00_0000,
    0xbf00_0000,
    0x3fc0_0000,
    0x4020_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_0000,
    0x7f80_0001,
    0xffa0_1234,
    0x0000_0001,
    0x007f_ffff,
    0x8000_0400,
    0x0080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x5f00_0000,
    0x4b00_0001,
    0x3f80_0001,
];

/// A single of any class.
pub(crate) fn single(rng: &mut Rng) -> u32 {
    match rng.below(4) {
        0..=1 => rng.pick(&F32),
        // Near one, so that results round, cancel and compare.
        2 => (0x3f00_0000 + rng.below(0x0200_0000) as u32) | ((rng.below(2) as u32) << 31),
        _ => rng.next() as u32,
    }
}

const F64: [u64; 24] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0x4004_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xfff4_0000_1234_0000,
    1,
    0x000f_ffff_ffff_ffff,
    0x8000_0000_0001_0000,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x41e0_0000_0000_0000,
    0x41df_ffff_ffff_ffff,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x36a0_0000_0000_0000,
    0x47ef_ffff_f000_0000,
];

/// A double of any class.
pub(crate) fn double(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0..=1 => rng.pick(&F64),
        2 => (0x3fe0_0000_0000_0000 + rng.below(1 << 54)) | (rng.below(2) << 63),
        _ => rng.next(),
    }
}

/// An extended-precision number of any class, the invalid ones included: significand and
/// sign-exponent word.
pub(crate) fn extended(rng: &mut Rng) -> (u64, u16) {
    let sign = (rng.below(2) as u16) << 15;
    let exponent = match rng.below(8) {
        0 => 0,
        1 => 0x7fff,
        2 => 1,
        3 => 0x7ffe,
        4..=6 => 0x3fff - 70 + rng.below(140) as u16,
        _ => rng.below(0x8000) as u16,
    };
    let significand = match rng.below(8) {
        0 => 1 << 63,
        1 => 0,
        2 => 0xc000_0000_0000_0000,
        3 => u64::MAX,
        4 => 1 << 63 | rng.below(0x1000) << 40,
        5 => rng.next(),
        _ => 1 << 63 | rng.next(),
    };
    match (exponent, significand) {
        // Unnormals are rare guests.
        (1..=0x7ffe, s) if s >> 63 == 0 && !rng.chance(3) => (s | 1 << 63, sign | exponent),
        _ => (significand, sign | exponent),
    }
}

/// Sixteen bytes as one kind of lanes.
pub(crate) fn vector(rng: &mut Rng) -> u128 {
    let mut v = 0u128;
    match rng.below(6) {
        0 => (0..4).for_each(|_| v = v << 32 | u128::from(single(rng))),
        1 => (0..2).for_each(|_| v = v << 64 | u128::from(double(rng))),
        2 => (0..2).for_each(|_| v = v << 64 | u128::from(integer(rng))),
        3 => (0..8).for_each(|_| v = v << 16 | u128::from(integer(rng) & 0xffff)),
        // Few different bytes, with zeros: text for the string instructions.
        4 => (0..16).for_each(|_| {
            v = v << 8 | u128::from(rng.pick(&[0, b'a', b'b', b'c', b'z', 0x80, 0xff]))
        }),
        _ => v = u128::from(rng.next()) << 64 | u128::from(rng.next()),
    }
    v
}
