//! The forked child that runs cases on the host processor.
//!
//! It never calls anything: every case is entered by returning from a signal handler with the
//! case's registers in the signal frame, and left by the exception that it ends in, whose frame
//! holds the outcome. So one signal per case is all it costs, and faults need no special way.

use std::sync::atomic::{AtomicPtr, Ordering};

use crate::case::{Case, HUNG, Outcome, Tracker};
use crate::sandbox::{self, Area};
use crate::seccomp;

/// CPU time after which a case counts as hung, in microseconds; two timer periods at most.
const PERIOD: i64 = 30_000;

/// Linux's selectors of user code and data (arch/x86/include/asm/segment.h).
pub(crate) const USER_CS: u64 = 0x33;
pub(crate) const USER32_CS: u64 = 0x23;
pub(crate) const USER_DS: u64 = 0x2b;

/// Where INT3 fills the code area.
const INT3: u8 = 0xcc;

/// Flags that a signal return does not restore and the handler must: NT and ID.
const UNRESTORED: u64 = 1 << 14 | 1 << 21;

/// Everything the handler works on. Made before the fork; used by the child alone after it.
pub(crate) struct Work {
    pub(crate) cases: *const Case,
    pub(crate) outcomes: *mut Outcome,
    pub(crate) count: usize,
    /// The next case to start with; the case that runs afterwards.
    pub(crate) at: usize,
    pub(crate) started: bool,
    /// The case that ran at the last timer signal.
    pub(crate) last_tick: usize,
    pub(crate) tracker: Tracker,
    pub(crate) fixed: Vec<u8>,
    /// The code area again, writable.
    pub(crate) code: *mut u8,
    pub(crate) code_fd: libc::c_int,
    pub(crate) signal_stack: Vec<u8>,
}

static WORK: AtomicPtr<Work> = AtomicPtr::new(std::ptr::null_mut());

/// Runs cases from `work.at` to the end, in a freshly forked process.
///
/// # Safety
/// Call in the child of a fork only: it replaces signal handlers and mappings and never returns.
pub(crate) unsafe fn run(work: &mut Work) -> ! {
    // SAFETY: plain system calls on memory that this process owns; failure ends the process.
    unsafe {
        if !map_areas(work) || !catch_signals(work) {
            libc::_exit(3);
        }
        WORK.store(work, Ordering::SeqCst);
        let timer = libc::timeval {
            tv_sec: 0,
            tv_usec: PERIOD,
        };
        let timer = libc::itimerval {
            it_interval: timer,
            it_value: timer,
        };
        libc::setitimer(libc::ITIMER_VIRTUAL, &raw const timer, std::ptr::null_mut());
        let (process, thread) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
        if !seccomp::confine() {
            libc::_exit(4);
        }
        // The first signal; its handler goes on to the first case and never comes back.
        libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1);
        libc::_exit(5);
    }
}

unsafe fn map_areas(work: &mut Work) -> bool {
    // SAFETY: the areas are fixed low addresses where nothing else is (NOREPLACE), and the copies
    // stay within them.
    unsafe {
        let map = |area: Area, protection, fd| {
            let kind = if fd < 0 {
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS
            } else {
                libc::MAP_SHARED
            };
            let want = area.at as *mut libc::c_void;
            libc::mmap(
                want,
                area.len,
                protection,
                kind | libc::MAP_FIXED_NOREPLACE,
                fd,
                0,
            ) == want
        };
        let (r, rw, rx) = (
            libc::PROT_READ,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::PROT_READ | libc::PROT_EXEC,
        );
        for area in sandbox::WRITABLE {
            if !map(area, rw, -1) {
                return false;
            }
            let start = sandbox::image_offset(area.at).unwrap_or(0);
            let from = work.tracker.pristine()[start..].as_ptr();
            std::ptr::copy_nonoverlapping(from, area.at as *mut u8, area.len);
        }
        if !map(sandbox::FIXED, rw, -1) || !map(sandbox::CODE, rx, work.code_fd) {
            return false;
        }
        std::ptr::copy_nonoverlapping(
            work.fixed.as_ptr(),
            sandbox::FIXED.at as *mut u8,
            sandbox::FIXED.len,
        );
        std::ptr::write_bytes(work.code, INT3, sandbox::CODE.len);
        libc::mprotect(
            sandbox::FIXED.at as *mut libc::c_void,
            sandbox::FIXED.len,
            r,
        ) == 0
    }
}

