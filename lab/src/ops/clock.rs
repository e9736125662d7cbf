//! The guest's clocks (lua-api section 10).

use std::time::Duration;

use provium_protocol::ops;

use super::Guest;
use crate::error::{Error, Reason, Result};
use crate::units::show_duration;
use crate::wait::{Pending, nanos};

/// The realtime and monotonic clock of a guest.
#[derive(Clone)]
pub struct Clock(Guest);

impl Guest {
    /// Its clocks (L-114).
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(self.clone())
    }
}

/// Nanoseconds from seconds as a float; not every float is a time (L-152).
pub(crate) fn seconds_to_ns(seconds: f64) -> Result<i64, Reason> {
    let bad = |problem: &str| {
        Err(Reason::BadArgument {
            name: "seconds".to_owned(),
            problem: problem.to_owned(),
        })
    };
    if !seconds.is_finite() {
        return bad("must be a finite number (got NaN/inf)");
    }
    let ns = (seconds * 1e9).round();
    if ns.abs() >= i64::MAX as f64 {
        return bad("is outside what 64 bits of nanoseconds can tell");
    }
    Ok(ns as i64)
}

impl Clock {
    fn refuse<T: Send + 'static>(&self, call: &'static str, reason: Reason) -> Pending<T> {
        Pending::failed(self.0.world(), Error::new(call, self.0.resource(), reason))
    }

    /// CLOCK_REALTIME in nanoseconds since the epoch (L-151).
    pub fn get_ns(&self) -> Result<i64> {
        self.start_get_ns().wait()
    }

    /// Starts [`Clock::get_ns`].
    pub fn start_get_ns(&self) -> Pending<i64> {
        self.0
            .start_request("clock:get_ns", ops::ClockGet {}, |ns| ns)
    }

    /// CLOCK_REALTIME in seconds since the epoch (L-151).
    pub fn get(&self) -> Result<f64> {
        self.start_get().wait()
    }

    /// Starts [`Clock::get`].
    pub fn start_get(&self) -> Pending<f64> {
        self.0
            .start_request("clock:get", ops::ClockGet {}, |ns| ns as f64 / 1e9)
    }

    /// Sets CLOCK_REALTIME (L-152).
    pub fn set_ns(&self, ns: i64) -> Result<()> {
        self.start_set_ns(ns).wait()
    }

    /// Starts [`Clock::set_ns`].
    pub fn start_set_ns(&self, ns: i64) -> Pending<()> {
        self.0
            .start_request("clock:set_ns", ops::ClockSet { ns }, |()| ())
    }

    /// Sets CLOCK_REALTIME in seconds (L-152).
    pub fn set(&self, seconds: f64) -> Result<()> {
        self.start_set(seconds).wait()
    }

    /// Starts [`Clock::set`].
    pub fn start_set(&self, seconds: f64) -> Pending<()> {
        match seconds_to_ns(seconds) {
            Ok(ns) => self
                .0
                .start_request("clock:set", ops::ClockSet { ns }, |()| ()),
            Err(reason) => self.refuse("clock:set", reason),
        }
    }

    /// Lets CLOCK_REALTIME jump, forward or back, without blocking (L-153).
    pub fn advance_ns(&self, delta_ns: i64) -> Result<()> {
        self.start_advance_ns(delta_ns).wait()
    }

    /// Starts [`Clock::advance_ns`].
    pub fn start_advance_ns(&self, delta_ns: i64) -> Pending<()> {
        self.0
            .start_request("clock:advance", ops::ClockAdvance { delta_ns }, |()| ())
    }

    /// Returns when the guest's monotonic time has advanced by `duration` (L-154).
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        self.start_sleep(duration).wait()
    }

    /// Starts [`Clock::sleep`].
    pub fn start_sleep(&self, duration: Duration) -> Pending<()> {
        let call = "clock:sleep";
        let guest = self.0.clone();
        self.0.start(call, async move {
            let resource = guest.resource();
            let connection = guest.connection(call).await?;
            let op = ops::ClockSleep {
                ns: nanos(duration),
            };
            let request = connection.request(call, &resource, &op);
            let what = format!("guest time to advance by {}", show_duration(duration));
            connection
                .within_backstop(call, &resource, duration, &what, request)
                .await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l152_only_finite_seconds_in_range_are_times() {
        assert_eq!(seconds_to_ns(1.5).unwrap(), 1_500_000_000);
        assert_eq!(seconds_to_ns(-2.0).unwrap(), -2_000_000_000);
        let text = seconds_to_ns(f64::NAN).unwrap_err().to_string();
        assert!(
            text.contains("must be a finite number (got NaN/inf)"),
            "{text}"
        );
        assert!(seconds_to_ns(1e300).is_err());
    }
}
