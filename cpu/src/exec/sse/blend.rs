//! Blends: lanes of the source picked by an immediate or by XMM0 (SDM vol. 1, 12.10.4).

use super::{Done, Source, V};
use crate::cpu::Cpu;
use crate::op::Op;

/// Blends by immediate, a bit for each lane.
macro_rules! by_immediate {
    ($($name:ident = $lanes:ident $from:ident;)*) => {$(
        pub(crate) fn $name<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
            let s = S::fetch(cpu, op)?.$lanes();
            let mut d = cpu.xmm(op.dst).$lanes();
            for (i, lane) in d.iter_mut().enumerate() {
                if op.imm >> i & 1 != 0 {
                    *lane = s[i];
                }
            }
            cpu.set_xmm(op.dst, V::$from(d));
            Ok(())
        }
    )*};
}

by_immediate! {
    pblendw = u16s from_u16s;
    blendps = u32s from_u32s;
    blendpd = u64s from_u64s;
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
