//! The I/O APIC of the software backend: 24 input pins, each with a redirection entry that says
//! which interrupt message a pulse on it becomes (82093AA data sheet). Its saved state has the
//! shape of KVM's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{KVM_IOAPIC_NUM_PINS, KVM_IRQCHIP_IOAPIC, kvm_ioapic_state, kvm_irqchip};
use provium_cpu::{DeliveryMode, InterruptMessage};
use provium_devices::{BusDevice, Interrupt};

use crate::layout::{IOAPIC_PINS, IOAPIC_START};

/// Size of the register window.
pub(crate) const WINDOW: u64 = 0x1000;

const PINS: usize = KVM_IOAPIC_NUM_PINS as usize;
const _: () = assert!(PINS == IOAPIC_PINS as usize);

/// Register select and data window.
const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;
/// Directed end-of-interrupt, of versions from 0x20 on.
const EOI: u64 = 0x40;

const REG_ID: u8 = 0x00;
const REG_VERSION: u8 = 0x01;
const REG_ARBITRATION: u8 = 0x02;
const REG_REDIRECTION: u8 = 0x10;

/// Version 0x11 with 24 entries, as KVM's model says.
const VERSION: u32 = 0x11 | ((IOAPIC_PINS - 1) << 16);

const LOGICAL: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;

/// Pulses that devices have sent and the machine's thread has not yet taken, a bit per pin.
#[derive(Debug, Default)]
pub(crate) struct Pins(AtomicU32);

impl Pins {
    /// Takes all pulses since the last call.
    pub(crate) fn take(&self) -> u32 {
        // Almost always nothing: do not own the cache line for that.
        if self.0.load(Ordering::Acquire) == 0 {
            0
        } else {
            self.0.swap(0, Ordering::AcqRel)
        }
    }
}

/// The wire from a device to one pin.
pub(crate) struct PinLine {
    pub(crate) pins: Arc<Pins>,
    pub(crate) pin: u32,
}

impl Interrupt for PinLine {
    fn trigger(&self) {
        self.pins.0.fetch_or(1 << self.pin, Ordering::AcqRel);
    }
}

/// The controller.
pub struct IoApic {
    id: u32,
    select: u8,
    redirection: [u64; PINS],
}

impl IoApic {
    pub(crate) fn new() -> Self {
        let mut this = Self {
            id: 0,
            select: 0,
            redirection: [0; PINS],
        };
        this.reset();
        this
    }

    /// Power-on state: everything masked.
    pub(crate) fn reset(&mut self) {
        (self.id, self.select) = (0, 0);
        self.redirection = [MASKED; PINS];
    }

    /// A pulse arrives at `pin`: the message that it becomes, unless it is masked or, on a
    /// level-triggered entry, the one before has not ended.
    pub(crate) fn pulse(&mut self, pin: usize) -> Option<InterruptMessage> {
        let entry = self.redirection.get_mut(pin)?;
        if *entry & MASKED != 0 || *entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR {
            return None;
        }
        let mode = DeliveryMode::from_bits((*entry >> 8 & 7) as u32)?;
        if *entry & LEVEL != 0 {
            *entry |= REMOTE_IRR;
        }
        Some(InterruptMessage {
            destination: (*entry >> 56) as u32,
            logical: *entry & LOGICAL != 0,
            except: None,
            mode,
            vector: *entry as u8,
            level: *entry & LEVEL != 0,
        })
    }

