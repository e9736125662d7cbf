//! x87 and SSE registers, and their image in memory: FXSAVE, XSAVE (SDM vol. 1, 10.5 and 13).

use super::sse::V;
use super::x87::check_x87;
use crate::cpu::{Cpu, cr};
use crate::op::{Op, Stop, reg};
use crate::paging::Who;

type Done = Result<(), Stop>;

/// Registers of the floating-point and vector units.
#[derive(Clone, Debug)]
pub(crate) struct Fpu {
    pub(crate) xmm: [V; 16],
    /// The eight x87 registers in physical order, 80 bits each; MMX registers are their low 64.
    pub(crate) st: [u128; 8],
    pub(crate) mxcsr: u32,
    /// Control word.
    pub(crate) control: u16,
    /// Status word, the top-of-stack field included.
    pub(crate) status: u16,
    /// Abridged tag word: a bit for each physical register that is not empty.
    pub(crate) tags: u8,
    /// Last opcode.
    pub(crate) opcode: u16,
    /// Last instruction's address.
    pub(crate) ip: u64,
    /// Last operand's address.
    pub(crate) dp: u64,
}

/// Bits of MXCSR that may be set.
pub(crate) const MXCSR_MASK: u32 = 0xffff;
const MXCSR_RESET: u32 = 0x1f80;

/// Sizes of the image: what FXSAVE writes, and all of the standard XSAVE format.
const LEGACY: usize = 416;
const STANDARD: usize = 576;
/// The area of FXSAVE, the end of which it leaves to software.
const AREA: u64 = 512;
/// Offsets in it.
const MXCSR_AT: usize = 24;
const ST_AT: usize = 32;
const XMM_AT: usize = 160;
const HEADER_AT: usize = 512;

/// State components (SDM vol. 1, 13.1).
const X87: u64 = 1;
const SSE: u64 = 2;

impl Fpu {
    /// State after reset (SDM vol. 3, table 9-1).
    pub(crate) fn new() -> Fpu {
        Fpu {
            xmm: [V::default(); 16],
            st: [0; 8],
            mxcsr: MXCSR_RESET,
            control: 0x40,
            status: 0,
            tags: 0xff,
            opcode: 0,
            ip: 0,
            dp: 0,
        }
    }

    /// Writes the legacy image, with 64-bit pointers or with 32-bit ones and no selectors.
    fn write_legacy(&self, image: &mut [u8; LEGACY], wide: bool) {
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        let pointer = |v: u64| if wide { v } else { v & 0xffff_ffff };
        put(0, &self.control.to_le_bytes());
        put(2, &self.status.to_le_bytes());
        put(4, &[self.tags]);
        put(6, &self.opcode.to_le_bytes());
        put(8, &pointer(self.ip).to_le_bytes());
        put(16, &pointer(self.dp).to_le_bytes());
        put(MXCSR_AT, &self.mxcsr.to_le_bytes());
        put(MXCSR_AT + 4, &MXCSR_MASK.to_le_bytes());
        for i in 0..8 {
            put(
                ST_AT + 16 * i,
                &self.st[self.stack_slot(i)].to_le_bytes()[..10],
            );
        }
        for (i, v) in self.xmm.iter().enumerate() {
            put(XMM_AT + 16 * i, &v.u8s());
        }
    }

    fn stack_slot(&self, i: usize) -> usize {
        usize::from(self.status >> 11 & 7).wrapping_add(i) & 7
    }

    /// Takes the x87 part of a legacy image.
    fn read_x87(&mut self, image: &[u8], wide: bool) {
        let pointer = |at: usize| {
            let v = u64_at(image, at);
            // Bits 63..48 follow the sign of the 48-bit address.
            if wide {
                ((v << 16) as i64 >> 16) as u64
            } else {
                v & 0xffff_ffff
            }
        };
        self.set_control(u16_at(image, 0));
        self.status = u16_at(image, 2);
        self.tags = image[4];
        self.opcode = u16_at(image, 6) & 0x7ff;
        (self.ip, self.dp) = (pointer(8), pointer(16));
        for i in 0..8 {
            let at = self.stack_slot(i);
            self.st[at] = u128_at(image, ST_AT + 16 * i) & ((1 << 80) - 1);
        }
        self.summarize();
    }

