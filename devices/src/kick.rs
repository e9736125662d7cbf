//! How a host thread makes the machine look at a device.

/// Asks the machine to call [`BusDevice::poll`](crate::BusDevice::poll) of one device soon, on the
/// thread that owns the device.
///
/// The machine hands one to each device that has a host side, when it builds the device. Kicks
/// coalesce: any number of them before the poll leads to at least one poll after the last kick.
pub trait Kick: Send + Sync {
    /// Requests the poll. Never blocks, takes no device lock, and may be called from any thread,
    /// also from within a call into the device itself.
    fn kick(&self);
}
