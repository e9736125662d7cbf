//! Decimal adjustment, which 32-bit programs may still use (SDM vol. 2, AAA to DAS).

use crate::cpu::Cpu;
use crate::flags::{Flags, bit};
use crate::op::{Op, Stop, reg};

type Done = Result<(), Stop>;

fn set_flags(cpu: &mut Cpu, al: u8, cf: bool, af: bool) {
    cpu.flags.logic(al);
    let bits = cpu.flags.bits() | if cf { bit::CF } else { 0 } | if af { bit::AF } else { 0 };
    cpu.flags = Flags::from_bits(bits);
}

/// DAA, and DAS with `imm` set.
pub(crate) fn decimal_adjust(cpu: &mut Cpu, op: &Op) -> Done {
    let subtract = op.imm != 0;
    let (old, old_cf, old_af) = (cpu.get::<u8>(0), cpu.flags.cf(), cpu.flags.af());
    let mut al = old;
    let low = old & 0xf > 9 || old_af;
    let high = old > 0x99 || old_cf;
    let mut cf = false;
    if low {
        let (adjusted, carry) = if subtract {
            al.overflowing_sub(6)
        } else {
            al.overflowing_add(6)
        };
        al = adjusted;
        cf = old_cf || carry;
    }
    if high {
        al = if subtract {
            al.wrapping_sub(0x60)
        } else {
            al.wrapping_add(0x60)
        };
        cf = true;
    } else if !subtract {
        cf = false;
    }
    cpu.set(0, al);
    set_flags(cpu, al, cf, low);
    Ok(())
}

/// AAA, and AAS with `imm` set.
pub(crate) fn ascii_adjust(cpu: &mut Cpu, op: &Op) -> Done {
    let ax = cpu.get::<u16>(0);
    let adjust = ax & 0xf > 9 || cpu.flags.af();
    let ax = match (adjust, op.imm != 0) {
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(6).wrapping_sub(0x100),
        _ => ax,
    } & 0xff0f;
    cpu.set(0, ax);
    set_flags(cpu, ax as u8, adjust, adjust);
    Ok(())
}

/// AAM: the base is in `imm`.
pub(crate) fn aam(cpu: &mut Cpu, op: &Op) -> Done {
    let base = op.imm as u8;
    if base == 0 {
        return Err(cpu.de());
    }
    let al = cpu.get::<u8>(0);
    cpu.set(reg::HIGH, al / base);
    cpu.set(0, al % base);
    set_flags(cpu, al % base, false, false);
    Ok(())
}

/// AAD: the base is in `imm`.
pub(crate) fn aad(cpu: &mut Cpu, op: &Op) -> Done {
    let al = cpu
        .get::<u8>(0)
        .wrapping_add(cpu.get::<u8>(reg::HIGH).wrapping_mul(op.imm as u8));
    cpu.set(0, u16::from(al));
    set_flags(cpu, al, false, false);
    Ok(())
}
