//! Descriptor-table registers and what asks about descriptors.

use crate::cpu::{Cpu, Table};
use crate::mem::canonical;
use crate::op::{Op, Stop};
use crate::width::Width;

type Done = Result<(), Stop>;

fn load_table(cpu: &mut Cpu, op: &Op) -> Result<Table, Stop> {
    super::control::privileged(cpu)?;
    let at = cpu.ea(op);
    let limit = cpu.load::<u16>(at)?;
    let at = at.wrapping_add(2);
    let base = match op.aux {
        8 => cpu.load::<u64>(at)?,
        4 => u64::from(cpu.load::<u32>(at)?),
        _ => u64::from(cpu.load::<u32>(at)?) & 0xff_ffff,
    };
    if !canonical(base) {
        return Err(cpu.gp(0));
    }
    Ok(Table { base, limit })
}

pub(crate) fn lgdt(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.gdtr = load_table(cpu, op)?;
    Ok(())
}

pub(crate) fn lidt(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.idtr = load_table(cpu, op)?;
    Ok(())
}

fn store_table(cpu: &mut Cpu, op: &Op, t: Table) -> Done {
    let at = cpu.ea(op);
    let len = if cpu.bits == 64 { 10 } else { 6 };
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&t.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&t.base.to_le_bytes());
    cpu.write_bytes(at, &bytes[..len], crate::paging::Who::Program)
}

pub(crate) fn sgdt(cpu: &mut Cpu, op: &Op) -> Done {
    let t = cpu.gdtr;
    store_table(cpu, op, t)
}

pub(crate) fn sidt(cpu: &mut Cpu, op: &Op) -> Done {
    let t = cpu.idtr;
    store_table(cpu, op, t)
}

fn selector(cpu: &mut Cpu, op: &Op) -> Result<u16, Stop> {
    if op.aux != 0 {
        cpu.load::<u16>(cpu.ea(op))
    } else {
        Ok(cpu.get::<u16>(op.src))
    }
}

/// LTR (`imm` 1) and LLDT (`imm` 0).
pub(crate) fn load_system(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.protected() {
        return Err(cpu.ud());
    }
    super::control::privileged(cpu)?;
    let s = selector(cpu, op)?;
    cpu.load_system_segment(s, op.imm != 0)
}

/// STR (`imm` 1) and SLDT (`imm` 0); operand size in `aux`, 0 for memory.
pub(crate) fn store_system(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.protected() {
        return Err(cpu.ud());
    }
    let v = if op.imm != 0 {
        cpu.tr.selector
    } else {
        cpu.ldtr.selector
    };
    match op.aux {
        0 => return cpu.store(cpu.ea(op), v),
        2 => cpu.set(op.dst, v),
        4 => cpu.set(op.dst, u32::from(v)),
        _ => cpu.set(op.dst, u64::from(v)),
    }
    Ok(())
}

/// VERR (`imm` 0) and VERW (`imm` 1).
pub(crate) fn verify(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.protected() {
        return Err(cpu.ud());
    }
    let s = selector(cpu, op)?;
    let ok = cpu.visible_descriptor(s)?.is_some_and(|s| {
        let (segment, code, rw) = (s.access & 0x10 != 0, s.access & 8 != 0, s.access & 2 != 0);
        segment
            && if op.imm != 0 {
                !code && rw
            } else {
                !code || rw
            }
    });
    cpu.flags.set_zf(ok);
    Ok(())
}

/// LAR.
pub(crate) fn lar<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.protected() {
        return Err(cpu.ud());
    }
    let sel = selector(cpu, op)?;
    let long = cpu.long_mode();
    let found = cpu.visible_descriptor(sel)?.filter(|s| {
        let kind = s.access & 0x1f;
        kind & 0x10 != 0
            || if long {
                matches!(kind, 2 | 9 | 0xb | 0xc)
            } else {
                matches!(kind, 1..=5 | 9 | 0xb | 0xc)
            }
    });
    if let Some(s) = found {
        let limit = (cpu.descriptor(sel, crate::segment::Blame::Gp)? >> 48 & 0xf) as u32;
        let rights = u32::from(s.access) << 8 | limit << 16;
        cpu.set(
            op.dst,
            W::cut(u64::from(rights & 0x00ff_ff00 & !(0xf << 16))),
        );
    }
    cpu.flags.set_zf(found.is_some());
    Ok(())
}

/// LSL.
pub(crate) fn lsl<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.protected() {
        return Err(cpu.ud());
    }
    let sel = selector(cpu, op)?;
    let long = cpu.long_mode();
    let found = cpu.visible_descriptor(sel)?.filter(|s| {
        let kind = s.access & 0x1f;
        kind & 0x10 != 0
            || if long {
                matches!(kind, 2 | 9 | 0xb)
            } else {
                matches!(kind, 1 | 2 | 3 | 9 | 0xb)
            }
    });
    if let Some(s) = found {
        cpu.set(op.dst, W::cut(u64::from(s.limit)));
    }
    cpu.flags.set_zf(found.is_some());
    Ok(())
}

/// ARPL, outside 64-bit mode.
pub(crate) fn arpl(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.protected() {
        return Err(cpu.ud());
    }
    let rpl = cpu.get::<u16>(op.src) & 3;
    let at = cpu.ea(op);
    let old = if op.aux != 0 {
        cpu.load::<u16>(at)?
    } else {
        cpu.get::<u16>(op.dst)
    };
    let raise = old & 3 < rpl;
    if raise {
        let new = old & !3 | rpl;
        if op.aux != 0 {
            cpu.store(at, new)?;
        } else {
            cpu.set(op.dst, new);
        }
    }
    cpu.flags.set_zf(raise);
    Ok(())
}
