//! Control and debug registers, TLB invalidation, caches.

use crate::cpu::{Cpu, cr, seg};
use crate::op::{Op, Stop, reg};

type Done = Result<(), Stop>;

pub(crate) fn privileged(cpu: &mut Cpu) -> Done {
    if cpu.cpl != 0 { Err(cpu.gp(0)) } else { Ok(()) }
}

/// MOV from CRn; n in `imm`.
pub(crate) fn read_cr(cpu: &mut Cpu, op: &Op) -> Done {
    privileged(cpu)?;
    let v = match op.imm {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        8 => u64::from(cpu.apic.tpr() >> 4),
        _ => return Err(cpu.ud()),
    };
    cpu.regs[usize::from(op.dst & 15)] = if cpu.bits == 64 { v } else { v & 0xffff_ffff };
    Ok(())
}

/// MOV to CRn.
pub(crate) fn write_cr(cpu: &mut Cpu, op: &Op) -> Done {
    privileged(cpu)?;
    let v = cpu.r(op.src)
        & if cpu.bits == 64 {
            u64::MAX
        } else {
            0xffff_ffff
        };
    match op.imm {
        0 => write_cr0(cpu, v),
        2 => {
            cpu.cr2 = v;
            Ok(())
        }
        3 => {
            if v >> 40 != 0 && cpu.long_mode() {
                return Err(cpu.gp(0));
            }
            cpu.cr3 = v;
            cpu.flush_tlb_local();
            Ok(())
        }
        4 => write_cr4(cpu, v),
        8 => {
            if v > 15 {
                return Err(cpu.gp(0));
            }
            cpu.apic.set_tpr((v as u32) << 4);
            cpu.attention();
            Ok(())
        }
        _ => Err(cpu.ud()),
    }
}

/// Loads CR0, entering or leaving IA-32e mode as EFER.LME asks (SDM vol. 3, 9.8.5).
pub(crate) fn write_cr0(cpu: &mut Cpu, value: u64) -> Done {
    const KNOWN: u64 = cr::CR0_PE
        | cr::CR0_MP
        | cr::CR0_EM
        | cr::CR0_TS
        | cr::CR0_ET
        | cr::CR0_NE
        | cr::CR0_WP
        | cr::CR0_AM
        | cr::CR0_NW
        | cr::CR0_CD
        | cr::CR0_PG;
    let bad_pair = |set: u64, needs: u64| value & set != 0 && value & needs == 0;
    if value >> 32 != 0 || bad_pair(cr::CR0_PG, cr::CR0_PE) || bad_pair(cr::CR0_NW, cr::CR0_CD) {
        return Err(cpu.gp(0));
    }
    let value = value & KNOWN | cr::CR0_ET;
    let turned_on = value & !cpu.cr0;
    let turned_off = cpu.cr0 & !value;
    if turned_on & cr::CR0_PG != 0 && cpu.efer & cr::EFER_LME != 0 {
        if cpu.cr4 & cr::CR4_PAE == 0 || cpu.seg[seg::CS].long() {
            return Err(cpu.gp(0));
        }
        cpu.efer |= cr::EFER_LMA;
    }
    if turned_off & cr::CR0_PG != 0 {
        if cpu.bits == 64 {
            return Err(cpu.gp(0));
        }
        cpu.efer &= !cr::EFER_LMA;
    }
    cpu.cr0 = value;
    if (turned_on | turned_off) & (cr::CR0_PG | cr::CR0_WP | cr::CR0_PE) != 0 {
        cpu.flush_tlb_all();
    }
    cpu.mode_changed();
    Ok(())
}

fn write_cr4(cpu: &mut Cpu, value: u64) -> Done {
    let leaves_pae = cpu.long_mode() && value & cr::CR4_PAE == 0;
    if value & !cr::CR4_KNOWN != 0 || leaves_pae {
        return Err(cpu.gp(0));
    }
    const TLB: u64 = cr::CR4_PGE | cr::CR4_PAE | cr::CR4_PSE | cr::CR4_SMEP | cr::CR4_SMAP;
    let flush = (value ^ cpu.cr4) & TLB != 0;
    cpu.cr4 = value;
    if flush {
        cpu.flush_tlb_all();
    }
    cpu.mode_changed();
    Ok(())
}

/// LMSW: the low four bits of CR0, PE only on. Operand in memory if `aux`.
pub(crate) fn lmsw(cpu: &mut Cpu, op: &Op) -> Done {
    privileged(cpu)?;
    let v = if op.aux != 0 {
        cpu.load::<u16>(cpu.ea(op))?
    } else {
        cpu.get::<u16>(op.src)
    };
    let v = u64::from(v) & 0xf;
    let cr0 = cpu.cr0 & !0xe | v;
    write_cr0(cpu, cr0)
}

