//! x87 and SSE registers, and their image in memory (FXSAVE, XSAVE).

use crate::cpu::Cpu;

/// Registers of the floating-point and vector units.
#[derive(Clone, Debug)]
pub(crate) struct Fpu {
    /// The eight x87 registers in physical order, 80 bits each; MMX registers are their low 64.
    pub(crate) st: [u128; 8],
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
    pub(crate) mxcsr: u32,
    pub(crate) xmm: [u128; 16],
}

impl Fpu {
    /// State after reset (SDM vol. 3, table 9-1).
    pub(crate) fn new() -> Fpu {
        Fpu {
            st: [0; 8],
            control: 0x40,
            status: 0,
            tags: 0xff,
            opcode: 0,
            ip: 0,
            dp: 0,
            mxcsr: 0x1f80,
            xmm: [0; 16],
        }
    }
}

impl Cpu {
    /// The state in the standard XSAVE format, 576 bytes.
    pub(crate) fn xsave_image(&self) -> Vec<u8> {
        let f = &self.fpu;
        let mut image = vec![0u8; 576];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &f.control.to_le_bytes());
        put(2, &f.status.to_le_bytes());
        put(4, &[f.tags]);
        put(6, &f.opcode.to_le_bytes());
        put(8, &f.ip.to_le_bytes());
        put(16, &f.dp.to_le_bytes());
        put(24, &f.mxcsr.to_le_bytes());
        put(28, &MXCSR_MASK.to_le_bytes());
        let top = usize::from(f.status >> 11 & 7);
        for i in 0..8 {
            put(32 + 16 * i, &f.st[(top + i) & 7].to_le_bytes()[..10]);
        }
        for (i, v) in f.xmm.iter().enumerate() {
            put(160 + 16 * i, &v.to_le_bytes());
        }
        // XSTATE_BV: both components are in use.
        put(512, &3u64.to_le_bytes());
        image
    }

    /// Takes the state from a standard XSAVE image; what is missing or not in XSTATE_BV is reset.
    pub(crate) fn load_xsave_image(&mut self, image: &[u8]) {
        let mut full = [0u8; 576];
        let n = image.len().min(576);
        full[..n].copy_from_slice(&image[..n]);
        let u16_at = |at: usize| u16::from_le_bytes([full[at], full[at + 1]]);
        let u128_at = |at: usize| {
            let mut b = [0; 16];
            b.copy_from_slice(&full[at..at + 16]);
            u128::from_le_bytes(b)
        };
        let u64_at = |at: usize| u128_at(at) as u64;
        let components = u64_at(512);
        let mut f = Fpu {
            control: 0x37f,
            tags: 0,
            ..Fpu::new()
        };
        if components & 1 != 0 {
            f.control = u16_at(0);
            f.status = u16_at(2);
            f.tags = full[4];
            f.opcode = u16_at(6);
            f.ip = u64_at(8);
            f.dp = u64_at(16);
            let top = usize::from(f.status >> 11 & 7);
            for i in 0..8 {
                f.st[(top + i) & 7] = u128_at(32 + 16 * i) & ((1 << 80) - 1);
            }
        }
        if components & 2 != 0 {
            f.mxcsr = u32::from_le_bytes([full[24], full[25], full[26], full[27]]) & MXCSR_MASK;
            for i in 0..16 {
                f.xmm[i] = u128_at(160 + 16 * i);
            }
        }
        self.fpu = f;
    }
}

/// Bits of MXCSR that may be set.
pub(crate) const MXCSR_MASK: u32 = 0xffff;
