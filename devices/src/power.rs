//! Power and reset: the registers of hardware-reduced ACPI, and the power button.
//!
//! Eight bytes of I/O space, by custom of this machine at 0x600. The FADT names the first three,
//! the AML of the generic event device (ACPI0013) reads and clears the fourth:
//!
//! | offset | register | use |
//! |---|---|---|
//! | 0 | sleep control | SLP_TYP in bits 2..4, SLP_EN bit 5 (ACPI 6.4, 4.8.3.7); S5 powers off, S3 suspends |
//! | 1 | sleep status | WAK_STS bit 7, cleared by writing it |
//! | 2 | reset | writing [`RESET_VALUE`] resets the machine |
//! | 3 | event | pending events, cleared by writing them; bit 0 is the power button |
//!
//! The machine learns through its [`PowerSink`], and acts after the write has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::bus::BusDevice;
use crate::interrupt::Interrupt;
use crate::kick::Kick;

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u64 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u64 = 1;
/// Offset of the reset register.
pub const RESET: u64 = 2;
/// Offset of the event register that the AML of the event device uses.
pub const EVENT: u64 = 3;
/// Size of the register block.
pub const SIZE: u64 = 8;

/// SLP_TYP of soft off, for the `\_S5` package.
pub const SLEEP_TYPE_S5: u8 = 5;
/// SLP_TYP of suspend to RAM, for the `\_S3` package.
pub const SLEEP_TYPE_S3: u8 = 3;
/// What the FADT tells the guest to write into the reset register.
pub const RESET_VALUE: u8 = 1;
/// The power button's bit in the event register.
pub const EVENT_POWER_BUTTON: u8 = 1;

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;
const WAKE_STATUS: u8 = 1 << 7;

/// What the guest has asked for, or what has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerEvent {
    /// Soft off (S5).
    PowerOff,
    /// Suspend to RAM (S3): the vCPUs stand still until [`PowerButton::wake`].
    Suspend,
    /// Reset of the whole machine.
    Reset,
    /// The kernel says that it has panicked (L-061).
    Panicked,
    /// The kernel has panicked and starts its crash kernel.
    CrashLoaded,
}

/// Who is told of power events.
pub trait PowerSink: Send + Sync {
    /// Called on the thread that carries the guest's access, which it must not block; the device
    /// is locked.
    fn power_event(&self, event: PowerEvent);
}

/// The register block.
pub struct PowerDevice {
    sink: Arc<dyn PowerSink>,
    line: Arc<dyn Interrupt>,
    requests: Arc<Requests>,
    state: PowerState,
}

/// State in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerState {
    events: u8,
    woken: bool,
    suspended: bool,
}

/// What the device and the host's side share.
#[derive(Default)]
struct Requests {
    button: AtomicBool,
    wake: AtomicBool,
    /// The guest has suspended and nobody has woken it.
    suspended: AtomicBool,
}

/// The host's finger on the machine's power button.
#[derive(Clone)]
pub struct PowerButton {
    requests: Arc<Requests>,
    kick: Arc<dyn Kick>,
}

impl PowerButton {
    /// Presses the button: the guest gets an event and may power off (L-078). A suspended one wakes
    /// first.
    pub fn press(&self) {
        self.wake();
        self.requests.button.store(true, Ordering::Release);
        self.kick.kick();
    }

    /// Wakes a guest that has suspended to RAM; false if there is none (L-245).
    pub fn wake(&self) -> bool {
        let suspended = self.requests.suspended.swap(false, Ordering::AcqRel);
        if suspended {
            self.requests.wake.store(true, Ordering::Release);
            self.kick.kick();
        }
        suspended
    }

    /// Whether the guest has suspended to RAM: its vCPUs are to stand still.
    pub fn is_suspended(&self) -> bool {
        self.requests.suspended.load(Ordering::Acquire)
    }
}

