//! The software processor's vCPUs as the machine's [`Vcpu`]s.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use provium_cpu::{Activity, Complex, CpuidLeaf, Exit as CpuExit, Ram, RamRegion};
use provium_devices::GuestMemory;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::convert;
use crate::cpuid;
use crate::vcpu::{Exit, Vcpu, VcpuError, VcpuState};

/// All vCPUs of a machine, and the answers that are on their way to them.
pub struct SoftCpus {
    complex: Complex,
    slots: Vec<Slot>,
}

/// Data of the access that a vCPU last came back with.
#[derive(Clone, Copy, Default)]
struct Slot {
    data: [u8; 8],
    /// The access is a read whose answer has not been handed over.
    awaiting: bool,
    /// The instruction that made the access has not retired.
    mid_access: bool,
}

/// The processor's view of guest memory.
fn ram(memory: &GuestMemory) -> Ram {
    let regions = memory.iter().map(|region| RamRegion {
        gpa: region.start_addr().0,
        len: region.len(),
        // The start of a region is inside it, whatever its size.
        host: region
            .get_host_address(MemoryRegionAddress(0))
            .unwrap_or(std::ptr::null_mut()),
    });
    let regions: Vec<_> = regions.filter(|r| !r.host.is_null()).collect();
    // SAFETY: the mappings are valid for reads and writes of their whole length, and
    // `SoftCpus::new`'s caller keeps `memory` alive as long as the processor. All other users of
    // guest memory go through vm-memory's volatile accessors.
    unsafe { Ram::new(regions) }
}

/// The CPU model's table as the processor takes it.
fn model_leaves(cpus: u32, index: u32) -> Vec<CpuidLeaf> {
    let leaf = |e: kvm_cpuid_entry2| CpuidLeaf {
        leaf: e.function,
        subleaf: (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(e.index),
        value: [e.eax, e.ebx, e.ecx, e.edx],
    };
    cpuid::table(cpus, index).into_iter().map(leaf).collect()
}

impl SoftCpus {
    /// vCPUs in reset state over `memory`, one per CPUID table.
    ///
    /// # Safety
    /// `memory` must not be dropped before the returned value.
    pub unsafe fn new(
        memory: &GuestMemory,
        cpuid: Vec<Vec<CpuidLeaf>>,
        wall_clock_ns: u64,
    ) -> Self {
        let slots = vec![Slot::default(); cpuid.len()];
        let mut complex = Complex::new(ram(memory), cpuid);
        complex.set_wall_clock(i64::try_from(wall_clock_ns).unwrap_or(i64::MAX));
        Self { complex, slots }
    }

    /// As [`SoftCpus::new`], with the machine's CPU model.
    ///
    /// # Safety
    /// `memory` must not be dropped before the returned value.
    pub unsafe fn with_model(memory: &GuestMemory, cpus: u32, wall_clock_ns: u64) -> Self {
        let tables = (0..cpus).map(|index| model_leaves(cpus, index)).collect();
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { Self::new(memory, tables, wall_clock_ns) }
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True for a machine without vCPUs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The processor itself.
    pub(crate) fn complex(&mut self) -> &mut Complex {
        &mut self.complex
    }

    /// The processor itself, to look at.
    pub(crate) fn complex_ref(&self) -> &Complex {
        &self.complex
    }

    /// vCPU `index`, to be run from guest time `now`.
    ///
    /// # Panics
    /// If there is no such vCPU.
    pub fn vcpu(&mut self, index: usize, now: u64) -> SoftVcpu<'_> {
        assert!(
            index < self.slots.len(),
            "vCPU {index} of {}",
            self.slots.len()
        );
        SoftVcpu {
            cpus: self,
            index,
            now,
        }
    }

    /// Guest time that vCPU `index` has reached.
    #[must_use]
    pub fn ticks(&self, index: usize) -> u64 {
        self.complex.ticks(index)
    }

    /// Whether vCPU `index` executes instructions (rather than waiting for something).
    pub(crate) fn is_running(&self, index: usize) -> bool {
        self.complex.cpu(index).activity() == Activity::Running
    }

    /// Whether vCPU `index` has something to do at guest time `now`.
    pub(crate) fn runnable(&self, index: usize, now: u64) -> bool {
        self.complex.runnable(index, now)
    }

    /// When the timer of a halted vCPU would make it look up.
    pub(crate) fn wake_time(&self, index: usize) -> Option<u64> {
        let halted = self.complex.cpu(index).activity() == Activity::Halted;
        self.complex.next_timer(index).filter(|_| halted)
    }

    /// Instructions retired by all vCPUs.
    pub(crate) fn retired(&self) -> u64 {
        (0..self.len()).map(|i| self.complex.cpu(i).retired()).sum()
    }
}

/// One vCPU of a [`SoftCpus`].
pub struct SoftVcpu<'a> {
    cpus: &'a mut SoftCpus,
    index: usize,
    now: u64,
}

