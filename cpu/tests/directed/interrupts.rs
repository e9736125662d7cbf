//! Exceptions, software interrupts, IRET, and what delays or stops interrupts.

use iced_x86::code_asm::*;
use provium_cpu::{DeliveryMode, Exit, InterruptMessage};

use crate::guest::*;
use crate::machine;

const DB: u64 = 1;
const DF: u64 = 8;
const NP: u64 = 11;
const GP: u64 = 13;

fn message(mode: DeliveryMode, vector: u8) -> InterruptMessage {
    InterruptMessage {
        destination: 0,
        logical: false,
        except: None,
        mode,
        vector,
        level: false,
    }
}

/// Ready to take interrupts: APIC on in software, IF clear.
fn with_apic() -> Guest {
    let mut g = Guest::long();
    g.adjust(|s| s.apic.registers[0xf] = 0x1ff);
    g
}

/// SDM vol. 3, 6.14: from ring 3 the stack is that of the TSS, and IRETQ leads back.
#[test]
pub(crate) fn int_changes_rings_and_iret_returns() {
    both_ways(|| {
        let mut g = Guest::long();
        set_gate(&g.memory, 0x80, machine::gate64(KERNEL_CS, CODE, 3, 0, 0xe));
        g.code_at(CODE, |a| {
            a.mov(rbx, rsp)?;
            a.mov(rax, cs)?;
            a.pushfq()?;
            a.pop(rcx)?;
            a.iretq()
        });
        g.enter_user();
        g.adjust(|s| s.rflags |= 0x202);
        g.code(|a| {
            a.int(0x80)?;
            a.mov(rdx, cs)?;
            a.int3()
        });
        let trap = g.run_to_trap();
        assert_eq!(g.gpr(3), STACK - 40);
        assert_eq!(g.gpr(0), u64::from(KERNEL_CS));
        assert_eq!(g.gpr(1) & 0x200, 0, "an interrupt gate clears IF");
        assert_eq!(g.gpr(2), u64::from(USER_CS));
        assert_eq!(
            (trap.vector, trap.cs, trap.ss),
            (3, USER_CS.into(), USER_DS.into())
        );
        assert_eq!((trap.rsp, trap.rflags & 0x200), (USER_STACK, 0x200));
    });
}

/// A trap gate leaves IF alone.
#[test]
pub(crate) fn trap_gates_keep_interrupts_on() {
    both_ways(|| {
        let mut g = Guest::long();
        set_gate(
            &g.memory,
            0x80,
            machine::gate64(KERNEL_CS, CODE + 0x100, 0, 0, 0xf),
        );
        g.adjust(|s| s.rflags |= 0x200);
        g.code(|a| a.int(0x80));
        g.code_at(CODE + 0x100, |a| {
            a.pushfq()?;
            a.pop(rcx)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(1) & 0x200, 0x200);
    });
}

/// Gates that software may not call, that are absent or not gates at all.
#[test]
pub(crate) fn bad_gates() {
    for (gate, vector, error) in [
        (
            machine::gate64(KERNEL_CS, HANDLERS, 0, 0, 0xe),
            GP,
            0x80 * 8 + 2,
        ),
        (
            [
                machine::gate64(KERNEL_CS, HANDLERS, 3, 0, 0xe)[0] & !(1 << 47),
                0,
            ],
            NP,
            0x80 * 8 + 2,
        ),
        (
            machine::gate64(KERNEL_CS, HANDLERS, 3, 0, 0x5),
            GP,
            0x80 * 8 + 2,
        ),
        (machine::gate64(0, HANDLERS, 3, 0, 0xe), GP, 0),
        (
            machine::gate64(KERNEL_DS, HANDLERS, 3, 0, 0xe),
            GP,
            u64::from(KERNEL_DS),
        ),
        (
            machine::gate64(KERNEL32_CS, HANDLERS, 3, 0, 0xe),
            GP,
            u64::from(KERNEL32_CS),
        ),
        (machine::gate64(0x1000, HANDLERS, 3, 0, 0xe), GP, 0x1000),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            set_gate(&g.memory, 0x80, gate);
            g.enter_user();
            g.code(|a| a.int(0x80));
            let trap = g.expect(vector, error);
            assert_eq!(trap.rip, USER_CODE, "a fault: {gate:x?}");
        });
    }
}

