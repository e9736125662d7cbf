//! The local APIC as a guest uses it: timer modes, x2APIC, priorities, messages between vCPUs, and
//! start-up.

use iced_x86::code_asm::*;
use provium_cpu::{DeliveryMode, Exit, InterruptMessage};

use crate::guest::*;
use crate::machine;

/// xAPIC register offsets.
const TPR: u64 = 0x80;
const EOI: u64 = 0xb0;
const SVR: u64 = 0xf0;
const ISR: u64 = 0x100;
const ICR: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const LVT_TIMER: u64 = 0x320;
const INITIAL: u64 = 0x380;
const CURRENT: u64 = 0x390;
const DIVIDE: u64 = 0x3e0;

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;

fn set(a: &mut CodeAssembler, register: u64, value: u32) -> Result<(), iced_x86::IcedError> {
    a.mov(dword_ptr(rbp + register as i32), value as i32)
}

fn wrmsr(a: &mut CodeAssembler, index: u32, value: u64) -> Result<(), iced_x86::IcedError> {
    a.mov(ecx, index)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

/// RBP points to the registers; vector 0x40 counts in RBX and signals its end.
fn with_apic() -> Guest {
    let mut g = Guest::with_cpus(2);
    set_gate(
        &g.memory,
        0x40,
        machine::gate64(KERNEL_CS, CODE + 0x800, 0, 0, 0xe),
    );
    g.code_at(CODE + 0x800, |a| {
        a.inc(rbx)?;
        set(a, EOI, 0)?;
        a.iretq()
    });
    g.adjust(|s| s.gpr[5] = APIC);
    g
}

/// Runs to the next halt, letting time jump to the timer when the guest waits for it.
fn run_with_time(g: &mut Guest, times: usize) {
    for _ in 0..times {
        assert_eq!(g.run(), End::Halt);
        let at = g.complex.next_timer(0).expect("an armed timer");
        assert!(at >= g.now);
        g.now = at;
        assert!(g.complex.runnable(0, g.now));
    }
    assert_eq!(g.run(), End::Halt);
}

#[test]
pub(crate) fn one_shot_timer() {
    both_ways(|| {
        let mut g = with_apic();
        g.code(|a| {
            set(a, SVR, 0x1ff)?;
            set(a, DIVIDE, 0xb)?;
            set(a, LVT_TIMER, 0x40)?;
            set(a, INITIAL, 5000)?;
            a.mov(ecx, dword_ptr(rbp + CURRENT as i32))?;
            a.sti()?;
            a.hlt()?;
            a.mov(esi, dword_ptr(rbp + CURRENT as i32))?;
            a.hlt()
        });
        run_with_time(&mut g, 1);
        assert_eq!(g.gpr(3), 1);
        assert!((4900..=5000).contains(&g.gpr(1)), "{}", g.gpr(1));
        assert_eq!((g.gpr(6), g.complex.next_timer(0)), (0, None));
        assert!((5000..5200).contains(&g.now), "{}", g.now);
    });
}

#[test]
pub(crate) fn periodic_timer_and_divider() {
    both_ways(|| {
        let mut g = with_apic();
        g.code(|a| {
            set(a, SVR, 0x1ff)?;
            // Divide by 4.
            set(a, DIVIDE, 1)?;
            set(a, LVT_TIMER, 0x2_0040)?;
            set(a, INITIAL, 1000)?;
            a.sti()?;
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.hlt()?;
            a.jmp(top)
        });
        run_with_time(&mut g, 5);
        assert_eq!(g.gpr(3), 5);
        assert!((20_000..20_300).contains(&g.now), "{}", g.now);
    });
}

#[test]
pub(crate) fn deadline_timer() {
    both_ways(|| {
        let mut g = with_apic();
        g.code(|a| {
            set(a, SVR, 0x1ff)?;
            set(a, LVT_TIMER, 0x4_0040)?;
            wrmsr(a, TSC_DEADLINE, 10_000)?;
            a.rdmsr()?;
            a.mov(rsi, rax)?;
            a.sti()?;
            a.hlt()?;
            a.mov(ecx, TSC_DEADLINE)?;
            a.rdmsr()?;
            a.mov(rdi, rax)?;
            // One that has passed fires at once.
            wrmsr(a, TSC_DEADLINE, 5)?;
            a.nop()?;
            a.nop()?;
            a.cli()?;
            a.hlt()
        });
        run_with_time(&mut g, 1);
        assert_eq!((g.gpr(3), g.gpr(6), g.gpr(7)), (2, 10_000, 0));
        assert!((10_000..10_200).contains(&g.now), "{}", g.now);
    });
}

/// A masked timer ends HLT for nobody and delivers nothing.
#[test]
pub(crate) fn masked_timer() {
    both_ways(|| {
        let mut g = with_apic();
        g.code(|a| {
            set(a, SVR, 0x1ff)?;
            set(a, LVT_TIMER, 0x1_0040)?;
            set(a, INITIAL, 100)?;
            a.sti()?;
            a.mov(ecx, 1000)?;
            let mut top = a.create_label();
            a.set_label(&mut top)?;
            a.dec(ecx)?;
            a.jnz(top)?;
            a.hlt()
        });
        g.run_to_halt();
        assert_eq!(g.gpr(3), 0);
    });
}

/// SDM vol. 3, 11.12: registers as MSRs, a 64-bit ICR, no way back but through disabled.
#[test]
pub(crate) fn x2apic() {
    both_ways(|| {
        let mut g = with_apic();
        set_gate(
            &g.memory,
            0x40,
            machine::gate64(KERNEL_CS, CODE + 0x900, 0, 0, 0xe),
        );
        g.code_at(CODE + 0x900, |a| {
            a.inc(rbx)?;
            wrmsr(a, 0x80b, 0)?;
            a.iretq()
        });
        g.code(|a| {
            wrmsr(a, APIC_BASE, 0xfee0_0d00)?;
            wrmsr(a, 0x80f, 0x1ff)?;
            a.mov(ecx, 0x802u32)?;
            a.rdmsr()?;
            a.mov(rsi, rax)?;
            a.sti()?;
            // SELF IPI, then ICR with the shorthand "self".
            wrmsr(a, 0x83f, 0x40)?;
            wrmsr(a, 0x830, 0x4_0040)?;
            a.nop()?;
            // The page is a device like any other now.
            a.mov(edi, dword_ptr(rbp + 0x20))?;
            a.hlt()
        });
        loop {
            match g.run() {
                End::Exit(Exit::MmioRead { gpa, len }) => {
                    assert_eq!((gpa, len), (APIC + 0x20, 4));
                    g.complex.complete_read(0, 0x99);
                }
                End::Exit(exit) => panic!("{exit:?}"),
                End::Halt => break,
                End::Trap(trap) => panic!("{trap:x?}"),
            }
        }
        assert_eq!((g.gpr(3), g.gpr(6), g.gpr(7)), (2, 0, 0x99));
    });
    for bad in [0xfee0_0900u64, 0xfee0_0500] {
        both_ways(|| {
            let mut g = with_apic();
            g.code(|a| {
                wrmsr(a, APIC_BASE, 0xfee0_0d00)?;
                wrmsr(a, APIC_BASE, bad)
            });
            g.expect(13, 0);
        });
    }
    both_ways(|| {
        // A reserved register, and a value too wide.
        let mut g = with_apic();
        g.code(|a| {
            wrmsr(a, APIC_BASE, 0xfee0_0d00)?;
            wrmsr(a, 0x808, 1 << 32)
        });
        g.expect(13, 0);
    });
    both_ways(|| {
        // Without x2APIC mode the MSRs are not there.
        let mut g = with_apic();
        g.code(|a| {
            a.mov(ecx, 0x802u32)?;
            a.rdmsr()
        });
        g.expect(13, 0);
    });
}

fn fixed(vector: u8, level: bool) -> InterruptMessage {
    InterruptMessage {
        destination: 0,
        logical: false,
        except: None,
        mode: DeliveryMode::Fixed,
        vector,
        level,
    }
}

/// The task priority holds back what is not above it; of several the highest comes first.
#[test]
pub(crate) fn priorities() {
    both_ways(|| {
        let mut g = with_apic();
        g.adjust(|s| (s.apic.registers[0xf], s.rflags) = (0x1ff, 0x202));
        g.code(|a| {
            set(a, TPR, 0x60)?;
            a.hlt()?;
            a.nop()
        });
        g.complex.deliver(fixed(0x55, false));
        g.complex.step(0, 0);
        // The first step delivers, as nothing holds the interrupt back yet: start anew.
        let mut g = with_apic();
        g.adjust(|s| {
            (s.apic.registers[0xf], s.rflags) = (0x1ff, 0x202);
            s.apic.registers[8] = 0x60;
        });
        g.code(|a| {
            a.hlt()?;
            a.nop()
        });
        g.complex.deliver(fixed(0x55, false));
        g.complex.deliver(fixed(0x6f, false));
        g.run_to_halt();
        assert!(!g.complex.runnable(0, g.now));
        g.complex.deliver(fixed(0x71, false));
        g.complex.deliver(fixed(0x90, false));
        assert_eq!(g.expect(0x90, 0).rip, CODE + 1);
    });
    both_ways(|| {
        // CR8 is the same register.
        let mut g = with_apic();
        g.adjust(|s| (s.apic.registers[0xf], s.apic.registers[8], s.rflags) = (0x1ff, 0xf0, 0x202));
        g.code(|a| {
            a.xor(eax, eax)?;
            a.mov(cr8, rax)?;
            a.nop()?;
            a.hlt()
        });
        g.complex.deliver(fixed(0x55, false));
        let trap = g.expect(0x55, 0);
        assert_eq!(trap.rip, CODE + 6);
    });
}

/// An interrupt in service blocks its class until EOI; level-triggered ends are reported.
#[test]
pub(crate) fn end_of_interrupt() {
    both_ways(|| {
        let mut g = with_apic();
        g.adjust(|s| (s.apic.registers[0xf], s.rflags) = (0x1ff, 0x202));
        for vector in [0x62, 0x61] {
            set_gate(
                &g.memory,
                vector,
                machine::gate64(KERNEL_CS, CODE + 0x10 * vector, 0, 0, 0xf),
            );
        }
        g.code(|a| a.hlt());
        g.code_at(CODE + 0x620, |a| {
            a.mov(eax, dword_ptr(rbp + (ISR + 0x30) as i32))?;
            a.nop()?;
            set(a, EOI, 0)?;
            // A block's end, so that the next interrupt comes before HLT.
            a.db(&[0xeb, 0])?;
            a.hlt()
        });
        g.code_at(CODE + 0x610, |a| a.hlt());
        g.complex.deliver(fixed(0x62, true));
        g.complex.deliver(fixed(0x61, false));
        g.run_to_halt();
        assert_eq!(g.state().rip, CODE + 0x611);
        assert_eq!(g.gpr(0), 1 << 2);
        assert_eq!(g.complex.take_eois(), [0x62]);
        assert!(g.complex.take_eois().is_empty());
    });
}

/// INIT and start-up: the other vCPU begins in real mode at the page of the message.
#[test]
pub(crate) fn start_up_of_another_cpu() {
    both_ways(|| {
        let mut g = with_apic();
        g.code(|a| {
            set(a, SVR, 0x1ff)?;
            set(a, ICR_HIGH, 1 << 24)?;
            set(a, ICR, 0xc500)?;
            set(a, ICR, 0x8500)?;
            set(a, ICR, 0x4607)?;
            a.hlt()
        });
        g.code_of(16, 0x7000, |a| {
            a.mov(ax, cs)?;
            // mov [0x123], ax
            a.db(&[0xa3, 0x23, 0x01])?;
            a.mov(eax, 0x1234_5678)?;
            a.hlt()
        });
        // The guest leaves at each message, so that others can take it.
        loop {
            match g.complex.run(0, g.now, g.now + 10_000) {
                Exit::Quantum => g.now = g.complex.ticks(0),
                Exit::Idle => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(g.complex.runnable(1, g.now));
        assert_eq!(g.run_cpu(1), End::Halt);
        let s = g.complex.cpu(1).state();
        assert_eq!(
            (s.segments[1].selector, s.segments[1].base, s.gpr[0]),
            (0x700, 0x7000, 0x1234_5678)
        );
        assert_eq!(g.memory.read(0x123, 2), [0x00, 0x07]);
    });
}

/// An interrupt from one vCPU to another, and to all but itself.
#[test]
pub(crate) fn messages_between_cpus() {
    for icr in [0x4040u32, 0xc_4040] {
        both_ways(|| {
            let mut g = with_apic();
            let mut s = g.state();
            s.apic.registers[0xf] = 0x1ff;
            (s.rip, s.rflags, s.gpr[4]) = (CODE + 0xa00, 0x202, STACK - 0x800);
            let mut other = g.complex.cpu(1).state().apic;
            other.registers[0xf] = 0x1ff;
            s.apic = other;
            g.complex.cpu_mut(1).set_state(&s);
            g.code_at(CODE + 0xa00, |a| {
                a.hlt()?;
                a.cli()?;
                a.hlt()
            });
            g.code(|a| {
                set(a, SVR, 0x1ff)?;
                a.sti()?;
                set(a, ICR_HIGH, 1 << 24)?;
                set(a, ICR, icr)?;
                a.nop()?;
                a.cli()?;
                a.hlt()
            });
            assert_eq!(g.run_cpu(1), End::Halt);
            assert!(!g.complex.runnable(1, g.now));
            loop {
                match g.complex.run(0, g.now, g.now + 10_000) {
                    Exit::Quantum => g.now = g.complex.ticks(0),
                    Exit::Idle => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(g.gpr(3), 0, "not to itself");
            assert!(g.complex.runnable(1, g.now));
            assert_eq!(g.run_cpu(1), End::Halt);
            assert_eq!(g.complex.cpu(1).state().gpr[3], 1);
        });
    }
}