impl PowerDevice {
    /// A register block that reports to `sink`, pulses `line` for the event device, and is polled
    /// after `kick`.
    pub fn new(
        sink: Arc<dyn PowerSink>,
        line: Arc<dyn Interrupt>,
        kick: Arc<dyn Kick>,
    ) -> (Self, PowerButton) {
        let requests = Arc::new(Requests::default());
        let button = PowerButton {
            requests: Arc::clone(&requests),
            kick,
        };
        (
            Self {
                sink,
                line,
                requests,
                state: PowerState::default(),
            },
            button,
        )
    }

    /// Back to power-on state, for a reset of the machine.
    pub fn reset(&mut self) {
        self.restore(&PowerState::default());
    }

    /// The state for a snapshot.
    pub fn save(&self) -> PowerState {
        PowerState {
            suspended: self.requests.suspended.load(Ordering::Acquire),
            // A guest that was woken and has not seen it yet.
            woken: self.state.woken || self.requests.wake.load(Ordering::Acquire),
            ..self.state
        }
    }

    /// Takes over a saved state; every value is possible.
    pub fn restore(&mut self, state: &PowerState) {
        self.state = *state;
        self.requests.button.store(false, Ordering::Release);
        self.requests.wake.store(false, Ordering::Release);
        self.requests
            .suspended
            .store(state.suspended, Ordering::Release);
    }

