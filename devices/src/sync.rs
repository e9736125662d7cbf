//! Locking that outlives a panicking holder.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also after a panic of another holder.
///
/// A panic is a bug of ours and fails one test file; the other threads that share a device with
/// it still need to shut down in order, so poisoning is no reason to panic again.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
