//! Blends: lanes of the source picked by an immediate or by XMM0 (SDM vol. 1, 12.10.4).

use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// Blend by immediate: `WORDS` words to a lane.
pub(crate) fn by_immediate<const WORDS: usize, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let s = S::fetch(cpu, op)?.u16s();
    let mut d = cpu.xmm(op.dst).u16s();
    for (i, word) in d.iter_mut().enumerate() {
        if op.imm >> (i / WORDS) & 1 != 0 {
            *word = s[i];
        }
    }
    cpu.set_xmm(op.dst, V::from_u16s(d));
    Ok(())
}

/// PBLENDVB, BLENDVPS and BLENDVPD: the sign bit of each lane of XMM0 decides.
macro_rules! by_xmm0 {
    ($($name:ident = $lanes:ident $from:ident;)*) => {$(
        pub(crate) fn $name<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
            let s = S::fetch(cpu, op)?.$lanes();
            let mask = cpu.xmm(0).$lanes();
            let mut d = cpu.xmm(op.dst).$lanes();
            for (i, lane) in d.iter_mut().enumerate() {
                if mask[i] < 0 {
                    *lane = s[i];
                }
            }
            cpu.set_xmm(op.dst, V::$from(d));
            Ok(())
        }
    )*};
}

by_xmm0! {
    pblendvb = i8s from_i8s;
    blendvps = i32s from_i32s;
    blendvpd = i64s from_i64s;
}
