//! The panic port: how a guest kernel with the pvpanic driver says that it has panicked.
//!
//! One byte of I/O space, at 0x505 by custom. Reading gives the events understood here; the guest
//! writes the bit of the event that happens.

use std::sync::Arc;

use crate::bus::BusDevice;
use crate::power::{PowerEvent, PowerSink};

/// Where the port is, and its size.
pub const PORT: u64 = 0x505;
/// Number of bytes of I/O space.
pub const SIZE: u64 = 1;
/// The kernel has panicked.
pub const PANICKED: u8 = 1;
/// The kernel has panicked and goes on into a crash kernel.
pub const CRASH_LOADED: u8 = 2;

/// The port.
pub struct PanicPort {
    sink: Arc<dyn PowerSink>,
}

impl PanicPort {
    /// A port that reports to `sink`.
    pub fn new(sink: Arc<dyn PowerSink>) -> Self {
        Self { sink }
    }
}

impl BusDevice for PanicPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(PANICKED | CRASH_LOADED);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let events = data.first().copied().unwrap_or(0);
        if events & PANICKED != 0 {
            self.sink.power_event(PowerEvent::Panicked);
        }
        if events & CRASH_LOADED != 0 {
            self.sink.power_event(PowerEvent::CrashLoaded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::tests::Events;

    #[test]
    fn a_panic_is_reported() {
        let events = Arc::new(Events::default());
        let mut port = PanicPort::new(events.clone());
        let mut data = [0];
        port.read(0, &mut data);
        assert_eq!(data, [3]);
        for write in [0, PANICKED, CRASH_LOADED, 0xfc] {
            port.write(0, &[write]);
        }
        assert_eq!(
            events.take(),
            [PowerEvent::Panicked, PowerEvent::CrashLoaded]
        );
    }
}
