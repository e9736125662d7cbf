//! Random encodings of a given instruction: operands, prefixes and all.
//!
//! Built from bytes up rather than through an assembler, so that redundant prefixes, odd ModRM
//! forms and duplicate encodings are met too.

use iced_x86::{Code, MandatoryPrefix, OpCodeInfo, OpCodeOperandKind as Kind, OpCodeTableKind};

use crate::rng::Rng;
use crate::values;

const SEGMENTS: [u8; 6] = [0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65];

/// Bytes that begin with `code`, most of the time, followed by random ones.
pub(crate) fn random(rng: &mut Rng, code: Code, bits: u8) -> Vec<u8> {
    let info = code.op_code();
    let mut out = Vec::with_capacity(32);
    prefixes(rng, info, bits, &mut out);
    if bits == 64 {
        rex(rng, info, &mut out);
    }
    opcode(rng, info, &mut out);
    if let Some(shape) = modrm_shape(info) {
        modrm(rng, info, shape, bits, &mut out);
    }
    immediate(rng, &mut out);
    out
}

fn prefixes(rng: &mut Rng, info: &OpCodeInfo, bits: u8, out: &mut Vec<u8>) {
    if rng.chance(5) {
        out.push(rng.pick(&SEGMENTS));
    }
    let wants_67 = info.address_size() != 0 && info.address_size() != u32::from(bits);
    if wants_67 || rng.chance(5) {
        out.push(0x67);
    }
    if info.operand_size() == 16 || rng.chance(2) {
        out.push(0x66);
    }
    if info.can_use_lock_prefix() && rng.chance(15) || rng.below(400) == 0 {
        out.push(0xf0);
    }
    if info.can_use_rep_prefix() && rng.chance(50) || rng.below(200) == 0 {
        out.push(0xf3);
    }
    if info.can_use_repne_prefix() && rng.chance(35) || rng.below(200) == 0 {
        out.push(0xf2);
    }
    match info.mandatory_prefix() {
        MandatoryPrefix::P66 => out.push(0x66),
        MandatoryPrefix::PF3 => out.push(0xf3),
        MandatoryPrefix::PF2 => out.push(0xf2),
        MandatoryPrefix::None | MandatoryPrefix::PNP => {}
    }
    if rng.chance(2) {
        let noise: Vec<u8> = (0..rng.below(3)).map(|_| rng.pick(&SEGMENTS)).collect();
        out.splice(0..0, noise);
    }
    if rng.below(500) == 0 {
        // Towards and beyond the limit of fifteen bytes.
        out.splice(0..0, std::iter::repeat_n(0x3e, rng.below(13) as usize));
    }
}

fn rex(rng: &mut Rng, info: &OpCodeInfo, out: &mut Vec<u8>) {
    let defaults = info.default_op_size64() || info.force_op_size64();
    let wide = info.operand_size() == 64 && !defaults || info.w() == 1;
    let mut rex = if wide { 8 } else { 0 };
    rex |= if rng.chance(50) {
        rng.below(8) as u8
    } else {
        0
    };
    if info.operand_size() == 0 && rng.chance(10) {
        rex |= 8;
    }
    if rex != 0 || rng.chance(25) {
        out.push(0x40 | rex);
        if rng.below(500) == 0 {
            // A prefix after REX cancels it.
            out.push(rng.pick(&SEGMENTS));
        }
    }
}

fn opcode(rng: &mut Rng, info: &OpCodeInfo, out: &mut Vec<u8>) {
    match info.table() {
        OpCodeTableKind::T0F => out.push(0x0f),
        OpCodeTableKind::T0F38 => out.extend([0x0f, 0x38]),
        OpCodeTableKind::T0F3A => out.extend([0x0f, 0x3a]),
        _ => {}
    }
    let in_opcode = |k: &Kind| {
        matches!(
            k,
            Kind::r8_opcode
                | Kind::r16_opcode
                | Kind::r32_opcode
                | Kind::r64_opcode
                | Kind::sti_opcode
        )
    };
    let mut op = info.op_code();
    if info.op_kinds().iter().any(in_opcode) {
        op |= rng.below(8) as u32;
    }
    if info.op_code_len() == 2 {
        out.push((op >> 8) as u8);
    }
    out.push(op as u8);
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Memory,
    Register,
    Either,
}

