//! Control and debug registers, MSRs, CPUID, time-stamp counter.

use iced_x86::code_asm::*;

use crate::guest::{CR0, CR4_PAE, Guest, both_ways};

const GP: u64 = 13;
const UD: u64 = 6;

/// SDM vol. 3, 2.5: control registers read back what was written.
#[test]
pub(crate) fn control_registers_keep_their_values() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(rax, CR0 | 8)?;
            a.mov(cr0, rax)?;
            a.mov(rbx, cr0)?;
            a.clts()?;
            a.mov(rcx, cr0)?;
            a.mov(rdx, 0x1234_5678_9abc_u64)?;
            a.mov(cr2, rdx)?;
            a.mov(rsi, cr2)?;
            a.mov(rdi, cr3)?;
            a.mov(cr3, rdi)?;
            a.mov(r8, cr4)?;
            a.mov(cr4, r8)?;
            a.mov(r9d, 5)?;
            a.mov(cr8, r9)?;
            a.mov(r10, cr8)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(3), CR0 | 8);
        assert_eq!(g.gpr(1), CR0);
        assert_eq!(g.gpr(6), 0x1234_5678_9abc);
        assert_eq!(g.gpr(7), g.state().cr3);
        assert_eq!(g.gpr(10), 5);
    });
}

/// Values that the SDM forbids raise #GP(0) and change nothing.
#[test]
pub(crate) fn forbidden_control_values_fault() {
    let bad_cr0 = [CR0 & !1, CR0 & !0x8000_0000, CR0 | 1 << 29, CR0 | 1 << 32];
    for value in bad_cr0 {
        both_ways(|| {
            let mut g = Guest::long();
            g.code(|a| {
                a.mov(rax, value)?;
                a.mov(cr0, rax)
            });
            g.expect(GP, 0);
            assert_eq!(g.state().cr0, CR0, "{value:#x}");
        });
    }
    for value in [1 << 13, 1 << 63, 0x5_06b0 & !CR4_PAE] {
        both_ways(|| {
            let mut g = Guest::long();
            g.code(|a| {
                a.mov(rax, value)?;
                a.mov(cr4, rax)
            });
            g.expect(GP, 0);
            assert_eq!(g.state().cr4, 0x5_06b0, "{value:#x}");
        });
    }
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(eax, 16)?;
            a.mov(cr8, rax)
        });
        g.expect(GP, 0);
    });
}

/// Every privileged instruction raises #GP(0) in ring 3.
#[test]
pub(crate) fn privileged_instructions_fault_in_ring_3() {
    type Emit = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let all: &[Emit] = &[
        |a| a.mov(rax, cr0),
        |a| a.mov(cr3, rax),
        |a| a.mov(rax, dr7),
        |a| a.mov(dr0, rax),
        |a| a.clts(),
        |a| a.lmsw(ax),
        |a| a.lgdt(ptr(rsp)),
        |a| a.lidt(ptr(rsp)),
        |a| a.lldt(ax),
        |a| a.ltr(ax),
        |a| a.rdmsr(),
        |a| a.wrmsr(),
        |a| a.hlt(),
        |a| a.invlpg(byte_ptr(rsp)),
        |a| a.invd(),
        |a| a.wbinvd(),
        |a| a.swapgs(),
        |a| a.sysretq(),
        |a| a.sysexitq(),
        |a| a.xsetbv(),
        |a| a.rdpmc(),
        |a| a.cli(),
        |a| a.sti(),
        |a| a.in_(al, 0x60),
        |a| a.out(0x60, al),
    ];
    for emit in all {
        both_ways(|| {
            let mut g = Guest::long();
            g.enter_user();
            g.code(emit);
            let trap = g.expect(GP, 0);
            assert_eq!(trap.rip, crate::guest::USER_CODE);
            assert_eq!(trap.cs & 3, 3);
        });
    }
}

