//! The configuration space, with a device made for it.

use super::*;
use crate::mock::Driver;
use crate::virtio::rng::Rng;
use crate::virtio::{DeviceState, RestoreError, read_config_bytes};

/// A device with a configuration space that changes whenever it is polled.
struct Configurable {
    config: [u8; 6],
}

impl VirtioDevice for Configurable {
    fn device_id(&self) -> u32 {
        99
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> &[u16] {
        &[]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (0, [value]) = (offset, data) {
            self.config[0] = *value;
        }
    }
    fn activate(&mut self, _features: u64, _io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        Ok(())
    }
    fn notify(&mut self, _queue: usize, _io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        Ok(())
    }
    fn poll(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.config[5] += 1;
        io.config_changed();
        Ok(())
    }
    fn reset(&mut self) {}
    fn save(&self) -> DeviceState {
        Rng::new(0).save()
    }
    fn restore(&mut self, _state: &DeviceState) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[test]
fn the_configuration_space_is_read_in_any_width() {
    let mut driver = Driver::new(Configurable {
        config: [1, 2, 3, 4, 5, 6],
    });
    let mut read = |offset, len| {
        let mut data = vec![0xee; len];
        driver.transport.read(register::CONFIG + offset, &mut data);
        data
    };
    assert_eq!(read(0, 1), [1]);
    assert_eq!(read(2, 2), [3, 4]);
    assert_eq!(read(0, 8), [1, 2, 3, 4, 5, 6, 0, 0]);
    assert_eq!(read(4, 4), [5, 6, 0, 0]);
    assert_eq!(read(0xefc, 4), [0; 4]);
    driver.transport.write(register::CONFIG, &[9]);
    assert_eq!(driver.read(register::CONFIG), 0x0403_0209);
}

#[test]
fn a_changed_configuration_is_announced() {
    let mut driver = Driver::started(Configurable { config: [0; 6] }, 0);
    let generation = driver.read(register::CONFIG_GENERATION);
    driver.poll();
    assert_ne!(driver.read(register::CONFIG_GENERATION), generation);
    assert_eq!(
        driver.read(register::INTERRUPT_STATUS),
        interrupt_status::CONFIG_CHANGE
    );
    assert_eq!(driver.line.count(), 1);
}

#[test]
fn nothing_happens_to_an_inactive_device() {
    let mut driver = Driver::new(Configurable { config: [0; 6] });
    driver.poll();
    driver.notify(0);
    assert_eq!(
        (
            driver.line.count(),
            driver.read(register::CONFIG_GENERATION)
        ),
        (0, 0)
    );
}
