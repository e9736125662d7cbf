//! Segment registers: descriptors, loads, and transfers through code segments (SDM vol. 3,
//! chapters 3, 5 and 7).

use crate::cpu::{Cpu, Segment, seg};
use crate::mem::canonical;
use crate::op::{Stop, reg};

const PRESENT: u16 = 1 << 7;
const SYSTEM: u16 = 1 << 4;
const CODE: u16 = 1 << 3;
const CONFORMING: u16 = 1 << 2;
/// Writable for data, readable for code.
const READ_WRITE: u16 = 1 << 1;
const ACCESSED: u64 = 1 << 40;
const BUSY: u64 = 1 << 41;

/// Which exception a bad selector raises.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Blame {
    Gp,
    Ts,
}

impl Segment {
    /// The hidden part that an eight-byte descriptor describes.
    pub(crate) fn from_descriptor(selector: u16, d: u64) -> Segment {
        let raw = (d & 0xffff | d >> 32 & 0xf_0000) as u32;
        Segment {
            selector,
            base: d >> 16 & 0xff_ffff | d >> 32 & 0xff00_0000,
            limit: if d & 1 << 55 != 0 {
                raw << 12 | 0xfff
            } else {
                raw
            },
            access: (d >> 40) as u16 & 0xf0ff,
            unusable: false,
        }
    }

    fn null(selector: u16) -> Segment {
        Segment {
            selector,
            unusable: true,
            ..Segment::default()
        }
    }

    fn present(&self) -> bool {
        self.access & PRESENT != 0
    }
    fn is_code(&self) -> bool {
        self.access & (SYSTEM | CODE) == SYSTEM | CODE
    }
    fn is_data(&self) -> bool {
        self.access & (SYSTEM | CODE) == SYSTEM
    }
}

impl Cpu {
    fn blame(&mut self, blame: Blame, selector: u16) -> Stop {
        match blame {
            Blame::Gp => self.gp(selector & !3),
            Blame::Ts => self.ts(selector & !3),
        }
    }

    /// Linear address of a selector's descriptor.
    fn descriptor_address(&mut self, selector: u16, len: u64, blame: Blame) -> Result<u64, Stop> {
        let (base, limit) = if selector & 4 == 0 {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        } else if self.ldtr.unusable || self.ldtr.selector & !3 == 0 {
            return Err(self.blame(blame, selector));
        } else {
            (self.ldtr.base, u64::from(self.ldtr.limit))
        };
        let offset = u64::from(selector & !7);
        if offset + len - 1 > limit {
            return Err(self.blame(blame, selector));
        }
        Ok(base.wrapping_add(offset))
    }

    /// Reads a selector's descriptor; raises if it lies beyond its table.
    pub(crate) fn descriptor(&mut self, selector: u16, blame: Blame) -> Result<u64, Stop> {
        let at = self.descriptor_address(selector, 8, blame)?;
        self.system_read(at)
    }

    fn mark_accessed(&mut self, selector: u16, d: u64) -> Result<(), Stop> {
        if d & ACCESSED == 0 {
            let at = self.descriptor_address(selector, 8, Blame::Gp)?;
            self.system_write(at, d | ACCESSED)?;
        }
        Ok(())
    }

    /// Loads a data or stack segment register (MOV, POP, LDS and friends).
    pub(crate) fn load_segment(&mut self, which: usize, selector: u16) -> Result<(), Stop> {
        if !self.protected() {
            let base = u64::from(selector) << 4;
            let s = Segment {
                selector,
                base,
                ..self.seg[which]
            };
            self.set_segment(which, s);
            return Ok(());
        }
        if which == seg::SS {
            return self.load_stack_segment(selector, self.cpl, Blame::Gp);
        }
        if selector & !3 == 0 {
            self.set_segment(which, Segment::null(selector));
            return Ok(());
        }
        let d = self.descriptor(selector, Blame::Gp)?;
        let s = Segment::from_descriptor(selector, d);
        let rpl = (selector & 3) as u8;
        let readable = s.is_data() || s.is_code() && s.access & READ_WRITE != 0;
        let conforming = s.is_code() && s.access & CONFORMING != 0;
        if !readable || !conforming && s.dpl() < rpl.max(self.cpl) {
            return Err(self.gp(selector & !3));
        }
        if !s.present() {
            return Err(self.np(selector & !3));
        }
        self.mark_accessed(selector, d)?;
        self.set_segment(
            which,
            Segment {
                access: s.access | 1,
                ..s
            },
        );
        Ok(())
    }

