//! Delivery of interrupts and exceptions, and the way back by IRET (SDM vol. 3, chapter 6).

use crate::complex::Exit;
use crate::cpu::{Activity, Cpu, Segment, seg};
use crate::exception::{Exception, vector};
use crate::flags::bit;
use crate::mem::canonical;
use crate::op::{Stop, reg};
use crate::run::StopReason;
use crate::segment::Blame;

/// Where an event comes from; software interrupts are subject to the gate's privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Processor,
    Software,
    External,
}

impl Cpu {
    /// Delivers an exception raised at `self.rip`; answers the exit of a triple fault.
    pub(crate) fn deliver_exception(&mut self, first: Exception) -> Option<Exit> {
        let mut current = first;
        loop {
            if current.vector == vector::PF {
                self.cr2 = self.fault_address;
            }
            let resume = current.is_fault();
            if self
                .deliver(current.vector, current.error, Source::Processor, resume)
                .is_ok()
            {
                return None;
            }
            let StopReason::Exception(second) = std::mem::replace(&mut self.stop, StopReason::None)
            else {
                // Tables or stack outside RAM: nothing that a processor could go on from.
                return Some(self.triple_fault());
            };
            if current.vector == vector::DF {
                return Some(self.triple_fault());
            }
            current = if current.doubles_with(&second) {
                Exception {
                    vector: vector::DF,
                    error: Some(0),
                }
            } else {
                second
            };
        }
    }

    fn triple_fault(&mut self) -> Exit {
        self.activity = Activity::Shutdown;
        Exit::Shutdown
    }

