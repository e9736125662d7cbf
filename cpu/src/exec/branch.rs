//! Jumps, calls and returns. Each ends a block and sets RIP.

use crate::complex::Exit;
use crate::cpu::Cpu;
use crate::deliver::Source;
use crate::flags::Condition;
use crate::mem::canonical;
use crate::op::{Op, Stop, reg};
use crate::run::StopReason;

type Done = Result<(), Stop>;

/// The target of a direct branch, page-relative in `imm`.
#[inline(always)]
fn target(cpu: &Cpu, op: &Op) -> u64 {
    cpu.regs[reg::PAGE].wrapping_add(op.imm) & cpu.rip_mask
}

/// The same with an operand size of 16 bits, which cuts the target to IP.
fn word_target(cpu: &Cpu, op: &Op) -> u64 {
    target(cpu, op) & 0xffff
}

pub(crate) fn jmp_word(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.rip = word_target(cpu, op);
    Ok(())
}

pub(crate) fn jcc_word<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.rip = if C::holds(&cpu.flags) {
        word_target(cpu, op)
    } else {
        cpu.next_rip(op)
    };
    Ok(())
}

pub(crate) fn jmp(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.rip = target(cpu, op);
    Ok(())
}

pub(crate) fn jcc<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.rip = if C::holds(&cpu.flags) {
        target(cpu, op)
    } else {
        cpu.next_rip(op)
    };
    Ok(())
}

/// Sets RIP to a computed target: `aux` is the operand size in bytes.
fn go(cpu: &mut Cpu, op: &Op, to: u64) -> Done {
    if op.aux == 8 && !canonical(to) {
        return Err(cpu.gp(0));
    }
    cpu.rip = match op.aux {
        8 => to,
        4 => to & 0xffff_ffff,
        _ => to & 0xffff,
    };
    Ok(())
}

fn memory_target(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
    let at = cpu.ea(op);
    Ok(match op.aux {
        8 => cpu.load::<u64>(at)?,
        4 => u64::from(cpu.load::<u32>(at)?),
        _ => u64::from(cpu.load::<u16>(at)?),
    })
}

pub(crate) fn jmp_r(cpu: &mut Cpu, op: &Op) -> Done {
    let to = cpu.r(op.src);
    go(cpu, op, to)
}

pub(crate) fn jmp_m(cpu: &mut Cpu, op: &Op) -> Done {
    let to = memory_target(cpu, op)?;
    go(cpu, op, to)
}

/// CALL in 64-bit mode.
pub(crate) fn call64(cpu: &mut Cpu, op: &Op) -> Done {
    let rsp = cpu.regs[reg::RSP].wrapping_sub(8);
    let next = cpu.next_rip(op);
    cpu.store(rsp, next)?;
    cpu.regs[reg::RSP] = rsp;
    cpu.rip = target(cpu, op);
    Ok(())
}

pub(crate) fn call(cpu: &mut Cpu, op: &Op) -> Done {
    let next = cpu.next_rip(op);
    cpu.push_sized(next, u64::from(op.aux))?;
    cpu.rip = match op.aux {
        2 => word_target(cpu, op),
        _ => target(cpu, op),
    };
    Ok(())
}

fn call_to(cpu: &mut Cpu, op: &Op, to: u64) -> Done {
    if op.aux == 8 && !canonical(to) {
        // Processors look at the stack first.
        let top = cpu.regs[reg::RSP].wrapping_sub(8);
        cpu.probe_write(top, 8)?;
        return Err(cpu.gp(0));
    }
    let next = cpu.next_rip(op);
    cpu.push_sized(next, u64::from(op.aux))?;
    go(cpu, op, to)
}

pub(crate) fn call_r(cpu: &mut Cpu, op: &Op) -> Done {
    let to = cpu.r(op.src);
    call_to(cpu, op, to)
}

pub(crate) fn call_m(cpu: &mut Cpu, op: &Op) -> Done {
    let to = memory_target(cpu, op)?;
    call_to(cpu, op, to)
}

/// RET in 64-bit mode, `imm` bytes of arguments released.
pub(crate) fn ret64(cpu: &mut Cpu, op: &Op) -> Done {
    let rsp = cpu.regs[reg::RSP];
    let to = cpu.load::<u64>(rsp)?;
    if !canonical(to) {
        return Err(cpu.gp(0));
    }
    cpu.regs[reg::RSP] = rsp.wrapping_add(8).wrapping_add(op.imm);
    cpu.rip = to;
    Ok(())
}

pub(crate) fn ret(cpu: &mut Cpu, op: &Op) -> Done {
    let to = cpu.stack_word(0, u64::from(op.aux))?;
    go(cpu, op, to)?;
    cpu.set_sp(
        cpu.regs[reg::RSP]
            .wrapping_add(u64::from(op.aux))
            .wrapping_add(op.imm),
    );
    Ok(())
}

