//! The memory-mapped transport (virtio 1.2, 4.2): registers, status, negotiation, queue set-up.
//!
//! Status goes ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK in this order; bits never go away but
//! by a reset (writing 0). What the driver does out of order is ignored, as is any register access
//! that is not 32 bits wide. A queue is checked when the driver enables it: one that fails, and
//! one found broken later, puts the device into DEVICE_NEEDS_RESET.

#[cfg(test)]
mod config_tests;
mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::queue::{QueueSetup, VirtQueue};
use super::{DeviceError, DeviceIo, F_EVENT_IDX, F_VERSION_1, VirtioDevice};
use crate::bus::BusDevice;
use crate::interrupt::Interrupt;
use crate::kick::Kick;
use crate::memory::GuestMemory;

pub use registers::{interrupt_status, register, status};
pub use state::TransportState;

/// Size of the register window of one device.
pub const WINDOW_SIZE: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// "PVUM"; drivers do not look at it.
const VENDOR: u32 = u32::from_le_bytes(*b"PVUM");

/// One virtio device in its register window.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    line: Arc<dyn Interrupt>,
    kick: Arc<dyn Kick>,
    negotiation: Negotiation,
    queue_select: u32,
    setups: Vec<QueueSetup>,
    queues: Vec<Option<VirtQueue>>,
    interrupt_status: u32,
    config_generation: u32,
    fault: Option<DeviceError>,
}

/// Status and features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Negotiation {
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
}

impl Negotiation {
    fn has(&self, bits: u32) -> bool {
        self.status & bits == bits
    }

    fn any(&self, bits: u32) -> bool {
        self.status & bits != 0
    }

    /// Queues may be set up between FEATURES_OK and DRIVER_OK (virtio 1.2, 3.1.1).
    fn queues_open(&self) -> bool {
        self.has(status::FEATURES_OK)
            && !self.any(status::DRIVER_OK | status::FAILED | status::DEVICE_NEEDS_RESET)
    }

    fn active(&self) -> bool {
        self.has(status::DRIVER_OK) && !self.any(status::FAILED | status::DEVICE_NEEDS_RESET)
    }
}

