//! Descriptor tables, system segments, and far transfers through them.

use iced_x86::code_asm::*;

use crate::guest::*;
use crate::machine;

const NP: u64 = 11;
const GP: u64 = 13;

#[test]
pub(crate) fn descriptor_table_registers() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write(DATA, &[0x34, 0x12]);
        g.memory.write_u64(DATA + 2, 0xffff_8000_0000_1000);
        g.code(|a| {
            a.sgdt(ptr(DATA + 0x20))?;
            a.sidt(ptr(DATA + 0x30))?;
            a.lidt(ptr(DATA))?;
            a.sidt(ptr(DATA + 0x40))?;
            a.lgdt(ptr(DATA))?;
            a.sgdt(ptr(DATA + 0x50))?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.memory.read_u64(DATA + 0x22), GDT);
        assert_eq!(g.memory.read_u64(DATA + 0x30) & 0xffff, 0xfff);
        for at in [DATA + 0x40, DATA + 0x50] {
            assert_eq!(g.memory.read(at, 10), g.memory.read(DATA, 10));
        }
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write_u64(DATA + 2, 1 << 47);
        g.code(|a| a.lgdt(ptr(DATA)));
        g.expect(GP, 0);
        assert_eq!(g.state().gdt.base, GDT);
    });
}

/// LTR marks the descriptor busy and refuses a busy one (SDM vol. 2, LTR).
#[test]
pub(crate) fn task_register() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write_u64(
            GDT + u64::from(FREE),
            machine::descriptor(0x3000, 0x67, 0x89, 0),
        );
        g.memory.write_u64(GDT + u64::from(FREE) + 8, 0xffff_8000);
        g.code(|a| {
            a.mov(eax, u32::from(FREE))?;
            a.ltr(ax)?;
            a.str(rbx)?;
            a.str(word_ptr(DATA))?;
            a.ltr(ax)
        });
        g.expect(GP, FREE.into());
        assert_eq!(g.gpr(3), FREE.into());
        assert_eq!(g.memory.read_u64(DATA), FREE.into());
        assert_eq!(g.state().tr.base, 0xffff_8000_0000_3000);
        assert_eq!(g.memory.read_u64(GDT + u64::from(FREE)) >> 40 & 0xff, 0x8b);
    });
    for (selector, descriptor, vector, error) in [
        (0u16, 0, GP, 0),
        (
            FREE,
            machine::descriptor(0x3000, 0x67, 0x09, 0),
            NP,
            u64::from(FREE),
        ),
        (
            FREE,
            machine::descriptor(0x3000, 0x67, 0x92, 0),
            GP,
            u64::from(FREE),
        ),
        (FREE | 4, 0, GP, u64::from(FREE | 4)),
        (0x1000, 0, GP, 0x1000),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            g.memory.write_u64(GDT + u64::from(FREE), descriptor);
            g.code(|a| {
                a.mov(eax, u32::from(selector))?;
                a.ltr(ax)
            });
            g.expect(vector, error);
        });
    }
}

#[test]
pub(crate) fn local_descriptor_table() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write_u64(
            GDT + u64::from(FREE),
            machine::descriptor(LDT as u32, 0xf, 0x82, 0),
        );
        g.memory.write_u64(GDT + u64::from(FREE) + 8, 0);
        g.memory
            .write_u64(LDT + 8, machine::descriptor(0x1234, 0xfff, 0xf2, 4));
        g.code(|a| {
            a.mov(eax, u32::from(FREE))?;
            a.lldt(ax)?;
            a.sldt(rbx)?;
            a.sldt(word_ptr(DATA))?;
            a.mov(eax, 0xf)?;
            a.mov(gs, eax)?;
            a.rdgsbase(rcx)?;
            a.xor(eax, eax)?;
            a.lldt(ax)?;
            a.mov(eax, 0xf)?;
            a.mov(gs, eax)
        });
        g.expect(GP, 0xc);
        assert_eq!((g.gpr(3), g.gpr(1)), (FREE.into(), 0x1234));
        assert_eq!(g.memory.read_u64(DATA), FREE.into());
        assert_eq!(g.memory.read_u64(LDT + 8) >> 40 & 1, 1, "accessed");
    });
}

