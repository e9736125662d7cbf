//! The KVM virtual machine: memory slots, in-kernel interrupt controllers and timer, interrupt
//! lines, clock.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    CpuId, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting,
    kvm_clock_data, kvm_cpuid_entry2, kvm_irq_routing_entry, kvm_irqchip, kvm_pit_config,
    kvm_pit_state2, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use provium_devices::{GuestMemory, Interrupt};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::vcpu::KvmVcpu;
use crate::board::Lines;
use crate::config::Backend;
use crate::cpuid;
use crate::error::Error;
use crate::layout;

/// What the machine cannot do without.
const REQUIRED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
];

/// The interrupt controllers that make up the in-kernel irqchip.
const CHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// A KVM virtual machine with its memory and interrupt controllers.
pub struct KvmVm {
    // Declared before `memory`, so that the VM is gone before its memory.
    fd: VmFd,
    _memory: Arc<GuestMemory>,
    supported: Vec<kvm_cpuid_entry2>,
    tsc_khz: Mutex<Option<u32>>,
    power_on: SavedVm,
}

/// State of the VM outside its vCPUs.
#[derive(Clone)]
pub struct SavedVm {
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

/// Names the step that failed.
pub(super) fn failed(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |e| io_failed(step)(io::Error::from_raw_os_error(e.errno()))
}

/// As [`failed`], for errors of the operating system.
pub(super) fn io_failed(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Backend {
        backend: Backend::Kvm,
        step,
        source,
    }
}

impl SavedVm {
    pub(super) fn into_parts(self) -> (Vec<kvm_irqchip>, kvm_pit_state2) {
        (self.chips, self.pit)
    }
}

impl KvmVm {
    /// Opens `/dev/kvm` and builds a VM over `memory`.
    ///
    /// # Errors
    /// Naming the step that KVM refused.
    pub fn new(memory: &Arc<GuestMemory>) -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(failed("opening /dev/kvm"))?;
        for (cap, name) in REQUIRED {
            if !kvm.check_extension(*cap) {
                return Err(io_failed(name)(io::ErrorKind::Unsupported.into()));
            }
        }
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        let fd = create_vm(&kvm)?;
        let tss = usize::try_from(layout::KVM_TSS_START).unwrap_or(usize::MAX);
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP_START)
            .map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(tss)
            .map_err(failed("KVM_SET_TSS_ADDR"))?;
        map_memory(&fd, memory)?;
        fd.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        fd.create_pit2(pit).map_err(failed("KVM_CREATE_PIT2"))?;
        route_to_ioapic(&fd)?;
        let power_on = save(&fd)?;
        Ok(Self {
            fd,
            _memory: memory.clone(),
            supported: supported.as_slice().to_vec(),
            tsc_khz: Mutex::new(None),
            power_on,
        })
    }

    /// The VM's file descriptor.
    #[must_use]
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Creates vCPU `index` of `cpus` with the machine's CPU model, as far as the host has it.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn vcpu(&self, cpus: u32, index: u32) -> Result<KvmVcpu, Error> {
        let create = |khz: u32| {
            let table = cpuid::kvm_table(cpus, index, khz, &self.supported);
            CpuId::from_entries(&table.entries).map_err(|_| {
                io_failed("building the CPUID table")(io::ErrorKind::InvalidData.into())
            })
        };
        let mut vcpu = KvmVcpu::new(&self.fd, index)?;
        let khz = {
            let mut known = self.tsc_khz.lock().unwrap_or_else(PoisonError::into_inner);
            *known.get_or_insert_with(|| vcpu.tsc_khz())
        };
        vcpu.set_cpuid(&create(khz)?)?;
        Ok(vcpu)
    }

    /// Saves interrupt controllers and timer. No vCPU runs.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn save(&self) -> Result<SavedVm, Error> {
        save(&self.fd)
    }

    /// Puts saved interrupt controllers and timer back. No vCPU runs.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn restore(&self, state: &SavedVm) -> Result<(), Error> {
        self.restore_parts(&state.chips, Some(&state.pit))
    }

    /// As [`KvmVm::restore`], for what another backend may have saved only in part.
    pub(super) fn restore_parts(
        &self,
        chips: &[kvm_irqchip],
        pit: Option<&kvm_pit_state2>,
    ) -> Result<(), Error> {
        for chip in chips {
            self.fd
                .set_irqchip(chip)
                .map_err(failed("KVM_SET_IRQCHIP"))?;
        }
        match pit {
            Some(pit) => self.fd.set_pit2(pit).map_err(failed("KVM_SET_PIT2")),
            None => Ok(()),
        }
    }

    /// Interrupt controllers and timer as at power-on.
    pub(super) fn power_on(&self) -> Result<(), Error> {
        self.restore(&self.power_on)
    }

    /// The guest's kvmclock.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn clock(&self) -> Result<kvm_clock_data, Error> {
        self.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))
    }

    /// Sets the guest's kvmclock.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn set_clock(&self, clock: &kvm_clock_data) -> Result<(), Error> {
        // Flags say what KVM_GET_CLOCK found out; taken back, they would ask for something else.
        let clock = kvm_clock_data { flags: 0, ..*clock };
        self.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))
    }
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    loop {
        match kvm.create_vm() {
            // A signal of the embedding process may interrupt the kernel's set-up.
            Err(e) if e.errno() == libc::EINTR => {}
            other => return other.map_err(failed("KVM_CREATE_VM")),
        }
    }
}