    /// A local APIC has finished the level-triggered interrupt `vector`.
    pub(crate) fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.redirection {
            if *entry & LEVEL != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
            }
        }
    }

    /// The state as KVM's interrupt controllers are saved.
    pub(crate) fn save_chip(&self) -> kvm_irqchip {
        let mut chip = kvm_irqchip {
            chip_id: KVM_IRQCHIP_IOAPIC,
            ..Default::default()
        };
        chip.chip.ioapic = self.save();
        chip
    }

    /// Takes over an I/O APIC that was saved as KVM's are; other controllers this backend lacks.
    pub(crate) fn restore_chip(&mut self, chip: &kvm_irqchip) {
        if chip.chip_id == KVM_IRQCHIP_IOAPIC {
            // SAFETY: the member of this chip id, and plain integers for which every bit pattern is
            // a value.
            self.restore(&unsafe { chip.chip.ioapic });
        }
    }

    /// The state in KVM's shape.
    #[must_use]
    pub fn save(&self) -> kvm_ioapic_state {
        let mut state = kvm_ioapic_state {
            base_address: IOAPIC_START,
            ioregsel: u32::from(self.select),
            id: self.id,
            ..Default::default()
        };
        for (to, from) in state.redirtbl.iter_mut().zip(self.redirection) {
            to.bits = from;
        }
        state
    }

    /// Takes over a state in KVM's shape; every value is possible.
    pub fn restore(&mut self, state: &kvm_ioapic_state) {
        self.id = state.id & 0xf;
        self.select = state.ioregsel as u8;
        for (to, from) in self.redirection.iter_mut().zip(&state.redirtbl) {
            // SAFETY: every bit pattern is a valid u64, and all members of the union are eight
            // bytes long.
            *to = unsafe { from.bits };
        }
    }

    fn read_register(&self) -> u32 {
        match self.select {
            REG_ID | REG_ARBITRATION => self.id << 24,
            REG_VERSION => VERSION,
            select => match self.entry_of(select) {
                Some((pin, false)) => self.redirection[pin] as u32,
                Some((pin, true)) => (self.redirection[pin] >> 32) as u32,
                None => 0,
            },
        }
    }

    fn write_register(&mut self, value: u32) {
        match self.select {
            REG_ID => self.id = value >> 24 & 0xf,
            select => match self.entry_of(select) {
                Some((pin, false)) => self.write_low(pin, u64::from(value)),
                Some((pin, true)) => {
                    let entry = &mut self.redirection[pin];
                    *entry = *entry & 0xffff_ffff | u64::from(value) << 32;
                }
                None => {}
            },
        }
    }

    fn write_low(&mut self, pin: usize, value: u64) {
        let entry = &mut self.redirection[pin];
        *entry = *entry & !0xffff_ffff | value & !READ_ONLY & 0x1_ffff | *entry & READ_ONLY;
        if *entry & LEVEL == 0 {
            // An edge-triggered entry has no remote IRR; guests clear a stuck one by switching
            // over.
            *entry &= !REMOTE_IRR;
        }
    }

    /// Pin and half (true: the upper one) of a redirection register.
    fn entry_of(&self, select: u8) -> Option<(usize, bool)> {
        let index = usize::from(select.checked_sub(REG_REDIRECTION)?);
        (index / 2 < PINS).then_some((index / 2, index % 2 == 1))
    }
}

impl BusDevice for IoApic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset & !3 {
            SELECT => u32::from(self.select),
            DATA => self.read_register(),
            _ => 0,
        };
        let bytes = value.to_le_bytes();
        data.fill(0);
        for (to, from) in data
            .iter_mut()
            .zip(bytes.iter().skip((offset & 3) as usize))
        {
            *to = *from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u32::from_le_bytes(bytes);
        match offset {
            SELECT => self.select = value as u8,
            DATA => self.write_register(value),
            EOI => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(apic: &mut IoApic, register: u8, value: u32) {
        apic.write(SELECT, &u32::from(register).to_le_bytes());
        apic.write(DATA, &value.to_le_bytes());
    }

    fn get(apic: &mut IoApic, register: u8) -> u32 {
        apic.write(SELECT, &u32::from(register).to_le_bytes());
        let mut data = [0; 4];
        apic.read(DATA, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn an_edge_becomes_a_message_unless_masked() {
        let mut apic = IoApic::new();
        assert_eq!(apic.pulse(5), None);
        set(&mut apic, 0x1a, 0x31);
        set(&mut apic, 0x1b, 2 << 24);
        let message = apic.pulse(5).unwrap();
        assert_eq!(
            (
                message.vector,
                message.destination,
                message.logical,
                message.level
            ),
            (0x31, 2, false, false)
        );
        assert!(apic.pulse(5).is_some());
        assert_eq!(apic.pulse(24), None);
    }

    #[test]
    fn a_level_interrupt_waits_for_its_end() {
        let mut apic = IoApic::new();
        set(&mut apic, 0x10, 0x40 | LEVEL as u32);
        assert!(apic.pulse(0).unwrap().level);
        assert_eq!(apic.pulse(0), None);
        assert_eq!(get(&mut apic, 0x10) & REMOTE_IRR as u32, REMOTE_IRR as u32);
        apic.end_of_interrupt(0x40);
        assert!(apic.pulse(0).is_some());
    }

    #[test]
    fn registers_read_back_and_read_only_bits_stay() {
        let mut apic = IoApic::new();
        assert_eq!(get(&mut apic, REG_VERSION), 0x0017_0011);
        set(&mut apic, 0x3e, u32::MAX);
        assert_eq!(get(&mut apic, 0x3e), 0x1_afff);
        set(&mut apic, 0x40, 7);
        assert_eq!(get(&mut apic, 0x40), 0);
        set(&mut apic, 0xff, 7);
        assert_eq!(get(&mut apic, 0xff), 0);
    }

    #[test]
    fn the_state_survives_a_save() {
        let mut apic = IoApic::new();
        set(&mut apic, 0x12, 0x55);
        set(&mut apic, 0x13, 3 << 24);
        set(&mut apic, 0x00, 5 << 24);
        let mut other = IoApic::new();
        other.restore(&apic.save());
        assert_eq!(other.pulse(1), apic.pulse(1));
        assert_eq!(get(&mut other, 0), 5 << 24);
    }

    #[test]
    fn pulses_coalesce_until_taken() {
        let pins = Arc::new(Pins::default());
        let line = PinLine {
            pins: pins.clone(),
            pin: 7,
        };
        line.trigger();
        line.trigger();
        assert_eq!(pins.take(), 1 << 7);
        assert_eq!(pins.take(), 0);
    }
}