/// Far RET, operand size in `aux`.
pub(crate) fn ret_far(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.far_return(u64::from(op.aux), op.imm)
}

/// Far JMP or CALL (`dst` set) to an immediate pointer: selector above the 32-bit offset.
pub(crate) fn far_immediate(cpu: &mut Cpu, op: &Op) -> Done {
    let next = cpu.next_rip(op);
    let push = (op.dst != 0).then_some(u64::from(op.aux));
    cpu.far_transfer((op.imm >> 32) as u16, op.imm & 0xffff_ffff, next, push)
}

/// Far JMP or CALL (`dst` set) through memory.
pub(crate) fn far_memory(cpu: &mut Cpu, op: &Op) -> Done {
    let offset = memory_target(cpu, op)?;
    let selector = cpu.load::<u16>(cpu.ea(op).wrapping_add(u64::from(op.aux)))?;
    let next = cpu.next_rip(op);
    let push = (op.dst != 0).then_some(u64::from(op.aux));
    cpu.far_transfer(selector, offset, next, push)
}

/// LOOP, LOOPE (`dst` 1), LOOPNE (`dst` 2) and JCXZ (`dst` 3); the counter's width in `aux`,
/// `src` set if the operand size is 16 bits.
pub(crate) fn loop_or_jcxz(cpu: &mut Cpu, op: &Op) -> Done {
    let mask = match op.aux {
        8 => u64::MAX,
        4 => 0xffff_ffff,
        _ => 0xffff,
    };
    let mut count = cpu.regs[reg::RCX] & mask;
    let taken = if op.dst == 3 {
        count == 0
    } else {
        count = count.wrapping_sub(1) & mask;
        match op.aux {
            2 => cpu.set(reg::RCX as u8, count as u16),
            _ => cpu.regs[reg::RCX] = count,
        }
        count != 0
            && match op.dst {
                1 => cpu.flags.zf(),
                2 => !cpu.flags.zf(),
                _ => true,
            }
    };
    cpu.rip = match (taken, op.src) {
        (true, 1) => word_target(cpu, op),
        (true, _) => target(cpu, op),
        _ => cpu.next_rip(op),
    };
    Ok(())
}

fn software_interrupt(cpu: &mut Cpu, op: &Op, vector: u8, source: Source) -> Done {
    let this = cpu.this_rip(op);
    cpu.rip = cpu.next_rip(op);
    let delivered = cpu.deliver(vector, None, source, false);
    if delivered.is_err() {
        cpu.rip = this;
    }
    delivered
}

/// INT n.
pub(crate) fn int(cpu: &mut Cpu, op: &Op) -> Done {
    software_interrupt(cpu, op, op.imm as u8, Source::Software)
}

/// INT1.
pub(crate) fn int1(cpu: &mut Cpu, op: &Op) -> Done {
    software_interrupt(cpu, op, crate::exception::vector::DB, Source::Processor)
}

/// INTO.
pub(crate) fn into(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.flags.of() {
        return software_interrupt(cpu, op, crate::exception::vector::OF, Source::Software);
    }
    cpu.rip = cpu.next_rip(op);
    Ok(())
}

/// BOUND: raises #BR if the index is out of the bounds in memory.
pub(crate) fn bound(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    // An index below the lower bound is not compared with the upper one.
    let (below, high, index) = if op.aux == 4 {
        let index = cpu.get::<u32>(op.dst) as i32;
        let below = index < cpu.load::<u32>(at)? as i32;
        (below, at.wrapping_add(4), index)
    } else {
        let index = i32::from(cpu.get::<u16>(op.dst) as i16);
        let below = index < i32::from(cpu.load::<u16>(at)? as i16);
        (below, at.wrapping_add(2), index)
    };
    if below {
        return Err(cpu.br());
    }
    let high = match op.aux {
        4 => cpu.load::<u32>(high)? as i32,
        _ => i32::from(cpu.load::<u16>(high)? as i16),
    };
    if index > high {
        return Err(cpu.br());
    }
    Ok(())
}

/// IRET, operand size in `aux`.
pub(crate) fn iret(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.interrupt_return(u64::from(op.aux))
}

/// HLT.
pub(crate) fn hlt(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.cpl != 0 {
        return Err(cpu.gp(0));
    }
    cpu.rip = cpu.next_rip(op);
    cpu.activity = crate::cpu::Activity::Halted;
    cpu.stop = StopReason::Done(Exit::Idle);
    Err(Stop)
}

/// Ticks that a PAUSE takes: a spinning vCPU lets time, and the others, pass.
const PAUSE_TICKS: u64 = 60;

/// PAUSE.
pub(crate) fn pause(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.ticks += PAUSE_TICKS;
    Ok(())
}