/// Beyond the table's limit: the error code names the vector.
#[test]
pub(crate) fn vectors_beyond_the_table() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.idt.limit = 0x20 * 16 - 1);
        g.code(|a| a.int(0x20));
        g.expect(GP, 0x20 * 8 + 2);
    });
}

#[test]
pub(crate) fn interrupt_stack_table() {
    both_ways(|| {
        let mut g = Guest::long();
        set_gate(
            &g.memory,
            6,
            machine::gate64(KERNEL_CS, HANDLERS + 0x60, 0, 1, 0xe),
        );
        g.adjust(|s| s.gpr[4] = STACK - 3);
        g.code(|a| a.ud2());
        let trap = g.expect(6, 0);
        assert_eq!(trap.rsp, STACK - 3);
        assert_eq!(g.gpr(4), IST_STACK - 40);
    });
}

/// Without a change of stack the frame is still aligned to 16 bytes, and SS:RSP pushed.
#[test]
pub(crate) fn frames_are_aligned() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.gpr[4] = STACK - 3);
        g.code(|a| a.ud2());
        let trap = g.expect(6, 0);
        assert_eq!(trap.rsp, STACK - 3);
        assert_eq!(g.gpr(4), ((STACK - 3) & !15) - 40);
    });
}

/// SDM vol. 3, 17.3.1.1: faults push RF set, traps and software interrupts don't.
#[test]
pub(crate) fn resume_flag() {
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| a.ud2());
        assert_ne!(g.expect(6, 0).rflags & 0x1_0000, 0);
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.code(|a| a.int3());
        let trap = g.expect(3, 0);
        assert_eq!((trap.rflags & 0x1_0000, trap.rip), (0, CODE + 1));
    });
}

/// SDM vol. 3, table 6-5: a contributory exception while delivering another makes #DF; an
/// exception while delivering that shuts the processor down.
#[test]
pub(crate) fn double_and_triple_faults() {
    both_ways(|| {
        let mut g = Guest::long();
        set_gate(&g.memory, 13, [0, 0]);
        g.code(|a| {
            a.mov(rax, 1u64 << 63)?;
            a.mov(rax, ptr(rax))
        });
        let trap = g.expect(DF, 0);
        assert_eq!(trap.rip, CODE + 10);
    });
    both_ways(|| {
        let mut g = Guest::long();
        set_gate(&g.memory, 13, [0, 0]);
        set_gate(&g.memory, 8, [0, 0]);
        g.code(|a| {
            a.mov(rax, 1u64 << 63)?;
            a.mov(rax, ptr(rax))
        });
        assert_eq!(g.run(), End::Exit(Exit::Shutdown));
    });
    both_ways(|| {
        // A benign exception first: the second is delivered as itself.
        let mut g = Guest::long();
        set_gate(&g.memory, 6, [0, 0]);
        g.code(|a| a.ud2());
        let trap = g.expect(GP, 6 * 8 + 3);
        assert_eq!(trap.rip, CODE);
    });
    both_ways(|| {
        // A page fault on the stack of a page fault.
        let mut g = Guest::long();
        set_gate(
            &g.memory,
            8,
            machine::gate64(KERNEL_CS, HANDLERS + 0x80, 0, 1, 0xe),
        );
        g.adjust(|s| s.gpr[4] = 0x5000_0000);
        g.code(|a| a.push(rax));
        g.expect(DF, 0);
        assert_eq!(g.state().cr2, 0x5000_0000 - 8);
    });
}