unsafe fn catch_signals(work: &mut Work) -> bool {
    // SAFETY: the stack lives in `work`, which outlives the process; the handler is `entry`.
    unsafe {
        let stack = libc::stack_t {
            ss_sp: work.signal_stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: work.signal_stack.len(),
        };
        if libc::sigaltstack(&raw const stack, std::ptr::null_mut()) != 0 {
            return false;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = entry as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        const CAUGHT: [libc::c_int; 8] = [
            libc::SIGUSR1,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGVTALRM,
        ];
        CAUGHT
            .iter()
            .all(|&s| libc::sigaction(s, &raw const action, std::ptr::null_mut()) == 0)
    }
}

/// Signal handler: puts flags and selectors into a state that compiled code can live with, and
/// returns to the interrupted context itself.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    std::arch::naked_asm!(
        // AC would make every unaligned access of ours fault.
        "push 2",
        "popfq",
        "xor eax, eax",
        "mov ax, es",
        "mov rcx, rax",
        "mov ax, ds",
        "shl rax, 16",
        "or rcx, rax",
        "xor eax, eax",
        "mov ax, fs",
        "shl rax, 32",
        "or rcx, rax",
        "xor eax, eax",
        "mov ax, gs",
        "shl rax, 48",
        "or rcx, rax",
        "sub rsp, 8",
        "call {handle}",
        "mov [rsp], rax",
        "popfq",
        // The frame begins after our return address.
        "add rsp, 8",
        "mov eax, 15",
        "syscall",
        "ud2",
        handle = sym handle,
    )
}

