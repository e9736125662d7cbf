//! Waiting for descriptors and time: epoll, poll, eventfd, timerfd, inotify.

use std::os::fd::RawFd;

use super::fd::Fd;
use super::{Sys, c_string, check};

/// Ready to read.
pub(crate) const READABLE: u32 = libc::EPOLLIN as u32;
/// Ready to write.
pub(crate) const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// The other end is gone.
pub(crate) const HANGUP: u32 = libc::EPOLLHUP as u32;
/// Report once, then stay silent until asked again.
pub(crate) const ONCE: u32 = libc::EPOLLONESHOT as u32;

/// A set of descriptors waited for together.
#[derive(Debug)]
pub(crate) struct Epoll(Fd);

/// One report: the token of the descriptor and what it is ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) events: u32,
}

impl Epoll {
    pub(crate) fn new() -> Sys<Self> {
        // SAFETY: no memory is involved.
        check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(|fd| Self(Fd::new(fd)))
    }

    /// Starts to watch a descriptor.
    pub(crate) fn add(&self, fd: RawFd, token: u64, events: u32) -> Sys<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, events)
    }

    /// Changes what is watched for.
    pub(crate) fn change(&self, fd: RawFd, token: u64, events: u32) -> Sys<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, events)
    }

    /// Stops to watch a descriptor that stays open.
    pub(crate) fn remove(&self, fd: RawFd) -> Sys<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, what: libc::c_int, fd: RawFd, token: u64, events: u32) -> Sys<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the event is valid during the call.
        check(unsafe { libc::epoll_ctl(self.0.raw(), what, fd, &raw mut event) }).map(drop)
    }

    /// Waits without limit until something is ready; gives what is, at most 16 at a time.
    pub(crate) fn wait(&self) -> impl Iterator<Item = Ready> + use<> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
        // SAFETY: the array is valid for its length.
        let count = unsafe { libc::epoll_wait(self.0.raw(), events.as_mut_ptr(), 16, -1) };
        let count = usize::try_from(count).unwrap_or(0);
        events.into_iter().take(count).map(|event| Ready {
            token: event.u64,
            events: event.events,
        })
    }
}

/// A counter that another thread can wait for.
#[derive(Debug)]
pub(crate) struct Event(Fd);

impl Event {
    pub(crate) fn new() -> Sys<Self> {
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        // SAFETY: no memory is involved.
        check(unsafe { libc::eventfd(0, flags) }).map(|fd| Self(Fd::new(fd)))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.raw()
    }

    /// Wakes whoever waits. A counter that is full has woken them already.
    pub(crate) fn signal(&self) {
        let _ = self.0.write(&1u64.to_ne_bytes());
    }

    /// Forgets the signals so far.
    pub(crate) fn drain(&self) {
        let _ = self.0.read(&mut [0; 8]);
    }
}

/// A timer as a descriptor.
#[derive(Debug)]
pub(crate) struct Timer(Fd);

impl Timer {
    pub(crate) fn new() -> Sys<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no memory is involved.
        check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })
            .map(|fd| Self(Fd::new(fd)))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.raw()
    }

    /// Goes off at a time of the monotonic clock.
    pub(crate) fn set(&self, at_ns: u64) -> Sys<()> {
        // A zero would disarm the timer.
        let at = super::time::timespec(i64::try_from(at_ns.max(1)).unwrap_or(i64::MAX));
        let never = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = libc::itimerspec {
            it_interval: never,
            it_value: at,
        };
        let old = std::ptr::null_mut();
        // SAFETY: the specification is valid during the call, and no old one is asked for.
        check(unsafe { libc::timerfd_settime(self.raw(), libc::TFD_TIMER_ABSTIME, &spec, old) })
            .map(drop)
    }

    /// Forgets that it went off.
    pub(crate) fn drain(&self) {
        let _ = self.0.read(&mut [0; 8]);
    }
}

/// Waits until one of two descriptors can be read. A signal ends the wait too.
pub(crate) fn wait_either(one: RawFd, other: RawFd) {
    let mut fds = [one, other].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the array is valid for its length.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
}

/// Waits until a descriptor can be read, at most `timeout_ms` (-1 is for ever). A signal ends the
/// wait too.
pub(crate) fn wait_readable(fd: RawFd, timeout_ms: i32) {
    let mut fd = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, valid during the call.
    unsafe { libc::poll(&raw mut fd, 1, timeout_ms) };
}

/// Changes of files, to be read as they happen.
#[derive(Debug)]
pub(crate) struct Inotify(Fd);

impl Inotify {
    pub(crate) fn new() -> Sys<Self> {
        let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
        // SAFETY: no memory is involved.
        check(unsafe { libc::inotify_init1(flags) }).map(|fd| Self(Fd::new(fd)))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.raw()
    }

    /// Watches the file behind a path for new contents; gives the watch, which is the same for
    /// the same file.
    pub(crate) fn watch(&self, path: &[u8]) -> Sys<i32> {
        let path = c_string(path)?;
        let what = libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_CLOSE_WRITE;
        // SAFETY: the path is a valid string.
        check(unsafe { libc::inotify_add_watch(self.raw(), path.as_ptr(), what) })
    }

    /// Ends a watch.
    pub(crate) fn forget(&self, watch: i32) {
        // SAFETY: no memory is involved; an unknown watch is an error that changes nothing.
        unsafe { libc::inotify_rm_watch(self.raw(), watch) };
    }

    /// The watches whose files changed.
    pub(crate) fn changes(&self) -> Vec<i32> {
        let mut buffer = [0; 4096];
        let count = self.0.read(&mut buffer).unwrap_or(0);
        let mut rest = &buffer[..count];
        let mut watches = Vec::new();
        // Each record: watch, mask, cookie and length of the name, then the name.
        while let Some((record, behind)) = rest.split_first_chunk::<16>() {
            let word = |at: usize| [record[at], record[at + 1], record[at + 2], record[at + 3]];
            watches.push(i32::from_ne_bytes(word(0)));
            let name = u32::from_ne_bytes(word(12)) as usize;
            rest = behind.get(name..).unwrap_or_default();
        }
        watches.sort_unstable();
        watches.dedup();
        watches
    }
}
