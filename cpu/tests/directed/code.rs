//! Code that changes under the processor, or lies awkwardly.

use iced_x86::code_asm::*;

use crate::guest::*;
use crate::machine::{PRESENT, WRITE};

/// A store to the very next instruction shows at once (SDM vol. 3, 8.1.3, by way of a jump; and
/// processors of today without).
#[test]
fn the_next_instruction() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            let mut target = a.create_label();
            a.lea(rbx, ptr(target))?;
            // mov byte [rbx + 1], 7: the immediate of the next instruction
            a.mov(byte_ptr(rbx + 1), 7)?;
            a.set_label(&mut target)?;
            a.mov(al, 1)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(0) & 0xff, 7);
    });
}

/// A loop that changes an instruction behind itself every time round.
#[test]
fn a_loop_that_changes_itself() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            let (mut top, mut target) = (a.create_label(), a.create_label());
            a.lea(rbx, ptr(target))?;
            a.xor(edx, edx)?;
            a.mov(ecx, 100)?;
            a.set_label(&mut top)?;
            a.nop()?;
            a.set_label(&mut target)?;
            a.add(edx, 0x7f00_0000)?;
            a.sub(edx, 0x7f00_0000)?;
            a.add(edx, ecx)?;
            a.mov(byte_ptr(rbx + 2), cl)?;
            a.mov(byte_ptr(rbx + 8), cl)?;
            a.dec(ecx)?;
            a.jnz(top)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(2), 5050);
    });
}

/// Code written to another page, run, overwritten and run again.
#[test]
fn another_page() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(ebx, DATA as u32)?;
            // mov al, N; ret
            a.mov(dword_ptr(rbx), 0x00c3_05b0)?;
            a.call(rbx)?;
            a.mov(cl, al)?;
            a.mov(byte_ptr(rbx + 1), 9)?;
            a.call(rbx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(1) & 0xff, g.gpr(0) & 0xff), (5, 9));
    });
}

/// The same through another mapping of the page: what counts is the physical address.
#[test]
fn through_an_alias() {
    both_ways(|| {
        let mut g = Guest::long();
        g.memory.map(ROOT, 0x4000_0000, DATA | PRESENT | WRITE, 12);
        g.code(|a| {
            a.mov(ebx, DATA as u32)?;
            a.mov(esi, 0x4000_0000)?;
            a.mov(dword_ptr(rbx), 0x00c3_05b0)?;
            a.call(rbx)?;
            a.mov(cl, al)?;
            a.mov(byte_ptr(rsi + 1), 9)?;
            a.call(rbx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(1) & 0xff, g.gpr(0) & 0xff), (5, 9));
    });
}

/// String stores over code, in bulk.
#[test]
fn by_string_instructions() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(ebx, DATA as u32)?;
            a.mov(dword_ptr(rbx), 0x00c3_05b0)?;
            a.call(rbx)?;
            // 64 times nop, then mov cl, 6; ret
            a.mov(edi, DATA as u32)?;
            a.mov(ecx, 64)?;
            a.mov(al, 0x90)?;
            a.rep().stosb()?;
            a.mov(dword_ptr(rbx + 64), 0x00c3_06b1)?;
            a.call(rbx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(1), 6);
    });
}

/// Somebody outside writes over code: a device, by DMA.
#[test]
fn by_a_device() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(ebx, DATA as u32)?;
            a.call(rbx)?;
            a.hlt()?;
            a.call(rbx)?;
            a.hlt()
        });
        g.memory.write(DATA, &[0xb0, 1, 0xc3]);
        g.run_to_halt();
        g.memory.write(DATA, &[0xb0, 2, 0xc3]);
        g.complex.code_written(DATA, 3);
        g.go_on_to_halt();
        assert_eq!(g.gpr(0) & 0xff, 2);
    });
}

/// An instruction across a page boundary, its second page changing between runs.
#[test]
fn across_pages() {
    both_ways(|| {
        let mut g = Guest::long();
        let at = DATA + 0xffe;
        // mov eax, imm32; ret
        g.memory.write(at, &[0xb8, 1, 2, 3, 4, 0xc3]);
        g.code(|a| {
            a.mov(ebx, at as u32)?;
            a.call(rbx)?;
            a.mov(ecx, eax)?;
            a.mov(byte_ptr(rbx + 4), 0x77)?;
            a.call(rbx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!((g.gpr(1), g.gpr(0)), (0x0403_0201, 0x7703_0201));
    });
    both_ways(|| {
        // The second page is missing: the fault has its address.
        let mut g = Guest::long();
        g.memory.map(ROOT, 0x4000_0000, DATA | PRESENT, 12);
        g.memory.write(DATA + 0xffe, &[0xb8, 1]);
        g.code(|a| {
            a.mov(ebx, 0x4000_0ffe)?;
            a.jmp(rbx)
        });
        let trap = g.expect(14, 0x10);
        assert_eq!((trap.rip, g.state().cr2), (0x4000_0ffe, 0x4000_1000));
    });
    both_ways(|| {
        // An instruction that ends with its page does not need the next.
        let mut g = Guest::long();
        g.memory.map(ROOT, 0x4000_0000, DATA | PRESENT, 12);
        g.memory.write(DATA + 0xffe, &[0xeb, 0x80]);
        g.memory.write(DATA + 0xf80, &[0xf4]);
        g.code(|a| {
            a.mov(ebx, 0x4000_0ffe)?;
            a.jmp(rbx)
        });
        g.run_to_halt();
    });
}

/// The same bytes as 64-bit and as 32-bit code.
#[test]
fn one_page_in_two_modes() {
    both_ways(|| {
        let mut g = Guest::long();
        // 48: REX.W, or dec eax. So: mov rax, rbx; or dec eax, mov eax, ebx. Then INT3.
        g.memory.write(USER_CODE, &[0x48, 0x89, 0xd8, 0xcc]);
        g.enter_user();
        g.adjust(|s| s.gpr[3] = 0x1_2345_6789);
        g.expect(3, 0);
        assert_eq!(g.gpr(0), 0x1_2345_6789);
        g.enter_user32();
        g.adjust(|s| (s.gpr[3], s.gpr[0]) = (0x55, 1));
        g.expect(3, 0);
        assert_eq!(g.gpr(0), 0x55);
    });
}

/// Fifteen bytes are the limit (SDM vol. 3, 6.15, #GP).
#[test]
fn too_long_an_instruction() {
    both_ways(|| {
        let mut g = Guest::long();
        let mut bytes = vec![0x66; 14];
        bytes.push(0x90);
        bytes.push(0xf4);
        g.memory.write(CODE, &bytes);
        g.run_to_halt();
    });
    both_ways(|| {
        let mut g = Guest::long();
        let mut bytes = vec![0x66; 15];
        bytes.push(0x90);
        g.memory.write(CODE, &bytes);
        g.expect(13, 0);
    });
}

/// Execution runs into addresses without RAM behind them: the vCPU stops, the harness does not.
#[test]
fn code_outside_memory() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| {
            a.mov(ebx, DEVICE as u32)?;
            a.jmp(rbx)
        });
        assert_eq!(g.run(), End::Exit(provium_cpu::Exit::Shutdown));
    });
}