#[test]
pub(crate) fn machine_status_word() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(eax, 0xe)?;
            // TS, EM, MP on; PE can't be turned off by it.
            a.lmsw(ax)?;
            a.smsw(rbx)?;
            a.smsw(ecx)?;
            a.mov(rdx, -1i64)?;
            a.smsw(dx)?;
            a.hlt()
        });
        g.run_to_halt();
        let now = CR0 & !0xf | 0xf;
        assert_eq!(g.gpr(3), now);
        assert_eq!(g.gpr(1), now & 0xffff_ffff);
        assert_eq!(g.gpr(2), !0xffff | now & 0xffff);
    });
}

/// SDM vol. 3, 17.2: DR4 and DR5 stand for DR6 and DR7 unless CR4.DE; reserved bits are fixed.
#[test]
pub(crate) fn debug_registers() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(rax, 0x1111_2222_3333_4444_u64)?;
            a.mov(dr0, rax)?;
            a.mov(dr3, rax)?;
            a.mov(rbx, dr0)?;
            a.mov(rcx, dr3)?;
            a.xor(eax, eax)?;
            a.mov(dr6, rax)?;
            a.mov(rdx, dr6)?;
            a.mov(dr7, rax)?;
            a.mov(rsi, dr7)?;
            // mov rdi, dr4
            a.db(&[0x0f, 0x21, 0xe7])?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(
            (g.gpr(3), g.gpr(1)),
            (0x1111_2222_3333_4444, 0x1111_2222_3333_4444)
        );
        assert_eq!((g.gpr(2), g.gpr(6)), (0xffff_0ff0, 0x400));
        assert_eq!(g.gpr(7), 0xffff_0ff0);
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.cr4 |= 8);
        g.code(|a| a.db(&[0x0f, 0x21, 0xe7]));
        g.expect(UD, 0);
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(rax, 1u64 << 32)?;
            a.mov(dr7, rax)
        });
        g.expect(GP, 0);
    });
}

/// SDM vol. 2, XSETBV: x87 state can't be turned off, unknown components not on.
#[test]
pub(crate) fn extended_control_register() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, 3)?;
            a.xsetbv()?;
            a.xor(eax, eax)?;
            a.xgetbv()?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(0), g.gpr(2)), (3, 0));
    });
    for (eax_, ecx_) in [(2, 0), (7, 0), (3, 1)] {
        both_ways(|| {
            let mut g = Guest::long();
            g.code(|a| {
                a.mov(ecx, ecx_)?;
                a.xor(edx, edx)?;
                a.mov(eax, eax_)?;
                a.xsetbv()
            });
            g.expect(GP, 0);
        });
    }
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.cr4 &= !(1 << 18));
        g.code(|a| a.xgetbv());
        g.expect(UD, 0);
    });
}

#[test]
pub(crate) fn model_specific_registers() {
    // FS, GS and kernel GS bases, STAR, LSTAR, SFMASK, TSC_AUX.
    for (index, value) in [
        (0xc000_0100u32, 0x7fff_1234_5678u64),
        (0xc000_0101, 0xffff_8000_0000_0000),
        (0xc000_0102, 0x1000),
        (0xc000_0081, 0x0023_0010_0000_0000),
        (0xc000_0082, 0xffff_ffff_8000_0000),
        (0xc000_0084, 0x4_7700),
        (0xc000_0103, 0x77),
        (0x174, 0x10),
        (0x175, 0xffff_ffff_8000_0000),
        (0x176, 0xffff_ffff_8000_0000),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            g.code(|a| {
                a.mov(ecx, index)?;
                a.mov(eax, value as u32)?;
                a.mov(edx, (value >> 32) as u32)?;
                a.wrmsr()?;
                a.xor(eax, eax)?;
                a.xor(edx, edx)?;
                a.rdmsr()?;
                a.hlt()
            });
            g.run_to_halt();
            assert_eq!(g.gpr(0) | g.gpr(2) << 32, value, "{index:#x}");
        });
    }
    // Non-canonical bases, unknown bits, unknown registers.
    for (index, value) in [
        (0xc000_0100u32, 1u64 << 47),
        (0xc000_0082, 1 << 63),
        (0xc000_0080, 1 << 20),
        (0x1234_5678, 0),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            g.code(|a| {
                a.mov(ecx, index)?;
                a.mov(eax, value as u32)?;
                a.mov(edx, (value >> 32) as u32)?;
                a.wrmsr()
            });
            g.expect(GP, 0);
        });
    }
}

