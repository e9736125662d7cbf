//! Accesses that leave the processor: ports and memory-mapped devices, answered from outside and
//! then replayed.

use iced_x86::code_asm::*;
use provium_cpu::Exit;

use crate::guest::*;

/// Runs a guest whose device answers reads from a list; answers the exits in order.
fn serve(g: &mut Guest, answers: &[u64]) -> Vec<Exit> {
    let mut answers = answers.iter();
    let mut exits = Vec::new();
    loop {
        match g.run() {
            End::Exit(exit) => {
                exits.push(exit);
                if matches!(exit, Exit::MmioRead { .. } | Exit::PioIn { .. }) {
                    let answer = *answers.next().expect("another answer");
                    g.complex.complete_read(0, answer);
                }
            }
            End::Halt => return exits,
            End::Trap(trap) => panic!("{trap:x?}"),
        }
    }
}

fn read(gpa: u64, len: u8) -> Exit {
    Exit::MmioRead { gpa, len }
}

fn write(gpa: u64, len: u8, data: u64) -> Exit {
    Exit::MmioWrite { gpa, len, data }
}

#[test]
pub(crate) fn ports() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.gpr[0] = 0xffff_ffff_ffff_ffff);
        g.code(|a| {
            a.in_(al, 0x60)?;
            a.mov(edx, 0x1f0)?;
            a.mov(ebx, eax)?;
            a.in_(ax, dx)?;
            a.mov(ecx, eax)?;
            a.in_(eax, dx)?;
            a.out(0x80, al)?;
            a.out(dx, ax)?;
            a.out(dx, eax)?;
            a.hlt()
        });
        let exits = serve(&mut g, &[0x12, 0x3456, 0x789a_bcde]);
        assert_eq!(
            exits,
            [
                Exit::PioIn { port: 0x60, len: 1 },
                Exit::PioIn {
                    port: 0x1f0,
                    len: 2
                },
                Exit::PioIn {
                    port: 0x1f0,
                    len: 4
                },
                Exit::PioOut {
                    port: 0x80,
                    len: 1,
                    data: 0xde
                },
                Exit::PioOut {
                    port: 0x1f0,
                    len: 2,
                    data: 0xbcde
                },
                Exit::PioOut {
                    port: 0x1f0,
                    len: 4,
                    data: 0x789a_bcde
                },
            ]
        );
        assert_eq!(
            (g.gpr(3), g.gpr(1), g.gpr(0)),
            (0xffff_ff12, 0xffff_3456, 0x789a_bcde)
        );
    });
}

#[test]
pub(crate) fn string_ports() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write(DATA, &[1, 2, 3, 4, 5, 6]);
        g.code(|a| {
            a.mov(edx, 0x1f0)?;
            a.mov(esi, DATA as u32)?;
            a.mov(edi, DATA as u32 + 0x100)?;
            a.mov(ecx, 3)?;
            a.rep().outsw()?;
            a.mov(ecx, 2)?;
            a.rep().insd()?;
            a.insb()?;
            a.outsb()?;
            a.insw()?;
            a.outsd()?;
            a.hlt()
        });
        let exits = serve(&mut g, &[0x1111_1111, 0x2222_2222, 0x33, 0x4444]);
        let out = |len, data| Exit::PioOut {
            port: 0x1f0,
            len,
            data,
        };
        let input = |len| Exit::PioIn { port: 0x1f0, len };
        assert_eq!(
            exits,
            [
                out(2, 0x201),
                out(2, 0x403),
                out(2, 0x605),
                input(4),
                input(4),
                input(1),
                out(1, 0),
                input(2),
                out(4, 0),
            ]
        );
        assert_eq!(g.memory.read_u64(DATA + 0x100), 0x2222_2222_1111_1111);
        assert_eq!(g.memory.read_u64(DATA + 0x108), 0x44_4433);
        assert_eq!((g.gpr(1), g.gpr(6), g.gpr(7)), (0, DATA + 11, DATA + 0x10b));
    });
}

