//! Control instructions (SDM vol. 1, 8.3.11), and the environment in memory (8.1.10).

use super::Done;
use super::status::{B, C1, ES, FLAGS, SF};
use crate::cpu::{Cpu, cr};
use crate::exec::fpu::Fpu;
use crate::flags::bit;
use crate::op::{Op, reg};
use crate::paging::Who;

/// Bits of the control word that can be written, and the one that is always set.
const CONTROL_WRITABLE: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x40;

impl Fpu {
    pub(crate) fn set_control(&mut self, v: u16) {
        self.control = v & CONTROL_WRITABLE | CONTROL_FIXED;
    }

    /// The full tag word: two bits for each physical register (SDM vol. 1, 8.1.7).
    fn tag_word(&self) -> u16 {
        let tag = |i: usize| {
            if self.tags >> i & 1 == 0 {
                3
            } else {
                content(self.st[i])
            }
        };
        (0..8).fold(0, |word, i| word | tag(i) << (2 * i))
    }

    fn set_tag_word(&mut self, word: u16) {
        self.tags = (0..8).fold(0, |tags, i| tags | u8::from(word >> (2 * i) & 3 != 3) << i);
    }

    /// FNINIT: everything but the registers' contents.
    pub(crate) fn initialize(&mut self) {
        self.control = 0x37f;
        (self.status, self.tags, self.opcode) = (0, 0, 0);
        (self.ip, self.dp) = (0, 0);
    }
}

/// Tag of a register in use: valid, zero, or special.
fn content(v: u128) -> u16 {
    let exponent = v >> 64 & 0x7fff;
    match (exponent, v as u64) {
        (0, 0) => 1,
        (0 | 0x7fff, _) => 2,
        (_, significand) if significand >> 63 == 0 => 2,
        _ => 0,
    }
}

pub(crate) fn fninit(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.fpu.initialize();
    Ok(())
}

pub(crate) fn fnclex(cpu: &mut Cpu, _: &Op) -> Done {
    cpu.fpu.status &= !(FLAGS | SF | ES | B);
    Ok(())
}

/// FNOP, which waits; and FNENI, FNDISI and FNSETPM, which do nothing.
pub(crate) fn fnop(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    cpu.x87_raise(op, 0, 0, 0);
    Ok(())
}

pub(crate) fn nothing(_: &mut Cpu, _: &Op) -> Done {
    Ok(())
}

/// WAIT: unlike the rest it is available with CR0.EM set, and with CR0.TS unless CR0.MP is, too.
pub(crate) fn wait(cpu: &mut Cpu, _: &Op) -> Done {
    const BOTH: u64 = cr::CR0_TS | cr::CR0_MP;
    if cpu.cr0 & BOTH == BOTH {
        return Err(cpu.nm());
    }
    cpu.x87_pending()
}

pub(crate) fn fldcw(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let v = cpu.load::<u16>(cpu.ea(op))?;
    cpu.fpu.set_control(v);
    cpu.fpu.summarize();
    Ok(())
}

pub(crate) fn fnstcw(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.fpu.control;
    cpu.store(cpu.ea(op), v)
}

pub(crate) fn fnstsw_ax(cpu: &mut Cpu, _: &Op) -> Done {
    let v = cpu.fpu.status;
    cpu.set(reg::RAX as u8, v);
    Ok(())
}

pub(crate) fn fnstsw(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.fpu.status;
    cpu.store(cpu.ea(op), v)
}

/// FINCSTP (1) and FDECSTP (7): tags and contents stay.
pub(crate) fn rotate<const BY: u16>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    cpu.x87_raise(op, 0, C1, 0);
    cpu.fpu.rotate(BY);
    Ok(())
}

/// FFREE, and FFREEP, which also pops.
pub(crate) fn ffree(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let ip = cpu.this_rip(op);
    cpu.fpu.ip = ip;
    cpu.fpu.free(op.dst);
    if op.aux != 0 {
        cpu.fpu.pop();
    }
    Ok(())
}

/// The four formats of the environment: by operand size, and whether addresses are linear.
#[derive(Clone, Copy)]
struct Format {
    wide: bool,
    protected: bool,
}

impl Format {
    fn of(cpu: &Cpu, op: &Op) -> Format {
        Format {
            wide: op.aux != 0,
            protected: cpu.protected() && cpu.eflags & bit::VM == 0,
        }
    }

    /// Bytes of the environment; the registers follow it in FNSAVE's image.
    fn len(self) -> usize {
        if self.wide { 28 } else { 14 }
    }

