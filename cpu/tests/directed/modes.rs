//! The modes on the way up: real mode, protected mode of 16 and 32 bits, and the switch to 64.

use iced_x86::code_asm::*;

use crate::guest::*;
use crate::machine;

/// Real mode: segments are paragraphs, interrupts go through the vector table.
#[test]
fn real_mode_segments_and_interrupts() {
    both_ways(|| {
        let mut g = Guest::real();
        // Vector 0x21 at 0x100:0x20.
        g.memory.write(0x21 * 4, &[0x20, 0x00, 0x00, 0x01]);
        g.code(|a| {
            a.mov(ax, 0x700)?;
            a.mov(ds, ax)?;
            a.mov(es, ax)?;
            a.mov(word_ptr(0x10), 0x1234)?;
            a.mov(bx, word_ptr(0x10))?;
            a.mov(di, 0x20)?;
            a.mov(al, 0x55)?;
            a.mov(cx, 4)?;
            a.rep().stosb()?;
            a.int(0x21)?;
            a.mov(si, cs)?;
            a.hlt()
        });
        g.code_of(16, 0x1020, |a| {
            a.mov(dx, cs)?;
            a.mov(bp, sp)?;
            a.iret()
        });
        g.run_to_halt();
        let s = g.state();
        assert_eq!(
            (s.gpr[3] & 0xffff, s.gpr[2] & 0xffff, s.gpr[6] & 0xffff),
            (0x1234, 0x100, 0)
        );
        assert_eq!((s.gpr[5] & 0xffff, s.gpr[4] & 0xffff), (0x7000 - 6, 0x7000));
        assert_eq!(g.memory.read(0x7020, 5), [0x55, 0x55, 0x55, 0x55, 0]);
    });
}

/// Far jumps, calls and returns in real mode; addresses of 16 bits wrap.
#[test]
fn real_mode_far_transfers() {
    both_ways(|| {
        let mut g = Guest::real();
        g.code(|a| {
            // call 0x100:0x0
            a.db(&[0x9a, 0x00, 0x00, 0x00, 0x01])?;
            a.mov(dx, sp)?;
            a.mov(bx, 0xffff)?;
            a.mov(si, 0x11)?;
            // [bx + si] = [0x10]
            a.mov(cl, byte_ptr(bx + si))?;
            a.hlt()
        });
        g.code_of(16, 0x1000, |a| {
            a.mov(ax, cs)?;
            a.db(&[0xcb])
        });
        g.memory.write(0x10, &[0x77]);
        g.run_to_halt();
        assert_eq!(
            (g.gpr(0) & 0xffff, g.gpr(2) & 0xffff, g.gpr(1) & 0xff),
            (0x100, 0x7000, 0x77)
        );
    });
}

/// The way from real mode through protected mode to 64 bits, as boot code goes it (SDM vol. 3,
/// 9.8.5).
#[test]
fn from_real_mode_to_64_bits() {
    both_ways(|| {
        let mut g = Guest::real();
        // GDT pointer at 0x500.
        g.memory.write(0x500, &0x9fu16.to_le_bytes());
        g.memory.write(0x502, &(GDT as u32).to_le_bytes());
        g.code(|a| {
            a.cli()?;
            // lgdt [0x500]
            a.db(&[0x66, 0x0f, 0x01, 0x16, 0x00, 0x05])?;
            a.mov(eax, cr0)?;
            a.or(al, 1)?;
            a.mov(cr0, eax)?;
            // jmp dword KERNEL32_CS:CODE
            a.db(&[0x66, 0xea, 0x00, 0x00, 0x01, 0x00, KERNEL32_CS as u8, 0x00])
        });
        g.code_of(32, CODE, |a| {
            a.mov(eax, u32::from(KERNEL_DS))?;
            a.mov(ds, eax)?;
            a.mov(ss, eax)?;
            a.mov(esp, STACK as u32)?;
            a.push(0x1234)?;
            a.pop(edi)?;
            a.mov(eax, cr4)?;
            a.or(eax, CR4_PAE as u32)?;
            a.mov(cr4, eax)?;
            a.mov(eax, ROOT as u32)?;
            a.mov(cr3, eax)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.or(eax, 0x100)?;
            a.wrmsr()?;
            a.mov(eax, cr0)?;
            a.or(eax, 0x8000_0000u32)?;
            a.mov(cr0, eax)?;
            a.rdmsr()?;
            a.mov(esi, eax)?;
            // jmp dword KERNEL_CS:CODE + 0x200
            a.db(&[0xea, 0x00, 0x02, 0x01, 0x00, KERNEL_CS as u8, 0x00])
        });
        g.code_of(64, CODE + 0x200, |a| {
            a.mov(rbx, 0x1234_5678_9abc_def0_u64)?;
            a.mov(rdx, cs)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(7), g.gpr(6) & 0x500), (0x1234, 0x500));
        assert_eq!(
            (g.gpr(3), g.gpr(2)),
            (0x1234_5678_9abc_def0, KERNEL_CS.into())
        );
    });
}