/// IOPL and the TSS's bitmap (SDM vol. 1, 19.5).
#[test]
pub(crate) fn port_permissions() {
    both_ways(|| {
        let mut g = Guest::long();
        g.enter_user();
        g.adjust(|s| s.rflags |= 0x3000);
        g.code(|a| {
            a.out(0x80, al)?;
            a.int3()
        });
        assert!(matches!(
            g.run(),
            End::Exit(Exit::PioOut { port: 0x80, .. })
        ));
        g.expect(3, 0);
    });
    both_ways(|| {
        let mut g = Guest::long();
        // The bitmap permits ports 0x00..0x07 but 0x02; a byte of ones ends it.
        g.memory.write(TSS + 0x66, &[0x68, 0, 0x04, 0xff, 0xff]);
        g.adjust(|s| s.tr.limit = 0x6a);
        g.enter_user();
        g.code(|a| {
            a.out(0x01, al)?;
            a.out(0x01, ax)
        });
        assert!(matches!(g.run(), End::Exit(Exit::PioOut { port: 1, .. })));
        assert_eq!(g.expect(13, 0).rip, USER_CODE + 2);
    });
}

#[test]
pub(crate) fn memory_mapped_accesses() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| (s.gpr[3], s.gpr[1]) = (DEVICE, 0x1122_3344_5566_7788));
        g.code(|a| {
            a.mov(al, byte_ptr(rbx + 1))?;
            a.movzx(edx, word_ptr(rbx + 2))?;
            a.mov(esi, dword_ptr(rbx + 4))?;
            a.mov(rdi, qword_ptr(rbx + 8))?;
            a.mov(byte_ptr(rbx), cl)?;
            a.mov(word_ptr(rbx), cx)?;
            a.mov(dword_ptr(rbx), ecx)?;
            a.mov(qword_ptr(rbx), rcx)?;
            a.hlt()
        });
        let exits = serve(&mut g, &[0x11, 0x2222, 0x3333_3333, 0x4444_4444_4444_4444]);
        let d = DEVICE;
        assert_eq!(
            exits,
            [
                read(d + 1, 1),
                read(d + 2, 2),
                read(d + 4, 4),
                read(d + 8, 8),
                write(d, 1, 0x88),
                write(d, 2, 0x7788),
                write(d, 4, 0x5566_7788),
                write(d, 8, 0x1122_3344_5566_7788),
            ]
        );
        assert_eq!(
            (g.gpr(2), g.gpr(6), g.gpr(7)),
            (0x2222, 0x3333_3333, 0x4444_4444_4444_4444)
        );
    });
}

/// Instructions that read and write, or touch two places, do each access once.
#[test]
pub(crate) fn compound_accesses_are_not_repeated() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| (s.gpr[3], s.gpr[1]) = (DEVICE, 5));
        g.memory.write_u64(DATA, 0x77);
        g.code(|a| {
            a.add(dword_ptr(rbx), ecx)?;
            a.xchg(dword_ptr(rbx + 8), ecx)?;
            a.push(qword_ptr(rbx + 16))?;
            a.pop(qword_ptr(rbx + 24))?;
            a.push(qword_ptr(DATA))?;
            a.pop(qword_ptr(rbx + 32))?;
            a.inc(byte_ptr(rbx + 40))?;
            a.bts(dword_ptr(rbx + 48), 4)?;
            a.hlt()
        });
        let exits = serve(&mut g, &[10, 20, 30, 0xff, 0]);
        let d = DEVICE;
        assert_eq!(
            exits,
            [
                read(d, 4),
                write(d, 4, 15),
                read(d + 8, 4),
                write(d + 8, 4, 5),
                read(d + 16, 8),
                write(d + 24, 8, 30),
                write(d + 32, 8, 0x77),
                read(d + 40, 1),
                write(d + 40, 1, 0),
                read(d + 48, 4),
                write(d + 48, 4, 0x10),
            ]
        );
        assert_eq!((g.gpr(1), g.gpr(4)), (20, STACK));
    });
}

