//! The local APIC: xAPIC and x2APIC registers, priorities, the timer (SDM vol. 3, chapter 11).

use crate::cpu::Cpu;

/// How an interrupt message acts on its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The vector of the message.
    Fixed,
    /// The same, to one of several targets; the lowest-numbered one takes it here.
    LowestPriority,
    /// Non-maskable interrupt.
    Nmi,
    /// Reset into waiting for start-up.
    Init,
    /// Start an application processor at `vector << 12`.
    StartUp,
}

impl DeliveryMode {
    /// Decodes the three-bit field of ICR, redirection entries and MSI data; `None` for those
    /// without effect here (SMI, ExtINT).
    pub fn from_bits(bits: u32) -> Option<DeliveryMode> {
        Some(match bits & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            _ => return None,
        })
    }
}

/// An interrupt message on its way to one or more local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// APIC id, or logical destination.
    pub destination: u32,
    /// The destination is logical.
    pub logical: bool,
    /// Excludes the vCPU of this index, for "all but self".
    pub except: Option<usize>,
    /// What the message does.
    pub mode: DeliveryMode,
    /// Vector, or page of the start-up code.
    pub vector: u8,
    /// Level-triggered: its end is reported by [`crate::Complex::take_eois`].
    pub level: bool,
}

/// Saved state of a local APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApicState {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// The 64 registers at offsets 0x000, 0x010, … 0x3f0 of the xAPIC page.
    pub registers: [u32; 64],
    /// IA32_TSC_DEADLINE, 0 if not armed.
    pub tsc_deadline: u64,
}

/// Register numbers: MSR less 0x800, or MMIO offset divided by 16.
mod register {
    pub(super) const ID: usize = 0x02;
    pub(super) const VERSION: usize = 0x03;
    pub(super) const TPR: usize = 0x08;
    pub(super) const PPR: usize = 0x0a;
    pub(super) const EOI: usize = 0x0b;
    pub(super) const LDR: usize = 0x0d;
    pub(super) const DFR: usize = 0x0e;
    pub(super) const SVR: usize = 0x0f;
    pub(super) const ISR: usize = 0x10;
    pub(super) const TMR: usize = 0x18;
    pub(super) const IRR: usize = 0x20;
    pub(super) const ESR: usize = 0x28;
    pub(super) const ICR: usize = 0x30;
    pub(super) const ICR_HIGH: usize = 0x31;
    pub(super) const LVT_TIMER: usize = 0x32;
    pub(super) const LVT_ERROR: usize = 0x37;
    pub(super) const TIMER_INITIAL: usize = 0x38;
    pub(super) const TIMER_CURRENT: usize = 0x39;
    pub(super) const TIMER_DIVIDE: usize = 0x3e;
    pub(super) const SELF_IPI: usize = 0x3f;
}

const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2: u64 = 1 << 10;
const BASE_BSP: u64 = 1 << 8;
const MASKED: u32 = 1 << 16;
const NEVER: u64 = u64::MAX;

/// What a register write asks of the processor around the APIC.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// Interrupts may have become deliverable, or the timer changed.
    Attention,
    Send(InterruptMessage),
    /// A level-triggered interrupt of this vector has ended.
    EndOfLevel(u8),
    /// Not a register, or not a value for it.
    Invalid,
}

/// One vCPU's local APIC.
#[derive(Clone, Debug)]
pub(crate) struct LocalApic {
    index: u32,
    base: u64,
    r: [u32; 64],
    /// High half of the x2APIC's ICR.
    tsc_deadline: u64,
    /// Tick at which the timer fires next.
    deadline: u64,
    /// Tick at which the current count started.
    started: u64,
}

impl LocalApic {
    pub(crate) fn new(index: u32) -> LocalApic {
        let mut apic = LocalApic {
            index,
            base: 0xfee0_0000 | BASE_ENABLE | if index == 0 { BASE_BSP } else { 0 },
            r: [0; 64],
            tsc_deadline: 0,
            deadline: NEVER,
            started: 0,
        };
        apic.reset();
        apic
    }