    /// The environment as seven words or doublewords.
    fn write(self, f: &Fpu, out: &mut [u8]) {
        let (ip, dp, opcode) = (f.ip as u32, f.dp as u32, u32::from(f.opcode));
        let pointers = match (self.wide, self.protected) {
            (true, true) => [ip, opcode << 16, dp, 0xffff_0000],
            (true, false) => [
                ip & 0xffff | 0xffff_0000,
                ip >> 4 & 0x0fff_f000 | opcode,
                dp & 0xffff | 0xffff_0000,
                dp >> 4 & 0x0fff_f000,
            ],
            (false, true) => [ip, 0, dp, 0],
            (false, false) => [ip, ip >> 4 & 0xf000 | opcode, dp, dp >> 4 & 0xf000],
        };
        let word = |v: u16| 0xffff_0000 | u32::from(v);
        let [a, b, c, d] = pointers;
        let fields = [
            word(f.control),
            word(f.status),
            word(f.tag_word()),
            a,
            b,
            c,
            d,
        ];
        let size = self.len() / 7;
        for (to, v) in out.chunks_exact_mut(size).zip(fields) {
            to.copy_from_slice(&v.to_le_bytes()[..size]);
        }
    }

    fn read(self, f: &mut Fpu, bytes: &[u8]) {
        let size = self.len() / 7;
        let field = |i: usize| {
            let mut v = [0; 4];
            v[..size].copy_from_slice(&bytes[i * size..][..size]);
            u32::from_le_bytes(v)
        };
        f.set_control(field(0) as u16);
        f.status = field(1) as u16;
        f.set_tag_word(field(2) as u16);
        let linear = |low: u32, high: u32| low & 0xffff | (high & 0x0fff_f000) << 4;
        let (ip, dp, opcode) = match (self.wide, self.protected) {
            (true, true) => (field(3), field(5), field(4) >> 16),
            (false, true) => (field(3), field(5), 0),
            (_, false) => (
                linear(field(3), field(4)),
                linear(field(5), field(6)),
                field(4),
            ),
        };
        (f.ip, f.dp) = (u64::from(ip), u64::from(dp));
        f.opcode = opcode as u16 & 0x7ff;
        f.summarize();
    }
}

/// FNSTENV masks all exceptions afterwards.
pub(crate) fn fnstenv(cpu: &mut Cpu, op: &Op) -> Done {
    let format = Format::of(cpu, op);
    let mut image = [0; 28];
    let image = &mut image[..format.len()];
    format.write(&cpu.fpu, image);
    cpu.write_bytes(cpu.ea(op), image, Who::Program)?;
    cpu.fpu.control |= FLAGS;
    cpu.fpu.summarize();
    Ok(())
}

pub(crate) fn fldenv(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let format = Format::of(cpu, op);
    let mut image = [0; 28];
    let image = &mut image[..format.len()];
    cpu.read_bytes(cpu.ea(op), image, Who::Program)?;
    format.read(&mut cpu.fpu, image);
    Ok(())
}

/// FNSAVE: environment and registers, ST(0) first; then FNINIT.
pub(crate) fn fnsave(cpu: &mut Cpu, op: &Op) -> Done {
    let format = Format::of(cpu, op);
    let mut image = [0; 108];
    let image = &mut image[..format.len() + 80];
    let (environment, registers) = image.split_at_mut(format.len());
    format.write(&cpu.fpu, environment);
    for (i, to) in registers.chunks_exact_mut(10).enumerate() {
        to.copy_from_slice(&cpu.fpu.st(i as u8).to_le_bytes()[..10]);
    }
    cpu.write_bytes(cpu.ea(op), image, Who::Program)?;
    cpu.fpu.initialize();
    Ok(())
}

pub(crate) fn frstor(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.x87_pending()?;
    let format = Format::of(cpu, op);
    let mut image = [0; 108];
    let image = &mut image[..format.len() + 80];
    cpu.read_bytes(cpu.ea(op), image, Who::Program)?;
    let (environment, registers) = image.split_at(format.len());
    format.read(&mut cpu.fpu, environment);
    for (i, from) in registers.chunks_exact(10).enumerate() {
        let mut v = [0; 16];
        v[..10].copy_from_slice(from);
        let at = cpu.fpu.physical(i as u8);
        cpu.fpu.st[at] = u128::from_le_bytes(v);
    }
    Ok(())
}
