//! Multiplication and division.

use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::{Op, Stop, reg};
use crate::width::Width;

type Done = Result<(), Stop>;

/// The one explicit operand of MUL, IMUL, DIV and IDIV; `aux` is set if it is in memory.
#[inline(always)]
fn operand<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Result<W, Stop> {
    if op.aux != 0 {
        cpu.load::<W>(cpu.ea(op))
    } else {
        Ok(cpu.get::<W>(op.src))
    }
}

/// Stores a product: AX, or DX:AX and its wider kin.
fn set_product<W: Width>(cpu: &mut Cpu, product: u128) {
    if W::BITS == 8 {
        cpu.set(0, product as u16);
    } else {
        cpu.set(0, W::cut(product as u64));
        cpu.set(reg::RDX as u8, W::cut((product >> W::BITS) as u64));
    }
}

/// SF, ZF, PF and AF after a multiplication are undefined; CF and OF say whether the upper half
/// matters, and the rest follows the lower half as on recent processors.
fn product_flags<W: Width>(cpu: &mut Cpu, low: W, overflow: bool) {
    let zf = cpu.flags.zf();
    cpu.flags.shift(low, overflow, overflow);
    let _ = zf;
}

pub(crate) fn mul<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = operand::<W>(cpu, op)?;
    let product = u128::from(cpu.get::<W>(0).zx()) * u128::from(b.zx());
    set_product::<W>(cpu, product);
    product_flags(cpu, W::cut(product as u64), product >> W::BITS != 0);
    Ok(())
}

pub(crate) fn imul<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = operand::<W>(cpu, op)?;
    let product = i128::from(cpu.get::<W>(0).sx() as i64) * i128::from(b.sx() as i64);
    set_product::<W>(cpu, product as u128);
    let low = W::cut(product as u64);
    product_flags(cpu, low, i128::from(low.sx() as i64) != product);
    Ok(())
}

#[inline(always)]
fn product<W: Width>(cpu: &mut Cpu, dst: u8, a: W, b: W) {
    let product = i128::from(a.sx() as i64) * i128::from(b.sx() as i64);
    let low = W::cut(product as u64);
    product_flags(cpu, low, i128::from(low.sx() as i64) != product);
    cpu.set(dst, low);
}

/// IMUL register, register or memory (`aux`).
pub(crate) fn imul_two<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = operand::<W>(cpu, op)?;
    let a = cpu.get::<W>(op.dst);
    product(cpu, op.dst, a, b);
    Ok(())
}

/// IMUL register, register or memory (`aux`), immediate.
pub(crate) fn imul_three<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let a = operand::<W>(cpu, op)?;
    product(cpu, op.dst, a, W::cut(op.imm));
    Ok(())
}

/// The dividend: AX, or DX:AX and its wider kin.
fn dividend<W: Width>(cpu: &Cpu) -> u128 {
    if W::BITS == 8 {
        u128::from(cpu.get::<u16>(0))
    } else {
        u128::from(cpu.get::<W>(reg::RDX as u8).zx()) << W::BITS | u128::from(cpu.get::<W>(0).zx())
    }
}

fn set_quotient<W: Width>(cpu: &mut Cpu, quotient: u64, remainder: u64) {
    cpu.set(0, W::cut(quotient));
    let high = if W::BITS == 8 {
        reg::HIGH
    } else {
        reg::RDX as u8
    };
    cpu.set(high, W::cut(remainder));
}

pub(crate) fn div<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = operand::<W>(cpu, op)?.zx();
    let a = dividend::<W>(cpu);
    if b == 0 || a >> W::BITS >= u128::from(b) {
        return Err(cpu.de());
    }
    // A dividend of 64 bits is by far the usual one, and 128-bit division is slow.
    let (q, r) = match u64::try_from(a) {
        Ok(a) => (a / b, a % b),
        Err(_) => ((a / u128::from(b)) as u64, (a % u128::from(b)) as u64),
    };
    set_quotient::<W>(cpu, q, r);
    Ok(())
}

pub(crate) fn idiv<W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = i128::from(operand::<W>(cpu, op)?.sx() as i64);
    let shift = 128 - 2 * W::BITS;
    let a = (dividend::<W>(cpu) << shift) as i128 >> shift;
    if b == 0 {
        return Err(cpu.de());
    }
    let q = match (i64::try_from(a), b as i64) {
        (Ok(a), b) if b != -1 => i128::from(a / b),
        _ => a.wrapping_div(b),
    };
    let r = a.wrapping_sub(q.wrapping_mul(b));
    if i128::from(W::cut(q as u64).sx() as i64) != q {
        return Err(cpu.de());
    }
    set_quotient::<W>(cpu, q as u64, r as u64);
    Ok(())
}
