//! What is put into a processor and what comes out of it, as plain data that both the parent and
//! the forked child can see.

use crate::sandbox::{self, LINE};

/// Bytes of an FXSAVE image that instructions can change: control words, x87 and XMM registers.
pub(crate) const FX: usize = 416;
/// Most memory changes that a case brings along, and that are recorded of it.
pub(crate) const PATCHES: usize = 8;
const LINES: usize = 40;

/// Bytes to place into the writable image before a case runs.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Patch {
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) bytes: [u8; 64],
}

/// An instruction or a few, and the state they start from.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    /// 64 or 32.
    pub(crate) bits: u64,
    /// General registers in encoding order.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) code: [u8; 64],
    pub(crate) code_len: u64,
    pub(crate) fx: [u8; FX],
    pub(crate) patches: [Patch; PATCHES],
    pub(crate) patch_count: u64,
}

/// A line of memory that a case has changed.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Line {
    pub(crate) index: u64,
    pub(crate) bytes: [u8; LINE],
}

/// The state in which a case ended: with an exception, always; INT3 lies all around it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Outcome {
    /// Vector of the exception, or one of the constants below.
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) cr2: u64,
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    /// ES CS SS DS FS GS.
    pub(crate) selectors: [u16; 6],
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) fx: [u8; FX],
    /// All lines that changed, even if `lines` has no room for them.
    pub(crate) changed: u64,
    /// Checksum of the whole image, for when it has not.
    pub(crate) checksum: u64,
    pub(crate) lines: [Line; LINES],
}

/// `vector` of a case that has not run.
pub(crate) const NOT_RUN: u64 = 0xff00;
/// `vector` of a case that did not end in time.
pub(crate) const HUNG: u64 = 0xff01;
/// `vector` of a case that shut the processor down or left it in another unforeseen way.
pub(crate) const LOST: u64 = 0xff02;

impl Case {
    pub(crate) const fn blank() -> Case {
        Case {
            seed: 0,
            bits: 64,
            gpr: [0; 16],
            rip: 0,
            rflags: 0,
            fs_base: 0,
            gs_base: 0,
            code: [0; 64],
            code_len: 0,
            fx: [0; FX],
            patches: [Patch {
                offset: 0,
                len: 0,
                bytes: [0; 64],
            }; PATCHES],
            patch_count: 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.code[..self.code_len as usize]
    }

    /// Adds bytes to be placed at an address; what does not lie in the writable image is dropped.
    pub(crate) fn patch(&mut self, address: u64, bytes: &[u8]) {
        let Some(offset) = sandbox::image_offset(address) else {
            return;
        };
        let len = bytes.len().min(64).min(sandbox::IMAGE - offset);
        if (self.patch_count as usize) < PATCHES {
            let p = &mut self.patches[self.patch_count as usize];
            (p.offset, p.len) = (offset as u32, len as u32);
            p.bytes[..len].copy_from_slice(&bytes[..len]);
            self.patch_count += 1;
        }
    }

    pub(crate) fn patches(&self) -> &[Patch] {
        &self.patches[..self.patch_count as usize]
    }
}

impl Outcome {
    pub(crate) const fn blank() -> Outcome {
        Outcome {
            vector: NOT_RUN,
            error: 0,
            cr2: 0,
            gpr: [0; 16],
            rip: 0,
            rflags: 0,
            selectors: [0; 6],
            fs_base: 0,
            gs_base: 0,
            fx: [0; FX],
            changed: 0,
            checksum: 0,
            lines: [Line {
                index: 0,
                bytes: [0; LINE],
            }; LINES],
        }
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines[..(self.changed as usize).min(LINES)]
    }
}

/// The image before a case, kept beside the memory that the case works on, so that afterwards
/// the differences can be found and undone.
pub(crate) struct Tracker {
    before: Vec<u8>,
    pristine: Vec<u8>,
}

impl Tracker {
    pub(crate) fn new(pristine: &[u8]) -> Tracker {
        Tracker {
            before: pristine.to_vec(),
            pristine: pristine.to_vec(),
        }
    }

    /// The image without any case's bytes.
    pub(crate) fn pristine(&self) -> &[u8] {
        &self.pristine
    }

    /// Places a case's bytes into `memory`, the writable areas in order.
    pub(crate) fn prepare(&mut self, case: &Case, memory: &mut [&mut [u8]; 3]) {
        for p in case.patches() {
            self.copy(p.offset as usize, &p.bytes[..p.len as usize], memory);
        }
    }

    /// Records what has changed and makes the memory pristine again.
    pub(crate) fn collect(&mut self, case: &Case, memory: &mut [&mut [u8]; 3], out: &mut Outcome) {
        (out.changed, out.checksum) = (0, 0);
        let mut start = 0;
        for area in memory.iter_mut() {
            for (n, now) in area.chunks_exact_mut(LINE).enumerate() {
                let index = start / LINE + n;
                let before = &self.before[index * LINE..(index + 1) * LINE];
                if now != before {
                    if let Some(line) = out.lines.get_mut(out.changed as usize) {
                        line.index = index as u64;
                        line.bytes.copy_from_slice(now);
                    }
                    out.changed += 1;
                    out.checksum = checksum(out.checksum ^ index as u64, now);
                    now.copy_from_slice(before);
                }
            }
            start += area.len();
        }
        for p in case.patches() {
            let at = p.offset as usize;
            for i in at..at + p.len as usize {
                let byte = self.pristine[i];
                self.copy(i, &[byte], memory);
            }
        }
    }

    fn copy(&mut self, offset: usize, bytes: &[u8], memory: &mut [&mut [u8]; 3]) {
        for (i, &byte) in bytes.iter().enumerate() {
            self.before[offset + i] = byte;
            let mut at = offset + i;
            for area in memory.iter_mut() {
                if at < area.len() {
                    area[at] = byte;
                    break;
                }
                at -= area.len();
            }
        }
    }
}

fn checksum(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |sum, &b| {
        (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}
