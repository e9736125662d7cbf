//! Page tables: rights, accessed and dirty bits, large pages, and what the TLB may keep.

use iced_x86::code_asm::*;

use crate::guest::*;
use crate::machine::{ACCESSED, DIRTY, GLOBAL, LARGE, NO_EXECUTE, PRESENT, USER, WRITE};

const PF: u64 = 14;

/// Bits of the error code (SDM vol. 3, 4.7).
const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const RSVD: u64 = 8;
const I: u64 = 16;

/// An address of its own for each test's page.
const PAGE: u64 = 0x4000_0000;

/// A guest with [`PAGE`] mapped to physical [`DATA`] with the given bits.
fn with_page(bits: u64) -> Guest {
    let mut g = Guest::long();
    g.memory.map(ROOT, PAGE, DATA | bits, 12);
    g.adjust(|s| s.gpr[3] = PAGE);
    g
}

fn entry(g: &mut Guest, shift: u32) -> u64 {
    let at = g.memory.entry(ROOT, PAGE, shift);
    g.memory.read_u64(at)
}

#[test]
pub(crate) fn accessed_and_dirty_bits() {
    both_ways(|| {
        let mut g = with_page(PRESENT | WRITE);
        g.code(|a| {
            a.mov(rax, ptr(rbx))?;
            a.hlt()?;
            a.mov(ptr(rbx), rax)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(entry(&mut g, 12) & (ACCESSED | DIRTY), ACCESSED);
        for shift in [21, 30, 39] {
            assert_ne!(entry(&mut g, shift) & ACCESSED, 0, "level {shift}");
        }
        g.go_on_to_halt();
        assert_eq!(entry(&mut g, 12) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
        assert_eq!(entry(&mut g, 21) & DIRTY, 0);
    });
    both_ways(|| {
        // A read-modify-write that does not write in the end still dirties the page.
        let mut g = with_page(PRESENT | WRITE);
        g.code(|a| {
            a.mov(ecx, 1)?;
            a.cmpxchg(ptr(rbx), ecx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_ne!(entry(&mut g, 12) & DIRTY, 0);
    });
}

#[test]
pub(crate) fn rights_of_the_supervisor() {
    for (bits, error) in [(0, W), (PRESENT, P | W)] {
        both_ways(|| {
            let mut g = with_page(bits);
            g.code(|a| a.mov(byte_ptr(rbx + 5), al));
            g.expect(PF, error);
            assert_eq!(g.state().cr2, PAGE + 5);
        });
    }
    both_ways(|| {
        // Without CR0.WP the supervisor writes everywhere.
        let mut g = with_page(PRESENT);
        g.adjust(|s| s.cr0 &= !0x1_0000);
        g.code(|a| {
            a.mov(byte_ptr(rbx), al)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_ne!(entry(&mut g, 12) & DIRTY, 0);
    });
}

#[test]
pub(crate) fn rights_of_the_user() {
    for (bits, write, error) in [
        (PRESENT | WRITE, false, U | P),
        (PRESENT | USER, true, U | P | W),
        (0, false, U),
    ] {
        both_ways(|| {
            let mut g = with_page(bits);
            g.enter_user();
            g.code(|a| {
                if write {
                    a.mov(ptr(rbx), rax)
                } else {
                    a.mov(rax, ptr(rbx))
                }
            });
            g.expect(PF, error);
        });
    }
    both_ways(|| {
        // Rights are those of all levels together.
        let mut g = with_page(PRESENT | WRITE | USER);
        let at = g.memory.entry(ROOT, PAGE, 30);
        let upper = g.memory.read_u64(at);
        g.memory.write_u64(at, upper & !WRITE);
        g.enter_user();
        g.code(|a| a.mov(ptr(rbx), rax));
        g.expect(PF, U | P | W);
    });
}

#[test]
pub(crate) fn no_execute() {
    both_ways(|| {
        let mut g = with_page(PRESENT | NO_EXECUTE);
        g.code(|a| a.jmp(rbx));
        let trap = g.expect(PF, P | I);
        assert_eq!((trap.rip, g.state().cr2), (PAGE, PAGE));
    });
    both_ways(|| {
        // Without EFER.NXE the bit is reserved.
        let mut g = with_page(PRESENT | NO_EXECUTE);
        g.adjust(|s| s.efer &= !EFER_NXE);
        g.code(|a| a.mov(rax, ptr(rbx)));
        g.expect(PF, P | RSVD);
    });
}

#[test]
pub(crate) fn reserved_bits() {
    for (bits, shift) in [
        (1u64 << 51, 12),
        (LARGE | 1 << 13, 21),
        (LARGE | 1 << 21, 30),
    ] {
        both_ways(|| {
            let mut g = with_page(PRESENT | WRITE);
            let at = g.memory.entry(ROOT, PAGE, shift);
            g.memory.write_u64(at, PRESENT | WRITE | bits);
            g.code(|a| a.mov(ptr(rbx), rax));
            g.expect(PF, P | W | RSVD);
        });
    }
}

#[test]
pub(crate) fn supervisor_mode_execution_prevention() {
    both_ways(|| {
        let mut g = with_page(PRESENT | USER);
        g.memory.write(DATA, &[0xf4]);
        g.code(|a| a.jmp(rbx));
        g.run_to_halt();
    });
    both_ways(|| {
        let mut g = with_page(PRESENT | USER);
        g.adjust(|s| s.cr4 |= CR4_SMEP);
        g.code(|a| a.jmp(rbx));
        g.expect(PF, P | I);
    });
}

/// SDM vol. 3, 4.6: CR4.SMAP and EFLAGS.AC.
#[test]
pub(crate) fn supervisor_mode_access_prevention() {
    both_ways(|| {
        let mut g = with_page(PRESENT | USER | WRITE);
        g.adjust(|s| s.cr4 |= CR4_SMAP);
        g.code(|a| {
            a.stac()?;
            a.mov(rax, ptr(rbx))?;
            a.mov(ptr(rbx), rax)?;
            a.clac()?;
            a.mov(rax, ptr(rbx))
        });
        let trap = g.expect(PF, P);
        assert_eq!(trap.rip, CODE + 12);
    });
    both_ways(|| {
        // The processor's own accesses are not helped by AC.
        let mut g = Guest::long();
        g.memory.map(ROOT, PAGE, GDT | PRESENT | USER | WRITE, 12);
        g.adjust(|s| {
            s.cr4 |= CR4_SMAP;
            s.rflags |= 0x4_0000;
            s.gdt.base = PAGE;
            s.gpr[0] = KERNEL_DS.into();
        });
        set_gate(&g.memory, 8, [0, 0]);
        g.code(|a| a.mov(es, eax));
        // The handler's code segment can't be read either.
        assert_eq!(g.run(), End::Exit(provium_cpu::Exit::Shutdown));
        assert_eq!(g.state().cr2 & !0xfff, PAGE);
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.enter_user();
        g.code(|a| a.stac());
        g.expect(6, 0);
    });
}

#[test]
pub(crate) fn large_pages() {
    for shift in [21, 30] {
        both_ways(|| {
            let mut g = Guest::long();
            let at = 0x80_0000_0000;
            g.memory.map(ROOT, at, PRESENT | WRITE, shift);
            g.memory.write_u64(DATA + 8, 0x1234);
            g.adjust(|s| s.gpr[3] = at + DATA);
            g.code(|a| {
                a.mov(rax, ptr(rbx + 8))?;
                a.mov(ptr(rbx + 16), rax)?;
                a.hlt()
            });
            g.run_to_halt();
            assert_eq!(g.memory.read_u64(DATA + 16), 0x1234);
            let entry = g.memory.entry(ROOT, at, shift);
            assert_eq!(
                g.memory.read_u64(entry) & (ACCESSED | DIRTY),
                ACCESSED | DIRTY
            );
        });
    }
}

/// A translation in use may be kept until INVLPG or a load of CR3; global ones survive the latter.
#[test]
pub(crate) fn translations_end_when_they_have_to() {
    type Emit = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let drops: [(u64, Emit); 4] = [
        (0, |a| a.invlpg(byte_ptr(rbx))),
        (GLOBAL, |a| a.invlpg(byte_ptr(rbx))),
        (0, |a| {
            a.mov(rcx, cr3)?;
            a.mov(cr3, rcx)
        }),
        (GLOBAL, |a| {
            a.mov(rcx, cr4)?;
            a.btc(rcx, 7)?;
            a.mov(cr4, rcx)
        }),
    ];
    for (bits, emit) in drops {
        both_ways(|| {
            let mut g = with_page(PRESENT | WRITE | bits);
            let at = g.memory.entry(ROOT, PAGE, 12);
            g.memory.write_u64(DATA, 1);
            g.memory.write_u64(USER_DATA, 2);
            g.memory
                .map(ROOT, 0x5000_0000, at & !0xfff | PRESENT | WRITE, 12);
            g.adjust(|s| {
                s.gpr[6] = 0x5000_0000 | at & 0xfff;
                s.gpr[7] = USER_DATA | PRESENT | WRITE | bits;
            });
            g.code(|a| {
                a.mov(rax, ptr(rbx))?;
                a.mov(ptr(rsi), rdi)?;
                emit(a)?;
                a.mov(rdx, ptr(rbx))?;
                a.hlt()
            });
            g.run_to_halt();
            assert_eq!((g.gpr(0), g.gpr(2)), (1, 2));
        });
    }
    both_ways(|| {
        // What becomes writable needs no invalidation: the fault is spurious at worst.
        let mut g = with_page(PRESENT);
        let at = g.memory.entry(ROOT, PAGE, 12);
        g.code(|a| {
            a.mov(rax, ptr(rbx))?;
            a.hlt()?;
            a.mov(ptr(rbx), rax)?;
            a.hlt()
        });
        g.run_to_halt();
        g.memory.write_u64(at, DATA | PRESENT | WRITE);
        g.go_on_to_halt();
    });
}

/// An access across a page boundary faults with the address on the page that is missing, and
/// changes neither.
#[test]
pub(crate) fn accesses_across_pages() {
    both_ways(|| {
        let mut g = with_page(PRESENT | WRITE);
        g.memory.write_u64(DATA + 0xff8, 0x5555_5555_5555_5555);
        g.adjust(|s| (s.gpr[3], s.gpr[0]) = (PAGE + 0xffc, u64::MAX));
        g.code(|a| a.mov(ptr(rbx), rax));
        g.expect(PF, W);
        assert_eq!(g.state().cr2, PAGE + 0x1000);
        assert_eq!(g.memory.read_u64(DATA + 0xff8), 0x5555_5555_5555_5555);
    });
    both_ways(|| {
        let mut g = with_page(PRESENT | WRITE);
        g.memory
            .map(ROOT, PAGE + 0x1000, USER_DATA | PRESENT | WRITE, 12);
        g.adjust(|s| (s.gpr[3], s.gpr[0]) = (PAGE + 0xffd, 0x8877_6655_4433_2211));
        g.code(|a| {
            a.mov(ptr(rbx), rax)?;
            a.mov(rcx, ptr(rbx))?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(1), 0x8877_6655_4433_2211);
        assert_eq!(g.memory.read_u64(USER_DATA), 0x88_7766_5544);
    });
}

/// 32-bit paging with 4 MiB pages, and PAE, as a kernel uses them on its way up.
#[test]
pub(crate) fn paging_of_32_bits() {
    both_ways(|| {
        let mut g = Guest::protected();
        let (root, table) = (g.memory.page(), g.memory.page());
        // A 4 MiB identity page, and a 4 KiB page at 4 MiB.
        g.memory.write_u64(
            root,
            (PRESENT | WRITE | LARGE) | (table | PRESENT | WRITE) << 32,
        );
        g.memory
            .write(table, &((DATA | PRESENT | WRITE) as u32).to_le_bytes());
        g.memory.write_u64(DATA + 4, 0x1234_5678);
        g.code(|a| {
            a.mov(eax, root as u32)?;
            a.mov(cr3, eax)?;
            a.mov(eax, cr4)?;
            a.or(eax, CR4_PSE as u32)?;
            a.mov(cr4, eax)?;
            a.mov(eax, cr0)?;
            a.or(eax, 0x8000_0000u32)?;
            a.mov(cr0, eax)?;
            a.mov(ebx, ptr(0x40_0004))?;
            a.mov(dword_ptr(0x40_0008), ebx)?;
            a.mov(ecx, ptr(0x80_0000))
        });
        g.expect(PF, 0);
        assert_eq!((g.gpr(3), g.state().cr2), (0x1234_5678, 0x80_0000));
        assert_eq!(
            g.memory.read_u32(table) as u64 & (ACCESSED | DIRTY),
            ACCESSED | DIRTY
        );
    });
    both_ways(|| {
        let mut g = Guest::protected();
        let (root, directory) = (g.memory.page(), g.memory.page());
        g.memory.write_u64(root, directory | PRESENT);
        g.memory.write_u64(directory, PRESENT | WRITE | LARGE);
        g.memory.write_u64(directory + 8, PRESENT | WRITE | LARGE);
        g.memory.write_u64(DATA, 0x55aa);
        g.code(|a| {
            a.mov(eax, root as u32)?;
            a.mov(cr3, eax)?;
            a.mov(eax, cr4)?;
            a.or(eax, CR4_PAE as u32)?;
            a.mov(cr4, eax)?;
            a.mov(eax, cr0)?;
            a.or(eax, 0x8000_0000u32)?;
            a.mov(cr0, eax)?;
            a.mov(ebx, ptr(0x20_0000 + DATA as u32))?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(3), 0x55aa);
    });
}

/// CR4.PGE off: the global bit means nothing.
#[test]
pub(crate) fn global_pages_need_their_switch() {
    both_ways(|| {
        let mut g = with_page(PRESENT | WRITE | GLOBAL);
        let at = g.memory.entry(ROOT, PAGE, 12);
        g.memory.write_u64(DATA, 1);
        g.memory.write_u64(USER_DATA, 2);
        g.adjust(|s| s.cr4 &= !CR4_PGE);
        g.code(|a| {
            a.mov(rax, ptr(rbx))?;
            a.hlt()?;
            a.mov(rcx, cr3)?;
            a.mov(cr3, rcx)?;
            a.mov(rdx, ptr(rbx))?;
            a.hlt()
        });
        g.run_to_halt();
        g.memory.write_u64(at, USER_DATA | PRESENT | WRITE | GLOBAL);
        g.go_on_to_halt();
        assert_eq!((g.gpr(0), g.gpr(2)), (1, 2));
    });
}