    /// Takes `count` XMM registers of a legacy image.
    fn read_xmm(&mut self, image: &[u8], count: usize) {
        for (i, v) in self.xmm.iter_mut().enumerate().take(count) {
            *v = V::from_bits(u128_at(image, XMM_AT + 16 * i));
        }
    }

    /// Initial configuration of the x87 component (SDM vol. 1, 13.6).
    fn reset_x87(&mut self) {
        self.initialize();
        self.st = [0; 8];
    }
}

fn u16_at(image: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([image[at], image[at + 1]])
}

fn u32_at(image: &[u8], at: usize) -> u32 {
    u128_at(image, at) as u32
}

fn u64_at(image: &[u8], at: usize) -> u64 {
    u128_at(image, at) as u64
}

/// Up to sixteen bytes; zeros beyond the end.
fn u128_at(image: &[u8], at: usize) -> u128 {
    let mut bytes = [0; 16];
    let end = image.len().min(at + 16);
    bytes[..end - at].copy_from_slice(&image[at..end]);
    u128::from_le_bytes(bytes)
}

impl Cpu {
    /// The state in the standard XSAVE format, 576 bytes.
    pub(crate) fn xsave_image(&self) -> Vec<u8> {
        let mut legacy = [0; LEGACY];
        self.fpu.write_legacy(&mut legacy, true);
        let mut image = vec![0u8; STANDARD];
        image[..LEGACY].copy_from_slice(&legacy);
        // XSTATE_BV: both components are in use.
        image[HEADER_AT] = (X87 | SSE) as u8;
        image
    }

    /// Takes the state from a standard XSAVE image; what is missing or not in XSTATE_BV is reset.
    pub(crate) fn load_xsave_image(&mut self, image: &[u8]) {
        let mut full = [0u8; STANDARD];
        let n = image.len().min(STANDARD);
        full[..n].copy_from_slice(&image[..n]);
        let components = u64_at(&full, HEADER_AT);
        self.fpu = Fpu::new();
        self.fpu.reset_x87();
        if components & X87 != 0 {
            self.fpu.read_x87(&full, true);
        }
        if components & SSE != 0 {
            self.fpu.mxcsr = u32_at(&full, MXCSR_AT) & MXCSR_MASK;
            self.fpu.read_xmm(&full, 16);
        }
    }

    /// XMM registers that the current mode has.
    fn xmm_count(&self) -> usize {
        if self.bits == 64 { 16 } else { 8 }
    }

    /// Sets MXCSR; #GP if a reserved bit is set.
    fn load_mxcsr(&mut self, v: u32) -> Done {
        self.check_mxcsr(v)?;
        self.collect_mxcsr();
        self.fpu.mxcsr = v;
        Ok(())
    }

    fn check_mxcsr(&mut self, v: u32) -> Done {
        if v & !MXCSR_MASK != 0 {
            Err(self.gp(0))
        } else {
            Ok(())
        }
    }
}

/// LDMXCSR.
pub(crate) fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Done {
    let v = cpu.load::<u32>(cpu.ea(op))?;
    cpu.load_mxcsr(v)
}

/// STMXCSR.
pub(crate) fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.collect_mxcsr();
    let v = cpu.fpu.mxcsr;
    cpu.store(cpu.ea(op), v)
}

/// FXSAVE; with `aux` the 64-bit form.
pub(crate) fn fxsave(cpu: &mut Cpu, op: &Op) -> Done {
    check_x87(cpu, op)?;
    let at = cpu.aligned(op)?;
    cpu.collect_mxcsr();
    let mut image = [0; LEGACY];
    cpu.fpu.write_legacy(&mut image, op.aux != 0);
    let len = XMM_AT + 16 * cpu.xmm_count();
    // Processors look at the end of the whole area first.
    cpu.probe_write(at.wrapping_add(AREA - 1), 1)?;
    cpu.write_bytes(at, &image[..len], Who::Program)
}

