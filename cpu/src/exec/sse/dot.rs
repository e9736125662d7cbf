//! DPPS and DPPD: dot products (SDM vol. 1, 12.10.3).

use super::arith::{Addpd, Addps, Mulpd, Mulps};
use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// DPPS: products of the lanes in the upper mask, summed pairwise, to the lanes in the lower one.
pub(crate) fn dpps<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?;
    let d = cpu.xmm(op.dst);
    let imm = op.imm;
    let product = cpu.float::<Mulps>(keep(d, imm >> 4), keep(s, imm >> 4))?;
    // Each lane adds in its own order, which shows in which of two NaNs it ends up with.
    let pairs = cpu.float::<Addps>(exchanged(product, 1), product)?;
    let sums = cpu.float::<Addps>(pairs, exchanged(pairs, 2))?;
    cpu.set_xmm(op.dst, keep(sums, imm));
    Ok(())
}

/// Lane `i` becomes lane `i ^ by`.
fn exchanged(v: V, by: usize) -> V {
    let v = v.u32s();
    V::from_u32s(core::array::from_fn(|i| v[i ^ by]))
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
    let [a, b] = product.u64s();
    let sums = cpu.float::<Addpd>(product, V::pair(b, a))?;
    cpu.set_xmm(op.dst, keep_doubles(sums, imm));
    Ok(())
}

fn keep_doubles(v: V, mask: u64) -> V {
    let v = v.u64s();
    let lane = |i: usize| if mask >> i & 1 != 0 { v[i] } else { 0 };
    V::pair(lane(0), lane(1))
}
