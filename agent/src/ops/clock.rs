//! The realtime clock (E-081, L-151 to L-154).

use provium_protocol::Error;

use crate::sys::time;

/// `clock_set`.
pub(super) fn set(ns: i64) -> Result<(), Error> {
    time::set_realtime(ns).map_err(|errno| Error::os("clock_settime", errno))
}

/// `clock_advance`: inside the kernel where it can, so that nothing is lost between reading and
/// setting.
pub(super) fn advance(delta_ns: i64) -> Result<(), Error> {
    match time::step_realtime(delta_ns) {
        // Kernels refuse some steps in this form that they take as a new time.
        Err(libc::EINVAL) => set(time::realtime().saturating_add(delta_ns)),
        other => other.map_err(|errno| Error::os("clock_adjtime", errno)),
    }
}
