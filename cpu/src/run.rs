//! The loop: find a block, execute it, look up at its end if something is due.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Register};

use crate::code::Block;
use crate::complex::Exit;
use crate::cpu::{Activity, Cpu, seg};
use crate::exception::Exception;
use crate::flags::bit;
use crate::op::{Op, Stop, reg};
use crate::paging::{Access, Who};
use crate::tlb::{self, CodeEntry};
use crate::translate::{self, MAX_LEN};

/// Why execution can't just go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    None,
    /// Raised by the current instruction, which has had no effect.
    Exception(Exception),
    /// The current instruction needs an answer from outside and will start over.
    Exit(Exit),
    /// The current instruction is complete, RIP is set, and the vCPU leaves.
    Done(Exit),
    /// The current instruction is complete (or at a point where it can be resumed) and RIP is set.
    Next,
    /// The current instruction writes near decoded code: execute it on its own.
    Retry,
}

/// Decoder options: processors without LZCNT and TZCNT execute them as BSR and BSF.
const OPTIONS: u32 = DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD;

impl Cpu {
    /// Something may be due before the next block: look up at its start.
    #[inline]
    pub(crate) fn attention(&mut self) {
        self.limit = 0;
    }

    /// Runs until tick `until` or an exit.
    pub(crate) fn run(&mut self, now: u64, until: u64) -> Exit {
        self.begin(now);
        loop {
            if self.ticks >= self.limit {
                if let Some(exit) = self.look_up(until) {
                    return exit;
                }
                if self.shadow || !self.replay.is_empty() || self.eflags & bit::TF != 0 {
                    self.limit = 0;
                    if let Some(exit) = self.step() {
                        return exit;
                    }
                    continue;
                }
            }
            let exit = self.run_block();
            if let Some(exit) = exit {
                return exit;
            }
        }
    }

    /// Executes one instruction, or delivers one event.
    pub(crate) fn run_one(&mut self, now: u64) -> Exit {
        self.begin(now);
        if let Some(exit) = self.look_up(now + 1) {
            return exit;
        }
        self.step().unwrap_or(Exit::Quantum)
    }

    fn begin(&mut self, now: u64) {
        self.ticks = now;
        self.limit = 0;
        if self.code_epoch != self.shared.code.epoch {
            self.dtlb.protect_all();
            self.code_epoch = self.shared.code.epoch;
        }
        if self.code_generation != self.shared.code.generation {
            self.itlb.flush_all();
            self.jump.forget();
            self.code_generation = self.shared.code.generation;
        }
        if self.code_invalidated != self.shared.code.invalidated {
            self.jump.forget();
            self.code_invalidated = self.shared.code.invalidated;
        }
    }

    /// Whether a halted vCPU would wake at tick `now`.
    pub(crate) fn would_wake(&self, now: u64) -> bool {
        self.nmi_pending && !self.nmi_blocked
            || self.apic.next_timer() <= now
            || self.apic.pending().is_some() && self.interrupts_enabled()
    }

    /// Timer, interrupts, end of the quantum.
    #[cold]
    fn look_up(&mut self, until: u64) -> Option<Exit> {
        self.apic.run_timer(self.ticks);
        match self.activity {
            Activity::WaitForSipi | Activity::Shutdown => return Some(Exit::Idle),
            Activity::Running | Activity::Halted => {}
        }
        if !self.shadow && self.replay.is_empty() {
            if self.nmi_pending && !self.nmi_blocked {
                self.nmi_pending = false;
                if let Some(exit) = self.deliver_interrupt(crate::exception::vector::NMI) {
                    return Some(exit);
                }
                self.nmi_blocked = true;
            } else if self.interrupts_enabled()
                && let Some(vector) = self.apic.pending()
            {
                self.apic.accept(vector);
                if let Some(exit) = self.deliver_interrupt(vector) {
                    return Some(exit);
                }
            }
        }
        if self.activity == Activity::Halted {
            return Some(Exit::Idle);
        }
        if self.ticks >= until {
            return Some(Exit::Quantum);
        }
        self.limit = until.min(self.apic.next_timer());
        // Messages to other vCPUs leave at the next quantum; to oneself, at once.
        if !self.shared.messages.is_empty() {
            self.limit = 0;
            return Some(Exit::Quantum);
        }
        None
    }

    /// Linear address of the next instruction.
    #[inline(always)]
    fn code_address(&self) -> u64 {
        if self.bits == 64 {
            self.rip
        } else {
            self.rip.wrapping_add(self.seg[seg::CS].base) & 0xffff_ffff
        }
    }

