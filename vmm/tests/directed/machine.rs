//! Whole machines with directed guests: what the owner sees is the same on both backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use provium_vmm::{MachineEvent, MachineState, StopCause, Waited, host_backstop, run_all_for};

use crate::asm::{Asm, CODE, reg};
use crate::guest::{Kernel, PATIENCE, backends, config, console, expect, run_to_end, start};

const IDT: u64 = 0x40_0000;
/// Somewhere in RAM for guests to count in.
const COUNTER: u64 = 0x50_0000;

fn spinning(interrupts: bool) -> Vec<u8> {
    let mut asm = Asm::new();
    asm.print("spinning\n");
    if interrupts {
        asm.sti()
    } else {
        asm.cli()
    };
    let stay = asm.here();
    asm.jmp(stay);
    asm.finish()
}

#[test]
fn serial_output_reaches_the_console_and_power_off_ends_the_machine() {
    // L-062
    let mut asm = Asm::new();
    asm.print("hello from the guest\n").power_off();
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        assert_eq!(run_to_end(&machine), StopCause::PowerOff, "{backend}");
        assert_eq!(console(&machine), "hello from the guest\n", "{backend}");
        assert!(machine.pause().is_err());
    }
}

#[test]
fn l245_a_suspended_guest_stands_still_until_it_is_woken() {
    let mut asm = Asm::new();
    asm.print("asleep\n").out8(0x600, (1 << 5) | (3 << 2));
    // As an operating system does: in al, dx; test al, WAK_STS; jz back.
    asm.mov(reg::RDX, 0x601);
    let again = asm.here();
    asm.raw(&[0xec, 0xa8, 0x80]).jz(again);
    asm.print("awake\n").power_off();
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        let end = machine.wait(None, Some(PATIENCE), || {
            machine.is_suspended().then_some(())
        });
        assert_eq!(end, Waited::Done(()), "{backend}");
        // Its world goes on, it does not.
        let hour = 3_600_000_000_000;
        if backend == provium_vmm::Backend::Soft {
            let before = machine.stats().instructions.unwrap();
            let end = machine.wait(Some(hour), Some(PATIENCE), || None::<()>);
            assert_eq!(end, Waited::GuestDeadline);
            let ran = machine.stats().instructions.unwrap() - before;
            assert!(ran < 100_000, "{ran} instructions in an hour of sleep");
        }
        machine.pause().unwrap();
        machine.resume().unwrap();
        assert!(machine.is_suspended());
        assert_eq!(console(&machine), "asleep\n", "{backend}");
        assert!(machine.wake() && !machine.wake(), "{backend}");
        assert_eq!(run_to_end(&machine), StopCause::PowerOff, "{backend}");
        assert_eq!(console(&machine), "asleep\nawake\n", "{backend}");
    }
}

#[test]
fn a_triple_fault_ends_the_machine() {
    // L-061
    let mut asm = Asm::new();
    // An empty IDT, then an undefined instruction.
    asm.print("about to fault\n")
        .mov(reg::RBX, 0)
        .raw(&[0x0f, 0x01, 0x1b])
        .raw(&[0x0f, 0x0b]);
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        assert_eq!(run_to_end(&machine), StopCause::TripleFault, "{backend}");
        assert!(console(&machine).contains("about to fault"));
    }
}

#[test]
fn a_guest_that_spins_with_interrupts_off_is_stopped_and_located() {
    let kernel = Kernel::new(&spinning(false));
    for backend in backends() {
        let machine = start(&kernel, backend);
        expect(&machine, "spinning");
        let places = machine.places().unwrap();
        assert_eq!(places.len(), 1);
        assert!(
            (CODE..CODE + 0x1000).contains(&places[0].rip),
            "{}",
            places[0]
        );
        assert_eq!((places[0].ring, places[0].interrupts_enabled), (0, false));
        machine.stop();
        assert_eq!(machine.state(), MachineState::Stopped(StopCause::Killed));
    }
}

#[test]
fn a_guest_that_floods_the_console_is_survived() {
    let mut asm = Asm::new();
    asm.mov(reg::RDX, 0x3f8);
    let again = asm.here();
    asm.raw(&[0xb0, b'x', 0xee]).jmp(again);
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        expect(&machine, &"x".repeat(5000));
        machine.stop();
        assert!(machine.console().len() >= 5000);
    }
}

