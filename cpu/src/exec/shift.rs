//! Shifts and rotates (SDM vol. 2, SAL and RCL). OF for counts other than one is undefined by the
//! manual; it is what processors compute.

use crate::cpu::Cpu;
use crate::mem::Plain;
use crate::op::{Op, Stop, reg};
use crate::width::Width;

type Done = Result<(), Stop>;

/// A shift or rotate; the count is masked to 5 or 6 bits and not zero.
pub(crate) trait Shift {
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W;
}

fn top<W: Width>(v: u64) -> bool {
    v >> (W::BITS - 1) & 1 != 0
}

pub(crate) struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let v = u128::from(a.zx()) << count;
        let r = W::cut(v as u64);
        let cf = v >> W::BITS & 1 != 0;
        cpu.flags.shift(r, cf, cf ^ top::<W>(r.zx()));
        r
    }
}

pub(crate) struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let v = a.zx();
        let r = W::cut(v.checked_shr(count).unwrap_or(0));
        let cf = v.checked_shr(count - 1).unwrap_or(0) & 1 != 0;
        // The two top bits of the result differ only if the sign bit went out last.
        let of = top::<W>(r.zx() ^ r.zx() << 1);
        cpu.flags.shift(r, cf, of);
        r
    }
}

pub(crate) struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let v = a.sx() as i64;
        let r = W::cut((v >> count.min(63)) as u64);
        let cf = v >> (count - 1).min(63) & 1 != 0;
        cpu.flags.shift(r, cf, false);
        r
    }
}

pub(crate) struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let n = count % W::BITS;
        let v = a.zx();
        let r = if n == 0 {
            v
        } else {
            v << n | v >> (W::BITS - n)
        } & W::MASK;
        let cf = r & 1 != 0;
        cpu.flags.set_carry_overflow(cf, cf ^ top::<W>(r));
        W::cut(r)
    }
}

pub(crate) struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let n = count % W::BITS;
        let v = a.zx();
        let r = if n == 0 {
            v
        } else {
            v >> n | v << (W::BITS - n)
        } & W::MASK;
        cpu.flags
            .set_carry_overflow(top::<W>(r), top::<W>(r ^ r << 1));
        W::cut(r)
    }
}

pub(crate) struct Rcl;
impl Shift for Rcl {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let n = count % (W::BITS + 1);
        if n == 0 {
            return a;
        }
        let wide = u128::from(a.zx()) | u128::from(cpu.flags.cf()) << W::BITS;
        let r = wide << n | wide >> (W::BITS + 1 - n);
        let cf = r >> W::BITS & 1 != 0;
        let r = W::cut(r as u64);
        cpu.flags.set_carry_overflow(cf, cf ^ top::<W>(r.zx()));
        r
    }
}

pub(crate) struct Rcr;
impl Shift for Rcr {
    #[inline(always)]
    fn apply<W: Width>(cpu: &mut Cpu, a: W, count: u32) -> W {
        let n = count % (W::BITS + 1);
        if n == 0 {
            return a;
        }
        let wide = u128::from(a.zx()) | u128::from(cpu.flags.cf()) << W::BITS;
        let r = wide >> n | wide << (W::BITS + 1 - n);
        let cf = r >> W::BITS & 1 != 0;
        let r = W::cut(r as u64);
        cpu.flags
            .set_carry_overflow(cf, top::<W>(r.zx() ^ r.zx() << 1));
        r
    }
}

#[inline(always)]
fn masked<W: Width>(count: u64) -> u32 {
    count as u32 & if W::BITS == 64 { 63 } else { 31 }
}

#[inline(always)]
fn register<O: Shift, W: Width>(cpu: &mut Cpu, op: &Op, count: u64) -> Done {
    let a = cpu.get::<W>(op.dst);
    let count = masked::<W>(count);
    let r = if count == 0 {
        a
    } else {
        O::apply(cpu, a, count)
    };
    cpu.set(op.dst, r);
    Ok(())
}

#[inline(always)]
fn memory<O: Shift, W: Width + Plain>(cpu: &mut Cpu, op: &Op, count: u64) -> Done {
    let at = cpu.ea(op);
    let a = cpu.load_for_store::<W>(at)?;
    let count = masked::<W>(count);
    let flags = cpu.flags;
    let r = if count == 0 {
        a
    } else {
        O::apply(cpu, a, count)
    };
    let stored = cpu.store(at, r);
    if stored.is_err() {
        cpu.flags = flags;
    }
    stored
}

/// Register by immediate.
pub(crate) fn ri<O: Shift, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    register::<O, W>(cpu, op, op.imm)
}
/// Register by CL.
pub(crate) fn rc<O: Shift, W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let count = cpu.regs[reg::RCX];
    register::<O, W>(cpu, op, count)
}
/// Memory by immediate.
pub(crate) fn mi<O: Shift, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    memory::<O, W>(cpu, op, op.imm)
}
/// Memory by CL.
pub(crate) fn mc<O: Shift, W: Width + Plain>(cpu: &mut Cpu, op: &Op) -> Done {
    let count = cpu.regs[reg::RCX];
    memory::<O, W>(cpu, op, count)
}

/// SHLD (`LEFT`) and SHRD: `aux` is set if the count is in CL.
#[inline(always)]
fn double<W: Width, const LEFT: bool>(cpu: &mut Cpu, a: W, b: W, count: u64) -> W {
    let n = masked::<W>(count);
    if n == 0 {
        return a;
    }
    let bits = W::BITS;
    // With 16-bit operands and counts above 16 the second operand's bits are followed by the
    // first's again, on processors.
    let (hi, lo) = if LEFT {
        (a.zx(), b.zx())
    } else {
        (b.zx(), a.zx())
    };
    let wide = u128::from(hi) << bits | u128::from(lo);
    let (r, cf) = if LEFT {
        let wide = if bits == 16 {
            wide << 16 | u128::from(hi)
        } else {
            wide
        };
        let width = if bits == 16 { 48 } else { 2 * bits };
        (wide << n >> (width - bits), wide >> (width - n) & 1 != 0)
    } else {
        let wide = if bits == 16 {
            u128::from(lo) << 32 | wide
        } else {
            wide
        };
        (wide >> n, wide >> (n - 1) & 1 != 0)
    };
    let r = W::cut(r as u64);
    let of = if LEFT {
        cf ^ top::<W>(r.zx())
    } else {
        top::<W>(r.zx() ^ r.zx() << 1)
    };
    cpu.flags.shift(r, cf, of);
    r
}

#[inline(always)]
fn double_count(cpu: &Cpu, op: &Op) -> u64 {
    if op.aux != 0 {
        cpu.regs[reg::RCX]
    } else {
        op.imm
    }
}

pub(crate) fn double_r<W: Width, const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b) = (cpu.get::<W>(op.dst), cpu.get::<W>(op.src));
    let count = double_count(cpu, op);
    let r = double::<W, LEFT>(cpu, a, b, count);
    cpu.set(op.dst, r);
    Ok(())
}

pub(crate) fn double_m<W: Width + Plain, const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let at = cpu.ea(op);
    let a = cpu.load_for_store::<W>(at)?;
    let b = cpu.get::<W>(op.src);
    let count = double_count(cpu, op);
    let flags = cpu.flags;
    let r = double::<W, LEFT>(cpu, a, b, count);
    let stored = cpu.store(at, r);
    if stored.is_err() {
        cpu.flags = flags;
    }
    stored
}