/// EFER.LME can't change while paging is on; LMA is the processor's.
#[test]
pub(crate) fn efer() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(ecx, 0xc000_0080u32)?;
            a.mov(eax, 0x901)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.rdmsr()?;
            a.mov(ebx, eax)?;
            a.mov(eax, 0x801)?;
            a.wrmsr()
        });
        g.expect(GP, 0);
        assert_eq!(g.gpr(3), 0xd01);
    });
}

#[test]
pub(crate) fn time_stamp_counter() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.rdtsc()?;
            a.shl(rdx, 32)?;
            a.lea(rbx, ptr(rax + rdx))?;
            a.mov(ecx, 1000)?;
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.dec(ecx)?;
            a.jnz(top)?;
            a.mov(rcx, -1i64)?;
            a.rdtscp()?;
            a.shl(rdx, 32)?;
            a.or(rax, rdx)?;
            a.sub(rax, rbx)?;
            a.hlt()
        });
        g.run_to_halt();
        // One tick an instruction, and what reading the counter takes.
        assert!((2000..2200).contains(&g.gpr(0)), "{}", g.gpr(0));
        assert_eq!(g.gpr(1), 0, "TSC_AUX");
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.cr4 |= 4);
        g.enter_user();
        g.code(|a| a.rdtsc());
        g.expect(GP, 0);
    });
}

#[test]
pub(crate) fn cpuid_answers_from_its_table() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(eax, 0x8000_0001u32)?;
            a.mov(rbx, -1i64)?;
            a.cpuid()?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(
            (g.gpr(0), g.gpr(3), g.gpr(1), g.gpr(2)),
            (0, 0, 1, 0x2810_0800)
        );
    });
}

/// SDM vol. 2, SWAPGS, RDFSBASE.
#[test]
pub(crate) fn segment_bases() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(rax, 0x1111_0000_u64)?;
            a.wrgsbase(rax)?;
            a.mov(ecx, 0xc000_0102u32)?;
            a.mov(eax, 0x2222_0000)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.swapgs()?;
            a.rdgsbase(rbx)?;
            a.rdmsr()?;
            a.mov(rdi, 0xffff_8000_1234_5678_u64)?;
            a.wrfsbase(rdi)?;
            a.rdfsbase(rsi)?;
            a.rdfsbase(r8d)?;
            a.mov(rdi, 1u64 << 47)?;
            a.wrfsbase(rdi)
        });
        g.expect(GP, 0);
        assert_eq!((g.gpr(3), g.gpr(0)), (0x2222_0000, 0x1111_0000));
        assert_eq!((g.gpr(6), g.gpr(8)), (0xffff_8000_1234_5678, 0x1234_5678));
    });
}

/// INVD, WBINVD and INVLPG have nothing to do but need their ring; CLFLUSH reads.
#[test]
pub(crate) fn caches() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.invd()?;
            a.wbinvd()?;
            a.invlpg(byte_ptr(rsp))?;
            a.clflush(byte_ptr(rsp - 8))?;
            a.mov(rax, 0x9_0000_0000_u64)?;
            a.clflush(byte_ptr(rax))
        });
        g.expect(14, 0);
        assert_eq!(g.state().cr2, 0x9_0000_0000);
    });
}

#[test]
pub(crate) fn no_performance_counters() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.xor(ecx, ecx)?;
            a.rdpmc()
        });
        g.expect(GP, 0);
    });
}