#[test]
fn a_panic_line_is_told_and_turns_a_reset_into_the_end() {
    // L-061, L-251
    let mut asm = Asm::new();
    asm.print("[ 1.0] Kernel panic - not syncing: by request\n")
        .out8(0x602, 1);
    let stay = asm.here();
    asm.jmp(stay);
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        let cause = run_to_end(&machine);
        assert_eq!(
            cause,
            StopCause::Panic("Kernel panic - not syncing: by request".into())
        );
        assert!(cause.is_abnormal());
    }
}

#[test]
fn the_panic_port_ends_the_machine() {
    // L-061
    let mut asm = Asm::new();
    asm.out8(0x505, 1);
    let stay = asm.here();
    asm.hlt().jmp(stay);
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        assert!(
            matches!(run_to_end(&machine), StopCause::Panic(_)),
            "{backend}"
        );
    }
}

/// Prints a counter from memory, which a reset wipes, and sets it; resets the machine once it is
/// typed to.
fn resets_once_typed_to() -> Vec<u8> {
    let mut asm = Asm::new();
    asm.mov(reg::RBX, COUNTER).load_eax(reg::RBX, 0);
    // add al, '0'; mov dx, 0x3f8; out dx, al
    asm.raw(&[0x04, b'0'])
        .mov(reg::RDX, 0x3f8)
        .raw(&[0xee])
        .print("up\n");
    asm.poke32(COUNTER, 7);
    // Line status register: wait for a character, take it, reset.
    asm.out8(0x3f9, 1).mov(reg::RDX, 0x3fd);
    let poll = asm.here();
    asm.raw(&[0xec, 0xa8, 0x01]).jz(poll);
    asm.out8(0x602, 1);
    let stay = asm.here();
    asm.jmp(stay);
    asm.finish()
}

#[test]
fn a_reset_by_the_guest_restarts_in_place_with_memory_wiped() {
    // L-062
    let kernel = Kernel::new(&resets_once_typed_to());
    for backend in backends() {
        let machine = start(&kernel, backend);
        let told = Arc::new(AtomicBool::new(false));
        let flag = told.clone();
        let _subscription = machine.subscribe(Box::new(move |event| {
            if *event == (MachineEvent::Restarted { by_guest: true }) {
                flag.store(true, Ordering::SeqCst);
            }
        }));
        expect(&machine, "0up\n");
        machine.console().write(b"!");
        expect(&machine, "0up\n0up\n");
        assert_eq!(machine.boots(), 2, "{backend}");
        assert!(told.load(Ordering::SeqCst));
        assert_eq!(machine.state(), MachineState::Running);
    }
}

#[test]
fn a_reset_by_the_owner_works_running_and_paused() {
    let kernel = Kernel::new(&resets_once_typed_to());
    for backend in backends() {
        let machine = start(&kernel, backend);
        expect(&machine, "0up\n");
        // Each time it is somewhere else in its loop, maybe in the middle of an access.
        for boots in (2..18).step_by(2) {
            machine.reset().unwrap();
            assert_eq!(machine.boots(), boots, "{backend}");
            expect(&machine, &"0up\n".repeat(boots as usize));
            machine.pause().unwrap();
            machine.reset().unwrap();
            let state = machine.state();
            assert_eq!((machine.boots(), state), (boots + 1, MachineState::Paused));
            assert_eq!(machine.phys_read(COUNTER, 1).unwrap(), [0]);
            machine.resume().unwrap();
            expect(&machine, &"0up\n".repeat(boots as usize + 1));
        }
    }
}

/// Counts in memory for ever.
fn counting() -> Vec<u8> {
    let mut asm = Asm::new();
    asm.mov(reg::RBX, COUNTER);
    let again = asm.here();
    // inc qword [rbx]
    asm.raw(&[0x48, 0xff, 0x03]).jmp(again);
    asm.finish()
}

fn counter(machine: &provium_vmm::Machine) -> u64 {
    u64::from_le_bytes(machine.phys_read(COUNTER, 8).unwrap().try_into().unwrap())
}