    fn sleep(&mut self, value: u8) {
        if value & SLEEP_ENABLE == 0 {
            return;
        }
        match (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK {
            SLEEP_TYPE_S5 => self.sink.power_event(PowerEvent::PowerOff),
            SLEEP_TYPE_S3 => {
                self.requests.suspended.store(true, Ordering::Release);
                self.sink.power_event(PowerEvent::Suspend);
            }
            _ => {}
        }
    }

    fn read_byte(&self, offset: u64) -> u8 {
        match offset {
            SLEEP_STATUS if self.state.woken => WAKE_STATUS,
            EVENT => self.state.events,
            _ => 0,
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        match offset {
            SLEEP_CONTROL => self.sleep(value),
            SLEEP_STATUS => self.state.woken &= value & WAKE_STATUS == 0,
            RESET if value == RESET_VALUE => self.sink.power_event(PowerEvent::Reset),
            EVENT => self.state.events &= !value,
            _ => {}
        }
    }
}

impl BusDevice for PowerDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.read_byte(offset);
        }
    }

    /// Only byte accesses are what ACPI does with these registers; wider ones are ignored, lest
    /// a stray one switch the machine off.
    fn write(&mut self, offset: u64, data: &[u8]) {
        if let [value] = data {
            self.write_byte(offset, *value);
        }
    }

    fn poll(&mut self) {
        if self.requests.button.swap(false, Ordering::AcqRel) {
            self.state.events |= EVENT_POWER_BUTTON;
            self.line.trigger();
        }
        self.state.woken |= self.requests.wake.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::mock::Counter;
    use crate::sync::lock;
    use std::sync::Mutex;

    #[derive(Default)]
    pub(crate) struct Events(Mutex<Vec<PowerEvent>>);

    impl Events {
        pub(crate) fn take(&self) -> Vec<PowerEvent> {
            std::mem::take(&mut lock(&self.0))
        }
    }

    impl PowerSink for Events {
        fn power_event(&self, event: PowerEvent) {
            lock(&self.0).push(event);
        }
    }

    struct Rig {
        device: PowerDevice,
        button: PowerButton,
        events: Arc<Events>,
        line: Arc<Counter>,
        kick: Arc<Counter>,
    }

    fn rig() -> Rig {
        let (events, line, kick) = <(Arc<Events>, Arc<Counter>, Arc<Counter>)>::default();
        let (device, button) = PowerDevice::new(events.clone(), line.clone(), kick.clone());
        Rig {
            device,
            button,
            events,
            line,
            kick,
        }
    }

    fn read(device: &mut PowerDevice, offset: u64) -> u8 {
        let mut data = [0xee];
        device.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn s5_powers_off_and_other_writes_do_not() {
        let mut rig = rig();
        for value in [0, 5 << 2, 1 << 5, (1 << 5) | (4 << 2)] {
            rig.device.write(SLEEP_CONTROL, &[value]);
        }
        assert_eq!(rig.events.take(), []);
        rig.device.write(SLEEP_CONTROL, &[(1 << 5) | (5 << 2)]);
        assert_eq!(rig.events.take(), [PowerEvent::PowerOff]);
    }

    #[test]
    fn the_reset_register_takes_its_value_only() {
        let mut rig = rig();
        rig.device.write(RESET, &[0]);
        rig.device.write(RESET, &[RESET_VALUE, 0]);
        assert_eq!(rig.events.take(), []);
        rig.device.write(RESET, &[RESET_VALUE]);
        assert_eq!(rig.events.take(), [PowerEvent::Reset]);
    }

    /// L-078
    #[test]
    fn the_button_sets_its_event_and_pulses_the_line() {
        let mut rig = rig();
        rig.button.press();
        assert_eq!((rig.kick.count(), rig.line.count()), (1, 0));
        assert_eq!(read(&mut rig.device, EVENT), 0);
        rig.device.poll();
        rig.device.poll();
        assert_eq!(rig.line.count(), 1);
        assert_eq!(read(&mut rig.device, EVENT), EVENT_POWER_BUTTON);
        rig.device.write(EVENT, &[EVENT_POWER_BUTTON]);
        assert_eq!(read(&mut rig.device, EVENT), 0);
    }

    #[test]
    fn l245_suspend_and_wake() {
        let mut rig = rig();
        assert!(!rig.button.wake(), "it is awake");
        rig.device.write(SLEEP_CONTROL, &[(1 << 5) | (3 << 2)]);
        assert_eq!(rig.events.take(), [PowerEvent::Suspend]);
        assert!(rig.button.is_suspended());
        assert_eq!(read(&mut rig.device, SLEEP_STATUS), 0);
        assert!(rig.button.wake());
        assert!(!rig.button.is_suspended() && !rig.button.wake());
        rig.device.poll();
        assert_eq!(read(&mut rig.device, SLEEP_STATUS), WAKE_STATUS);
        rig.device.write(SLEEP_STATUS, &[WAKE_STATUS]);
        assert_eq!(read(&mut rig.device, SLEEP_STATUS), 0);
    }

    #[test]
    fn l245_the_power_button_wakes_and_is_told() {
        let mut rig = rig();
        rig.device.write(SLEEP_CONTROL, &[(1 << 5) | (3 << 2)]);
        rig.button.press();
        rig.device.poll();
        assert!(!rig.button.is_suspended());
        assert_eq!(read(&mut rig.device, SLEEP_STATUS), WAKE_STATUS);
        assert_eq!(read(&mut rig.device, EVENT), EVENT_POWER_BUTTON);
    }

    #[test]
    fn l245_a_reset_ends_a_suspension_and_a_snapshot_keeps_it() {
        let mut rig = rig();
        rig.device.write(SLEEP_CONTROL, &[(1 << 5) | (3 << 2)]);
        let suspended = rig.device.save();
        rig.device.reset();
        assert!(!rig.button.is_suspended());
        rig.device.restore(&suspended);
        assert!(rig.button.is_suspended() && rig.button.wake());
        // Woken, but the guest has not run since.
        let woken = rig.device.save();
        rig.device.reset();
        rig.device.restore(&woken);
        assert_eq!(read(&mut rig.device, SLEEP_STATUS), WAKE_STATUS);
    }

    #[test]
    fn state_survives_and_reset_clears() {
        let mut rig = rig();
        rig.button.press();
        rig.device.poll();
        let saved = rig.device.save();
        rig.device.reset();
        assert_eq!(read(&mut rig.device, EVENT), 0);
        rig.device.restore(&saved);
        assert_eq!(read(&mut rig.device, EVENT), EVENT_POWER_BUTTON);
    }
}
