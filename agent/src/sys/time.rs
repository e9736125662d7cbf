//! Clocks of the guest.

use super::{Sys, check};

const SECOND: i64 = 1_000_000_000;

/// Nanoseconds as the kernel writes them; the fraction is never negative.
pub(crate) fn timespec(ns: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: ns.div_euclid(SECOND),
        tv_nsec: ns.rem_euclid(SECOND),
    }
}

fn read(clock: libc::clockid_t) -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid during the call, which cannot fail for these clocks.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec
        .saturating_mul(SECOND)
        .saturating_add(now.tv_nsec)
}

/// Monotonic time in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    u64::try_from(read(libc::CLOCK_MONOTONIC)).unwrap_or(0)
}

/// Time since boot in nanoseconds, suspension included.
pub(crate) fn uptime() -> u64 {
    u64::try_from(read(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

/// The realtime clock, nanoseconds since the epoch.
pub(crate) fn realtime() -> i64 {
    read(libc::CLOCK_REALTIME)
}

/// Sets the realtime clock.
pub(crate) fn set_realtime(ns: i64) -> Sys<()> {
    let time = timespec(ns);
    // SAFETY: `time` is valid during the call.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// Moves the realtime clock by a signed amount in one step inside the kernel, so that no time is
/// lost between reading and setting it.
pub(crate) fn step_realtime(delta_ns: i64) -> Sys<()> {
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    change.time.tv_sec = delta_ns.div_euclid(SECOND);
    change.time.tv_usec = delta_ns.rem_euclid(SECOND);
    // SAFETY: the structure is valid during the call.
    check(unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut change) }).map(drop)
}

/// Sleeps; a signal may end it early.
pub(crate) fn sleep(ns: u64) {
    let time = timespec(i64::try_from(ns).unwrap_or(i64::MAX));
    // SAFETY: `time` is valid during the call, and the rest of the time is not asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}
