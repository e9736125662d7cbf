//! Running cases on the host processor, from the parent's side: shared memory, fork, wait.

use std::io;

use crate::case::{Case, NOT_RUN, Outcome, Tracker};
use crate::child::{self, Work};
use crate::sandbox;

/// Cases run by one child.
pub(crate) const BATCH: usize = 512;

/// Cases and outcomes in memory that children share with us, and what else they need.
pub(crate) struct Native {
    cases: Shared<Case>,
    outcomes: Shared<Outcome>,
    code: Shared<u8>,
    code_fd: libc::c_int,
}

impl Native {
    pub(crate) fn new() -> io::Result<Native> {
        // SAFETY: the name is a C string; the result is checked.
        let code_fd = unsafe { libc::memfd_create(c"code".as_ptr(), libc::MFD_CLOEXEC) };
        if code_fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `code_fd` is ours.
        if unsafe { libc::ftruncate(code_fd, sandbox::CODE.len as i64) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Native {
            cases: Shared::new(BATCH, -1)?,
            outcomes: Shared::new(BATCH, -1)?,
            code: Shared::new(sandbox::CODE.len, code_fd)?,
            code_fd,
        })
    }

    /// Runs the cases, at most [`BATCH`]. A case that takes its child down is left as not run, and
    /// the next one starts in a new child.
    pub(crate) fn run(&mut self, cases: &[Case]) -> io::Result<&[Outcome]> {
        assert!(
            cases.len() <= BATCH,
            "more cases than fit the shared memory"
        );
        self.cases.as_mut()[..cases.len()].copy_from_slice(cases);
        self.outcomes.as_mut()[..cases.len()].fill(Outcome::blank());
        let mut from = 0;
        while from < cases.len() {
            self.fork(from, cases.len())?;
            let done = self.outcomes.as_mut()[from..cases.len()]
                .iter()
                .take_while(|o| o.vector != NOT_RUN)
                .count();
            from += done + 1;
        }
        Ok(&self.outcomes.as_mut()[..cases.len()])
    }

    fn fork(&mut self, from: usize, count: usize) -> io::Result<()> {
        let (image, fixed) = sandbox::pristine();
        let mut work = Work {
            cases: self.cases.at,
            outcomes: self.outcomes.at,
            count,
            at: from,
            started: false,
            last_tick: usize::MAX,
            tracker: Tracker::new(&image),
            fixed,
            code: self.code.at,
            code_fd: self.code_fd,
            signal_stack: vec![0; 256 << 10],
        };
        // SAFETY: the child calls `child::run` at once, which uses system calls and memory made
        // before the fork only, and never returns.
        let pid = unsafe {
            match libc::fork() {
                0 => child::run(&mut work),
                pid => pid,
            }
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut status = 0;
        // SAFETY: `pid` is our child. It can't outlive its timer: hung cases are ended by it.
        while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 0 {
            let code = libc::WEXITSTATUS(status);
            return Err(io::Error::other(format!(
                "the child could not prepare itself (step {code})"
            )));
        }
        Ok(())
    }
}

/// An array in memory that stays common after a fork.
struct Shared<T> {
    at: *mut T,
    len: usize,
}

impl<T> Shared<T> {
    fn new(len: usize, fd: libc::c_int) -> io::Result<Shared<T>> {
        let kind = if fd < 0 {
            libc::MAP_SHARED | libc::MAP_ANONYMOUS
        } else {
            libc::MAP_SHARED
        };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                len * size_of::<T>(),
                access,
                kind,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Shared { at: at.cast(), len })
    }

    fn as_mut(&mut self) -> &mut [T] {
        // SAFETY: the mapping lives as long as `self`, is zeroed (all types used here are plain
        // numbers), and no child runs while the parent looks.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used again.
        unsafe { libc::munmap(self.at.cast(), self.len * size_of::<T>()) };
    }
}
