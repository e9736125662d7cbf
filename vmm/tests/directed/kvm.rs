//! The KVM backend by itself: exits, interrupts, event descriptors, clock, state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::KVM_MP_STATE_HALTED;
use kvm_ioctls::IoEventAddress;
use provium_vmm::vcpu::Vcpu;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::asm::{Asm, CODE, reg};
use crate::guest::{PATIENCE, kvm_usable};
use crate::rig::{KvmRig, Seen, assert_same, finish, next};

const IDT: u64 = 0x40_0000;
const DEVICE: u64 = 0xd000_0000;

#[test]
fn port_and_memory_accesses_exit_with_their_data() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.out8(0x70, 0xab).raw(&[0xec]).out8(0x71, 0);
    asm.mov(reg::RBX, DEVICE)
        .load_rax(reg::RBX, 8)
        .store_rax(reg::RBX, 16)
        .hlt();
    let mut rig = KvmRig::new(&asm.finish());
    let mut bytes = 1..;
    let mut exit = || next(&mut rig.vcpu, || bytes.next().unwrap());
    assert_eq!(exit(), Seen::PioWrite(0x70, vec![0xab]));
    assert_eq!(exit(), Seen::PioRead(0x70, 1));
    assert_eq!(exit(), Seen::PioWrite(0x71, vec![0]));
    assert_eq!(exit(), Seen::MmioRead(DEVICE + 8, 8));
    assert_eq!(
        exit(),
        Seen::MmioWrite(DEVICE + 16, vec![2, 3, 4, 5, 6, 7, 8, 9])
    );
}

#[test]
fn string_output_comes_in_elements() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    // rep outsw from CODE + 0x100
    asm.mov(reg::RSI, CODE + 0x100)
        .mov(reg::RCX, 3)
        .mov(reg::RDX, 0x80)
        .raw(&[0xf3, 0x66, 0x6f]);
    asm.out8(0x81, 0).pad_to(0x100).raw(b"abcdef");
    let mut rig = KvmRig::new(&asm.finish());
    let mut data = Vec::new();
    loop {
        match next(&mut rig.vcpu, || 0) {
            Seen::PioWrite(0x80, bytes) => data.extend(bytes),
            Seen::PioWrite(0x81, _) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(data, b"abcdef");
}

/// Takes interrupts on GSI 5 through the I/O APIC; the handler writes port 0x90.
fn interrupt_guest() -> Vec<u8> {
    const VECTOR: u8 = 0x55;
    let mut asm = Asm::new();
    asm.gate(IDT, VECTOR, CODE + 0x800).lidt(IDT);
    asm.mov(reg::RCX, 0x1b)
        .raw(&[0x0f, 0x32])
        .raw(&[0x0d, 0x00, 0x0c, 0x00, 0x00, 0x0f, 0x30]);
    asm.wrmsr(0x80f, 0x1ff);
    asm.poke32(0xfec0_0000, 0x1b).poke32(0xfec0_0010, 0);
    asm.poke32(0xfec0_0000, 0x1a)
        .poke32(0xfec0_0010, u32::from(VECTOR));
    asm.out8(0x91, 1);
    let idle = asm.here();
    asm.sti().hlt().jmp(idle);
    asm.pad_to(0x800);
    asm.out8(0x90, 1).wrmsr(0x80b, 0).iretq();
    asm.finish()
}

#[test]
fn an_interrupt_through_irqfd_wakes_a_halted_vcpu() {
    if !kvm_usable() {
        return;
    }
    let mut rig = KvmRig::new(&interrupt_guest());
    let line = EventFd::new(EFD_NONBLOCK).unwrap();
    rig.vm.fd().register_irqfd(&line, 5).unwrap();
    assert_eq!(next(&mut rig.vcpu, || 0), Seen::PioWrite(0x91, vec![1]));
    for _ in 0..3 {
        // From another thread, while the vCPU halts in the kernel.
        let pulse = line.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            pulse.write(1).unwrap();
        });
        assert_eq!(next(&mut rig.vcpu, || 0), Seen::PioWrite(0x90, vec![1]));
        sender.join().unwrap();
    }
}

#[test]
fn a_store_with_ioeventfd_does_not_exit() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.poke32(DEVICE + 0x50, 1)
        .poke32(DEVICE + 0x50, 0)
        .out8(0x81, 0);
    let mut rig = KvmRig::new(&asm.finish());
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    let address = IoEventAddress::Mmio(DEVICE + 0x50);
    rig.vm
        .fd()
        .register_ioevent(&event, &address, 1u32)
        .unwrap();
    assert_eq!(
        next(&mut rig.vcpu, || 0),
        Seen::MmioWrite(DEVICE + 0x50, vec![0; 4])
    );
    assert_eq!(event.read().unwrap(), 1);
    assert_eq!(next(&mut rig.vcpu, || 0), Seen::PioWrite(0x81, vec![0]));
    assert!(event.read().is_err(), "only the matching value is an event");
}