/// SMSW; operand size in `aux`, 0 for memory.
pub(crate) fn smsw(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.cr0;
    match op.aux {
        0 => return cpu.store(cpu.ea(op), v as u16),
        2 => cpu.set(op.dst, v as u16),
        4 => cpu.set(op.dst, v as u32),
        _ => cpu.set(op.dst, v),
    }
    Ok(())
}

pub(crate) fn clts(cpu: &mut Cpu, _: &Op) -> Done {
    privileged(cpu)?;
    cpu.cr0 &= !cr::CR0_TS;
    Ok(())
}

/// Index into the stored debug registers: DR4 and DR5 stand for DR6 and DR7 unless CR4.DE.
fn debug_index(cpu: &mut Cpu, n: u64) -> Result<usize, Stop> {
    privileged(cpu)?;
    match n {
        0..=3 => Ok(n as usize),
        4 | 5 if cpu.cr4 & cr::CR4_DE == 0 => Ok(n as usize),
        6 | 7 => Ok(n as usize - 2),
        _ => Err(cpu.ud()),
    }
}

pub(crate) fn read_dr(cpu: &mut Cpu, op: &Op) -> Done {
    let i = debug_index(cpu, op.imm)?;
    cpu.regs[usize::from(op.dst & 15)] = cpu.dr[i];
    Ok(())
}

pub(crate) fn write_dr(cpu: &mut Cpu, op: &Op) -> Done {
    let i = debug_index(cpu, op.imm)?;
    let v = cpu.r(op.src);
    cpu.dr[i] = match i {
        4 if v >> 32 == 0 => v & 0xe00f | 0xffff_0ff0,
        5 if v >> 32 == 0 => v & 0xffff_2fff | 0x400,
        4 | 5 => return Err(cpu.gp(0)),
        _ => v,
    };
    Ok(())
}

pub(crate) fn invlpg(cpu: &mut Cpu, op: &Op) -> Done {
    privileged(cpu)?;
    let at = cpu.ea(op);
    cpu.flush_tlb_page(at);
    Ok(())
}

/// WBINVD and INVD: there is no cache to write back.
pub(crate) fn cache_control(cpu: &mut Cpu, _: &Op) -> Done {
    privileged(cpu)
}

/// CLFLUSH: like a load of one byte, as far as faults go.
pub(crate) fn clflush(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.load::<u8>(cpu.ea(op)).map(|_| ())
}

pub(crate) fn rdmsr(cpu: &mut Cpu, _: &Op) -> Done {
    privileged(cpu)?;
    let index = cpu.regs[reg::RCX] as u32;
    let Some(v) = cpu.read_msr(index) else {
        *cpu.shared
            .unknown
            .entry(format!("RDMSR {index:#x}"))
            .or_insert(0) += 1;
        return Err(cpu.gp(0));
    };
    cpu.regs[reg::RAX] = v & 0xffff_ffff;
    cpu.regs[reg::RDX] = v >> 32;
    Ok(())
}

pub(crate) fn wrmsr(cpu: &mut Cpu, _: &Op) -> Done {
    privileged(cpu)?;
    let index = cpu.regs[reg::RCX] as u32;
    let v = cpu.regs[reg::RAX] & 0xffff_ffff | cpu.regs[reg::RDX] << 32;
    if !cpu.write_msr(index, v) {
        *cpu.shared
            .unknown
            .entry(format!("WRMSR {index:#x}"))
            .or_insert(0) += 1;
        return Err(cpu.gp(0));
    }
    Ok(())
}

/// XGETBV.
pub(crate) fn xgetbv(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(cpu.ud());
    }
    if cpu.regs[reg::RCX] as u32 != 0 {
        return Err(cpu.gp(0));
    }
    cpu.regs[reg::RAX] = cpu.xcr0;
    cpu.regs[reg::RDX] = 0;
    Ok(())
}

/// XSETBV: x87 always, SSE if wished, nothing else.
pub(crate) fn xsetbv(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(cpu.ud());
    }
    privileged(cpu)?;
    let v = cpu.regs[reg::RAX] & 0xffff_ffff | cpu.regs[reg::RDX] << 32;
    if cpu.regs[reg::RCX] as u32 != 0 || v & 1 == 0 || v & !3 != 0 {
        return Err(cpu.gp(0));
    }
    cpu.xcr0 = v;
    Ok(())
}