fn map_memory(fd: &VmFd, memory: &GuestMemory) -> Result<(), Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is one mapping of `memory`, of which `KvmVm` keeps a handle that is
        // dropped after the VM; slots do not overlap because regions do not.
        unsafe { fd.set_user_memory_region(slot) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// Every interrupt goes to the I/O APIC alone: the tables declare no PIC, and an interrupt that the
/// guest never set up a PIC for must not reach a vCPU through it.
fn route_to_ioapic(fd: &VmFd) -> Result<(), Error> {
    let entries: Vec<kvm_irq_routing_entry> = (0..layout::IOAPIC_PINS)
        .map(|gsi| {
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..Default::default()
            };
            entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
            entry.u.irqchip.pin = gsi;
            entry
        })
        .collect();
    let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| {
        io_failed("building the interrupt routes")(io::ErrorKind::InvalidData.into())
    })?;
    fd.set_gsi_routing(&routing)
        .map_err(failed("KVM_SET_GSI_ROUTING"))
}

fn save(fd: &VmFd) -> Result<SavedVm, Error> {
    let chip = |chip_id: &u32| {
        let mut chip = kvm_irqchip {
            chip_id: *chip_id,
            ..Default::default()
        };
        fd.get_irqchip(&mut chip)
            .map_err(failed("KVM_GET_IRQCHIP"))?;
        Ok(chip)
    };
    Ok(SavedVm {
        chips: CHIPS.iter().map(chip).collect::<Result<_, Error>>()?,
        pit: fd.get_pit2().map_err(failed("KVM_GET_PIT2"))?,
    })
}

/// An interrupt line: a write to the event descriptor is a pulse.
struct IrqFd(EventFd);

impl Interrupt for IrqFd {
    fn trigger(&self) {
        // Fails only when 2^64 - 2 pulses are unread; the line is high then anyway.
        let _full = self.0.write(1);
    }
}

impl Lines for KvmVm {
    fn line(&self, gsi: u32) -> Result<Arc<dyn Interrupt>, Error> {
        let event =
            EventFd::new(EFD_NONBLOCK).map_err(io_failed("creating an event descriptor"))?;
        self.fd
            .register_irqfd(&event, gsi)
            .map_err(failed("KVM_IRQFD"))?;
        Ok(Arc::new(IrqFd(event)))
    }
}