/// Ends one case and starts the next. Answers the flags that the signal return leaves alone.
unsafe extern "C" fn handle(
    signal: libc::c_int,
    _info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
    selectors: u64,
) -> u64 {
    // SAFETY: `WORK` was set before the first signal and is used by this handler alone, which no
    // signal interrupts; the kernel hands in a valid context.
    let (work, context) = unsafe { (&mut *WORK.load(Ordering::Relaxed), &mut *context) };
    let greg = |r: libc::c_int| context.uc_mcontext.gregs[r as usize] as u64;
    let flags = greg(libc::REG_EFL);
    if signal == libc::SIGVTALRM && (work.last_tick != work.at || !work.started) {
        work.last_tick = work.at;
        return flags & UNRESTORED | 2;
    }
    if work.started {
        // SAFETY: `at` is below `count`, the length of both arrays.
        let (case, outcome) =
            unsafe { (&*work.cases.add(work.at), &mut *work.outcomes.add(work.at)) };
        // SAFETY: reads the frame's floating-point state and memory mapped by `map_areas`.
        unsafe { record(work, case, outcome, context, selectors) };
        outcome.vector = match signal {
            libc::SIGVTALRM => HUNG,
            libc::SIGSYS => crate::case::LOST,
            _ => context.uc_mcontext.gregs[libc::REG_TRAPNO as usize] as u64,
        };
        work.at += 1;
    }
    if work.at == work.count {
        // SAFETY: ends the process without running anything else.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
    work.started = true;
    // SAFETY: as above.
    let case = unsafe { &*work.cases.add(work.at) };
    // SAFETY: writes the frame's floating-point state and memory mapped by `map_areas`.
    unsafe { load(work, case, context) };
    case.rflags & UNRESTORED | 2
}

/// The writable areas as slices, in the image's order.
unsafe fn memory() -> [&'static mut [u8]; 3] {
    // SAFETY: mapped by `map_areas` for the life of the process; only the handler, which is never
    // re-entered, makes these references.
    sandbox::WRITABLE.map(|a| unsafe { std::slice::from_raw_parts_mut(a.at as *mut u8, a.len) })
}

/// Encoding order of the general registers, as signal frames index them.
const GPR: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

unsafe fn record(
    work: &mut Work,
    case: &Case,
    out: &mut Outcome,
    context: &libc::ucontext_t,
    selectors: u64,
) {
    let greg = |r: libc::c_int| context.uc_mcontext.gregs[r as usize] as u64;
    (out.error, out.cr2) = (greg(libc::REG_ERR), greg(libc::REG_CR2));
    (out.rip, out.rflags) = (greg(libc::REG_RIP), greg(libc::REG_EFL));
    out.gpr = GPR.map(greg);
    let code_and_stack = greg(libc::REG_CSGSFS);
    out.selectors = [
        selectors as u16,
        code_and_stack as u16,
        (code_and_stack >> 48) as u16,
        (selectors >> 16) as u16,
        (selectors >> 32) as u16,
        (selectors >> 48) as u16,
    ];
    // SAFETY: the frame's floating-point state is an FXSAVE image at least; the bases go into
    // words of ours.
    unsafe {
        arch_prctl(ARCH_GET_FS, &raw mut out.fs_base as u64);
        arch_prctl(ARCH_GET_GS, &raw mut out.gs_base as u64);
        let fx = context.uc_mcontext.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(fx, out.fx.as_mut_ptr(), out.fx.len());
        work.tracker.collect(case, &mut memory(), out);
        let code = work.code.add((case.rip - sandbox::CODE.at) as usize);
        std::ptr::write_bytes(code, INT3, case.code_len as usize);
    }
}

unsafe fn load(work: &mut Work, case: &Case, context: &mut libc::ucontext_t) {
    const UC_SIGCONTEXT_SS: libc::c_ulong = 2;
    const UC_STRICT_RESTORE_SS: libc::c_ulong = 4;
    let cs = if case.bits == 64 { USER_CS } else { USER32_CS };
    let gregs = &mut context.uc_mcontext.gregs;
    for (r, value) in GPR.into_iter().zip(case.gpr) {
        gregs[r as usize] = value as i64;
    }
    gregs[libc::REG_RIP as usize] = case.rip as i64;
    gregs[libc::REG_EFL as usize] = case.rflags as i64;
    gregs[libc::REG_CSGSFS as usize] = (cs | USER_DS << 48) as i64;
    context.uc_flags |= UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    // SAFETY: the frame's floating-point state is an XSAVE image (with its bitmap at 512) on every
    // processor with XSAVE; the code stays in its area (`Case::rip` is from the generator).
    unsafe {
        let fx = context.uc_mcontext.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(case.fx.as_ptr(), fx, case.fx.len());
        let used = fx.add(512).cast::<u64>();
        used.write_unaligned(used.read_unaligned() | 3);
        let code = work.code.add((case.rip - sandbox::CODE.at) as usize);
        std::ptr::copy_nonoverlapping(case.code.as_ptr(), code, case.code_len as usize);
        work.tracker.prepare(case, &mut memory());
        // Selectors first: loading one clears the base.
        std::arch::asm!(
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov fs, {based:e}",
            "mov gs, {based:e}",
            data = in(reg) USER_DS,
            based = in(reg) if case.bits == 64 { 0 } else { USER_DS },
            options(nostack, preserves_flags),
        );
        if case.bits == 64 {
            arch_prctl(ARCH_SET_FS, case.fs_base);
            arch_prctl(ARCH_SET_GS, case.gs_base);
        }
    }
}

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

/// The system call itself: the library's wrapper would use thread-local storage, and that is gone
/// with the FS base.
unsafe fn arch_prctl(what: u64, value: u64) {
    // SAFETY: as the caller says; a failing call changes nothing.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_arch_prctl => _,
            in("rdi") what,
            in("rsi") value,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
}
