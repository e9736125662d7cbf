//! Port I/O.

use crate::complex::Exit;
use crate::cpu::Cpu;
use crate::op::{Op, Stop, reg};
use crate::width::Width;

type Done = Result<(), Stop>;

/// Raises #GP unless privilege or the TSS's permission bitmap lets the program use the ports
/// (SDM vol. 1, 19.5).
pub(crate) fn check_port(cpu: &mut Cpu, port: u16, len: u64) -> Done {
    if !cpu.protected() || cpu.cpl <= cpu.iopl() {
        return Ok(());
    }
    let limit = u64::from(cpu.tr.limit);
    if limit < 0x67 {
        return Err(cpu.gp(0));
    }
    let map = u64::from(cpu.system_read::<u16>(cpu.tr.base.wrapping_add(0x66))?);
    let at = map + u64::from(port / 8);
    if at + 1 > limit {
        return Err(cpu.gp(0));
    }
    let bits = cpu.system_read::<u16>(cpu.tr.base.wrapping_add(at))?;
    let wanted = ((1u16 << len) - 1) << (port % 8);
    if bits & wanted != 0 {
        return Err(cpu.gp(0));
    }
    Ok(())
}

/// Reads a port, which leaves the processor for the answer.
pub(crate) fn port_read(cpu: &mut Cpu, port: u16, len: u64) -> Result<u64, Stop> {
    match cpu.replay.take() {
        Some(v) => Ok(v),
        None => {
            cpu.replay.awaiting = true;
            cpu.exit(Exit::PioIn {
                port,
                len: len as u8,
            })
        }
    }
}

/// Writes a port.
pub(crate) fn port_write(cpu: &mut Cpu, port: u16, len: u64, value: u64) -> Done {
    if cpu.replay.take().is_none() {
        cpu.replay.push(0);
        return cpu.exit(Exit::PioOut {
            port,
            len: len as u8,
            data: value as u32,
        });
    }
    Ok(())
}

/// The port: immediate, or DX if `aux` is set.
fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.aux != 0 {
        cpu.regs[reg::RDX] as u16
    } else {
        op.imm as u16
    }
}

pub(crate) fn input<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let port = port(cpu, op);
    check_port(cpu, port, W::BYTES)?;
    let v = port_read(cpu, port, W::BYTES)?;
    cpu.set(0, W::cut(v));
    Ok(())
}

pub(crate) fn output<W: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let port = port(cpu, op);
    check_port(cpu, port, W::BYTES)?;
    let v = cpu.get::<W>(0).zx();
    port_write(cpu, port, W::BYTES, v)
}