/// REP MOVS from and to a device: one access an element, in order, whatever comes between.
#[test]
pub(crate) fn string_moves() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.write(DATA, &[1, 2, 3, 4, 5, 6, 7, 8]);
        g.code(|a| {
            a.mov(esi, DATA as u32)?;
            a.mov(rdi, DEVICE)?;
            a.mov(ecx, 4)?;
            a.rep().movsw()?;
            a.mov(rsi, DEVICE)?;
            a.mov(edi, DATA as u32 + 0x100)?;
            a.mov(ecx, 3)?;
            a.rep().movsd()?;
            a.mov(rsi, DEVICE)?;
            a.mov(rdi, DEVICE + 0x100)?;
            a.mov(ecx, 2)?;
            a.rep().movsb()?;
            a.mov(rdi, DEVICE)?;
            a.mov(ecx, 2)?;
            a.mov(eax, 0x99)?;
            a.rep().stosd()?;
            a.hlt()
        });
        let exits = serve(&mut g, &[0xa, 0xb, 0xc, 0xd, 0xe]);
        let d = DEVICE;
        assert_eq!(
            exits,
            [
                write(d, 2, 0x201),
                write(d + 2, 2, 0x403),
                write(d + 4, 2, 0x605),
                write(d + 6, 2, 0x807),
                read(d, 4),
                read(d + 4, 4),
                read(d + 8, 4),
                read(d, 1),
                write(d + 0x100, 1, 0xd),
                read(d + 1, 1),
                write(d + 0x101, 1, 0xe),
                write(d, 4, 0x99),
                write(d + 4, 4, 0x99),
            ]
        );
        assert_eq!(g.memory.read_u64(DATA + 0x100), 0xb_0000_000a);
        assert_eq!(g.memory.read_u64(DATA + 0x108), 0xc);
    });
}

/// Sixteen bytes leave as two accesses; so does what crosses from memory into a device's page.
#[test]
pub(crate) fn wide_and_split_accesses() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.gpr[3] = DEVICE);
        g.code(|a| {
            a.movups(xmm0, ptr(rbx))?;
            a.movups(ptr(rbx + 16), xmm0)?;
            a.hlt()
        });
        let exits = serve(&mut g, &[1, 2]);
        let d = DEVICE;
        assert_eq!(
            exits,
            [
                read(d, 8),
                read(d + 8, 8),
                write(d + 16, 8, 1),
                write(d + 24, 8, 2)
            ]
        );
    });
    both_ways(|| {
        let mut g = Guest::long();
        // A page of RAM, then the device.
        g.memory.map(ROOT, 0x4000_0000, DATA | 3, 12);
        g.memory.map(ROOT, 0x4000_1000, DEVICE | 3, 12);
        g.memory.write(DATA + 0xffe, &[0x11, 0x22]);
        g.adjust(|s| (s.gpr[3], s.gpr[0]) = (0x4000_0ffe, 0x8877_6655));
        g.code(|a| {
            a.mov(ecx, ptr(rbx))?;
            a.mov(ptr(rbx), eax)?;
            a.hlt()
        });
        let exits = serve(&mut g, &[0x4433]);
        assert_eq!(exits, [read(DEVICE, 2), write(DEVICE, 2, 0x8877)]);
        assert_eq!(g.gpr(1), 0x4433_2211);
        assert_eq!(g.memory.read(DATA + 0xffe, 2), [0x55, 0x66]);
    });
}

/// An instruction that has waited for an answer still faults as it should, and no interrupt gets
/// in between.
#[test]
pub(crate) fn nothing_comes_between_an_access_and_its_answer() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| {
            s.apic.registers[0xf] = 0x1ff;
            s.rflags |= 0x200;
            s.gpr[3] = DEVICE;
        });
        g.code(|a| {
            a.mov(eax, ptr(rbx))?;
            a.hlt()
        });
        assert_eq!(g.run(), End::Exit(read(DEVICE, 4)));
        g.complex.deliver(provium_cpu::InterruptMessage {
            destination: 0,
            logical: false,
            except: None,
            mode: provium_cpu::DeliveryMode::Fixed,
            vector: 0x50,
            level: false,
        });
        g.complex.complete_read(0, 7);
        let trap = g.expect(0x50, 0);
        assert_eq!((trap.rip, g.gpr(0)), (CODE + 2, 7));
    });
    both_ways(|| {
        // DIV by what a device answers.
        let mut g = Guest::long();
        g.adjust(|s| (s.gpr[3], s.gpr[0], s.gpr[2]) = (DEVICE, 1, 0));
        g.code(|a| a.div(dword_ptr(rbx)));
        assert_eq!(g.run(), End::Exit(read(DEVICE, 4)));
        g.complex.complete_read(0, 0);
        assert_eq!(g.expect(0, 0).rip, CODE);
    });
}