#[test]
fn kvmclock_tells_the_time_that_was_set() {
    if !kvm_usable() {
        return;
    }
    const PAGE: u64 = 0x60_0000;
    let mut asm = Asm::new();
    asm.wrmsr(0x4b56_4d01, PAGE | 1).out8(0x81, 0);
    let again = asm.here();
    asm.out8(0x82, 0).jmp(again);
    let mut rig = KvmRig::new(&asm.finish());
    let mut clock = rig.vm.clock().unwrap();
    clock.clock = 1_000_000_000_000;
    rig.vm.set_clock(&clock).unwrap();
    assert_eq!(next(&mut rig.vcpu, || 0), Seen::PioWrite(0x81, vec![0]));
    assert_eq!(next(&mut rig.vcpu, || 0), Seen::PioWrite(0x82, vec![0]));
    let system_time: u64 = rig.memory.read_obj(GuestAddress(PAGE + 16)).unwrap();
    let version: u32 = rig.memory.read_obj(GuestAddress(PAGE)).unwrap();
    assert_eq!(version % 2, 0);
    let plausible = 1_000_000_000_000..1_000_000_000_000 + PATIENCE.as_nanos() as u64;
    assert!(plausible.contains(&system_time), "{system_time}");
}

#[test]
fn a_running_vcpu_is_cut_off() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    let stay = asm.here();
    asm.jmp(stay);
    let mut rig = KvmRig::new(&asm.finish());
    for _ in 0..3 {
        assert!(!rig.vcpu.run_at_most(Duration::from_millis(2)).unwrap());
    }
}

#[test]
fn a_halted_vcpu_is_cut_off_and_its_state_says_halted() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.hlt();
    let mut rig = KvmRig::new(&asm.finish());
    let end = Instant::now() + PATIENCE;
    while rig.vcpu.state().unwrap().mp_state.mp_state != KVM_MP_STATE_HALTED {
        assert!(!rig.vcpu.run_at_most(Duration::from_millis(2)).unwrap());
        assert!(Instant::now() < end);
    }
    assert_eq!(rig.vcpu.state().unwrap().activity(), "halted");
}

/// Writes a sequence of computed values to a port, keeping everything in registers and memory.
fn computing_guest() -> Vec<u8> {
    let mut asm = Asm::new();
    asm.mov(reg::RAX, 1)
        .mov(reg::RDI, 0x51_0000)
        .mov(reg::RDX, 0x80);
    let again = asm.here();
    // imul eax, eax, 1103515245; add eax, 12345; add [rdi], eax; rol eax, 7; out dx, eax
    asm.raw(&[0x69, 0xc0]).raw(&1_103_515_245u32.to_le_bytes());
    asm.raw(&[0x05]).raw(&12_345u32.to_le_bytes());
    asm.raw(&[0x01, 0x07, 0xc1, 0xc0, 0x07, 0xef]).jmp(again);
    asm.finish()
}

#[test]
fn half_a_program_here_and_half_in_a_fresh_vm_is_the_whole_program() {
    if !kvm_usable() {
        return;
    }
    let code = computing_guest();
    let mut whole = KvmRig::new(&code);
    let expected: Vec<Seen> = (0..40).map(|_| next(&mut whole.vcpu, || 0)).collect();
    let mut first = KvmRig::new(&code);
    let mut seen: Vec<Seen> = (0..20).map(|_| next(&mut first.vcpu, || 0)).collect();
    let (_, state) = finish(&mut first.vcpu, || 0);
    let chips = first.vm.save().unwrap();
    let mut second = KvmRig::new(&code);
    let mut ram = vec![0; 1 << 20];
    first
        .memory
        .read_slice(&mut ram, GuestAddress(0x50_0000))
        .unwrap();
    second
        .memory
        .write_slice(&ram, GuestAddress(0x50_0000))
        .unwrap();
    second.vm.restore(&chips).unwrap();
    second.vcpu.set_state(&state).unwrap();
    let moved = second.vcpu.state().unwrap();
    assert_same("after the move", &moved, &state);
    assert_eq!(moved.xsave, state.xsave);
    seen.extend((0..20).map(|_| next(&mut second.vcpu, || 0)));
    assert_eq!(seen, expected);
}

#[test]
fn state_of_every_kind_is_what_was_set() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.out8(0x80, 0);
    let mut rig = KvmRig::new(&asm.finish());
    let mut state = rig.vcpu.state().unwrap();
    state.regs.r15 = 0x1234_5678_9abc_def0;
    state.sregs.fs.base = 0x7fff_0000_1000;
    state.debugregs.db[2] = 0xffff_8000_0000_1234;
    // XMM3 and MXCSR's rounding mode.
    state.xsave[160 + 3 * 16] = 0x5a;
    state.xsave[25] |= 0x20;
    for msr in &mut state.msrs {
        if msr.index == 0xc000_0082 {
            msr.data = 0xffff_ffff_8200_0000;
        }
    }
    rig.vcpu.set_state(&state).unwrap();
    let read = rig.vcpu.state().unwrap();
    assert_same("as set", &read, &state);
    assert_eq!(read.xsave, state.xsave);
    let lstar = read.msrs.iter().find(|m| m.index == 0xc000_0082).unwrap();
    assert_eq!(lstar.data, 0xffff_ffff_8200_0000);
}

#[test]
fn vms_come_and_go() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.out8(0x80, 1);
    let code = asm.finish();
    let rigs: Vec<_> = (0..4).map(|_| KvmRig::new(&code)).collect();
    for mut rig in rigs {
        assert_eq!(next(&mut rig.vcpu, || 0), Seen::PioWrite(0x80, vec![1]));
        assert_eq!(Arc::strong_count(&rig.vm), 1);
    }
}
