//! System calls as the test author asked for them.

use std::arch::asm;

/// Calls that make a second thread of control. Its copy of the agent must not go on as if it were
/// the agent: it ends at once.
const FORKS: [u32; 4] = [56, 57, 58, 435];

/// Makes a system call and gives the kernel's value.
///
/// # Safety
/// The call may do to this process whatever the kernel lets it do. The agent accepts that: it is
/// what it is for, and a supervisor replaces an agent that did not survive.
pub(crate) unsafe fn syscall(nr: u32, args: [u64; 6]) -> i64 {
    if FORKS.contains(&nr) {
        // SAFETY: as above.
        return unsafe { fork_like(nr, args) };
    }
    let result;
    // SAFETY: the registers are those of the calling convention; memory may change.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(nr) => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The same, where the call returns twice: the second time, with zero, it exits without touching
/// memory, which it may share with us.
///
/// # Safety
/// As for [`syscall`].
unsafe fn fork_like(nr: u32, args: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the registers are those of the calling convention; the child leaves inside.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "2:",
            inlateout("rax") u64::from(nr) => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