    /// State after reset or INIT (SDM vol. 3, 11.4.7).
    pub(crate) fn reset(&mut self) {
        self.r = [0; 64];
        self.r[register::ID] = if self.x2() {
            self.index
        } else {
            self.index << 24
        };
        // Version 0x14, six LVT entries.
        self.r[register::VERSION] = 0x0005_0014;
        self.r[register::DFR] = u32::MAX;
        self.r[register::SVR] = 0xff;
        for lvt in register::LVT_TIMER..=register::LVT_ERROR {
            self.r[lvt] = MASKED;
        }
        self.update_x2_ldr();
        self.tsc_deadline = 0;
        self.deadline = NEVER;
    }

    pub(crate) fn id(&self) -> u32 {
        self.index
    }

    fn x2(&self) -> bool {
        self.base & (BASE_X2 | BASE_ENABLE) == BASE_X2 | BASE_ENABLE
    }

    fn update_x2_ldr(&mut self) {
        if self.x2() {
            self.r[register::LDR] = (self.index & !0xf) << 12 | 1 << (self.index & 0xf);
        }
    }

    /// Guest-physical page of the xAPIC registers; no page if they are not there.
    pub(crate) fn mmio_page(&self) -> u64 {
        if self.base & (BASE_ENABLE | BASE_X2) == BASE_ENABLE {
            self.base & 0xff_ffff_f000
        } else {
            NEVER
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE; `false` for a transition that is not allowed (SDM vol. 3, 11.12.1).
    pub(crate) fn set_base(&mut self, value: u64) -> bool {
        let (old, new) = (
            self.base & (BASE_ENABLE | BASE_X2),
            value & (BASE_ENABLE | BASE_X2),
        );
        let allowed = new != BASE_X2
            && !(old == BASE_ENABLE | BASE_X2 && new == BASE_ENABLE)
            && !(old == 0 && new == BASE_ENABLE | BASE_X2)
            && value & !0xff_ffff_fd00 == 0;
        if allowed {
            self.base = value & !BASE_BSP | self.base & BASE_BSP;
            if new == 0 {
                self.reset();
            }
            self.r[register::ID] = if self.x2() {
                self.index
            } else {
                self.index << 24
            };
            self.update_x2_ldr();
        }
        allowed
    }

    fn enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0 && self.r[register::SVR] & 0x100 != 0
    }

    pub(crate) fn tpr(&self) -> u32 {
        self.r[register::TPR] & 0xff
    }

    pub(crate) fn set_tpr(&mut self, value: u32) {
        self.r[register::TPR] = value & 0xff;
    }

    fn highest(&self, from: usize) -> Option<u8> {
        (0..8).rev().find_map(|i| {
            let word = self.r[from + i];
            (word != 0).then(|| (i * 32) as u8 + 31 - word.leading_zeros() as u8)
        })
    }

    fn ppr(&self) -> u32 {
        let service = self
            .highest(register::ISR)
            .map_or(0, |v| u32::from(v) & 0xf0);
        let task = self.tpr();
        if task & 0xf0 >= service {
            task
        } else {
            service
        }
    }

    /// The interrupt that would be delivered now, if any.
    #[inline]
    pub(crate) fn pending(&self) -> Option<u8> {
        let vector = self.highest(register::IRR)?;
        (self.enabled() && u32::from(vector) & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Moves `vector` from requested to in service.
    pub(crate) fn accept(&mut self, vector: u8) {
        let (word, bit) = (usize::from(vector / 32), 1 << (vector % 32));
        self.r[register::IRR + word] &= !bit;
        self.r[register::ISR + word] |= bit;
    }

    /// An interrupt arrives.
    pub(crate) fn request(&mut self, vector: u8, level: bool) {
        if !self.enabled() {
            return;
        }
        if vector < 16 {
            self.r[register::ESR] |= 1 << 6;
            return;
        }
        let (word, bit) = (usize::from(vector / 32), 1 << (vector % 32));
        self.r[register::IRR + word] |= bit;
        if level {
            self.r[register::TMR + word] |= bit;
        } else {
            self.r[register::TMR + word] &= !bit;
        }
    }

    /// Whether a message's destination means this APIC.
    pub(crate) fn is_target(&self, destination: u32, logical: bool) -> bool {
        if !logical {
            return destination == self.index
                || destination == if self.x2() { u32::MAX } else { 0xff }
                || destination == u32::MAX
                || destination == 0xff;
        }
        if self.x2() {
            let ldr = self.r[register::LDR];
            return destination >> 16 == ldr >> 16 && destination & ldr & 0xffff != 0
                || destination == u32::MAX;
        }
        let ldr = self.r[register::LDR] >> 24;
        if self.r[register::DFR] >> 28 == 0xf {
            destination & ldr & 0xff != 0
        } else {
            destination >> 4 == ldr >> 4 && destination & ldr & 0xf != 0
        }
    }

    /// Reads a register; `now` in ticks. `None` if there is no such register.
    pub(crate) fn read(&self, number: usize, now: u64) -> Option<u32> {
        Some(match number {
            register::TIMER_CURRENT => self.current_count(now),
            register::PPR => self.ppr(),
            register::EOI | register::SELF_IPI => 0,
            register::ID
            | register::VERSION
            | register::TPR
            | register::LDR
            | register::DFR
            | register::SVR..register::ESR
            | register::ESR
            | register::ICR..=register::TIMER_INITIAL
            | register::TIMER_DIVIDE => self.r[number],
            // CMCI, remote read and arbitration priority are not there.
            0x09 | 0x0c | 0x2f => 0,
            _ => return None,
        })
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, number: usize, value: u32, now: u64, tsc_at_0: u64) -> Effect {
        match number {
            register::TPR => {
                self.set_tpr(value);
                Effect::Attention
            }
            register::EOI => self.end_of_interrupt(),
            register::ID if !self.x2() => Effect::None,
            register::LDR if !self.x2() => {
                self.r[number] = value & 0xff00_0000;
                Effect::None
            }
            register::DFR if !self.x2() => {
                self.r[number] = value | 0x0fff_ffff;
                Effect::None
            }
            register::SVR => {
                self.r[number] = value & 0x3ff;
                if value & 0x100 == 0 {
                    for lvt in register::LVT_TIMER..=register::LVT_ERROR {
                        self.r[lvt] |= MASKED;
                    }
                }
                Effect::Attention
            }
            register::ESR => {
                self.r[number] = 0;
                Effect::None
            }
            register::ICR => {
                self.r[number] = value & !(1 << 12);
                let high = self.r[register::ICR_HIGH];
                self.send(value, if self.x2() { high } else { high >> 24 })
            }
            register::ICR_HIGH => {
                self.r[number] = value;
                Effect::None
            }
            register::LVT_TIMER => {
                let mode_changed = (self.r[number] ^ value) & 0x6_0000 != 0;
                self.r[number] = value & 0x7_10ff | self.r[number] & 0x1000;
                if mode_changed {
                    (self.deadline, self.tsc_deadline) = (NEVER, 0);
                    self.r[register::TIMER_INITIAL] = 0;
                }
                Effect::Attention
            }
            0x33..=register::LVT_ERROR => {
                self.r[number] = value & 0x1_f7ff;
                Effect::None
            }
            register::TIMER_INITIAL => {
                if self.timer_mode() != 2 {
                    self.r[number] = value;
                    self.started = now;
                    self.arm_count(now);
                }
                Effect::Attention
            }
            register::TIMER_DIVIDE => {
                self.r[number] = value & 0xb;
                self.arm_count(now);
                Effect::Attention
            }
            register::SELF_IPI if self.x2() => {
                self.request(value as u8, false);
                Effect::Attention
            }
            register::VERSION
            | 0x09
            | register::PPR
            | 0x0c
            | 0x10..=0x27
            | 0x2f
            | register::TIMER_CURRENT => {
                let _ = tsc_at_0;
                if self.x2() {
                    Effect::Invalid
                } else {
                    Effect::None
                }
            }
            _ => {
                if self.x2() {
                    Effect::Invalid
                } else {
                    Effect::None
                }
            }
        }
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.highest(register::ISR) else {
            return Effect::None;
        };
        let (word, bit) = (usize::from(vector / 32), 1 << (vector % 32));
        self.r[register::ISR + word] &= !bit;
        if self.r[register::TMR + word] & bit != 0 {
            Effect::EndOfLevel(vector)
        } else {
            Effect::Attention
        }
    }

    fn send(&mut self, icr: u32, destination: u32) -> Effect {
        let Some(mode) = DeliveryMode::from_bits(icr >> 8) else {
            return Effect::None;
        };
        let level = icr & 1 << 15 != 0;
        if mode == DeliveryMode::Init && level && icr & 1 << 14 == 0 {
            // INIT level de-assert: nothing on processors since the Pentium 4.
            return Effect::None;
        }
        let vector = icr as u8;
        let own = self.index as usize;
        let (destination, logical, except) = match icr >> 18 & 3 {
            0 => (destination, icr & 1 << 11 != 0, None),
            1 => (self.index, false, None),
            2 => (u32::MAX, false, None),
            _ => (u32::MAX, false, Some(own)),
        };
        Effect::Send(InterruptMessage {
            destination,
            logical,
            except,
            mode,
            vector,
            level: false,
        })
    }

    /// Sets the x2APIC's 64-bit ICR.
    pub(crate) fn write_icr(&mut self, value: u64) -> Effect {
        self.r[register::ICR] = value as u32;
        self.r[register::ICR_HIGH] = (value >> 32) as u32;
        self.send(value as u32, (value >> 32) as u32)
    }

    pub(crate) fn icr(&self) -> u64 {
        u64::from(self.r[register::ICR]) | u64::from(self.r[register::ICR_HIGH]) << 32
    }

    /// 0 one-shot, 1 periodic, 2 TSC deadline.
    fn timer_mode(&self) -> u32 {
        self.r[register::LVT_TIMER] >> 17 & 3
    }

    fn divide_shift(&self) -> u32 {
        let d = self.r[register::TIMER_DIVIDE];
        ((d & 3 | d >> 1 & 4) + 1) & 7
    }

    fn period(&self) -> u64 {
        u64::from(self.r[register::TIMER_INITIAL]) << self.divide_shift()
    }

    fn arm_count(&mut self, now: u64) {
        if self.timer_mode() == 2 {
            return;
        }
        self.deadline = match self.period() {
            0 => NEVER,
            period if now < self.started + period || self.timer_mode() == 1 => {
                self.started + period
            }
            _ => NEVER,
        };
    }

    fn current_count(&self, now: u64) -> u32 {
        if self.timer_mode() == 2 || self.deadline == NEVER {
            return 0;
        }
        (self.deadline.saturating_sub(now) >> self.divide_shift()) as u32
    }

    /// IA32_TSC_DEADLINE.
    pub(crate) fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Arms the TSC-deadline timer; `tsc_offset` is TSC less ticks.
    pub(crate) fn set_tsc_deadline(&mut self, tsc: u64, tsc_offset: u64) {
        if self.timer_mode() != 2 {
            return;
        }
        self.tsc_deadline = tsc;
        // A deadline "before" the start of tick time has passed already.
        let at = tsc.wrapping_sub(tsc_offset);
        self.deadline = match tsc {
            0 => NEVER,
            _ if (at as i64) < 0 && tsc < tsc_offset => 0,
            _ => at,
        };
    }

    /// Tick at which the timer fires next; `u64::MAX` if it does not.
    pub(crate) fn next_timer(&self) -> u64 {
        self.deadline
    }

    /// Fires the timer if it is due.
    pub(crate) fn run_timer(&mut self, now: u64) {
        if now < self.deadline {
            return;
        }
        match self.timer_mode() {
            1 => {
                let period = self.period().max(1);
                let missed = (now - self.deadline) / period;
                self.started = self.deadline + missed * period;
                self.deadline = self.started + period;
            }
            _ => {
                self.deadline = NEVER;
                self.tsc_deadline = 0;
            }
        }
        let lvt = self.r[register::LVT_TIMER];
        if lvt & MASKED == 0 {
            self.request(lvt as u8, false);
        }
    }

    pub(crate) fn state(&self, now: u64) -> ApicState {
        let mut registers = self.r;
        registers[register::TIMER_CURRENT] = self.current_count(now);
        registers[register::PPR] = self.ppr();
        ApicState {
            base: self.base,
            registers,
            tsc_deadline: self.tsc_deadline,
        }
    }

    pub(crate) fn set_state(&mut self, s: &ApicState, now: u64, tsc_offset: u64) {
        self.base = s.base;
        self.r = s.registers;
        self.deadline = NEVER;
        self.tsc_deadline = 0;
        if self.timer_mode() == 2 {
            self.set_tsc_deadline(s.tsc_deadline, tsc_offset);
        } else if s.registers[register::TIMER_CURRENT] != 0 {
            let left = u64::from(s.registers[register::TIMER_CURRENT]) << self.divide_shift();
            self.deadline = now + left;
            self.started = self.deadline.saturating_sub(self.period());
        }
    }
}

impl Cpu {
    /// Reads an xAPIC register by its offset in the page.
    pub(crate) fn apic_mmio_read(&mut self, offset: u64) -> u32 {
        self.apic
            .read((offset >> 4) as usize, self.ticks)
            .unwrap_or(0)
    }

    /// Writes an xAPIC register.
    pub(crate) fn apic_mmio_write(&mut self, offset: u64, value: u32) {
        if offset & 0xf == 0 {
            let effect = self.apic.write(
                (offset >> 4) as usize,
                value,
                self.ticks,
                self.msr.tsc_offset,
            );
            self.apic_effect(effect);
        }
    }

    /// Carries out what a register write asked for; `false` if the write was not valid.
    pub(crate) fn apic_effect(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::None => {}
            Effect::Attention => self.attention(),
            Effect::Send(message) => {
                self.shared.messages.push(message);
                self.attention();
            }
            Effect::EndOfLevel(vector) => {
                self.shared.eois.push(vector);
                self.attention();
            }
            Effect::Invalid => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> LocalApic {
        let mut a = LocalApic::new(0);
        a.write(register::SVR, 0x1ff, 0, 0);
        a
    }

    #[test]
    fn the_higher_vector_comes_first_and_end_of_interrupt_lets_the_next_pass() {
        let mut a = enabled();
        a.request(0x31, false);
        a.request(0x52, false);
        assert_eq!(a.pending(), Some(0x52));
        a.accept(0x52);
        assert_eq!(a.pending(), None);
        a.write(register::EOI, 0, 0, 0);
        assert_eq!(a.pending(), Some(0x31));
        a.set_tpr(0x30);
        assert_eq!(a.pending(), None);
    }

    #[test]
    fn the_periodic_timer_keeps_its_period_over_late_checks() {
        let mut a = enabled();
        a.write(register::TIMER_DIVIDE, 0xb, 0, 0);
        a.write(register::LVT_TIMER, 0x2_0040, 0, 0);
        a.write(register::TIMER_INITIAL, 100, 0, 0);
        assert_eq!(a.next_timer(), 100);
        a.run_timer(350);
        assert_eq!((a.pending(), a.next_timer()), (Some(0x40), 400));
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut a = enabled();
        a.write(register::LVT_TIMER, 0x4_0040, 0, 0);
        a.set_tsc_deadline(5, 1000);
        a.run_timer(1);
        assert_eq!(a.pending(), Some(0x40));
    }
}