/// Whether there is a ModRM byte, and what its r/m part may be.
fn modrm_shape(info: &OpCodeInfo) -> Option<Shape> {
    let mut shape = None;
    for kind in info.op_kinds() {
        let this = match kind {
            Kind::mem | Kind::mem_mib | Kind::sibmem => Shape::Memory,
            Kind::r8_or_mem
            | Kind::r16_or_mem
            | Kind::r32_or_mem
            | Kind::r64_or_mem
            | Kind::mm_or_mem
            | Kind::xmm_or_mem => Shape::Either,
            Kind::r16_rm | Kind::r32_rm | Kind::r64_rm | Kind::mm_rm | Kind::xmm_rm => {
                Shape::Register
            }
            Kind::r8_reg
            | Kind::r16_reg
            | Kind::r16_reg_mem
            | Kind::r32_reg
            | Kind::r32_reg_mem
            | Kind::r64_reg
            | Kind::r64_reg_mem
            | Kind::seg_reg
            | Kind::mm_reg
            | Kind::xmm_reg
            | Kind::cr_reg
            | Kind::dr_reg
            | Kind::tr_reg => {
                shape = shape.or(Some(Shape::Either));
                continue;
            }
            _ => continue,
        };
        return Some(this);
    }
    let grouped = info.group_index() >= 0 || info.rm_group_index() >= 0;
    shape.or(grouped.then_some(Shape::Register))
}

fn modrm(rng: &mut Rng, info: &OpCodeInfo, shape: Shape, bits: u8, out: &mut Vec<u8>) {
    let reg = match info.group_index() {
        n if n >= 0 => n as u8,
        _ => rng.below(8) as u8,
    };
    let register = match shape {
        Shape::Register => true,
        Shape::Memory => rng.below(200) == 0,
        Shape::Either => rng.chance(40),
    };
    if register || info.rm_group_index() >= 0 {
        let rm = if info.rm_group_index() >= 0 {
            info.rm_group_index() as u8
        } else {
            rng.below(8) as u8
        };
        out.push(0xc0 | reg << 3 | rm);
        return;
    }
    let form = rng.below(3) as u8;
    let rm = rng.below(8) as u8;
    out.push(form << 6 | reg << 3 | rm);
    let short = bits == 32 && out.contains(&0x67);
    if short {
        displacement(
            rng,
            [if rm == 6 { 2 } else { 0 }, 1, 2][usize::from(form)],
            out,
        );
        return;
    }
    let mut absolute = form == 0 && rm == 5;
    if rm == 4 {
        let sib = rng.next() as u8;
        out.push(sib);
        absolute = form == 0 && sib & 7 == 5;
    }
    displacement(
        rng,
        if absolute {
            4
        } else {
            [0, 1, 4][usize::from(form)]
        },
        out,
    );
}

fn displacement(rng: &mut Rng, len: usize, out: &mut Vec<u8>) {
    let value = match rng.below(4) {
        0..=1 => rng.below(256).wrapping_sub(128),
        2 => values::integer(rng),
        _ => rng.next(),
    };
    out.extend(&value.to_le_bytes()[..len]);
}

/// An interesting number of one width, and more bytes behind it.
fn immediate(rng: &mut Rng, out: &mut Vec<u8>) {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    let width = rng.pick(&[1usize, 2, 4, 8]);
    bytes[..width].copy_from_slice(&values::integer(rng).to_le_bytes()[..width]);
    out.extend(bytes);
}