    /// Delivers an external interrupt or NMI.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) -> Option<Exit> {
        self.activity = Activity::Running;
        match self.deliver(vector, None, Source::External, false) {
            Ok(()) => None,
            Err(Stop) => match std::mem::replace(&mut self.stop, StopReason::None) {
                StopReason::Exception(e) => self.deliver_exception(e),
                _ => Some(self.triple_fault()),
            },
        }
    }

    /// Delivers `vector` with the return address in `self.rip`. On failure nothing has changed and
    /// the exception met is in `stop`.
    pub(crate) fn deliver(
        &mut self,
        vector: u8,
        error: Option<u32>,
        source: Source,
        resume: bool,
    ) -> Result<(), Stop> {
        let flags = self.rflags() | if resume { bit::RF } else { 0 };
        let saved = (self.cpl, self.regs[reg::RSP], self.seg, self.stack_mask);
        let done = if self.long_mode() {
            self.deliver_long(vector, error, source, flags)
        } else if self.protected() {
            self.deliver_protected(vector, error, source, flags)
        } else {
            self.deliver_real(vector, flags)
        };
        if done.is_err() {
            let (cpl, rsp, segments, stack_mask) = saved;
            self.regs[reg::RSP] = rsp;
            for (i, s) in segments.into_iter().enumerate() {
                self.set_segment(i, s);
            }
            self.stack_mask = stack_mask;
            self.set_cpl(cpl);
        }
        done
    }

    fn gate_error(vector: u8, source: Source) -> u16 {
        u16::from(vector) * 8 + 2 + u16::from(source != Source::Software)
    }

    fn deliver_long(
        &mut self,
        vector: u8,
        error: Option<u32>,
        source: Source,
        flags: u64,
    ) -> Result<(), Stop> {
        let code = Self::gate_error(vector, source);
        let at = u64::from(vector) * 16;
        if at + 15 > u64::from(self.idtr.limit) {
            return Err(self.gp(code));
        }
        let low: u64 = self.system_read(self.idtr.base.wrapping_add(at))?;
        let high: u64 = self.system_read(self.idtr.base.wrapping_add(at + 8))?;
        let kind = low >> 40 & 0x1f;
        let dpl = (low >> 45 & 3) as u8;
        if kind & 0x1e != 0xe || source == Source::Software && dpl < self.cpl {
            return Err(self.gp(code));
        }
        if low >> 47 & 1 == 0 {
            return Err(self.np(code));
        }
        let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let (cs, cpl) = self.handler_segment((low >> 16) as u16)?;
        if !cs.long() {
            return Err(self.gp(cs.selector & !3));
        }
        if !canonical(target) {
            return Err(self.gp(0));
        }
        let ist = low >> 32 & 7;
        let old_rsp = self.regs[reg::RSP];
        let old_ss = u64::from(self.seg[seg::SS].selector);
        let mut rsp = if ist != 0 {
            self.tss_word(0x24 + (ist - 1) * 8, 8)?
        } else if cpl < self.cpl {
            self.tss_word(4 + u64::from(cpl) * 8, 8)?
        } else {
            old_rsp
        } & !0xf;
        let frame = [
            old_ss,
            old_rsp,
            flags,
            u64::from(self.seg[seg::CS].selector),
            self.rip,
        ];
        let outer = self.cpl;
        self.set_cpl(cpl);
        for word in frame.into_iter().chain(error.map(u64::from)) {
            rsp = rsp.wrapping_sub(8);
            if !canonical(rsp) {
                return Err(self.ss(0));
            }
            self.system_write(rsp, word)?;
        }
        if cpl < outer {
            let null = Segment {
                selector: u16::from(cpl),
                access: u16::from(cpl) << 5,
                unusable: true,
                ..Segment::default()
            };
            self.set_segment(seg::SS, null);
        }
        self.regs[reg::RSP] = rsp;
        self.enter_handler(cs, target, kind & 1 == 0);
        Ok(())
    }

    /// The handler's code segment and the privilege it runs at.
    fn handler_segment(&mut self, selector: u16) -> Result<(Segment, u8), Stop> {
        if selector & !3 == 0 {
            return Err(self.gp(0));
        }
        let d = self.descriptor(selector, Blame::Gp)?;
        let s = Segment::from_descriptor(selector, d);
        let conforming = s.access & 1 << 2 != 0;
        let cpl = if conforming { self.cpl } else { s.dpl() };
        if cpl > self.cpl {
            return Err(self.gp(selector & !3));
        }
        let s = self.code_segment(selector, cpl, Blame::Gp)?;
        Ok((s, cpl))
    }

    /// Reads a field of the task-state segment.
    fn tss_word(&mut self, offset: u64, size: u64) -> Result<u64, Stop> {
        if offset + size - 1 > u64::from(self.tr.limit) {
            return Err(self.ts(self.tr.selector & !3));
        }
        let at = self.tr.base.wrapping_add(offset);
        Ok(match size {
            8 => self.system_read::<u64>(at)?,
            4 => u64::from(self.system_read::<u32>(at)?),
            _ => u64::from(self.system_read::<u16>(at)?),
        })
    }

    fn enter_handler(&mut self, cs: Segment, target: u64, interrupt_gate: bool) {
        self.set_segment(seg::CS, cs);
        self.rip = target;
        let mut clear = bit::TF | bit::NT | bit::RF | bit::VM;
        if interrupt_gate {
            clear |= bit::IF;
        }
        self.eflags &= !clear;
        self.shadow = false;
        self.mode_changed();
    }

    fn deliver_protected(
        &mut self,
        vector: u8,
        error: Option<u32>,
        source: Source,
        flags: u64,
    ) -> Result<(), Stop> {
        let code = Self::gate_error(vector, source);
        let at = u64::from(vector) * 8;
        if at + 7 > u64::from(self.idtr.limit) {
            return Err(self.gp(code));
        }
        let gate: u64 = self.system_read(self.idtr.base.wrapping_add(at))?;
        let kind = gate >> 40 & 0x1f;
        let dpl = (gate >> 45 & 3) as u8;
        let size = match kind {
            0xe | 0xf => 4,
            6 | 7 => 2,
            _ => return Err(self.gp(code)),
        };
        if source == Source::Software && dpl < self.cpl {
            return Err(self.gp(code));
        }
        if gate >> 47 & 1 == 0 {
            return Err(self.np(code));
        }
        let target = if size == 4 {
            gate & 0xffff | gate >> 32 & 0xffff_0000
        } else {
            gate & 0xffff
        };
        let (cs, cpl) = self.handler_segment((gate >> 16) as u16)?;
        let old_ss = u64::from(self.seg[seg::SS].selector);
        let old_sp = self.regs[reg::RSP];
        let old_cs = u64::from(self.seg[seg::CS].selector);
        let mut frame = vec![flags, old_cs, self.rip];
        if cpl < self.cpl {
            let sp = self.tss_word(4 + u64::from(cpl) * 8, 4)?;
            let ss = self.tss_word(8 + u64::from(cpl) * 8, 2)? as u16;
            self.set_cpl(cpl);
            self.load_stack_segment(ss, cpl, Blame::Ts)?;
            self.set_cpl(cpl);
            self.set_sp(sp);
            frame.splice(0..0, [old_ss, old_sp]);
        }
        frame.extend(error.map(u64::from));
        for word in frame {
            self.push_sized(word, size)?;
        }
        self.enter_handler(cs, target, kind & 1 == 0);
        Ok(())
    }

    fn deliver_real(&mut self, vector: u8, flags: u64) -> Result<(), Stop> {
        let at = u64::from(vector) * 4;
        if at + 3 > u64::from(self.idtr.limit) {
            return Err(self.gp(0));
        }
        let entry: u32 = self.system_read(self.idtr.base.wrapping_add(at))?;
        let cs = self.seg[seg::CS];
        for word in [flags, u64::from(cs.selector), self.rip] {
            self.push_sized(word, 2)?;
        }
        let selector = (entry >> 16) as u16;
        let target = Segment {
            selector,
            base: u64::from(selector) << 4,
            ..cs
        };
        self.enter_handler(target, u64::from(entry & 0xffff), true);
        Ok(())
    }

    /// IRET with operand size `size`.
    pub(crate) fn interrupt_return(&mut self, size: u64) -> Result<(), Stop> {
        if !self.protected() {
            return self.return_real(size);
        }
        if self.eflags & bit::NT != 0 {
            // Task return: no hardware tasks here; in long mode the processor raises #GP itself.
            return Err(self.gp(0));
        }
        let rip = self.stack_word(0, size)?;
        let cs = self.stack_word(size, 2)? as u16;
        let flags = self.stack_word(2 * size, size)?;
        let rpl = (cs & 3) as u8;
        if rpl < self.cpl || flags & bit::VM != 0 && size == 4 && !self.long_mode() {
            return Err(self.gp(cs & !3));
        }
        let from64 = self.bits == 64;
        let s = self.code_segment(cs, rpl, Blame::Gp)?;
        if s.long() && self.long_mode() && !canonical(rip) {
            return Err(self.gp(0));
        }
        let old_cpl = self.cpl;
        if from64 || rpl != self.cpl {
            let sp = self.stack_word(3 * size, size)?;
            let ss = self.stack_word(4 * size, 2)? as u16;
            self.return_stack(ss, rpl, s.long())?;
            self.set_segment(seg::CS, s);
            self.load_return_flags(flags, size, old_cpl);
            self.mode_changed();
            if self.stack_mask == 0xffff && from64 {
                // 64-bit IRET loads all of RSP, whatever the width of the stack it returns to.
                self.regs[reg::RSP] = sp;
            } else {
                self.set_sp(sp);
            }
            if rpl != old_cpl {
                self.drop_inner_segments(rpl);
            }
        } else {
            self.set_segment(seg::CS, s);
            self.set_sp(self.regs[reg::RSP].wrapping_add(3 * size));
            self.load_return_flags(flags, size, old_cpl);
            self.mode_changed();
        }
        self.rip = rip & self.rip_mask;
        self.nmi_blocked = false;
        self.attention();
        Ok(())
    }

    /// Loads SS on the way to privilege `rpl`; null is fine for 64-bit code outside ring 3.
    fn return_stack(&mut self, ss: u16, rpl: u8, to_long: bool) -> Result<(), Stop> {
        if ss & !3 == 0 && (!to_long || rpl == 3 || (ss & 3) as u8 != rpl) {
            return Err(self.gp(0));
        }
        let (bits, cpl) = (self.bits, self.cpl);
        if ss & !3 == 0 {
            self.bits = 64;
        }
        let loaded = self.load_stack_segment(ss, rpl, Blame::Gp);
        // Until CS is loaded too, the old privilege rules.
        self.bits = bits;
        if loaded.is_err() {
            self.set_cpl(cpl);
        }
        loaded
    }

    fn load_return_flags(&mut self, flags: u64, size: u64, cpl: u8) {
        let mut writable = bit::ARITHMETIC | bit::TF | bit::DF | bit::NT;
        if size > 2 {
            writable |= bit::RF | bit::AC | bit::ID;
        }
        if cpl == 0 {
            writable |= bit::IOPL;
        }
        if cpl <= self.iopl() {
            writable |= bit::IF;
        }
        self.set_rflags(self.rflags() & !writable | flags & writable);
    }

    fn return_real(&mut self, size: u64) -> Result<(), Stop> {
        let rip = self.stack_word(0, size)?;
        let cs = self.stack_word(size, 2)? as u16;
        let flags = self.stack_word(2 * size, size)?;
        self.set_segment(
            seg::CS,
            Segment {
                selector: cs,
                base: u64::from(cs) << 4,
                ..self.seg[seg::CS]
            },
        );
        self.set_sp(self.regs[reg::RSP].wrapping_add(3 * size));
        let writable = bit::ARITHMETIC | bit::TF | bit::IF | bit::DF | bit::IOPL | bit::NT;
        self.set_rflags(self.rflags() & !writable | flags & writable);
        self.rip = rip & 0xffff;
        self.mode_changed();
        self.attention();
        Ok(())
    }

    /// Privilege needed for I/O instructions.
    pub(crate) fn iopl(&self) -> u8 {
        ((self.eflags & bit::IOPL) >> 12) as u8
    }
}
