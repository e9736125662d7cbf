//! SYSCALL, SYSRET, SYSENTER, SYSEXIT.

use crate::cpu::{Cpu, Segment, cr, seg};
use crate::flags::bit;
use crate::mem::canonical;
use crate::op::{Op, Stop, reg};

type Done = Result<(), Stop>;

/// Flat code segment: present, DPL, code, readable, accessed, 4 KiB granularity, L or D.
fn flat_code(selector: u16, dpl: u8, long: bool) -> Segment {
    let size = if long { 1 << 13 } else { 1 << 14 };
    Segment {
        selector: selector & !3 | u16::from(dpl),
        base: 0,
        limit: u32::MAX,
        access: 0x809b | u16::from(dpl) << 5 | size,
        unusable: false,
    }
}

/// Flat, writable data segment.
fn flat_stack(selector: u16, dpl: u8) -> Segment {
    Segment {
        selector: selector & !3 | u16::from(dpl),
        base: 0,
        limit: u32::MAX,
        access: 0xc093 | u16::from(dpl) << 5,
        unusable: false,
    }
}

fn enter(cpu: &mut Cpu, cs: Segment, ss: Segment) {
    cpu.set_segment(seg::CS, cs);
    cpu.set_segment(seg::SS, ss);
    cpu.mode_changed();
}

pub(crate) fn syscall(cpu: &mut Cpu, op: &Op) -> Done {
    // Intel processors know it in 64-bit mode only.
    if cpu.efer & cr::EFER_SCE == 0 || cpu.bits != 64 {
        return Err(cpu.ud());
    }
    cpu.regs[reg::RCX] = cpu.next_rip(op);
    cpu.regs[reg::R11] = cpu.rflags() & !bit::RF;
    cpu.rip = cpu.msr.lstar;
    let flags = cpu.rflags() & !(cpu.msr.sfmask | bit::RF);
    cpu.set_rflags(flags);
    let selector = (cpu.msr.star >> 32) as u16;
    enter(
        cpu,
        flat_code(selector & !3, 0, true),
        flat_stack((selector & !3).wrapping_add(8), 0),
    );
    Ok(())
}

/// SYSRET; operand size in `aux`.
pub(crate) fn sysret(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.efer & cr::EFER_SCE == 0 || cpu.bits != 64 {
        return Err(cpu.ud());
    }
    super::control::privileged(cpu)?;
    let rcx = cpu.regs[reg::RCX];
    let long = op.aux == 8;
    if long && !canonical(rcx) {
        return Err(cpu.gp(0));
    }
    cpu.rip = if long { rcx } else { rcx & 0xffff_ffff };
    const KEPT: u64 = bit::WRITABLE & !(bit::RF | bit::VM);
    let flags = cpu.regs[reg::R11] & KEPT;
    cpu.set_rflags(flags);
    let selector = (cpu.msr.star >> 48) as u16;
    let cs = selector.wrapping_add(if long { 16 } else { 0 });
    enter(
        cpu,
        flat_code(cs | 3, 3, long),
        flat_stack(selector.wrapping_add(8) | 3, 3),
    );
    cpu.attention();
    Ok(())
}

pub(crate) fn sysenter(cpu: &mut Cpu, _: &Op) -> Done {
    let selector = cpu.msr.sysenter_cs as u16;
    if !cpu.protected() || selector & !3 == 0 {
        return Err(cpu.gp(0));
    }
    cpu.set_eflag(bit::VM | bit::IF | bit::RF, false);
    let long = cpu.long_mode();
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.regs[reg::RSP] = cpu.msr.sysenter_esp & mask;
    cpu.rip = cpu.msr.sysenter_eip & mask;
    enter(
        cpu,
        flat_code(selector & !3, 0, long),
        flat_stack((selector & !3).wrapping_add(8), 0),
    );
    Ok(())
}

/// SYSEXIT; operand size in `aux`.
pub(crate) fn sysexit(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = cpu.msr.sysenter_cs as u16;
    if !cpu.protected() || selector & !3 == 0 || cpu.cpl != 0 {
        return Err(cpu.gp(0));
    }
    let (rip, rsp) = (cpu.regs[reg::RDX], cpu.regs[reg::RCX]);
    let long = op.aux == 8;
    if long && (!canonical(rip) || !canonical(rsp)) {
        return Err(cpu.gp(0));
    }
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.rip = rip & mask;
    cpu.regs[reg::RSP] = rsp & mask;
    let (cs, ss) = if long { (32, 40) } else { (16, 24) };
    enter(
        cpu,
        flat_code(selector.wrapping_add(cs) | 3, 3, long),
        flat_stack(selector.wrapping_add(ss) | 3, 3),
    );
    Ok(())
}