/// LAR, LSL, VERR and VERW see what privilege permits and never fault on a selector.
#[test]
pub(crate) fn questions_about_descriptors() {
    let run = |user: bool, selector: u16| {
        let mut g = Guest::long();
        if user {
            g.enter_user();
        }
        g.adjust(|s| s.gpr[0] = selector.into());
        g.code(|a| {
            a.lar(ebx, eax)?;
            a.setz(cl)?;
            a.lsl(edx, eax)?;
            a.setz(ch)?;
            a.verr(ax)?;
            a.setz(sil)?;
            a.verw(ax)?;
            a.setz(dil)?;
            a.int3()
        });
        g.expect(3, 0);
        let flags = [g.gpr(1) & 0xff, g.gpr(1) >> 8, g.gpr(6), g.gpr(7)];
        (g.gpr(3) & !0xf_0000, g.gpr(2), flags)
    };
    both_ways(|| {
        assert_eq!(
            run(false, KERNEL_CS),
            (0xa0_9b00, 0xffff_ffff, [1, 1, 1, 0])
        );
        assert_eq!(
            run(false, KERNEL_DS),
            (0xc0_9300, 0xffff_ffff, [1, 1, 1, 1])
        );
        assert_eq!(run(false, TSS_SELECTOR), (0x8b00, 0x67, [1, 1, 0, 0]));
        assert_eq!(run(true, USER_DS), (0xc0_f300, 0xffff_ffff, [1, 1, 1, 1]));
        assert_eq!(run(true, KERNEL_DS).2, [0, 0, 0, 0]);
        assert_eq!(run(true, 0).2, [0, 0, 0, 0]);
        assert_eq!(run(true, 0x1000).2, [0, 0, 0, 0]);
        // RPL counts as well.
        assert_eq!(run(false, KERNEL_DS | 3).2, [0, 0, 0, 0]);
    });
}

/// Loads of data segments (SDM vol. 2, MOV).
#[test]
pub(crate) fn segment_loads() {
    for (selector, descriptor, vector, error) in [
        (
            FREE,
            machine::descriptor(0, 0xf_ffff, 0x12, 0xc),
            NP,
            u64::from(FREE),
        ),
        (
            FREE,
            machine::descriptor(0, 0xf_ffff, 0x98, 0xa),
            GP,
            u64::from(FREE),
        ),
        (
            FREE,
            machine::descriptor(0, 0x67, 0x89, 0),
            GP,
            u64::from(FREE),
        ),
        (
            FREE | 3,
            machine::descriptor(0, 0xf_ffff, 0x92, 0xc),
            GP,
            u64::from(FREE),
        ),
        (0x1000, 0, GP, 0x1000),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            g.memory.write_u64(GDT + u64::from(FREE), descriptor);
            g.code(|a| {
                a.mov(eax, u32::from(selector))?;
                a.mov(ds, eax)
            });
            g.expect(vector, error);
        });
    }
    both_ways(|| {
        // SS: not present is #SS, read-only is #GP; null is fine in 64-bit ring 0.
        let mut g = Guest::long();
        g.memory.write_u64(
            GDT + u64::from(FREE),
            machine::descriptor(0, 0xf_ffff, 0x12, 0xc),
        );
        g.code(|a| {
            a.xor(eax, eax)?;
            a.mov(ss, eax)?;
            a.mov(eax, u32::from(FREE))?;
            a.mov(ss, eax)
        });
        g.expect(12, FREE.into());
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write_u64(
            GDT + u64::from(FREE),
            machine::descriptor(0, 0xf_ffff, 0x90, 0xc),
        );
        g.code(|a| {
            a.mov(eax, u32::from(FREE))?;
            a.mov(ss, eax)
        });
        g.expect(GP, FREE.into());
    });
}

fn far_pointer(g: &Guest, at: u64, offset: u64, selector: u16) {
    g.memory.write(at, &(offset as u32).to_le_bytes());
    g.memory.write(at + 4, &selector.to_le_bytes());
}