    #[inline(always)]
    fn run_block(&mut self) -> Option<Exit> {
        let linear = self.code_address();
        let block = match self.jump.lookup(linear, self.mode) {
            Some(b) => b,
            None => match self.find_block(linear) {
                Ok(Some(b)) => b,
                Ok(None) => return self.step(),
                Err(Stop) => return self.stopped_at(self.rip),
            },
        };
        self.regs[reg::PAGE] = self.rip.wrapping_sub(linear & 0xfff);
        self.execute(block)
    }

    /// Finds the block at `linear` the long way, decoding it if need be; `None` if it starts with
    /// an instruction that crosses into the next page, which is not cached.
    #[inline(never)]
    fn find_block(&mut self, linear: u64) -> Result<Option<Block>, Stop> {
        let tag = linear & !0xfff | self.mode;
        let known = self.itlb.lookup(tag).and_then(|page| {
            self.shared.code.pages[page as usize]
                .block((linear & 0xfff) as usize)
                .copied()
        });
        let block = match known {
            Some(b) => Some(b),
            None => self.decode_block(linear, tag)?,
        };
        if let Some(b) = block {
            self.jump.fill(linear, self.mode, b);
        }
        Ok(block)
    }

    /// Executes a block to its end or to the first operation that stops.
    #[inline]
    fn execute(&mut self, block: Block) -> Option<Exit> {
        let mut op = block.ops;
        // SAFETY: a block's operations lie in one chunk of the arena, which neither moves nor goes
        // away before `CodeCache::clear`, and that is called only from `decode_block`, with no
        // block executing; or in `step_ops`, which `step` has taken out of `self`.
        let end = unsafe { op.add(usize::from(block.len)) };
        loop {
            // SAFETY: as above; `op` is below `end`.
            let current = unsafe { &*op };
            if (current.run)(self, current).is_err() {
                if usize::from(current.seg) == reg::STACK {
                    self.stack_fault(Stop);
                }
                let done = u64::from(current.nth);
                self.ticks += done;
                self.retired += done;
                let at = self.this_rip(current);
                return self.stopped_at(at);
            }
            // SAFETY: as above; at most one past the last operation.
            op = unsafe { op.add(1) };
            if op == end {
                break;
            }
        }
        self.ticks += u64::from(block.instructions);
        self.retired += u64::from(block.instructions);
        None
    }

    /// Deals with a stop of the instruction at `at`.
    #[inline(never)]
    fn stopped_at(&mut self, at: u64) -> Option<Exit> {
        match std::mem::replace(&mut self.stop, StopReason::None) {
            StopReason::Exception(e) => {
                self.rip = at;
                self.noncanonical = false;
                self.replay.clear();
                self.ticks += 1;
                self.attention();
                self.deliver_exception(e)
            }
            StopReason::Exit(exit) => {
                self.rip = at;
                self.replay.rewind();
                Some(exit)
            }
            StopReason::Done(exit) => {
                self.ticks += 1;
                self.retired += 1;
                Some(exit)
            }
            StopReason::Next => {
                self.ticks += 1;
                None
            }
            StopReason::Retry => {
                self.rip = at;
                self.replay.rewind();
                self.step()
            }
            StopReason::None => {
                // A handler failed without saying why: our bug, but the guest's loss only.
                self.rip = at;
                self.deliver_exception(Exception {
                    vector: crate::exception::vector::UD,
                    error: None,
                })
            }
        }
    }

    /// Executes one instruction outside any block: after STI, while its device accesses are
    /// answered, near code that it writes, across pages, and under TF.
    #[cold]
    fn step(&mut self) -> Option<Exit> {
        let shadow = std::mem::take(&mut self.shadow);
        let trap = self.eflags & bit::TF != 0;
        let linear = self.code_address();
        let mut bytes = [0u8; MAX_LEN];
        let len = match self.fetch(linear, &mut bytes) {
            Ok(len) => len,
            Err(Stop) => return self.stopped_at(self.rip),
        };
        let offset = linear & 0xfff;
        let mut ops = std::mem::take(&mut self.step_ops);
        ops.clear();
        let mut decoder = Decoder::with_ip(u32::from(self.bits), &bytes[..len], offset, OPTIONS);
        let insn = decoder.decode();
        translate::one(&insn, &bytes, self.bits, 0, &mut ops);
        translate::finish(&mut ops, &insn);
        self.regs[reg::PAGE] = self.rip.wrapping_sub(offset);
        self.stepping = true;
        let before = self.retired;
        let exit = self.execute(Block {
            ops: ops.as_ptr(),
            len: ops.len() as u16,
            instructions: 1,
        });
        self.stepping = false;
        ops.clear();
        self.step_ops = ops;
        let waiting = matches!(
            exit,
            Some(
                Exit::MmioRead { .. }
                    | Exit::MmioWrite { .. }
                    | Exit::PioIn { .. }
                    | Exit::PioOut { .. }
            )
        );
        if waiting {
            self.shadow = shadow;
        } else {
            self.replay.clear();
        }
        // Entering a handler clears TF, and with it this instruction's trap.
        let entered = self.eflags & bit::TF == 0
            && matches!(
                insn.flow_control(),
                FlowControl::Interrupt | FlowControl::Call
            );
        // A load of SS holds the trap off as it does interrupts (SDM vol. 3, 6.8.3).
        let held = insn.op0_register() == Register::SS && self.shadow;
        if trap && !entered && !held && exit.is_none() && self.retired > before {
            return self.single_step_trap();
        }
        exit
    }

