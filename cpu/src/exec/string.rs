//! String instructions, with and without REP.
//!
//! A repeated instruction may be interrupted after any element; it then has RIP on itself and
//! RSI, RDI and RCX where it stopped. Runs within one page are copied or filled in one go.

use crate::cpu::Cpu;
use crate::exec::alu::{Binary, Cmp};
use crate::flags::bit;
use crate::mem::Plain;
use crate::op::{Op, Stop, reg};
use crate::run::StopReason;
use crate::width::Width;

type Done = Result<(), Stop>;

/// Kinds of repetition, in `dst`.
pub(crate) const REP_NONE: u8 = 0;
pub(crate) const REP: u8 = 1;
pub(crate) const REPNE: u8 = 2;

/// Elements after which interrupts get a chance.
const BURST: u64 = 4096;

/// Address mask by address size in `aux` (2, 4 or 8).
fn address_mask(op: &Op) -> u64 {
    match op.aux {
        8 => u64::MAX,
        4 => 0xffff_ffff,
        _ => 0xffff,
    }
}

fn source(cpu: &Cpu, op: &Op) -> u64 {
    linear(
        cpu,
        (cpu.regs[reg::RSI] & address_mask(op)).wrapping_add(cpu.r(op.seg)),
    )
}

fn destination(cpu: &Cpu, op: &Op) -> u64 {
    let base = if cpu.bits == 64 {
        0
    } else {
        cpu.regs[reg::ES_BASE]
    };
    linear(
        cpu,
        (cpu.regs[reg::RDI] & address_mask(op)).wrapping_add(base),
    )
}

fn linear(cpu: &Cpu, address: u64) -> u64 {
    if cpu.bits == 64 {
        address
    } else {
        address & 0xffff_ffff
    }
}

/// Adds to a register within the address size.
fn advance(cpu: &mut Cpu, op: &Op, register: usize, by: u64) {
    let r = &mut cpu.regs[register];
    let v = r.wrapping_add(by);
    *r = match op.aux {
        8 => v,
        4 => v & 0xffff_ffff,
        _ => *r & !0xffff | v & 0xffff,
    };
}

fn step_of<W: Width>(cpu: &Cpu) -> u64 {
    if cpu.eflags & bit::DF != 0 {
        W::BYTES.wrapping_neg()
    } else {
        W::BYTES
    }
}

/// Runs `one` once, or as often as the prefix says. `bulk` may do several elements at once and
/// answers how many; zero means "one at a time, please".
#[inline(always)]
fn repeat(
    cpu: &mut Cpu,
    op: &Op,
    mut bulk: impl FnMut(&mut Cpu, u64) -> u64,
    mut one: impl FnMut(&mut Cpu) -> Done,
    until: impl Fn(&Cpu) -> bool,
) -> Done {
    if op.dst == REP_NONE {
        return one(cpu);
    }
    let mask = address_mask(op);
    let mut budget = BURST;
    loop {
        let count = cpu.regs[reg::RCX] & mask;
        if count == 0 {
            return Ok(());
        }
        let mut done = bulk(cpu, count);
        if done == 0 {
            // On a fault the registers already stand at the element that faulted.
            one(cpu)?;
            done = 1;
        }
        advance(cpu, op, reg::RCX, done.wrapping_neg());
        if until(cpu) {
            return Ok(());
        }
        if cpu.stepping && done == 1 && !cpu.replay.is_empty() {
            // One element with device accesses at a time, so that no answer is needed twice.
            budget = 0;
        }
        budget = budget.saturating_sub(done);
        if budget == 0 && cpu.regs[reg::RCX] & mask != 0 {
            cpu.rip = cpu.this_rip(op);
            cpu.ticks += u64::from(op.nth) + BURST / 8;
            cpu.stop = StopReason::Next;
            return Err(Stop);
        }
    }
}

pub(crate) fn movs<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    repeat(
        cpu,
        op,
        |cpu, count| bulk_copy::<W>(cpu, op, count),
        |cpu| {
            let v = cpu.load::<W>(source(cpu, op))?;
            cpu.store(destination(cpu, op), v)?;
            let step = step_of::<W>(cpu);
            advance(cpu, op, reg::RSI, step);
            advance(cpu, op, reg::RDI, step);
            Ok(())
        },
        |_| false,
    )
}

/// Copies elements up to the end of either page; none if that is not plain.
fn bulk_copy<W: Width>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
    if count < 4 || cpu.eflags & bit::DF != 0 || op.aux == 2 {
        return 0;
    }
    let want = usize::try_from(count.min(4096) * W::BYTES)
        .unwrap_or(4096)
        .min(4096);
    let Some((from, n)) = cpu.span(source(cpu, op), want, false) else {
        return 0;
    };
    let Some((to, n)) = cpu.span(destination(cpu, op), n, true) else {
        return 0;
    };
    let n = n - n % W::BYTES as usize;
    let distance = (to as usize).wrapping_sub(from as usize);
    if n == 0 || distance < n && distance != 0 {
        // A destination shortly after its source repeats a pattern; that is done by the element.
        return 0;
    }
    // SAFETY: `span` answered valid RAM for `n` bytes at both, and `copy` allows overlap.
    unsafe { from.copy_to(to, n) };
    advance(cpu, op, reg::RSI, n as u64);
    advance(cpu, op, reg::RDI, n as u64);
    n as u64 / W::BYTES
}

