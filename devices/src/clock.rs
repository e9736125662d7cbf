//! Guest time as devices see it.

/// Names one pending call of [`Clock::call_at`], so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmId(pub u64);

/// The machine's clock: virtual on the software CPU, host time plus an owned offset on KVM
/// (L-247, L-248). Devices have no other source of time.
pub trait Clock: Send + Sync {
    /// Guest time since the machine was first started, in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Calls `alarm` once, when guest time reaches `at_ns` (at once if it already has).
    ///
    /// The call happens on a thread of the machine that holds no device lock. An alarm does little:
    /// it kicks a device or notifies a [`Signal`](crate::Signal).
    fn call_at(&self, at_ns: u64, alarm: Box<dyn FnOnce() + Send>) -> AlarmId;

    /// Drops a pending alarm; false if it has fired already or never existed.
    fn cancel(&self, id: AlarmId) -> bool;
}
