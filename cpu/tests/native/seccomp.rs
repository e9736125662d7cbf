//! Keeps the child from calling the kernel with whatever a random instruction makes of its
//! registers: only three calls remain, and none from the sandbox.

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const POINTER_HIGH: u32 = 12;

const X86_64: u32 = 0xc000_003e;
const TRAP: u32 = 0x0003_0000;
const ALLOW: u32 = 0x7fff_0000;

const fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

/// Compares with `k`; skips `jt` instructions if equal, else `jf`.
const fn equal(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: 0x15,
        jt,
        jf,
        k,
    }
}

const fn answer(k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Confines the calling thread; answers whether that worked.
///
/// The areas of the sandbox with code lie below 4 GiB and the program above, which is how the
/// filter tells who calls.
pub(crate) fn confine() -> bool {
    let mut program = [
        load(ARCHITECTURE),
        equal(X86_64, 0, 7),
        load(POINTER_HIGH),
        equal(0, 5, 0),
        load(NUMBER),
        equal(libc::SYS_rt_sigreturn as u32, 4, 0),
        equal(libc::SYS_arch_prctl as u32, 3, 0),
        equal(libc::SYS_exit_group as u32, 2, 0),
        equal(libc::SYS_tgkill as u32, 1, 0),
        answer(TRAP),
        answer(ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter is well-formed and lives through the calls.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            ) == 0
    }
}
