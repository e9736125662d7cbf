//! Bit tests and scans, POPCNT, CRC32.

use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::{Op, Stop};
use crate::width::Width;

type Done = Result<(), Stop>;

/// What BT, BTS, BTR and BTC do to the bit.
pub(crate) trait BitOp {
    const STORES: bool = true;
    fn apply(v: u64, bit: u64) -> u64;
}
pub(crate) struct Bt;
impl BitOp for Bt {
    const STORES: bool = false;
    fn apply(v: u64, _: u64) -> u64 {
        v
    }
}
pub(crate) struct Bts;
impl BitOp for Bts {
    fn apply(v: u64, bit: u64) -> u64 {
        v | bit
    }
}
pub(crate) struct Btr;
impl BitOp for Btr {
    fn apply(v: u64, bit: u64) -> u64 {
        v & !bit
    }
}
pub(crate) struct Btc;
impl BitOp for Btc {
    fn apply(v: u64, bit: u64) -> u64 {
        v ^ bit
    }
}

#[inline(always)]
fn in_register<O: BitOp, W: Width>(cpu: &mut Cpu, op: &Op, offset: u64) -> Done {
    let bit = 1u64 << (offset & u64::from(W::BITS - 1));
    let v = cpu.get::<W>(op.dst).zx();
    cpu.flags.set_cf(v & bit != 0);
    if O::STORES {
        cpu.set(op.dst, W::cut(O::apply(v, bit)));
    }
    Ok(())
}

#[inline(always)]
fn in_memory<O: BitOp, W: Width + Plain>(cpu: &mut Cpu, at: u64, bit: u64) -> Done {
    if !O::STORES {
        let v = cpu.load::<W>(at)?.zx();
        cpu.flags.set_cf(v & bit != 0);
        return Ok(());
    }
    let v = cpu.load_for_store::<W>(at)?.zx();
    cpu.store(at, W::cut(O::apply(v, bit)))?;
    cpu.flags.set_cf(v & bit != 0);
    Ok(())
}

pub(crate) fn bt_rr<O: BitOp, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let offset = cpu.get::<W>(op.src).zx();
    in_register::<O, W>(cpu, op, offset)
}

pub(crate) fn bt_ri<O: BitOp, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    in_register::<O, W>(cpu, op, op.imm)
}

pub(crate) fn bt_mi<O: BitOp, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let bit = 1u64 << (op.imm & u64::from(W::BITS - 1));
    in_memory::<O, W>(cpu, cpu.ea(op), bit)
}

/// With a register offset the bit string reaches beyond the operand, both ways; the mask of the
/// address size is in `imm`.
pub(crate) fn bt_mr<O: BitOp, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let offset = cpu.get::<W>(op.src).sx() as i64;
    let word = offset >> W::BITS.trailing_zeros();
    let linear = cpu.ea(op);
    let segment = cpu.r(op.seg);
    let within = linear
        .wrapping_sub(segment)
        .wrapping_add((word as u64).wrapping_mul(W::BYTES));
    let mut at = (within & op.imm).wrapping_add(segment);
    if cpu.bits != 64 {
        at &= 0xffff_ffff;
    }
    let bit = 1u64 << (offset as u64 & u64::from(W::BITS - 1));
    in_memory::<O, W>(cpu, at, bit)
}

#[inline(always)]
fn source<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Result<W, Stop> {
    if op.aux != 0 {
        cpu.load::<W>(cpu.ea(op))
    } else {
        Ok(cpu.get::<W>(op.src))
    }
}

/// BSF: with a zero source the destination stays as it is, but for the upper half of a 32-bit
/// one.
pub(crate) fn bsf<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = source::<W>(cpu, op)?.zx();
    scan::<W>(cpu, op, v, u64::from(v.trailing_zeros()));
    Ok(())
}

/// BSR, likewise.
pub(crate) fn bsr<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = source::<W>(cpu, op)?.zx();
    scan::<W>(cpu, op, v, u64::from(63u32.wrapping_sub(v.leading_zeros())));
    Ok(())
}

fn scan<W: Width>(cpu: &mut Cpu, op: &Op, v: u64, index: u64) {
    if v != 0 {
        cpu.set(op.dst, W::cut(index));
    }
    // Only ZF is defined.
    cpu.flags.set_zf(v == 0);
}

pub(crate) fn popcnt<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = source::<W>(cpu, op)?.zx();
    let n = W::cut(u64::from(v.count_ones()));
    cpu.set(op.dst, n);
    // All flags clear but ZF.
    cpu.flags = crate::flags::Flags::from_bits(if v == 0 { crate::flags::bit::ZF } else { 0 });
    Ok(())
}

/// CRC32: the Castagnoli polynomial, reflected, byte by byte.
pub(crate) fn crc32<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = source::<W>(cpu, op)?.zx();
    let mut crc = cpu.r(op.dst) as u32;
    for byte in &v.to_le_bytes()[..W::BYTES as usize] {
        crc = CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    }
    cpu.set(op.dst, u64::from(crc));
    Ok(())
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut n = 0;
        while n < 8 {
            crc = if crc & 1 != 0 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            n += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};
