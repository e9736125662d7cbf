//! CPUID, time-stamp counter, bases of FS and GS.

use crate::cpu::{Cpu, cr, seg};
use crate::mem::canonical;
use crate::op::{Op, Stop, reg};
use crate::width::Width;

type Done = Result<(), Stop>;

pub(crate) fn cpuid(cpu: &mut Cpu, _: &Op) -> Done {
    let [a, b, c, d] = cpu.cpuid(cpu.regs[reg::RAX] as u32, cpu.regs[reg::RCX] as u32);
    cpu.regs[reg::RAX] = u64::from(a);
    cpu.regs[reg::RBX] = u64::from(b);
    cpu.regs[reg::RCX] = u64::from(c);
    cpu.regs[reg::RDX] = u64::from(d);
    Ok(())
}

/// Ticks that reading the counter takes.
const RDTSC_TICKS: u64 = 20;

/// RDTSC, and RDTSCP with `aux` set.
pub(crate) fn rdtsc(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.cr4 & cr::CR4_TSD != 0 && cpu.cpl != 0 {
        return Err(cpu.gp(0));
    }
    // Ticks are added at the end of a block; the counter counts within it, too.
    cpu.ticks += RDTSC_TICKS;
    let tsc = cpu.tsc().wrapping_add(u64::from(op.nth));
    cpu.regs[reg::RAX] = tsc & 0xffff_ffff;
    cpu.regs[reg::RDX] = tsc >> 32;
    if op.aux != 0 {
        cpu.regs[reg::RCX] = cpu.msr.tsc_aux;
    }
    Ok(())
}

/// RDPMC: there are no counters.
pub(crate) fn rdpmc(cpu: &mut Cpu, _: &Op) -> Done {
    Err(cpu.gp(0))
}

fn fsgsbase(cpu: &mut Cpu) -> Done {
    if cpu.bits != 64 || cpu.cr4 & cr::CR4_FSGSBASE == 0 {
        Err(cpu.ud())
    } else {
        Ok(())
    }
}

/// RDFSBASE and RDGSBASE; the segment's number in `imm`.
pub(crate) fn read_base<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    fsgsbase(cpu)?;
    let base = cpu.regs[reg::ES_BASE + op.imm as usize % 6];
    cpu.set(op.dst, W::cut(base));
    Ok(())
}

/// WRFSBASE and WRGSBASE.
pub(crate) fn write_base<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    fsgsbase(cpu)?;
    let base = cpu.get::<W>(op.src).zx();
    if !canonical(base) {
        return Err(cpu.gp(0));
    }
    cpu.set_segment_base(op.imm as usize % 6, base);
    Ok(())
}

pub(crate) fn swapgs(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.bits != 64 {
        return Err(cpu.ud());
    }
    super::control::privileged(cpu)?;
    let base = cpu.seg[seg::GS].base;
    let kernel = std::mem::replace(&mut cpu.msr.kernel_gs_base, base);
    cpu.set_segment_base(seg::GS, kernel);
    Ok(())
}
