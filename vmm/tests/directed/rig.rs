//! vCPUs without a machine around them: the test answers the exits itself.

use std::path::Path;
use std::sync::Arc;

use provium_devices::GuestMemory;
use provium_vmm::boot::{self, BootConfig, BootInfo, KernelImage};
use provium_vmm::kvm::{KvmVcpu, KvmVm};
use provium_vmm::layout;
use provium_vmm::soft::SoftCpus;
use provium_vmm::vcpu::{Exit, Vcpu, VcpuState, settled_state};

use crate::guest::elf;

pub(crate) const MEMORY: u64 = 16 << 20;

/// Fresh memory with `code` loaded, and how to enter it.
pub(crate) fn load(code: &[u8]) -> (Arc<GuestMemory>, BootInfo) {
    let ranges = layout::ram_ranges(MEMORY).unwrap();
    let memory = Arc::new(GuestMemory::from_ranges(&ranges).unwrap());
    let kernel = KernelImage::parse(Path::new("directed"), elf(code)).unwrap();
    let config = BootConfig {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
        cpus: 1,
        virtio_slots: &[],
        rng_seed: &[],
    };
    let boot = boot::load(&config, &memory).unwrap();
    (memory, boot)
}

/// Puts a vCPU at the guest's entry.
pub(crate) fn enter(vcpu: &mut dyn Vcpu, boot: &BootInfo) {
    let start = boot.initial_state();
    let mut state = vcpu.state().unwrap();
    state.regs = start.regs;
    start.apply(&mut state.sregs);
    vcpu.set_state(&state).unwrap();
}

/// One vCPU on KVM.
pub(crate) struct KvmRig {
    // Declared first: gone before the VM and its memory.
    pub(crate) vcpu: KvmVcpu,
    pub(crate) vm: Arc<KvmVm>,
    pub(crate) memory: Arc<GuestMemory>,
}

impl KvmRig {
    pub(crate) fn new(code: &[u8]) -> Self {
        let (memory, boot) = load(code);
        let vm = Arc::new(KvmVm::new(&memory).unwrap());
        let mut vcpu = vm.vcpu(1, 0).unwrap();
        enter(&mut vcpu, &boot);
        Self { vcpu, vm, memory }
    }
}

/// One vCPU on the software processor.
pub(crate) struct SoftRig {
    pub(crate) cpus: SoftCpus,
    pub(crate) memory: Arc<GuestMemory>,
}

impl SoftRig {
    pub(crate) fn new(code: &[u8]) -> Self {
        let (memory, boot) = load(code);
        // SAFETY: `cpus` is declared, and so dropped, before `memory`.
        let mut cpus = unsafe { SoftCpus::with_model(&memory, 1, 0) };
        enter(&mut cpus.vcpu(0, 0), &boot);
        Self { cpus, memory }
    }
}

/// An exit in a form that can be kept and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    PioRead(u16, usize),
    PioWrite(u16, Vec<u8>),
    MmioRead(u64, usize),
    MmioWrite(u64, Vec<u8>),
    Hlt,
    Shutdown,
    Interrupted,
}

/// Notes an exit; reads are answered with bytes from `answer`.
pub(crate) fn note(exit: Exit<'_>, mut answer: impl FnMut() -> u8) -> Seen {
    match exit {
        Exit::PioRead { port, data, .. } => {
            data.fill_with(&mut answer);
            Seen::PioRead(port, data.len())
        }
        Exit::PioWrite { port, data, .. } => Seen::PioWrite(port, data.to_vec()),
        Exit::MmioRead { address, data } => {
            data.fill_with(&mut answer);
            Seen::MmioRead(address, data.len())
        }
        Exit::MmioWrite { address, data } => Seen::MmioWrite(address, data.to_vec()),
        Exit::Hlt => Seen::Hlt,
        Exit::Shutdown => Seen::Shutdown,
        Exit::Interrupted => Seen::Interrupted,
    }
}

/// Lets the last access's instruction retire; the further accesses that it makes are noted.
pub(crate) fn finish(
    vcpu: &mut dyn Vcpu,
    mut answer: impl FnMut() -> u8,
) -> (Vec<Seen>, VcpuState) {
    let mut more = Vec::new();
    let state = settled_state(vcpu, |exit| more.push(note(exit, &mut answer))).unwrap();
    (more, state)
}

/// Runs to the next exit that is not an interruption.
pub(crate) fn next(vcpu: &mut dyn Vcpu, mut answer: impl FnMut() -> u8) -> Seen {
    loop {
        let seen = note(vcpu.run(1_000_000).unwrap(), &mut answer);
        if seen != Seen::Interrupted {
            return seen;
        }
    }
}

/// What the two backends must agree on, in comparable form.
pub(crate) fn comparable(state: &VcpuState) -> String {
    let s = &state.sregs;
    let segment = |g: &kvm_bindings::kvm_segment| {
        // Of a segment that is not usable only that is defined.
        if g.unusable != 0 {
            return format!("{:#x} unusable", g.selector);
        }
        format!(
            "{:#x} base {:#x} limit {:#x} type {} s {} dpl {} p {} l {} db {} g {}",
            g.selector, g.base, g.limit, g.type_, g.s, g.dpl, g.present, g.l, g.db, g.g
        )
    };
    let segments = [&s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss, &s.tr]
        .map(segment)
        .join("\n");
    format!(
        "{:#x?}\n{segments}\ngdt {:?}\nidt {:?}\ncr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x}\nxcr0 {:#x} mp {} shadow {}\n{:#x?}",
        // RF only tells instruction breakpoints to hold still; the software processor has none and
        // lets it stand until the next change of flags.
        kvm_bindings::kvm_regs {
            rflags: state.regs.rflags & !(1 << 16),
            ..state.regs
        },
        (s.gdt.base, s.gdt.limit),
        (s.idt.base, s.idt.limit),
        s.cr0,
        s.cr2,
        s.cr3,
        s.cr4,
        s.efer,
        state.xcr0,
        state.mp_state.mp_state,
        state.events.interrupt.shadow,
        state.debugregs,
    )
}

/// Panics with the lines in which two comparable states differ.
pub(crate) fn assert_same(what: &str, soft: &VcpuState, kvm: &VcpuState) {
    let (soft, kvm) = (comparable(soft), comparable(kvm));
    let differ = soft.lines().zip(kvm.lines()).filter(|(a, b)| a != b);
    let differ: Vec<String> = differ.map(|(a, b)| format!("soft {a}\n kvm {b}")).collect();
    assert!(
        differ.is_empty() && soft == kvm,
        "{what}:\n{}",
        differ.join("\n")
    );
}