#[test]
fn pause_stops_guest_and_clock_and_resume_goes_on() {
    // L-074, L-238
    let kernel = Kernel::new(&counting());
    for backend in backends() {
        let machine = start(&kernel, backend);
        let _demand = machine.demand();
        while counter(&machine) == 0 {
            std::thread::yield_now();
        }
        machine.pause().unwrap();
        assert_eq!(machine.state(), MachineState::Paused);
        let (stood, time) = (counter(&machine), machine.now_ns());
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(
            (counter(&machine), machine.now_ns()),
            (stood, time),
            "{backend}"
        );
        machine.phys_write(COUNTER, &[0; 8]).unwrap();
        machine.resume().unwrap();
        while counter(&machine) == 0 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn soft_stands_still_without_demand_and_stops_at_the_horizon() {
    // L-247
    let kernel = Kernel::new(&counting());
    let machine = start(&kernel, provium_vmm::Backend::Soft);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!((counter(&machine), machine.now_ns()), (0, 0));
    let end = machine.wait(Some(1_000_000), Some(PATIENCE), || None::<()>);
    assert_eq!(end, Waited::GuestDeadline);
    let (stood, time) = (counter(&machine), machine.now_ns());
    // The last block may overshoot.
    assert!((1_000_000..1_000_200).contains(&time), "{time}");
    // Two instructions a round, one nanosecond each.
    assert!((499_000..=501_000).contains(&stood), "{stood}");
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!((counter(&machine), machine.now_ns()), (stood, time));
}

#[test]
fn guest_time_runs_for_several_machines_alike() {
    // L-248
    let kernel = Kernel::new(&counting());
    let bell = provium_vmm::Bell::new();
    let machine = |_| {
        let mut config = config(&kernel, provium_vmm::Backend::Soft);
        config.bell = Some(bell.clone());
        provium_vmm::Machine::start(config).unwrap()
    };
    let machines: Vec<_> = (0..3).map(machine).collect();
    let all: Vec<_> = machines.iter().collect();
    let span = Duration::from_millis(2);
    assert!(run_all_for(&all, span, host_backstop(span)));
    assert!(run_all_for(&all, span, host_backstop(span)));
    let states: Vec<_> = machines.iter().map(|m| (m.now_ns(), counter(m))).collect();
    assert!((4_000_000..4_000_400).contains(&states[0].0), "{states:?}");
    assert!(states.iter().all(|s| *s == states[0]), "{states:?}");
}

#[test]
fn a_wait_ends_at_the_host_backstop() {
    // L-248
    let kernel = Kernel::new(&spinning(true));
    for backend in backends() {
        let machine = start(&kernel, backend);
        let end = machine.wait(None, Some(Duration::from_millis(20)), || None::<()>);
        assert_eq!(end, Waited::HostBackstop, "{backend}");
    }
}

#[test]
fn an_idle_guest_without_timers_sleeps_until_the_deadline() {
    // L-247
    let mut asm = Asm::new();
    asm.sti();
    let stay = asm.here();
    asm.hlt().jmp(stay);
    let kernel = Kernel::new(&asm.finish());
    let machine = start(&kernel, provium_vmm::Backend::Soft);
    let hour = 3_600_000_000_000;
    let end = machine.wait(Some(hour), Some(PATIENCE), || None::<()>);
    assert_eq!((end, machine.now_ns()), (Waited::GuestDeadline, hour));
    assert!(machine.stats().instructions.unwrap() < 100);
}

/// Takes timer interrupts (TSC deadline, x2APIC) and counts them on the console; then switches off.
pub(crate) fn timer_guest(ticks: u32) -> Vec<u8> {
    const VECTOR: u8 = 0x40;
    let mut asm = Asm::new();
    let handler = CODE + 0x800;
    asm.gate(IDT, VECTOR, handler).lidt(IDT);
    // x2APIC on, spurious vector, TSC-deadline mode.
    asm.mov(reg::RCX, 0x1b)
        .raw(&[0x0f, 0x32])
        .raw(&[0x0d, 0x00, 0x0c, 0x00, 0x00, 0x0f, 0x30]);
    asm.wrmsr(0x80f, 0x1ff)
        .wrmsr(0x832, 0x4_0000 | u64::from(VECTOR));
    asm.mov(reg::RDI, u64::from(ticks));
    let again = asm.here();
    // rdtsc; shl rdx,32; or rax,rdx; add rax, imm32; mov rdx,rax; shr rdx,32; wrmsr 6e0
    asm.raw(&[
        0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x05,
    ]);
    asm.raw(&200_000u32.to_le_bytes());
    asm.raw(&[0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 0x20]);
    asm.mov(reg::RCX, 0x6e0).raw(&[0x0f, 0x30]);
    asm.sti().hlt().cli();
    // test edi, edi; jnz again
    asm.raw(&[0x85, 0xff, 0x0f, 0x85]);
    let distance = i32::try_from(again.address() as i64 - (asm.address() as i64 + 4)).unwrap();
    asm.raw(&distance.to_le_bytes());
    asm.print("done\n").power_off();
    asm.pad_to(0x800);
    // dec edi; print '.'; EOI; iretq
    asm.raw(&[0xff, 0xcf]).print(".").wrmsr(0x80b, 0).iretq();
    asm.finish()
}

#[test]
fn timer_interrupts_wake_a_halted_vcpu() {
    let kernel = Kernel::new(&timer_guest(5));
    for backend in backends() {
        let machine = start(&kernel, backend);
        assert_eq!(
            run_to_end(&machine),
            StopCause::PowerOff,
            "{backend}: {}",
            console(&machine)
        );
        assert_eq!(console(&machine), ".....done\n", "{backend}");
    }
}

/// Routes the power button's interrupt (GSI 1) through the I/O APIC and reports presses.
pub(crate) fn button_guest() -> Vec<u8> {
    const VECTOR: u8 = 0x50;
    let mut asm = Asm::new();
    asm.gate(IDT, VECTOR, CODE + 0x800).lidt(IDT);
    asm.mov(reg::RCX, 0x1b)
        .raw(&[0x0f, 0x32])
        .raw(&[0x0d, 0x00, 0x0c, 0x00, 0x00, 0x0f, 0x30]);
    asm.wrmsr(0x80f, 0x1ff);
    // Redirection entry 1: edge, physical, APIC 0.
    asm.poke32(0xfec0_0000, 0x13).poke32(0xfec0_0010, 0);
    asm.poke32(0xfec0_0000, 0x12)
        .poke32(0xfec0_0010, u32::from(VECTOR));
    asm.print("ready\n");
    let idle = asm.here();
    asm.sti().hlt().jmp(idle);
    asm.pad_to(0x800);
    // Read and clear the event register, tell its value.
    asm.mov(reg::RDX, 0x603).raw(&[0xec, 0xee, 0x04, b'0']);
    asm.mov(reg::RDX, 0x3f8)
        .raw(&[0xee])
        .print(" pressed\n")
        .wrmsr(0x80b, 0)
        .iretq();
    asm.finish()
}

#[test]
fn a_device_interrupt_arrives_through_the_io_apic() {
    // L-078
    let kernel = Kernel::new(&button_guest());
    for backend in backends() {
        let machine = start(&kernel, backend);
        expect(&machine, "ready\n");
        machine.power_button();
        expect(&machine, "1 pressed\n");
        machine.power_button();
        expect(&machine, "1 pressed\n1 pressed\n");
    }
}

#[test]
fn alarms_fire_at_their_guest_time() {
    let kernel = Kernel::new(&spinning(true));
    for backend in backends() {
        let machine = start(&kernel, backend);
        let clock = machine.clock().clone();
        let fired = Arc::new(std::sync::Mutex::new(None));
        let (slot, bell) = (fired.clone(), machine.bell().clone());
        let at = machine.now_ns() + 3_000_000;
        machine.alarm(
            at,
            Box::new(move || {
                use provium_devices::Clock;
                *slot.lock().unwrap() = Some(clock.now_ns());
                bell.ring();
            }),
        );
        let end = machine.wait(None, Some(PATIENCE), || *fired.lock().unwrap());
        let Waited::Done(now) = end else {
            panic!("{backend}: {end:?}")
        };
        assert!(now >= at, "{backend}: {now} < {at}");
    }
}

/// All vCPUs count in memory of their own: the first starts the others.
pub(crate) fn all_counting(cpus: u32) -> Vec<u8> {
    let mut asm = Asm::new();
    asm.mov(reg::RCX, 0x1b)
        .raw(&[0x0f, 0x32])
        .raw(&[0x0d, 0x00, 0x0c, 0x00, 0x00, 0x0f, 0x30]);
    asm.wrmsr(0x80f, 0x1ff);
    for id in 1..u64::from(cpus) {
        // A real-mode start page of its own: inc dword [0x6000 + 4 * id] for ever.
        // mov ax,0; mov ds,ax; inc dword [disp32]; jmp -10
        let mut start = vec![0xb8, 0x00, 0x00, 0x8e, 0xd8, 0x67, 0x66, 0xff, 0x05];
        start.extend((0x6000 + 4 * id as u32).to_le_bytes());
        start.extend([0xeb, 0xf6, 0x90]);
        for (word, chunk) in (0..).zip(start.chunks(4)) {
            let value = u32::from_le_bytes(chunk.try_into().unwrap());
            asm.poke32(0x1_0000 + id * 0x1000 + word * 4, value);
        }
        // INIT, then start-up at that page.
        asm.wrmsr(0x830, id << 32 | 0x4500)
            .spin(2000)
            .wrmsr(0x830, id << 32 | 0x4610 | id);
    }
    asm.mov(reg::RBX, 0x6000);
    let again = asm.here();
    asm.raw(&[0xff, 0x03]).jmp(again);
    asm.finish()
}

#[test]
fn every_vcpu_runs_after_its_start_up_message() {
    let kernel = Kernel::new(&all_counting(4));
    for backend in backends() {
        let mut config = config(&kernel, backend);
        config.cpus = 4;
        let machine = provium_vmm::Machine::start(config).unwrap();
        let counts = || {
            let bytes = machine.phys_read(0x6000, 16).unwrap();
            let words = bytes
                .chunks(4)
                .map(|w| u32::from_le_bytes(w.try_into().unwrap()));
            words.collect::<Vec<_>>()
        };
        let bell = machine.bell().clone();
        let _demand = machine.demand();
        let end = std::time::Instant::now() + PATIENCE;
        while counts().iter().any(|c| *c < 1000) {
            assert!(std::time::Instant::now() < end, "{backend}: {:?}", counts());
            bell.ring();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(machine.vcpu_states().unwrap().len(), 4);
    }
}

#[test]
fn two_runs_of_one_configuration_are_the_same_run() {
    let kernel = Kernel::new(&all_counting(3));
    let run = || {
        let mut config = config(&kernel, provium_vmm::Backend::Soft);
        config.cpus = 3;
        let machine = provium_vmm::Machine::start(config).unwrap();
        for deadline in [100_000, 1_234_567] {
            machine.wait(Some(deadline), Some(PATIENCE), || None::<()>);
        }
        let states = machine.vcpu_states().unwrap();
        let regs: Vec<_> = states.iter().map(|s| s.regs).collect();
        (
            machine.phys_read(0x6000, 12).unwrap(),
            regs,
            machine.stats().instructions,
        )
    };
    assert_eq!(run(), run());
}

#[test]
fn code_written_by_the_host_is_what_runs_next() {
    let mut asm = Asm::new();
    asm.print("loop\n").mov(reg::RBX, COUNTER);
    let again = asm.here();
    let at = asm.address();
    // mov eax, 1; mov [rbx], eax
    asm.raw(&[0xb8, 1, 0, 0, 0])
        .store_eax(reg::RBX, 0)
        .jmp(again);
    let kernel = Kernel::new(&asm.finish());
    for backend in backends() {
        let machine = start(&kernel, backend);
        let _demand = machine.demand();
        let wait_for = |value: u64| {
            let end = std::time::Instant::now() + PATIENCE;
            while counter(&machine) != value {
                assert!(
                    std::time::Instant::now() < end,
                    "{backend}: {}",
                    counter(&machine)
                );
                std::thread::yield_now();
            }
        };
        wait_for(1);
        machine.phys_write(at + 1, &[2]).unwrap();
        wait_for(2);
    }
}

#[test]
fn machines_do_not_share_anything_and_leave_no_threads() {
    let kernel = Kernel::new(&counting());
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    for backend in backends() {
        let machines: Vec<_> = (0..4).map(|_| start(&kernel, backend)).collect();
        let names: Vec<String> = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok())
            .collect();
        assert!(names.iter().any(|n| n.contains("directed")), "{names:?}");
        machines[0].phys_write(COUNTER, &[9]).unwrap();
        drop(machines);
        assert!(threads() > 0);
    }
}

#[test]
fn wrong_configurations_are_refused_with_the_reason() {
    let kernel = Kernel::new(&counting());
    let refuse = |change: fn(&mut provium_vmm::MachineConfig)| {
        let mut config = config(&kernel, provium_vmm::Backend::Soft);
        change(&mut config);
        provium_vmm::Machine::start(config)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refuse(|c| c.cpus = 0),
        "machine directed: 0 vCPUs: must be 1 to 64"
    );
    assert!(refuse(|c| c.memory = 4095).contains("must be a multiple of 4096"));
    assert!(refuse(|c| c.cid = 2).contains("vsock cid 2"));
    assert!(refuse(|c| c.kernel = "/nonexistent".into()).contains("/nonexistent"));
}