/// JMP and CALL far through memory into compatibility mode and back.
#[test]
pub(crate) fn far_transfers_change_mode() {
    both_ways(|| {
        let mut g = Guest::long();
        far_pointer(&g, DATA, CODE + 0x100, KERNEL32_CS);
        // jmp far dword [DATA]
        g.code(|a| a.db(&[0xff, 0x2c, 0x25, 0x00, 0x80, 0x01, 0x00]));
        g.code_of(32, CODE + 0x100, |a| {
            a.mov(eax, cs)?;
            a.pushfd()?;
            // call far KERNEL_CS:CODE+0x200
            a.db(&[0x9a, 0x00, 0x02, 0x01, 0x00, 0x08, 0x00])?;
            a.mov(ebx, cs)?;
            a.hlt()
        });
        g.code_at(CODE + 0x200, |a| {
            a.mov(rcx, cs)?;
            // retf with 32-bit words
            a.db(&[0xcb])
        });
        g.run_to_halt();
        assert_eq!((g.gpr(0), g.gpr(1)), (KERNEL32_CS.into(), KERNEL_CS.into()));
        assert_eq!(g.gpr(3), KERNEL32_CS.into());
        assert_eq!(g.gpr(4), STACK - 4);
    });
}

#[test]
pub(crate) fn far_return_to_ring_3() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.push(USER_DS as i32)?;
            a.push(USER_STACK as i32)?;
            a.push(USER_CS as i32)?;
            a.push(USER_CODE as i32)?;
            a.db(&[0x48, 0xcb])
        });
        g.code_at(USER_CODE, |a| a.int3());
        let trap = g.expect(3, 0);
        assert_eq!(
            (trap.cs, trap.ss, trap.rsp),
            (USER_CS.into(), USER_DS.into(), USER_STACK)
        );
    });
    both_ways(|| {
        // Not towards an inner ring.
        let mut g = Guest::long();
        g.enter_user();
        g.code(|a| {
            a.push(KERNEL_CS as i32)?;
            a.push(CODE as i32)?;
            a.db(&[0x48, 0xcb])
        });
        g.expect(GP, KERNEL_CS.into());
    });
}

/// A 64-bit call gate at the same privilege.
#[test]
pub(crate) fn call_gate() {
    both_ways(|| {
        let mut g = Guest::long();
        let at = GDT + u64::from(FREE);
        g.memory.write_u64(
            at,
            (CODE + 0x100) & 0xffff | u64::from(KERNEL_CS) << 16 | 0x8c << 40 | (CODE >> 16) << 48,
        );
        g.memory.write_u64(at + 8, 0);
        far_pointer(&g, DATA, 0, FREE);
        // call far dword [DATA]
        g.code(|a| {
            a.db(&[0xff, 0x1c, 0x25, 0x00, 0x80, 0x01, 0x00])?;
            a.hlt()
        });
        g.code_at(CODE + 0x100, |a| {
            a.inc(rbx)?;
            a.db(&[0x48, 0xcb])
        });
        g.run_to_halt();
        assert_eq!((g.gpr(3), g.gpr(4)), (1, STACK));
    });
}

#[test]
pub(crate) fn bad_far_transfers() {
    for (selector, descriptor, vector, error) in [
        (0u16, 0, GP, 0),
        (KERNEL_DS, 0, GP, u64::from(KERNEL_DS)),
        (USER_CS, 0, GP, u64::from(USER_CS & !3)),
        (0x1000, 0, GP, 0x1000),
        (
            FREE,
            machine::descriptor(0, 0xf_ffff, 0x1b, 0xa),
            NP,
            u64::from(FREE),
        ),
        // Both L and D.
        (
            FREE,
            machine::descriptor(0, 0xf_ffff, 0x9b, 0xe),
            GP,
            u64::from(FREE),
        ),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            g.memory.write_u64(GDT + u64::from(FREE), descriptor);
            far_pointer(&g, DATA, CODE, selector);
            g.code(|a| a.db(&[0xff, 0x2c, 0x25, 0x00, 0x80, 0x01, 0x00]));
            let trap = g.expect(vector, error);
            assert_eq!(trap.rip, CODE);
        });
    }
}

/// LSS, LFS and LGS load pointer and selector together.
#[test]
pub(crate) fn far_pointers() {
    both_ways(|| {
        let mut g = Guest::long();
        far_pointer(&g, DATA, 0x7000, KERNEL_DS);
        g.code(|a| {
            a.lss(esp, fword_ptr(DATA))?;
            a.lgs(ebx, fword_ptr(DATA))?;
            a.lfs(ecx, fword_ptr(DATA))?;
            a.mov(rax, gs)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(4), g.gpr(3), g.gpr(1)), (0x7000, 0x7000, 0x7000));
        assert_eq!(g.gpr(0), KERNEL_DS.into());
    });
}