#[test]
pub(crate) fn single_step() {
    const TF: u64 = 0x100;
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| s.rflags |= TF);
        g.code(|a| {
            a.nop()?;
            a.hlt()
        });
        let trap = g.expect(DB, 0);
        assert_eq!((trap.rip, trap.rflags & TF), (CODE + 1, TF));
        assert_eq!(g.state().debug[4] & 1 << 14, 1 << 14, "DR6.BS");
    });
    both_ways(|| {
        // POPF that sets TF: the trap comes after the next instruction.
        let mut g = Guest::long();
        g.code(|a| {
            a.push(0x102)?;
            a.popfq()?;
            a.nop()?;
            a.nop()
        });
        assert_eq!(g.expect(DB, 0).rip, CODE + 7);
    });
    both_ways(|| {
        // POPF that clears it traps once more.
        let mut g = Guest::long();
        g.adjust(|s| s.rflags |= TF);
        g.memory.write_u64(STACK - 8, 2);
        g.adjust(|s| s.gpr[4] = STACK - 8);
        g.code(|a| {
            a.popfq()?;
            a.hlt()
        });
        let trap = g.expect(DB, 0);
        assert_eq!((trap.rip, trap.rflags & TF), (CODE + 1, 0));
    });
    both_ways(|| {
        // MOV SS holds the trap off for an instruction.
        let mut g = Guest::long();
        g.adjust(|s| {
            s.rflags |= TF;
            s.gpr[0] = KERNEL_DS.into();
        });
        g.code(|a| {
            a.mov(ss, eax)?;
            a.nop()?;
            a.hlt()
        });
        assert_eq!(g.expect(DB, 0).rip, CODE + 3);
    });
    both_ways(|| {
        // A fault is not a completed instruction.
        let mut g = Guest::long();
        g.adjust(|s| s.rflags |= TF);
        g.code(|a| a.ud2());
        g.expect(6, 0);
    });
    both_ways(|| {
        // IRET to a program with TF: one instruction of it runs.
        let mut g = Guest::long();
        g.code(|a| {
            for word in [
                u64::from(USER_DS),
                USER_STACK,
                TF | 2,
                USER_CS.into(),
                USER_CODE,
            ] {
                a.push(word as i32)?;
            }
            a.iretq()
        });
        g.code_at(USER_CODE, |a| {
            a.nop()?;
            a.nop()
        });
        let trap = g.expect(DB, 0);
        assert_eq!((trap.rip, trap.cs), (USER_CODE + 1, USER_CS.into()));
    });
}

/// INT1 raises #DB whatever the gate's privilege; INTO needs 32-bit code.
#[test]
pub(crate) fn one_byte_interrupts() {
    both_ways(|| {
        let mut g = Guest::long();
        g.enter_user();
        g.code(|a| a.int1());
        let trap = g.expect(DB, 0);
        assert_eq!(trap.rip, USER_CODE + 1);
    });
    both_ways(|| {
        let mut g = Guest::long();
        g.enter_user32();
        g.adjust(|s| s.rflags |= 0x800);
        g.code(|a| a.into());
        let trap = g.expect(4, 0);
        assert_eq!((trap.rip, trap.cs), (USER_CODE + 1, USER32_CS.into()));
    });
}

/// STI and loads of SS hold interrupts off until the next instruction is done.
#[test]
pub(crate) fn interrupt_shadow() {
    both_ways(|| {
        let mut g = with_apic();
        g.complex.deliver(message(DeliveryMode::Fixed, 0x40));
        g.code(|a| {
            a.sti()?;
            a.nop()?;
            a.nop()?;
            a.hlt()
        });
        let trap = g.expect(0x40, 0);
        assert_eq!((trap.rip, trap.rflags & 0x200), (CODE + 2, 0x200));
    });
    both_ways(|| {
        // STI while interrupts are on already gives no shadow.
        let mut g = with_apic();
        g.adjust(|s| (s.rflags, s.gpr[0]) = (0x202, KERNEL_DS.into()));
        g.code(|a| {
            a.mov(ss, eax)?;
            a.nop()?;
            a.hlt()
        });
        g.complex.step(0, 0);
        g.complex.deliver(message(DeliveryMode::Fixed, 0x40));
        assert_eq!(g.expect(0x40, 0).rip, CODE + 3);
    });
    both_ways(|| {
        // STI; HLT: the interrupt wakes the processor and returns behind HLT.
        let mut g = with_apic();
        g.complex.deliver(message(DeliveryMode::Fixed, 0x40));
        g.code(|a| {
            a.sti()?;
            a.hlt()?;
            a.nop()
        });
        assert_eq!(g.run(), End::Halt);
        assert_eq!(g.expect(0x40, 0).rip, CODE + 2);
    });
    both_ways(|| {
        // CLI right behind STI: no interrupt at all.
        let mut g = with_apic();
        g.complex.deliver(message(DeliveryMode::Fixed, 0x40));
        g.code(|a| {
            a.sti()?;
            a.cli()?;
            a.hlt()
        });
        g.run_to_halt();
    });
}

