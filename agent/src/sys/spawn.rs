//! Starting programs cheaply: the child borrows our memory until it executes the program.
//!
//! No page tables are copied, the parent's thread sleeps meanwhile, and a failure to execute is
//! known when the call returns. A `pidfd` comes with the same call.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::ptr;

use super::fd::Fd;
use super::{Errno, Sys, check, errno};

/// Room for the child while it borrows our memory.
const STACK: usize = 64 * 1024;

/// A program ready to be started. Everything that needs memory was done before.
pub(crate) struct Program<'a> {
    /// Full paths to try in this order.
    pub(crate) candidates: &'a [CString],
    /// Arguments, the program's name first.
    pub(crate) argv: &'a [CString],
    /// Environment, `NAME=value`.
    pub(crate) envp: &'a [CString],
    /// Working directory; absent is the caller's.
    pub(crate) cwd: Option<&'a CStr>,
    /// Descriptors for 0, 1 and 2, all of them above 2.
    pub(crate) stdio: [RawFd; 3],
    /// A directory descriptor of a proc file system, to undo the agent's protection from the
    /// memory killer.
    pub(crate) proc_dir: RawFd,
}

/// A child that runs.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: Fd,
}

/// Which step of starting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    Directory,
    Execute,
}

/// What the child needs, all of it plain pointers into memory that outlives the child's use.
struct Plan {
    candidates: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    cwd: *const libc::c_char,
    stdio: [RawFd; 3],
    proc_dir: RawFd,
    failed: Option<(Step, Errno)>,
}

/// Memory for the child's stack, reused by every start on one thread.
pub(crate) struct Stack(Box<[u8]>);

impl Stack {
    pub(crate) fn new() -> Self {
        Self(vec![0; STACK].into_boxed_slice())
    }
}

/// Starts a program in a process group of its own.
pub(crate) fn spawn(program: &Program<'_>, stack: &mut Stack) -> Result<Child, (Step, Errno)> {
    let mut plan = Plan {
        candidates: pointers(program.candidates),
        argv: pointers(program.argv),
        envp: pointers(program.envp),
        cwd: program.cwd.map_or(ptr::null(), CStr::as_ptr),
        stdio: program.stdio,
        proc_dir: program.proc_dir,
        failed: None,
    };
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let top = stack.0.as_mut_ptr_range().end.map_addr(|top| top & !15);
    // SAFETY: the stack, the plan and what it points to stay valid: CLONE_VFORK holds this thread
    // until the child has executed a program or exited. The child only makes system calls.
    let pid = unsafe {
        libc::clone(
            child,
            top.cast(),
            flags,
            (&raw mut plan).cast(),
            &raw mut pidfd,
            ptr::null_mut::<libc::c_void>(),
            ptr::null_mut::<libc::c_void>(),
        )
    };
    let pid = check(pid).map_err(|errno| (Step::Start, errno))?;
    let pidfd = Fd::new(pidfd);
    match plan.failed {
        None => Ok(Child { pid, pidfd }),
        Some(failed) => {
            // It exits at once; reap it.
            let mut status = 0;
            // SAFETY: `status` is valid during the call.
            let _: Sys<_> =
                super::retry(|| check(unsafe { libc::waitpid(pid, &raw mut status, 0) }));
            Err(failed)
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The child: sets itself up and becomes the program.
extern "C" fn child(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: this is the plan of the parent, which sleeps until we are done with it.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    plan.failed = Some(set_up(plan));
    // SAFETY: ends the child only.
    unsafe { libc::_exit(127) }
}

/// Returns only on failure.
fn set_up(plan: &Plan) -> (Step, Errno) {
    // SAFETY: system calls on descriptors and strings of the plan, in a process of our own; the
    // signal disposition is ours too, because signal handlers are copied, not shared.
    unsafe {
        libc::setpgid(0, 0);
        for (target, fd) in (0..).zip(plan.stdio) {
            if libc::dup2(fd, target) == -1 {
                return (Step::Start, errno());
            }
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        expose_to_memory_killer(plan.proc_dir);
        if !plan.cwd.is_null() && libc::chdir(plan.cwd) == -1 {
            return (Step::Directory, errno());
        }
    }
    (Step::Execute, execute(plan))
}

/// The agent is never chosen when memory runs out; what it starts can be.
///
/// # Safety
/// Only in the child.
unsafe fn expose_to_memory_killer(proc_dir: RawFd) {
    // SAFETY: system calls on constant strings.
    unsafe {
        let path = c"self/oom_score_adj".as_ptr();
        let fd = libc::openat(proc_dir, path, libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
    }
}

/// Tries the candidates as a shell does: one that may not be executed is remembered, but a later
/// one may still work.
fn execute(plan: &Plan) -> Errno {
    let mut result = libc::ENOENT;
    for candidate in plan
        .candidates
        .iter()
        .take_while(|candidate| !candidate.is_null())
    {
        // SAFETY: the strings and the null-terminated lists outlive the call.
        unsafe { libc::execve(*candidate, plan.argv.as_ptr(), plan.envp.as_ptr()) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => result = libc::EACCES,
            other => return other,
        }
    }
    result
}
