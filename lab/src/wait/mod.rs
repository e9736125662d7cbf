//! Waiting for guests: every blocking call of this crate is a [`Pending`] that is started and then waited for.
//!
//! Operations are written as futures, but there is no runtime: a future is polled by whichever host thread waits for
//! it, through [`World::run_until`], and only while that thread waits do the guests of the world run (lua-api
//! L-247). Whatever may let a future progress rings the world's one bell, so futures need no wakers: at each ring
//! everything that is waited for is looked at again, while the guest that caused it stands still.
//!
//! ```text
//! vm.start_run(cmd) -> Pending   the request is on its way; guests stand still
//! pending.wait()                 guests run until the answer is there, or the world is interrupted
//! ```

mod pause;
mod pending;
mod timer;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use pause::Stopwatch;
pub use pending::Pending;
pub(crate) use pending::{Either, both, join_all};
pub(crate) use timer::{GuestTimer, Limit, LimitReached, nanos};
pub use world::{Interrupted, World};

/// A lock whose data is whole after every statement, so that a panic elsewhere does not take it away.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A duration in whole milliseconds, rounded up, as the wire carries timeouts.
pub(crate) fn nanos_to_millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