/// An NMI blocks further ones until IRET.
#[test]
pub(crate) fn non_maskable_interrupts() {
    both_ways(|| {
        let mut g = Guest::long();
        set_gate(
            &g.memory,
            2,
            machine::gate64(KERNEL_CS, CODE + 0x100, 0, 0, 0xe),
        );
        g.code(|a| {
            a.nop()?;
            a.hlt()
        });
        g.code_at(CODE + 0x100, |a| {
            a.inc(rbx)?;
            a.iretq()
        });
        g.complex.deliver(message(DeliveryMode::Nmi, 2));
        g.complex.step(0, 0);
        assert_eq!(g.gpr(3), 1);
        g.complex.deliver(message(DeliveryMode::Nmi, 2));
        assert!(g.state().nmi_blocked && g.state().nmi_pending);
        g.run_to_halt();
        assert_eq!(g.gpr(3), 2, "the second came after IRET");
        assert!(!g.state().nmi_blocked);
    });
}

/// An interrupt ends HLT; without IF the processor stays halted.
#[test]
pub(crate) fn halt() {
    both_ways(|| {
        let mut g = with_apic();
        g.code(|a| {
            a.hlt()?;
            a.nop()
        });
        g.run_to_halt();
        g.complex.deliver(message(DeliveryMode::Fixed, 0x40));
        assert!(!g.complex.runnable(0, g.now));
        g.adjust(|s| s.rflags |= 0x200);
        assert!(g.complex.runnable(0, g.now));
        assert_eq!(g.expect(0x40, 0).rip, CODE + 1);
    });
}

/// IRET's own checks.
#[test]
pub(crate) fn bad_returns() {
    fn frame(to: u64, code: u16, flags: u64, stack: u64, data: u16) -> [u64; 5] {
        [to, code.into(), flags, stack, data.into()]
    }
    let user = frame(USER_CODE, USER_CS, 2, USER_STACK, USER_DS);
    for (frame, error) in [
        (frame(USER_CODE, 0, 2, 0, USER_DS), 0),
        (
            frame(USER_CODE, KERNEL_DS, 2, 0, KERNEL_DS),
            u64::from(KERNEL_DS),
        ),
        (
            frame(USER_CODE, USER_CS & !3, 2, 0, USER_DS),
            u64::from(USER_CS & !3),
        ),
        (
            frame(USER_CODE, USER_CS, 2, 0, KERNEL_DS),
            u64::from(KERNEL_DS),
        ),
        (frame(USER_CODE, USER_CS, 2, 0, 0), 0),
        (frame(1 << 47, USER_CS, 2, 0, USER_DS), 0),
        (frame(USER_CODE, 0x1003, 2, 0, USER_DS), 0x1000),
    ] {
        both_ways(|| {
            let mut g = Guest::long();
            g.adjust(|s| s.gpr[4] = STACK - 0x100);
            for (n, word) in frame.into_iter().enumerate() {
                g.memory.write_u64(STACK - 0x100 + 8 * n as u64, word);
            }
            g.code(|a| a.iretq());
            let trap = g.expect(GP, error);
            assert_eq!((trap.rip, trap.cs), (CODE, KERNEL_CS.into()), "{frame:x?}");
            assert_eq!(trap.rsp, STACK - 0x100);
        });
    }
    both_ways(|| {
        // Nested task: not in long mode.
        let mut g = Guest::long();
        g.adjust(|s| (s.gpr[4], s.rflags) = (STACK - 0x100, 0x4002));
        for (n, word) in user.into_iter().enumerate() {
            g.memory.write_u64(STACK - 0x100 + 8 * n as u64, word);
        }
        g.code(|a| a.iretq());
        g.expect(GP, 0);
    });
}

/// Data segments that ring 3 may not have become null on the way out.
#[test]
pub(crate) fn returns_drop_inner_segments() {
    both_ways(|| {
        let mut g = Guest::long();
        g.adjust(|s| {
            s.segments[0] = segment(USER_DS);
            s.segments[3] = segment(KERNEL_DS);
        });
        g.code(|a| {
            for word in [u64::from(USER_DS), USER_STACK, 2, USER_CS.into(), USER_CODE] {
                a.push(word as i32)?;
            }
            a.iretq()
        });
        g.code_at(USER_CODE, |a| a.int3());
        g.expect(3, 0);
        let s = g.state();
        assert_eq!(
            (s.segments[3].selector, s.segments[0].selector),
            (0, USER_DS)
        );
    });
}