/// FXRSTOR.
pub(crate) fn fxrstor(cpu: &mut Cpu, op: &Op) -> Done {
    check_x87(cpu, op)?;
    let at = cpu.aligned(op)?;
    // All of the area has to be readable, the part that nobody reads included.
    cpu.load::<u8>(at.wrapping_add(AREA - 1))?;
    let mut image = [0; LEGACY];
    cpu.read_bytes(at, &mut image, Who::Program)?;
    cpu.load_mxcsr(u32_at(&image, MXCSR_AT))?;
    cpu.fpu.read_x87(&image, op.aux != 0);
    let count = cpu.xmm_count();
    cpu.fpu.read_xmm(&image, count);
    Ok(())
}

/// Checks that XSAVE and XRSTOR have in common; answers the address and the components asked for.
fn xsave_operand(cpu: &mut Cpu, op: &Op) -> Result<(u64, u64), Stop> {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(cpu.ud());
    }
    if cpu.cr0 & cr::CR0_TS != 0 {
        return Err(cpu.nm());
    }
    let at = cpu.ea(op);
    if at & 63 != 0 {
        return Err(cpu.gp(0));
    }
    let asked = cpu.regs[reg::RAX] & 0xffff_ffff | cpu.regs[reg::RDX] << 32;
    Ok((at, asked & cpu.xcr0))
}

/// XSAVE: the components asked for, which always count as in use (SDM vol. 1, 13.7); with `aux`
/// the 64-bit form.
pub(crate) fn xsave(cpu: &mut Cpu, op: &Op) -> Done {
    let (at, components) = xsave_operand(cpu, op)?;
    cpu.collect_mxcsr();
    // Processors look at the end of the whole area first.
    cpu.probe_write(at.wrapping_add(STANDARD as u64 - 1), 1)?;
    cpu.probe_write(at, STANDARD as u64)?;
    let mut header = [0; 8];
    cpu.read_bytes(at.wrapping_add(HEADER_AT as u64), &mut header, Who::Program)?;
    let mut image = [0; LEGACY];
    cpu.fpu.write_legacy(&mut image, op.aux != 0);
    let end = XMM_AT + 16 * cpu.xmm_count();
    let mut put = |from: usize, to: usize| {
        cpu.write_bytes(at.wrapping_add(from as u64), &image[from..to], Who::Program)
    };
    match components {
        0 => {}
        X87 => {
            put(0, MXCSR_AT)?;
            put(ST_AT, XMM_AT)?;
        }
        SSE => {
            put(MXCSR_AT, ST_AT)?;
            put(XMM_AT, end)?;
        }
        _ => put(0, end)?,
    }
    let in_use = u64::from_le_bytes(header) | components;
    cpu.write_bytes(
        at.wrapping_add(HEADER_AT as u64),
        &in_use.to_le_bytes(),
        Who::Program,
    )
}

/// XRSTOR of the standard form (SDM vol. 1, 13.8.1).
pub(crate) fn xrstor(cpu: &mut Cpu, op: &Op) -> Done {
    let (at, components) = xsave_operand(cpu, op)?;
    let mut image = [0; STANDARD];
    cpu.read_bytes(at, &mut image, Who::Program)?;
    let stored = u64_at(&image, HEADER_AT);
    // The rest of the header is zero unless the compacted form is used, which the model lacks.
    let rest = u64_at(&image, HEADER_AT + 8) | u64_at(&image, HEADER_AT + 16);
    if stored & !cpu.xcr0 != 0 || rest != 0 {
        return Err(cpu.gp(0));
    }
    if components & SSE != 0 {
        cpu.load_mxcsr(u32_at(&image, MXCSR_AT))?;
        let count = cpu.xmm_count();
        if stored & SSE != 0 {
            cpu.fpu.read_xmm(&image, count);
        } else {
            cpu.fpu.xmm[..count].fill(V::default());
        }
    }
    if components & X87 != 0 {
        if stored & X87 != 0 {
            cpu.fpu.read_x87(&image, op.aux != 0);
        } else {
            cpu.fpu.reset_x87();
        }
    }
    Ok(())
}
