//! Single lanes in and out: PINSRx, PEXTRx, INSERTPS, EXTRACTPS (SDM vol. 1, 10.4.4 and 12.10).

use super::{Done, V};
use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::{Op, Stop};
use crate::width::Width;

/// Replaces the lane of `v` that `index` picks.
#[inline(always)]
fn with_lane<W: Width>(v: V, index: u64, lane: W) -> V {
    let shift = lane_shift::<W>(index);
    V::from_bits(v.bits() & !(u128::from(W::MASK) << shift) | u128::from(lane.zx()) << shift)
}

#[inline(always)]
fn lane_shift<W: Width>(index: u64) -> u32 {
    (index as u32 * W::BITS) & 127
}

/// PINSRB, PINSRW, PINSRD, PINSRQ from a general register.
pub(crate) fn from_general<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    // The low byte even of registers 4 to 7: `src` carries no mark of a high one.
    let lane = W::cut(cpu.r(op.src));
    let v = with_lane(cpu.xmm(op.dst), op.imm, lane);
    cpu.set_xmm(op.dst, v);
    Ok(())
}

/// The same from memory.
pub(crate) fn from_memory<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let lane = cpu.load::<W>(cpu.ea(op))?;
    let v = with_lane(cpu.xmm(op.dst), op.imm, lane);
    cpu.set_xmm(op.dst, v);
    Ok(())
}

#[inline(always)]
fn lane<W: Width>(cpu: &Cpu, op: &Op) -> W {
    W::cut((cpu.xmm(op.src).bits() >> lane_shift::<W>(op.imm)) as u64)
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ and EXTRACTPS to a general register, zero-extended.
pub(crate) fn to_general<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = lane::<W>(cpu, op).zx();
    cpu.set(op.dst, v);
    Ok(())
}

/// The same to memory.
pub(crate) fn to_memory<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = lane::<W>(cpu, op);
    cpu.store(cpu.ea(op), v)
}

/// INSERTPS: a single into one lane, zero into those of the mask.
fn insert_single(cpu: &mut Cpu, op: &Op, single: u32) {
    let mut d = cpu.xmm(op.dst).u32s();
    d[(op.imm >> 4 & 3) as usize] = single;
    for (i, lane) in d.iter_mut().enumerate() {
        if op.imm >> i & 1 != 0 {
            *lane = 0;
        }
    }
    cpu.set_xmm(op.dst, V::from_u32s(d));
}

pub(crate) fn insertps_rr(cpu: &mut Cpu, op: &Op) -> Done {
    let single = cpu.xmm(op.src).u32s()[(op.imm >> 6 & 3) as usize];
    insert_single(cpu, op, single);
    Ok(())
}

pub(crate) fn insertps_rm(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let single = cpu.load::<u32>(cpu.ea(op))?;
    insert_single(cpu, op, single);
    Ok(())
}