impl<'a> SoftVcpu<'a> {
    /// Executes one instruction or delivers one interrupt.
    pub fn step(&mut self) -> Exit<'_> {
        self.hand_over();
        let exit = self.cpus.complex.step(self.index, self.now);
        self.now = self.cpus.ticks(self.index);
        lend(&mut self.cpus.slots[self.index], exit)
    }

    /// Runs until guest time `end` or an exit; also says which time was reached.
    pub(crate) fn into_run(mut self, end: u64) -> (Exit<'a>, u64) {
        self.hand_over();
        let exit = self.cpus.complex.run(self.index, self.now, end);
        let reached = self.cpus.ticks(self.index);
        (lend(&mut self.cpus.slots[self.index], exit), reached)
    }

    fn hand_over(&mut self) {
        let slot = &mut self.cpus.slots[self.index];
        if std::mem::take(&mut slot.awaiting) {
            let value = u64::from_le_bytes(slot.data);
            self.cpus.complex.complete_read(self.index, value);
        }
    }
}

/// The machine's form of an exit, its data lying in `slot`.
fn lend(slot: &mut Slot, exit: CpuExit) -> Exit<'_> {
    slot.awaiting = matches!(exit, CpuExit::MmioRead { .. } | CpuExit::PioIn { .. });
    slot.mid_access =
        slot.awaiting || matches!(exit, CpuExit::MmioWrite { .. } | CpuExit::PioOut { .. });
    match exit {
        CpuExit::Quantum => Exit::Interrupted,
        CpuExit::Idle => Exit::Hlt,
        CpuExit::Shutdown => Exit::Shutdown,
        CpuExit::MmioRead { gpa, len } => {
            slot.data = [0; 8];
            Exit::MmioRead {
                address: gpa,
                data: &mut slot.data[..usize::from(len)],
            }
        }
        CpuExit::MmioWrite { gpa, len, data } => {
            slot.data = data.to_le_bytes();
            Exit::MmioWrite {
                address: gpa,
                data: &slot.data[..usize::from(len)],
            }
        }
        CpuExit::PioIn { port, len } => {
            slot.data = [0; 8];
            let size = usize::from(len);
            Exit::PioRead {
                port,
                size,
                data: &mut slot.data[..size],
            }
        }
        CpuExit::PioOut { port, len, data } => {
            slot.data = u64::from(data).to_le_bytes();
            let size = usize::from(len);
            Exit::PioWrite {
                port,
                size,
                data: &slot.data[..size],
            }
        }
    }
}

impl Vcpu for SoftVcpu<'_> {
    fn run(&mut self, budget: u64) -> Result<Exit<'_>, VcpuError> {
        self.hand_over();
        let until = self.now.saturating_add(budget);
        let exit = self.cpus.complex.run(self.index, self.now, until);
        self.now = self.cpus.ticks(self.index);
        Ok(lend(&mut self.cpus.slots[self.index], exit))
    }

    fn finish_access(&mut self) -> Result<Option<Exit<'_>>, VcpuError> {
        if !self.cpus.slots[self.index].mid_access {
            return Ok(None);
        }
        match self.step() {
            Exit::Hlt | Exit::Shutdown | Exit::Interrupted => Ok(None),
            access => Ok(Some(access)),
        }
    }

    fn state(&mut self) -> Result<VcpuState, VcpuError> {
        if self.cpus.slots[self.index].mid_access {
            let index = u32::try_from(self.index).unwrap_or(u32::MAX);
            let reason = "an access is under way".to_owned();
            return Err(VcpuError::BadState { index, reason });
        }
        Ok(convert::to_kvm(&self.cpus.complex.cpu(self.index).state()))
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), VcpuError> {
        let index = u32::try_from(self.index).unwrap_or(u32::MAX);
        let arch = convert::from_kvm(state, index)?;
        self.cpus.slots[self.index] = Slot::default();
        self.cpus.complex.cpu_mut(self.index).set_state(&arch);
        Ok(())
    }
}
