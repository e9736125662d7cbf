//! SIGINT and SIGTERM: the first asks the run to end, the second ends the process.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::exit::Exit;

static RECEIVED: AtomicU32 = AtomicU32::new(0);

/// Counts signals from now on.
pub(crate) fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `on_signal` only does what is allowed in a signal handler (an atomic add and
        // `_exit`), and a zeroed `sigaction` with a handler set is a valid one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// True once a signal has come.
pub(crate) fn received() -> bool {
    RECEIVED.load(Ordering::Relaxed) > 0
}

extern "C" fn on_signal(_: libc::c_int) {
    if RECEIVED.fetch_add(1, Ordering::Relaxed) > 0 {
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe { libc::_exit(Exit::Error as libc::c_int) };
    }
}
