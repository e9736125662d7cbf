//! Random x87 and SSE state.

use crate::case::FX;
use crate::rng::Rng;
use crate::values;

/// A valid FXSAVE image (SDM vol. 1, 10.5.1): control words, x87 registers and XMM registers.
pub(crate) fn image(rng: &mut Rng) -> [u8; FX] {
    let mut fx = [0; FX];
    let mut control = 0x37f;
    if rng.chance(40) {
        control = 0x7f | rng.pick(&[0u16, 2, 3]) << 8 | (rng.below(4) as u16) << 10;
    }
    if rng.chance(6) {
        control &= !(rng.below(64) as u16);
    }
    let top = rng.below(8) as u16;
    let mut status = top << 11 | rng.next() as u16 & 0x4700;
    if rng.chance(30) {
        status |= rng.below(128) as u16;
    }
    // The summary bit follows from the others; the processor keeps it so.
    if status & !control & 0x3f != 0 {
        status |= 0x8080;
    }
    let tags = match rng.below(4) {
        0 => rng.next() as u8,
        1 => 0,
        _ => 0xff,
    };
    fx[0..2].copy_from_slice(&control.to_le_bytes());
    fx[2..4].copy_from_slice(&status.to_le_bytes());
    fx[4] = tags;
    fx[24..28].copy_from_slice(&mxcsr(rng).to_le_bytes());
    for n in 0..8 {
        let (significand, exponent) = values::extended(rng);
        let at = 32 + 16 * n;
        fx[at..at + 8].copy_from_slice(&significand.to_le_bytes());
        fx[at + 8..at + 10].copy_from_slice(&exponent.to_le_bytes());
    }
    for n in 0..16 {
        let at = 160 + 16 * n;
        fx[at..at + 16].copy_from_slice(&values::vector(rng).to_le_bytes());
    }
    fx
}

/// A value that LDMXCSR accepts.
pub(crate) fn mxcsr(rng: &mut Rng) -> u32 {
    let mut value = 0x1f80;
    if rng.chance(40) {
        value |= (rng.below(4) as u32) << 13;
    }
    if rng.chance(15) {
        // Flush to zero, denormals are zero.
        value |= rng.pick(&[0x8000, 0x40, 0x8040]);
    }
    if rng.chance(30) {
        value |= rng.below(64) as u32;
    }
    if rng.chance(6) {
        value &= !((rng.below(64) as u32) << 7);
    }
    value
}
