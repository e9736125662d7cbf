//! Instructions on single flags.

use crate::cpu::Cpu;
use crate::flags::{Flags, bit};
use crate::op::{Op, Stop, reg};

type Done = Result<(), Stop>;

pub(crate) fn clc(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.flags.set_cf(false);
    Ok(())
}

pub(crate) fn stc(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.flags.set_cf(true);
    Ok(())
}

pub(crate) fn cmc(cpu: &mut Cpu, _: &Op) -> Done {
    let cf = cpu.flags.cf();
    cpu.flags.set_cf(!cf);
    Ok(())
}

pub(crate) fn cld(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.eflags &= !bit::DF;
    Ok(())
}

pub(crate) fn std(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.eflags |= bit::DF;
    Ok(())
}

pub(crate) fn cli(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cpl > cpu.iopl() {
        return Err(cpu.gp(0));
    }
    cpu.eflags &= !bit::IF;
    Ok(())
}

/// STI: if it enables interrupts they wait for one more instruction.
pub(crate) fn sti(cpu: &mut Cpu, _: &Op) -> Done {
    if cpu.cpl > cpu.iopl() {
        return Err(cpu.gp(0));
    }
    if cpu.eflags & bit::IF == 0 {
        cpu.eflags |= bit::IF;
        cpu.shadow = true;
        cpu.attention();
    }
    Ok(())
}

const LOW: u64 = bit::CF | bit::PF | bit::AF | bit::ZF | bit::SF;

pub(crate) fn lahf(cpu: &mut Cpu, _: &Op) -> Done {
    let flags = cpu.flags.bits() & LOW | bit::FIXED;
    cpu.set(reg::HIGH, flags as u8);
    Ok(())
}

pub(crate) fn sahf(cpu: &mut Cpu, _: &Op) -> Done {
    let ah = u64::from(cpu.get::<u8>(reg::HIGH));
    cpu.flags = Flags::from_bits(cpu.flags.bits() & bit::OF | ah & LOW);
    Ok(())
}

/// STAC and CLAC (`imm` 1 and 0).
pub(crate) fn set_ac(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.cpl != 0 {
        return Err(cpu.ud());
    }
    cpu.set_eflag(bit::AC, op.imm != 0);
    Ok(())
}

/// SALC, undocumented until recently: AL becomes all CF.
pub(crate) fn salc(cpu: &mut Cpu, _: &Op) -> Done {
    let v = if cpu.flags.cf() { 0xffu8 } else { 0 };
    cpu.set(0, v);
    Ok(())
}