/// And back: compatibility mode, paging off, and IA-32e mode ends.
#[test]
fn out_of_long_mode() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write(DATA, &(CODE as u32 + 0x100).to_le_bytes());
        g.memory.write(DATA + 4, &KERNEL32_CS.to_le_bytes());
        // jmp far dword [DATA]
        g.code(|a| a.db(&[0xff, 0x2c, 0x25, 0x00, 0x80, 0x01, 0x00]));
        g.code_of(32, CODE + 0x100, |a| {
            a.mov(eax, cr0)?;
            a.btr(eax, 31)?;
            a.mov(cr0, eax)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(0) & 0x500, 0x100);
        assert_eq!(g.state().cr0 & 1 << 31, 0);
    });
}

/// Interrupts and IRET of 32-bit protected mode, with and without a change of ring.
#[test]
fn protected_mode_interrupts() {
    both_ways(|| {
        let mut g = Guest::protected();
        g.code(|a| {
            a.xor(eax, eax)?;
            a.div(eax)
        });
        let trap = g.expect(0, 0);
        assert_eq!(
            (trap.rip, trap.cs, g.gpr(4)),
            (CODE + 2, KERNEL32_CS.into(), STACK - 12)
        );
    });
    both_ways(|| {
        let mut g = Guest::protected();
        g.code(|a| {
            for word in [
                u64::from(USER_DS),
                USER_STACK,
                2,
                USER32_CS.into(),
                USER_CODE,
            ] {
                a.push(word as i32)?;
            }
            a.iretd()
        });
        g.code_at(USER_CODE, |a| {
            a.mov(eax, cs)?;
            a.int3()
        });
        let trap = g.expect(3, 0);
        assert_eq!(
            (trap.cs, trap.ss, trap.rsp),
            (USER32_CS.into(), USER_DS.into(), USER_STACK)
        );
        assert_eq!((g.gpr(0), g.gpr(4)), (USER32_CS.into(), STACK - 20));
    });
    both_ways(|| {
        // A general-protection fault from ring 3 carries its error code.
        let mut g = Guest::protected();
        g.enter_user32();
        g.code(|a| {
            a.mov(eax, 0x1000)?;
            a.mov(ds, eax)
        });
        g.expect(13, 0x1000);
    });
}

/// Code and stack segments of 16 bits in protected mode.
#[test]
fn protected_mode_of_16_bits() {
    both_ways(|| {
        let mut g = Guest::protected();
        g.adjust(|s| {
            s.segments[1] = segment(CODE16);
            s.segments[2] = segment(DATA16);
            (s.rip, s.gpr[4]) = (0x6000, 0xffff_0000 | 0x7000);
            s.gpr[0] = 0xaaaa_bbbb;
        });
        g.code_of(16, 0x6000, |a| {
            a.push(ax)?;
            a.push(eax)?;
            a.mov(cx, sp)?;
            a.pop(edx)?;
            a.pop(bx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(1) & 0xffff, 0x7000 - 6);
        assert_eq!((g.gpr(2), g.gpr(3) & 0xffff), (0xaaaa_bbbb, 0xbbbb));
        assert_eq!(g.gpr(4), 0xffff_7000, "the upper half of ESP stays");
        assert_eq!(
            g.memory.read(0x7000 - 6, 6),
            [0xbb, 0xbb, 0xaa, 0xaa, 0xbb, 0xbb]
        );
    });
}

/// Segments with a base: the 32-bit way of reaching thread-local storage.
#[test]
fn segment_bases_of_32_bits() {
    both_ways(|| {
        let mut g = Guest::protected();
        g.memory.write_u64(
            GDT + u64::from(FREE),
            machine::descriptor(DATA as u32, 0xfff, 0x92, 4),
        );
        g.memory.write_u64(DATA + 0x10, 0x5566_7788);
        g.code(|a| {
            a.mov(eax, u32::from(FREE))?;
            a.mov(gs, eax)?;
            a.mov(ebx, dword_ptr(0x10).gs())?;
            a.mov(ecx, -4i32)?;
            a.mov(edx, dword_ptr(ecx + 0x14).gs())?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(3), g.gpr(2)), (0x5566_7788, 0x5566_7788));
    });
}

/// Real-mode versions of instructions that only make sense in protected mode.
#[test]
fn protected_mode_instructions_need_protected_mode() {
    for bytes in [
        [0x0f, 0x00, 0xd8],
        [0x0f, 0x00, 0xc8],
        [0x0f, 0x00, 0xe0],
        [0x0f, 0x02, 0xc0],
    ] {
        both_ways(|| {
            let mut g = Guest::real();
            // #UD goes to 0:0x6100.
            g.memory.write(6 * 4, &[0x00, 0x61, 0x00, 0x00]);
            g.memory.write(0x6100, &[0xf4]);
            g.memory.write(REAL_CODE, &bytes);
            g.run_to_halt();
            assert_eq!(g.state().rip, 0x6101, "{bytes:x?}");
        });
    }
}
