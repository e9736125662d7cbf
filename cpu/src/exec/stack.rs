//! Stack instructions.

use crate::cpu::Cpu;
use crate::flags::bit;
use crate::mem::Plain;
use crate::op::{Op, Stop, reg};
use crate::width::Width;

type Done = Result<(), Stop>;

pub(crate) fn push64_r(cpu: &mut Cpu, op: &Op) -> Done {
    let rsp = cpu.regs[reg::RSP].wrapping_sub(8);
    let v = cpu.r(op.src);
    cpu.store(rsp, v)?;
    cpu.regs[reg::RSP] = rsp;
    Ok(())
}

pub(crate) fn pop64_r(cpu: &mut Cpu, op: &Op) -> Done {
    let rsp = cpu.regs[reg::RSP];
    let v = cpu.load::<u64>(rsp)?;
    cpu.regs[reg::RSP] = rsp.wrapping_add(8);
    cpu.regs[usize::from(op.dst & 15)] = v;
    Ok(())
}

/// PUSH of a register; operand size in `aux`.
pub(crate) fn push_r(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.r(op.src);
    cpu.push_sized(v, u64::from(op.aux))
}

pub(crate) fn push_i(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.push_sized(op.imm, u64::from(op.aux))
}

pub(crate) fn push_m<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.load::<W>(cpu.ea(op))?;
    cpu.push_sized(v.zx(), W::BYTES)
}

/// PUSH of a segment register, whose number is in `imm`.
pub(crate) fn push_segment(cpu: &mut Cpu, op: &Op) -> Done {
    let v = u64::from(cpu.seg[op.imm as usize % 6].selector);
    cpu.push_sized(v, u64::from(op.aux))
}

pub(crate) fn pop_r<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.stack_word(0, W::BYTES)?;
    cpu.set_sp(cpu.regs[reg::RSP].wrapping_add(W::BYTES));
    cpu.set(op.dst, W::cut(v));
    Ok(())
}

/// POP to memory: an address based on RSP uses its value after the pop.
pub(crate) fn pop_m<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.stack_word(0, W::BYTES)?;
    let rsp = cpu.regs[reg::RSP];
    cpu.set_sp(rsp.wrapping_add(W::BYTES));
    // With an address size below 64 bits the address was worked out before the pop.
    let at = cpu.ea(op).wrapping_add(op.imm);
    let stored = cpu.store(at, W::cut(v));
    if stored.is_err() {
        cpu.regs[reg::RSP] = rsp;
    }
    stored
}

pub(crate) fn pop_segment(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.aux);
    // Processors read the selector alone.
    let v = cpu.stack_word(0, 2)? as u16;
    let which = op.imm as usize % 6;
    let (sp, mask) = (cpu.regs[reg::RSP], cpu.stack_mask);
    cpu.load_segment(which, v)?;
    if which == crate::cpu::seg::SS {
        cpu.shadow = true;
    }
    let now = cpu.stack_mask;
    cpu.stack_mask = mask;
    cpu.set_sp(sp.wrapping_add(size));
    cpu.stack_mask = now;
    Ok(())
}

/// PUSHA and PUSHAD.
pub(crate) fn pusha(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.aux);
    let rsp = cpu.regs[reg::RSP];
    for r in 0..8 {
        let v = if r == reg::RSP { rsp } else { cpu.regs[r] };
        if let Err(stop) = cpu.push_sized(v, size) {
            cpu.regs[reg::RSP] = rsp;
            return Err(stop);
        }
    }
    Ok(())
}

/// POPA and POPAD.
pub(crate) fn popa(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.aux);
    let mut values = [0; 8];
    for (i, v) in values.iter_mut().enumerate() {
        *v = cpu.stack_word(i as u64 * size, size)?;
    }
    cpu.set_sp(cpu.regs[reg::RSP].wrapping_add(8 * size));
    for (i, v) in values.into_iter().enumerate() {
        let r = 7 - i;
        if r != reg::RSP {
            if size == 4 {
                cpu.set(r as u8, v as u32);
            } else {
                cpu.set(r as u8, v as u16);
            }
        }
    }
    Ok(())
}

/// PUSHF: VM and RF read as zero.
pub(crate) fn pushf(cpu: &mut Cpu, op: &Op) -> Done {
    let flags = cpu.rflags() & !(bit::VM | bit::RF);
    cpu.push_sized(flags, u64::from(op.aux))
}

/// POPF: what may change depends on privilege.
pub(crate) fn popf(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.aux);
    let v = cpu.stack_word(0, size)?;
    let mut writable = bit::ARITHMETIC | bit::TF | bit::DF | bit::NT;
    if size > 2 {
        writable |= bit::AC | bit::ID;
    }
    if cpu.cpl == 0 {
        writable |= bit::IOPL;
    }
    if cpu.cpl <= cpu.iopl() {
        writable |= bit::IF;
    }
    let flags = cpu.rflags() & !writable & !bit::RF | v & writable;
    cpu.set_sp(cpu.regs[reg::RSP].wrapping_add(size));
    cpu.set_rflags(flags);
    cpu.attention();
    Ok(())
}

/// ENTER: frame size in `imm`, nesting level in `dst`.
pub(crate) fn enter(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.aux);
    let level = u64::from(op.dst & 31);
    let (rsp, rbp) = (cpu.regs[reg::RSP], cpu.regs[reg::RBP]);
    let result = enter_frames(cpu, size, level, rbp).and_then(|frame| {
        let sp = cpu.regs[reg::RSP].wrapping_sub(op.imm);
        let at = (sp & cpu.stack_mask).wrapping_add(cpu.stack_base());
        cpu.probe_write(at, size)?;
        cpu.set_sp(sp);
        match size {
            8 => cpu.regs[reg::RBP] = frame,
            4 => cpu.set(reg::RBP as u8, frame as u32),
            _ => cpu.set(reg::RBP as u8, frame as u16),
        }
        Ok(())
    });
    if result.is_err() {
        cpu.regs[reg::RSP] = rsp;
    }
    result
}

fn enter_frames(cpu: &mut Cpu, size: u64, level: u64, rbp: u64) -> Result<u64, Stop> {
    cpu.push_sized(rbp, size)?;
    let frame = cpu.regs[reg::RSP];
    for i in 1..level {
        let at = (rbp.wrapping_sub(i * size) & cpu.stack_mask).wrapping_add(cpu.stack_base());
        let v = match size {
            8 => cpu.load::<u64>(at)?,
            4 => u64::from(cpu.load::<u32>(at)?),
            _ => u64::from(cpu.load::<u16>(at)?),
        };
        cpu.push_sized(v, size)?;
    }
    if level > 0 {
        cpu.push_sized(frame, size)?;
    }
    Ok(frame)
}

/// LEAVE.
pub(crate) fn leave(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.aux);
    let rsp = cpu.regs[reg::RSP];
    let rbp = cpu.regs[reg::RBP];
    cpu.set_sp(rbp);
    match cpu.stack_word(0, size) {
        Ok(v) => {
            cpu.set_sp(rbp.wrapping_add(size));
            match size {
                8 => cpu.regs[reg::RBP] = v,
                4 => cpu.set(reg::RBP as u8, v as u32),
                _ => cpu.set(reg::RBP as u8, v as u16),
            }
            Ok(())
        }
        Err(stop) => {
            cpu.regs[reg::RSP] = rsp;
            Err(stop)
        }
    }
}
