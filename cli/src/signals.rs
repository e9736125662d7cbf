//! SIGINT and SIGTERM.
//!
//! Before a run has begun, while builds run and guests are prepared, a signal ends the program.
//! During a run the first asks it to end in order and the second ends the process.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::exit::Exit;

static RECEIVED: AtomicU32 = AtomicU32::new(0);
static EXIT: AtomicU32 = AtomicU32::new(Exit::Error as u32);
static IN_ORDER: AtomicBool = AtomicBool::new(false);

/// Files that a sudden end removes.
static ON_EXIT: OnceLock<Vec<CString>> = OnceLock::new();

/// Removes these files when a signal ends the process; to be called once.
pub(crate) fn remove_on_exit(paths: &[&Path]) {
    let names = paths
        .iter()
        .filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok());
    // A second run of `--watch` has the same files.
    let _ = ON_EXIT.set(names.collect());
}

/// Handles signals from now on: each ends the program with `exit`.
pub(crate) fn install(exit: Exit) {
    EXIT.store(exit as u32, Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `on_signal` only does what is allowed in a signal handler (atomics, `write` and
        // `_exit`), and a zeroed `sigaction` with a handler set is a valid one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// While this lives, the first signal is only counted: whoever holds it ends things in order.
pub(crate) struct InOrder(());

impl InOrder {
    /// Begins.
    pub(crate) fn begin() -> Self {
        IN_ORDER.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for InOrder {
    fn drop(&mut self) {
        IN_ORDER.store(false, Ordering::Relaxed);
    }
}

/// Whether a signal has come since this was asked last: for prompts, which go on after one.
pub(crate) fn take() -> bool {
    RECEIVED.swap(0, Ordering::Relaxed) > 0
}

/// True once a signal has come.
pub(crate) fn received() -> bool {
    RECEIVED.load(Ordering::Relaxed) > 0
}

extern "C" fn on_signal(_: libc::c_int) {
    let earlier = RECEIVED.fetch_add(1, Ordering::Relaxed);
    if earlier > 0 || !IN_ORDER.load(Ordering::Relaxed) {
        let text = b"\nprovium: interrupted\n";
        // SAFETY: `unlink`, `write` and `_exit` are async-signal-safe; the names and the buffer
        // live as long as the program, and reading a set `OnceLock` takes no lock.
        unsafe {
            for path in ON_EXIT.get().into_iter().flatten() {
                libc::unlink(path.as_ptr());
            }
            libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
            libc::_exit(EXIT.load(Ordering::Relaxed).cast_signed());
        }
    }
}
