//! SYSCALL, SYSRET, SYSENTER and SYSEXIT.

use iced_x86::code_asm::*;

use crate::guest::*;

const GP: u64 = 13;
const UD: u64 = 6;

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const SFMASK: u32 = 0xc000_0084;

fn set_msr(g: &mut Guest, index: u32, value: u64) {
    g.adjust(|s| {
        let entry = s
            .msrs
            .iter_mut()
            .find(|(i, _)| *i == index)
            .expect("a saved register");
        entry.1 = value;
    });
}

fn with_syscall() -> Guest {
    let mut g = Guest::long();
    set_msr(
        &mut g,
        STAR,
        u64::from(USER32_CS) << 48 | u64::from(KERNEL_CS) << 32,
    );
    set_msr(&mut g, LSTAR, CODE);
    set_msr(&mut g, SFMASK, 0x4_7700);
    g
}

/// SDM vol. 2, SYSCALL and SYSRET: there and back.
#[test]
pub(crate) fn syscall_and_sysretq() {
    both_ways(|| {
        let mut g = with_syscall();
        g.code_at(CODE, |a| {
            a.mov(rbx, cs)?;
            a.mov(rdx, ss)?;
            a.pushfq()?;
            a.pop(rsi)?;
            a.sysretq()
        });
        g.enter_user();
        g.adjust(|s| s.rflags = 0x0020_0ad7);
        g.code(|a| {
            a.syscall()?;
            a.mov(rdi, cs)?;
            a.mov(r8, ss)?;
            a.int3()
        });
        let trap = g.expect(3, 0);
        assert_eq!((g.gpr(3), g.gpr(2)), (KERNEL_CS.into(), KERNEL_DS.into()));
        assert_eq!(g.gpr(6), 0x0020_0ad7 & !0x4_7700);
        assert_eq!(g.gpr(1), USER_CODE + 2);
        assert_eq!(g.gpr(11), 0x0020_0ad7);
        assert_eq!((g.gpr(7), g.gpr(8)), (USER_CS.into(), USER_DS.into()));
        assert_eq!(trap.rflags, 0x0020_0ad7);
        assert_eq!(trap.rsp, USER_STACK, "SYSCALL leaves RSP alone");
    });
}

/// SYSRET with a 32-bit operand returns to compatibility mode.
#[test]
pub(crate) fn sysret_to_compatibility_mode() {
    both_ways(|| {
        let mut g = with_syscall();
        g.adjust(|s| (s.gpr[1], s.gpr[11]) = (0xffff_ffff_0000_0000 | USER_CODE, 0x202));
        g.code(|a| a.sysret());
        g.code_of(32, USER_CODE, |a| {
            a.mov(eax, cs)?;
            a.int3()
        });
        let trap = g.expect(3, 0);
        assert_eq!((trap.cs, trap.ss), (USER32_CS.into(), USER_DS.into()));
        assert_eq!(g.gpr(0), USER32_CS.into());
        assert_ne!(trap.rflags & 0x200, 0);
    });
}

#[test]
pub(crate) fn syscall_faults() {
    both_ways(|| {
        // On Intel's processors the bad address faults before the privilege changes.
        let mut g = with_syscall();
        g.adjust(|s| s.gpr[1] = 1 << 47);
        g.code(|a| a.sysretq());
        let trap = g.expect(GP, 0);
        assert_eq!(trap.cs, KERNEL_CS.into());
    });
    both_ways(|| {
        let mut g = with_syscall();
        g.adjust(|s| s.efer &= !1);
        g.code(|a| a.syscall());
        g.expect(UD, 0);
    });
    both_ways(|| {
        let mut g = with_syscall();
        g.enter_user32();
        g.code_of(32, USER_CODE, |a| a.db(&[0x0f, 0x05]));
        g.expect(UD, 0);
    });
}

/// With TF masked on entry, SYSCALL under single step reaches the kernel without a trap.
#[test]
pub(crate) fn syscall_under_single_step() {
    both_ways(|| {
        let mut g = with_syscall();
        g.code_at(CODE, |a| a.hlt());
        g.enter_user();
        g.adjust(|s| s.rflags |= 0x100);
        g.code(|a| a.syscall());
        g.run_to_halt();
        assert_ne!(g.gpr(11) & 0x100, 0);
    });
}

/// SDM vol. 2, SYSENTER and SYSEXIT.
#[test]
pub(crate) fn sysenter_and_sysexit() {
    both_ways(|| {
        let mut g = Guest::long();
        set_msr(&mut g, 0x174, KERNEL_CS.into());
        set_msr(&mut g, 0x175, STACK);
        set_msr(&mut g, 0x176, CODE);
        g.code_at(CODE, |a| {
            a.mov(rbx, cs)?;
            a.mov(rsi, rsp)?;
            a.mov(edx, USER_CODE as u32 + 0x100)?;
            a.mov(ecx, USER_STACK as u32)?;
            a.sysexit()
        });
        g.enter_user();
        g.adjust(|s| s.rflags |= 0x200);
        g.code(|a| a.sysenter());
        g.code_of(32, USER_CODE + 0x100, |a| a.int3());
        let trap = g.expect(3, 0);
        assert_eq!((g.gpr(3), g.gpr(6)), (KERNEL_CS.into(), STACK));
        assert_eq!(
            (trap.cs, trap.ss, trap.rsp),
            (USER32_CS.into(), USER_DS.into(), USER_STACK)
        );
        assert_eq!(
            trap.rflags & 0x200,
            0,
            "SYSENTER clears IF, SYSEXIT does not set it"
        );
    });
    both_ways(|| {
        let mut g = Guest::long();
        set_msr(&mut g, 0x174, KERNEL_CS.into());
        g.adjust(|s| (s.gpr[2], s.gpr[1]) = (USER_CODE, USER_STACK));
        g.code(|a| a.sysexitq());
        g.code_at(USER_CODE, |a| a.int3());
        let trap = g.expect(3, 0);
        assert_eq!(
            (trap.cs, trap.ss),
            (u64::from(KERNEL_CS) + 35, u64::from(KERNEL_CS) + 43)
        );
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.enter_user();
        g.code(|a| a.sysenter());
        g.expect(GP, 0);
    });
}
