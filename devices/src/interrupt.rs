//! The interrupt line of a device.

/// An edge-triggered interrupt line (all lines of the machine are edge triggered).
///
/// On KVM this is an irqfd, on the software CPU an input pin of the I/O APIC.
pub trait Interrupt: Send + Sync {
    /// Sends one pulse. Never blocks, and may be called from any thread.
    fn trigger(&self);
}