impl MmioTransport {
    /// Puts `device` behind registers. `line` is pulsed when the driver is to look; `kick` leads
    /// back to [`BusDevice::poll`] of this transport.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        line: Arc<dyn Interrupt>,
        kick: Arc<dyn Kick>,
    ) -> Self {
        let count = device.queue_sizes().len();
        let mut transport = Self {
            device,
            memory,
            line,
            kick,
            negotiation: Negotiation::default(),
            queue_select: 0,
            setups: vec![QueueSetup::default(); count],
            queues: Vec::new(),
            interrupt_status: 0,
            config_generation: 0,
            fault: None,
        };
        transport.queues.resize_with(count, || None);
        transport
    }

    /// The device behind the registers.
    pub fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    /// Why the device is in DEVICE_NEEDS_RESET, if it is.
    pub fn fault(&self) -> Option<&DeviceError> {
        self.fault.as_ref()
    }

    /// True between DRIVER_OK and the next reset or failure.
    pub fn is_active(&self) -> bool {
        self.negotiation.active()
    }

    /// How many malformed requests were given back since the driver's last reset.
    pub fn malformed_requests(&self) -> u64 {
        self.queues.iter().flatten().map(VirtQueue::malformed).sum()
    }

    /// What a write to QueueNotify does; for machines that take the write off the bus (ioeventfd).
    pub fn notify_queue(&mut self, index: u32) {
        let Ok(index) = usize::try_from(index) else {
            return;
        };
        if self.queues.get(index).is_some_and(Option::is_some) {
            self.run(|device, io| device.notify(index, io));
        }
    }

    /// Resets the device as the driver would, for a reset of the whole machine.
    pub fn reset(&mut self) {
        self.device.reset();
        self.negotiation = Negotiation::default();
        self.queue_select = 0;
        self.setups.fill(QueueSetup::default());
        self.queues.fill_with(|| None);
        self.interrupt_status = 0;
        self.fault = None;
    }

    /// Calls the active device and then tells the driver what it needs to know.
    fn run(
        &mut self,
        call: impl FnOnce(&mut dyn VirtioDevice, &mut DeviceIo<'_>) -> Result<(), DeviceError>,
    ) {
        if !self.negotiation.active() {
            return;
        }
        let mut io = DeviceIo::new(&self.memory, &mut self.queues);
        let result = call(&mut *self.device, &mut io);
        let DeviceIo {
            config_changed,
            unfinished,
            ..
        } = io;
        if unfinished {
            self.kick.kick();
        }
        let result = self.announce_used().and(result);
        if config_changed {
            self.config_generation = self.config_generation.wrapping_add(1);
            self.interrupt(interrupt_status::CONFIG_CHANGE);
        }
        if let Err(fault) = result {
            self.fail(fault);
        }
    }

    fn announce_used(&mut self) -> Result<(), DeviceError> {
        let mut interrupt = false;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let Some(queue) = queue else { continue };
            let wanted = queue.take_interrupt(&self.memory);
            interrupt |= wanted.map_err(|source| DeviceError::Queue { index, source })?;
        }
        if interrupt {
            self.interrupt(interrupt_status::USED_BUFFER);
        }
        Ok(())
    }

    fn interrupt(&mut self, reason: u32) {
        self.interrupt_status |= reason;
        self.line.trigger();
    }

    /// Virtio 1.2, 2.1.2: after DRIVER_OK the driver also gets a configuration interrupt.
    fn fail(&mut self, fault: DeviceError) {
        let tell = self.negotiation.has(status::DRIVER_OK);
        self.negotiation.status |= status::DEVICE_NEEDS_RESET;
        self.fault = Some(fault);
        if tell {
            self.interrupt(interrupt_status::CONFIG_CHANGE);
        }
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | F_VERSION_1
    }

    fn selected(&self) -> Option<usize> {
        usize::try_from(self.queue_select)
            .ok()
            .filter(|&index| index < self.setups.len())
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.device_id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(
                self.offered_features(),
                self.negotiation.device_features_select,
            ),
            register::QUEUE_NUM_MAX => self
                .selected()
                .map_or(0, |index| self.device.queue_sizes()[index].into()),
            register::QUEUE_READY => self
                .selected()
                .is_some_and(|index| self.queues[index].is_some())
                .into(),
            register::INTERRUPT_STATUS => self.interrupt_status,
            register::STATUS => self.negotiation.status,
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.config_generation,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.negotiation.device_features_select = value,
            register::DRIVER_FEATURES_SEL => self.negotiation.driver_features_select = value,
            register::DRIVER_FEATURES => self.accept_features(value),
            register::QUEUE_SEL => self.queue_select = value,
            register::QUEUE_READY => self.set_queue_ready(value),
            register::QUEUE_NOTIFY => self.notify_queue(value),
            register::INTERRUPT_ACK => self.interrupt_status &= !value,
            register::STATUS => self.set_status(value),
            _ => self.write_queue_setup(offset, value),
        }
    }

    fn accept_features(&mut self, value: u32) {
        let negotiation = &mut self.negotiation;
        if negotiation.has(status::DRIVER) && !negotiation.has(status::FEATURES_OK) {
            set_half(
                &mut negotiation.driver_features,
                negotiation.driver_features_select,
                value,
            );
        }
    }

    fn write_queue_setup(&mut self, offset: u64, value: u32) {
        let Some(index) = self.selected() else { return };
        if !self.negotiation.queues_open() || self.queues[index].is_some() {
            return;
        }
        let setup = &mut self.setups[index];
        match offset {
            // A size beyond 16 bits is as invalid as 0, which the check finds.
            register::QUEUE_NUM => setup.size = u16::try_from(value).unwrap_or(0),
            register::QUEUE_DESC_LOW => set_half(&mut setup.descriptors, 0, value),
            register::QUEUE_DESC_HIGH => set_half(&mut setup.descriptors, 1, value),
            register::QUEUE_DRIVER_LOW => set_half(&mut setup.available, 0, value),
            register::QUEUE_DRIVER_HIGH => set_half(&mut setup.available, 1, value),
            register::QUEUE_DEVICE_LOW => set_half(&mut setup.used, 0, value),
            register::QUEUE_DEVICE_HIGH => set_half(&mut setup.used, 1, value),
            _ => {}
        }
    }

    fn set_queue_ready(&mut self, value: u32) {
        let Some(index) = self.selected() else { return };
        if value & 1 == 0 {
            self.queues[index] = None;
        } else if self.negotiation.queues_open() && self.queues[index].is_none() {
            let event_idx = self.negotiation.driver_features & F_EVENT_IDX != 0;
            let max_size = self.device.queue_sizes()[index];
            match VirtQueue::new(&self.memory, max_size, &self.setups[index], event_idx) {
                Ok(queue) => self.queues[index] = Some(queue),
                Err(source) => self.fail(DeviceError::Queue { index, source }),
            }
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let settable = status::ACKNOWLEDGE
            | status::DRIVER
            | status::FEATURES_OK
            | status::DRIVER_OK
            | status::FAILED;
        let added = value & settable & !self.negotiation.status;
        self.negotiation.status |= added & (status::ACKNOWLEDGE | status::FAILED);
        if added & status::DRIVER != 0 && self.negotiation.has(status::ACKNOWLEDGE) {
            self.negotiation.status |= status::DRIVER;
        }
        if added & status::FEATURES_OK != 0 && self.features_acceptable() {
            self.negotiation.status |= status::FEATURES_OK;
        }
        if added & status::DRIVER_OK != 0 && self.negotiation.queues_open() {
            self.activate();
        }
    }

    fn features_acceptable(&self) -> bool {
        let features = self.negotiation.driver_features;
        self.negotiation.has(status::DRIVER)
            && features & !self.offered_features() == 0
            && features & F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        self.negotiation.status |= status::DRIVER_OK;
        let features = self.negotiation.driver_features;
        self.run(|device, io| device.activate(features, io));
    }
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= register::CONFIG {
            self.device.read_config(offset - register::CONFIG, data);
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            *register = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= register::CONFIG {
            self.device.write_config(offset - register::CONFIG, data);
        } else if let Ok(value) = <[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            self.write_register(offset, u32::from_le_bytes(value));
        }
    }

    fn poll(&mut self) {
        self.run(|device, io| device.poll(io));
    }
}

/// The low (0) or high (1) half of a 64-bit register; other halves do not exist and read 0.
fn half(value: u64, select: u32) -> u32 {
    let bytes = value.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

/// Replaces a half of a 64-bit register; writing one that does not exist does nothing.
fn set_half(value: &mut u64, select: u32, new: u32) {
    let (low, high) = (half(*value, 0), half(*value, 1));
    *value = match select {
        0 => (u64::from(high) << 32) | u64::from(new),
        1 => (u64::from(new) << 32) | u64::from(low),
        _ => return,
    };
}