pub(crate) fn stos<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    repeat(
        cpu,
        op,
        |cpu, count| bulk_fill::<W>(cpu, op, count),
        |cpu| {
            let v = cpu.get::<W>(0);
            cpu.store(destination(cpu, op), v)?;
            let step = step_of::<W>(cpu);
            advance(cpu, op, reg::RDI, step);
            Ok(())
        },
        |_| false,
    )
}

/// Fills elements up to the end of the page.
fn bulk_fill<W: Width + Plain>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
    if count < 4 || cpu.eflags & bit::DF != 0 || op.aux == 2 {
        return 0;
    }
    let want = usize::try_from(count.min(4096) * W::BYTES)
        .unwrap_or(4096)
        .min(4096);
    let Some((to, n)) = cpu.span(destination(cpu, op), want, true) else {
        return 0;
    };
    let elements = n / W::BYTES as usize;
    let v = cpu.get::<W>(0);
    let pattern = v.zx();
    if pattern == 0 || W::BITS == 8 {
        // SAFETY: `span` answered `n` valid bytes of RAM.
        unsafe { to.write_bytes(pattern as u8, elements * W::BYTES as usize) };
    } else {
        for i in 0..elements {
            // SAFETY: as above; `elements` whole elements fit into `n` bytes.
            unsafe { to.cast::<W>().add(i).write_unaligned(v) };
        }
    }
    advance(cpu, op, reg::RDI, elements as u64 * W::BYTES);
    elements as u64
}

pub(crate) fn lods<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    repeat(
        cpu,
        op,
        |_, _| 0,
        |cpu| {
            let v = cpu.load::<W>(source(cpu, op))?;
            cpu.set(0, v);
            let step = step_of::<W>(cpu);
            advance(cpu, op, reg::RSI, step);
            Ok(())
        },
        |_| false,
    )
}

/// REPE goes on while equal, REPNE while not.
fn ended(cpu: &Cpu, op: &Op) -> bool {
    cpu.flags.zf() == (op.dst == REPNE)
}

/// A fault, or a break for interrupts, leaves the flags as they were before the instruction,
/// whatever elements before it compared like (SDM vol. 2, REP).
#[inline(always)]
fn comparing(cpu: &mut Cpu, f: impl FnOnce(&mut Cpu) -> Done) -> Done {
    let flags = cpu.flags;
    let done = f(cpu);
    if done.is_err() {
        cpu.flags = flags;
    }
    done
}

pub(crate) fn scas<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let scan = |cpu: &mut Cpu| {
        repeat(
            cpu,
            op,
            |_, _| 0,
            |cpu| {
                let v = cpu.load::<W>(destination(cpu, op))?;
                let a = cpu.get::<W>(0);
                Cmp::apply(cpu, a, v);
                let step = step_of::<W>(cpu);
                advance(cpu, op, reg::RDI, step);
                Ok(())
            },
            |cpu| ended(cpu, op),
        )
    };
    comparing(cpu, scan)
}

pub(crate) fn cmps<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let compare = |cpu: &mut Cpu| {
        repeat(
            cpu,
            op,
            |_, _| 0,
            |cpu| {
                let a = cpu.load::<W>(source(cpu, op))?;
                let b = cpu.load::<W>(destination(cpu, op))?;
                Cmp::apply(cpu, a, b);
                let step = step_of::<W>(cpu);
                advance(cpu, op, reg::RSI, step);
                advance(cpu, op, reg::RDI, step);
                Ok(())
            },
            |cpu| ended(cpu, op),
        )
    };
    comparing(cpu, compare)
}

/// INS: from the port in DX to memory.
pub(crate) fn ins<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    super::io::check_port(cpu, cpu.regs[reg::RDX] as u16, W::BYTES)?;
    repeat(
        cpu,
        op,
        |_, _| 0,
        |cpu| {
            let at = destination(cpu, op);
            cpu.probe_write(at, W::BYTES)?;
            let v = super::io::port_read(cpu, cpu.regs[reg::RDX] as u16, W::BYTES)?;
            cpu.store(at, W::cut(v))?;
            let step = step_of::<W>(cpu);
            advance(cpu, op, reg::RDI, step);
            Ok(())
        },
        |_| false,
    )
}

/// OUTS: from memory to the port in DX.
pub(crate) fn outs<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    super::io::check_port(cpu, cpu.regs[reg::RDX] as u16, W::BYTES)?;
    repeat(
        cpu,
        op,
        |_, _| 0,
        |cpu| {
            let v = cpu.load::<W>(source(cpu, op))?;
            super::io::port_write(cpu, cpu.regs[reg::RDX] as u16, W::BYTES, v.zx())?;
            let step = step_of::<W>(cpu);
            advance(cpu, op, reg::RSI, step);
            Ok(())
        },
        |_| false,
    )
}