    fn single_step_trap(&mut self) -> Option<Exit> {
        const BS: u64 = 1 << 14;
        self.dr[4] |= BS;
        self.deliver_exception(Exception {
            vector: crate::exception::vector::DB,
            error: None,
        })
    }

    /// Reads the bytes of the instruction at `linear`; the second page only as far as needed.
    fn fetch(&mut self, linear: u64, bytes: &mut [u8; MAX_LEN]) -> Result<usize, Stop> {
        let first = MAX_LEN.min(4096 - (linear & 0xfff) as usize);
        self.fetch_page(linear, &mut bytes[..first])?;
        if first == MAX_LEN {
            return Ok(first);
        }
        let mut decoder = Decoder::with_ip(u32::from(self.bits), &bytes[..first], 0, OPTIONS);
        let insn = decoder.decode();
        if !insn.is_invalid() || decoder.last_error() != iced_x86::DecoderError::NoMoreBytes {
            return Ok(first);
        }
        self.fetch_page(linear.wrapping_add(first as u64), &mut bytes[first..])?;
        Ok(MAX_LEN)
    }

    fn fetch_page(&mut self, linear: u64, out: &mut [u8]) -> Result<(), Stop> {
        let t = self.walk_code(linear)?;
        let Some((host, _)) = self.shared.ram.page(t.gpa) else {
            return self.exit_outside_ram();
        };
        let offset = (t.gpa & 0xfff) as usize;
        // SAFETY: the caller keeps `out` within the page of `linear`, and `host` is that page.
        unsafe {
            host.add(offset)
                .copy_to_nonoverlapping(out.as_mut_ptr(), out.len())
        };
        Ok(())
    }

    fn walk_code(&mut self, linear: u64) -> Result<crate::paging::Translation, Stop> {
        if self.bits == 64 && !crate::mem::canonical(linear) {
            return Err(self.gp(0));
        }
        self.walk(linear, Access::Execute, Who::Program)
    }

    /// Execution outside RAM has nothing to decode; the vCPU shuts down as on a machine check.
    fn exit_outside_ram<T>(&mut self) -> Result<T, Stop> {
        self.activity = Activity::Shutdown;
        self.stop = StopReason::Done(Exit::Shutdown);
        Err(Stop)
    }

    /// Decodes the block at `linear` into the cache.
    #[cold]
    #[inline(never)]
    fn decode_block(&mut self, linear: u64, tag: u64) -> Result<Option<Block>, Stop> {
        let t = self.walk_code(linear)?;
        let Some((host, page)) = self.shared.ram.page(t.gpa) else {
            return self.exit_outside_ram();
        };
        if self.shared.code.full() {
            self.shared.code.clear();
            self.itlb.flush_all();
            self.jump.forget();
            self.code_generation = self.shared.code.generation;
        }
        let code_page = self.shared.code.code_page(page, self.bits);
        self.itlb.fill(CodeEntry {
            tag,
            page: code_page,
            global: t.kind & tlb::GLOBAL != 0,
            large: t.kind & tlb::LARGE != 0,
        });
        let start = (t.gpa & 0xfff) as usize;
        if let Some(&block) = self.shared.code.pages[code_page as usize].block(start) {
            return Ok(Some(block));
        }
        let mut bytes = [0u8; 4096];
        // SAFETY: `host` is a page of RAM, see `Ram::page`.
        unsafe { host.copy_to_nonoverlapping(bytes.as_mut_ptr(), 4096) };
        let mut ops: Vec<Op> = std::mem::take(&mut self.step_ops);
        ops.clear();
        let (end, instructions) = translate::block(&bytes, start, self.bits, OPTIONS, &mut ops);
        let block = if instructions == 0 {
            None
        } else {
            let (block, fresh) = self
                .shared
                .code
                .insert(code_page, start, end, &ops, instructions);
            if fresh {
                self.dtlb.protect(host as u64);
                self.code_epoch = self.shared.code.epoch;
            }
            Some(block)
        };
        self.step_ops = ops;
        Ok(block)
    }
}