    /// Loads SS for privilege level `cpl`.
    pub(crate) fn load_stack_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        blame: Blame,
    ) -> Result<(), Stop> {
        if selector & !3 == 0 {
            let rpl = (selector & 3) as u8;
            if self.bits != 64 || cpl == 3 || rpl != cpl {
                return Err(self.blame(blame, 0));
            }
            let s = Segment {
                access: u16::from(cpl) << 5,
                ..Segment::null(selector)
            };
            self.set_segment(seg::SS, s);
            return Ok(());
        }
        let d = self.descriptor(selector, blame)?;
        let s = Segment::from_descriptor(selector, d);
        let rpl = (selector & 3) as u8;
        if !s.is_data() || s.access & READ_WRITE == 0 || rpl != cpl || s.dpl() != cpl {
            return Err(self.blame(blame, selector));
        }
        if !s.present() {
            return Err(self.ss(selector & !3));
        }
        self.mark_accessed(selector, d)?;
        self.set_segment(
            seg::SS,
            Segment {
                access: s.access | 1,
                ..s
            },
        );
        self.mode_changed();
        Ok(())
    }

    /// A code segment for a transfer to privilege `cpl`, checked; not loaded yet.
    pub(crate) fn code_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        blame: Blame,
    ) -> Result<Segment, Stop> {
        if selector & !3 == 0 {
            return Err(self.blame(blame, 0));
        }
        let d = self.descriptor(selector, blame)?;
        let s = Segment::from_descriptor(selector, d);
        let conforming = s.access & CONFORMING != 0;
        let privileged = if conforming {
            s.dpl() <= cpl
        } else {
            s.dpl() == cpl
        };
        if !s.is_code() || !privileged || self.long_mode() && s.long() && s.big() {
            return Err(self.blame(blame, selector));
        }
        if !s.present() {
            return Err(self.np(selector & !3));
        }
        self.mark_accessed(selector, d)?;
        Ok(Segment {
            selector: selector & !3 | u16::from(cpl),
            access: s.access | 1,
            ..s
        })
    }

    /// Far JMP or CALL to `selector:offset` (SDM vol. 2, JMP); `push` is the operand size of the
    /// return address, if there is one.
    pub(crate) fn far_transfer(
        &mut self,
        selector: u16,
        offset: u64,
        next: u64,
        push: Option<u64>,
    ) -> Result<(), Stop> {
        if !self.protected() {
            self.push_return(next, push)?;
            let base = u64::from(selector) << 4;
            self.set_segment(
                seg::CS,
                Segment {
                    selector,
                    base,
                    ..self.seg[seg::CS]
                },
            );
            self.rip = offset & 0xffff;
            self.mode_changed();
            return Ok(());
        }
        if selector & !3 == 0 {
            return Err(self.gp(0));
        }
        let d = self.descriptor(selector, Blame::Gp)?;
        if d >> 44 & 1 == 0 {
            return self.far_gate(selector, d, next, push);
        }
        let s = self.code_segment_for_jump(selector, d)?;
        if self.long_mode() && s.long() && !canonical(offset) {
            return Err(self.gp(0));
        }
        // The return address goes to a stack as wide as the new code's.
        let old = self.seg[seg::CS];
        let from = u64::from(old.selector);
        self.set_segment(seg::CS, s);
        self.mode_changed();
        if let Err(stop) = self.push_far(from, next, push) {
            self.set_segment(seg::CS, old);
            self.mode_changed();
            return Err(stop);
        }
        self.rip = if s.long() && self.long_mode() {
            offset
        } else {
            offset & 0xffff_ffff
        };
        Ok(())
    }

    fn code_segment_for_jump(&mut self, selector: u16, d: u64) -> Result<Segment, Stop> {
        let s = Segment::from_descriptor(selector, d);
        if s.access & CONFORMING == 0 && (selector & 3) as u8 > self.cpl {
            return Err(self.gp(selector & !3));
        }
        self.code_segment(selector & !3, self.cpl, Blame::Gp)
    }

    fn push_return(&mut self, next: u64, push: Option<u64>) -> Result<(), Stop> {
        let from = u64::from(self.seg[seg::CS].selector);
        self.push_far(from, next, push)
    }

    /// Pushes a far return address, if there is one, whole or not at all.
    fn push_far(&mut self, selector: u64, next: u64, push: Option<u64>) -> Result<(), Stop> {
        let Some(size) = push else { return Ok(()) };
        let rsp = self.regs[reg::RSP];
        self.push_sized(selector, size)?;
        if let Err(stop) = self.push_sized(next, size) {
            self.regs[reg::RSP] = rsp;
            return Err(stop);
        }
        Ok(())
    }

    /// A far transfer through a call gate: same privilege only, which is what systems without
    /// call gates to inner rings can meet; others raise #GP.
    fn far_gate(
        &mut self,
        selector: u16,
        d: u64,
        next: u64,
        push: Option<u64>,
    ) -> Result<(), Stop> {
        let kind = d >> 40 & 0x1f;
        let dpl = (d >> 45 & 3) as u8;
        if kind != 0xc || dpl < self.cpl.max((selector & 3) as u8) {
            return Err(self.gp(selector & !3));
        }
        if d >> 47 & 1 == 0 {
            return Err(self.np(selector & !3));
        }
        let target = (d >> 16) as u16;
        let mut offset = d & 0xffff | d >> 32 & 0xffff_0000;
        if self.long_mode() {
            let at = self.descriptor_address(selector, 16, Blame::Gp)?;
            offset |= self.system_read::<u64>(at.wrapping_add(8))? << 32;
        }
        let s = self.code_segment(target, self.cpl, Blame::Gp)?;
        // The gate's size counts, not the instruction's.
        let size = if self.long_mode() { 8 } else { 4 };
        self.push_return(next, push.map(|_| size))?;
        self.set_segment(seg::CS, s);
        self.rip = offset;
        self.mode_changed();
        Ok(())
    }

    /// Far RET (SDM vol. 2, RET).
    pub(crate) fn far_return(&mut self, size: u64, release: u64) -> Result<(), Stop> {
        let sp = self.regs[reg::RSP];
        let rip = self.stack_word(0, size)?;
        let cs = self.stack_word(size, 2)? as u16;
        if !self.protected() {
            self.set_segment(
                seg::CS,
                Segment {
                    selector: cs,
                    base: u64::from(cs) << 4,
                    ..self.seg[seg::CS]
                },
            );
            self.rip = rip & 0xffff;
            self.set_sp(sp.wrapping_add(2 * size + release));
            self.mode_changed();
            return Ok(());
        }
        let rpl = (cs & 3) as u8;
        if rpl < self.cpl {
            return Err(self.gp(cs & !3));
        }
        let s = self.code_segment(cs, rpl, Blame::Gp)?;
        if self.long_mode() && s.long() && !canonical(rip) {
            return Err(self.gp(0));
        }
        if rpl == self.cpl {
            self.set_segment(seg::CS, s);
            self.set_sp(sp.wrapping_add(2 * size + release));
        } else {
            let new_sp = self.stack_word(2 * size + release, size)?;
            let ss = self.stack_word(3 * size + release, 2)? as u16;
            self.load_stack_segment(ss, rpl, Blame::Gp)?;
            self.set_segment(seg::CS, s);
            self.mode_changed();
            self.set_sp(new_sp.wrapping_add(release));
            self.drop_inner_segments(rpl);
        }
        self.rip = if s.long() { rip } else { rip & 0xffff_ffff };
        self.mode_changed();
        Ok(())
    }

    /// On return to an outer ring, data segments of inner rings become null.
    pub(crate) fn drop_inner_segments(&mut self, cpl: u8) {
        for which in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let s = self.seg[which];
            let conforming = s.access & (CODE | CONFORMING) == CODE | CONFORMING;
            if !s.unusable && !conforming && s.dpl() < cpl {
                self.seg[which] = Segment {
                    base: s.base,
                    ..Segment::null(0)
                };
            }
        }
    }

    /// The word at `offset` above the top of the stack.
    pub(crate) fn stack_word(&mut self, offset: u64, size: u64) -> Result<u64, Stop> {
        let at = (self.regs[reg::RSP].wrapping_add(offset) & self.stack_mask)
            .wrapping_add(self.stack_base());
        let word = match size {
            8 => self.load::<u64>(at),
            4 => self.load::<u32>(at).map(u64::from),
            _ => self.load::<u16>(at).map(u64::from),
        };
        word.map_err(|stop| self.stack_fault(stop))
    }

    /// Base of SS, which 64-bit mode ignores.
    #[inline(always)]
    pub(crate) fn stack_base(&self) -> u64 {
        if self.bits == 64 {
            0
        } else {
            self.seg[seg::SS].base
        }
    }

    /// Sets the stack pointer within its width.
    pub(crate) fn set_sp(&mut self, value: u64) {
        let mask = self.stack_mask;
        let sp = &mut self.regs[reg::RSP];
        *sp = match mask {
            0xffff => *sp & !0xffff | value & 0xffff,
            m => value & m,
        };
    }

    /// Pushes `size` bytes.
    pub(crate) fn push_sized(&mut self, value: u64, size: u64) -> Result<(), Stop> {
        let sp = self.regs[reg::RSP].wrapping_sub(size) & self.stack_mask;
        let at = sp.wrapping_add(self.stack_base());
        let pushed = match size {
            8 => self.store(at, value),
            4 => self.store(at, value as u32),
            _ => self.store(at, value as u16),
        };
        pushed.map_err(|stop| self.stack_fault(stop))?;
        self.set_sp(sp);
        Ok(())
    }

    /// LTR and LLDT: loads a system segment.
    pub(crate) fn load_system_segment(&mut self, selector: u16, task: bool) -> Result<(), Stop> {
        if selector & !3 == 0 {
            if task {
                return Err(self.gp(0));
            }
            self.ldtr = Segment::null(selector);
            return Ok(());
        }
        if selector & 4 != 0 {
            return Err(self.gp(selector & !3));
        }
        let len = if self.long_mode() { 16 } else { 8 };
        let at = self.descriptor_address(selector, len, Blame::Gp)?;
        let d: u64 = self.system_read(at)?;
        let mut s = Segment::from_descriptor(selector, d);
        let kind = s.access & 0x1f;
        let fits = if task {
            kind == 9 || kind == 1 && !self.long_mode()
        } else {
            kind == 2
        };
        if !fits {
            return Err(self.gp(selector & !3));
        }
        if !s.present() {
            return Err(self.np(selector & !3));
        }
        if len == 16 {
            s.base |= self.system_read::<u64>(at.wrapping_add(8))? << 32;
        }
        if task {
            self.system_write(at, d | BUSY)?;
            s.access |= 2;
            self.tr = s;
        } else {
            self.ldtr = s;
        }
        Ok(())
    }

    /// LAR, LSL, VERR, VERW: the descriptor, if it is visible at the current privilege.
    pub(crate) fn visible_descriptor(&mut self, selector: u16) -> Result<Option<Segment>, Stop> {
        let (limit, loaded) = if selector & 4 == 0 {
            (u64::from(self.gdtr.limit), true)
        } else {
            (u64::from(self.ldtr.limit), !self.ldtr.unusable)
        };
        if selector & !3 == 0 || !loaded || u64::from(selector | 7) > limit {
            return Ok(None);
        }
        let d = self.descriptor(selector, Blame::Gp)?;
        let s = Segment::from_descriptor(selector, d);
        let conforming = s.is_code() && s.access & CONFORMING != 0;
        let visible = conforming || s.dpl() >= self.cpl.max((selector & 3) as u8);
        Ok(visible.then_some(s))
    }
}
