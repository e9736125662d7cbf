//! Getting a vCPU thread out of KVM_RUN: a signal whose handler sets `immediate_exit`.
//!
//! The signal interrupts a thread that is in the guest. A thread that was just about to enter has
//! its `kvm_run` page marked by the handler, so KVM_RUN returns at once: no kick is lost, whenever
//! it arrives.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::{Arc, Mutex, Once, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use kvm_bindings::kvm_run;

thread_local! {
    /// The `kvm_run` page of the vCPU that this thread runs, while it runs one.
    static RUN_PAGE: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

/// The real-time signal used for kicks. A process that embeds the machine must leave it alone.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

extern "C" fn on_kick(_signal: libc::c_int) {
    let page = RUN_PAGE.with(Cell::get);
    if !page.is_null() {
        // SAFETY: a non-null page was registered by `Kickable::register` on this very thread and
        // stays mapped until it is unregistered there; `immediate_exit` is a byte that the kernel
        // only reads.
        unsafe { ptr::write_volatile(&raw mut (*page).immediate_exit, 1) };
    }
}

/// Installs the signal handler, once per process.
pub(super) fn install_handler() -> io::Result<()> {
    static ONCE: Once = Once::new();
    static RESULT: Mutex<Option<i32>> = Mutex::new(None);
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid value (no flags, empty mask) which is filled in
        // below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: `action` is initialised; the handler only touches a thread-local cell and one
        // mapped byte, both async-signal-safe.
        let rc = unsafe { libc::sigaction(kick_signal(), &raw const action, ptr::null_mut()) };
        if rc != 0 {
            let errno = io::Error::last_os_error().raw_os_error();
            *RESULT.lock().unwrap_or_else(PoisonError::into_inner) = errno;
        }
    });
    match *RESULT.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Ok(()),
    }
}

/// A thread that can be kicked; lives in a place that the kicker shares.
#[derive(Debug, Default)]
pub(super) struct Kickable {
    thread: Mutex<Option<libc::pthread_t>>,
}

impl Kickable {
    /// Registers the calling thread for the life of the guard.
    ///
    /// # Safety
    /// `page` must be the `kvm_run` page of the vCPU that the thread will run, and must stay mapped
    /// as long as the guard lives.
    pub(super) unsafe fn register(&self, page: *mut kvm_run) -> Registered<'_> {
        RUN_PAGE.with(|cell| cell.set(page));
        // SAFETY: pthread_self has no preconditions.
        let this = unsafe { libc::pthread_self() };
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(this);
        Registered(self)
    }

    /// Makes the registered thread, if any, leave KVM_RUN.
    pub(super) fn kick(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            // SAFETY: the thread is alive: it clears its entry, under the lock held here, before it
            // ends.
            unsafe { libc::pthread_kill(thread, kick_signal()) };
        }
    }
}

/// See [`Kickable::register`].
pub(super) struct Registered<'a>(&'a Kickable);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        *self.0.thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
        RUN_PAGE.with(|cell| cell.set(ptr::null_mut()));
    }
}

/// Kicks `kickable` after a span of host time, unless dropped before.
pub(super) struct Deadline {
    cancel: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Deadline {
    pub(super) fn new(kickable: &Arc<Kickable>, after: Duration) -> io::Result<Self> {
        let (cancel, cancelled) = mpsc::channel();
        let target = kickable.clone();
        let thread = thread::Builder::new()
            .name("kvm-deadline".to_owned())
            .spawn(move || {
                if cancelled.recv_timeout(after) == Err(mpsc::RecvTimeoutError::Timeout) {
                    target.kick();
                }
            })?;
        Ok(Self {
            cancel: Some(cancel),
            thread: Some(thread),
        })
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        drop(self.cancel.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
