//! DPPS and DPPD: dot products (SDM vol. 1, 12.10.3).

use super::arith::{Addps, Addsd, Mulpd, Mulps};
use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// DPPS: products of the lanes in the upper mask, summed pairwise, to the lanes in the lower one.
pub(crate) fn dpps<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let d = cpu.xmm(op.dst);
    let imm = op.imm;
    let product = cpu.float::<Mulps>(keep(d, imm >> 4), keep(s, imm >> 4))?;
    let p = keep(product, imm >> 4).u32s();
    let sums = cpu.float::<Addps>(
        V::from_u32s([p[0], p[2], 0, 0]),
        V::from_u32s([p[1], p[3], 0, 0]),
    )?;
    let [a, b, ..] = sums.u32s();
    let sum = cpu
        .float::<Addps>(V::from_low32(a), V::from_low32(b))?
        .low32();
    cpu.set_xmm(op.dst, keep(V::from_u32s([sum; 4]), imm));
    Ok(())
}

/// The lanes of the mask, zeros elsewhere.
fn keep(v: V, mask: u64) -> V {
    let v = v.u32s();
    V::from_u32s(core::array::from_fn(|i| {
        if mask >> i & 1 != 0 { v[i] } else { 0 }
    }))
}

/// DPPD.
pub(crate) fn dppd<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let d = cpu.xmm(op.dst);
    let imm = op.imm;
    let product = cpu.float::<Mulpd>(keep_doubles(d, imm >> 4), keep_doubles(s, imm >> 4))?;
    let [a, b] = keep_doubles(product, imm >> 4).u64s();
    let sum = cpu.float::<Addsd>(V::from_low(a), V::from_low(b))?.low();
    cpu.set_xmm(op.dst, keep_doubles(V::pair(sum, sum), imm));
    Ok(())
}

fn keep_doubles(v: V, mask: u64) -> V {
    let v = v.u64s();
    let lane = |i: usize| if mask >> i & 1 != 0 { v[i] } else { 0 };
    V::pair(lane(0), lane(1))
}
