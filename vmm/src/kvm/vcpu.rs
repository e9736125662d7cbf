//! One vCPU on KVM.

use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{CpuId, KVM_EXIT_INTERNAL_ERROR, kvm_msr_entry, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use super::kick::{Deadline, Kickable, install_handler};
use super::state;
use crate::vcpu::{Exit, Vcpu, VcpuError, VcpuState};

/// A vCPU file descriptor as a [`Vcpu`].
pub struct KvmVcpu {
    fd: VcpuFd,
    index: u32,
}

impl KvmVcpu {
    /// Creates vCPU `index` of `vm`; it needs a CPUID table before it runs.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn new(vm: &VmFd, index: u32) -> Result<Self, VcpuError> {
        let fd = vm
            .create_vcpu(u64::from(index))
            .map_err(state::failed(index, "KVM_CREATE_VCPU"))?;
        Ok(Self { fd, index })
    }

    /// Sets what CPUID answers.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn set_cpuid(&mut self, cpuid: &CpuId) -> Result<(), VcpuError> {
        self.fd
            .set_cpuid2(cpuid)
            .map_err(state::failed(self.index, "KVM_SET_CPUID2"))
    }

    /// Rate of the guest's TSC; 0 if KVM does not tell.
    pub(super) fn tsc_khz(&self) -> u32 {
        self.fd.get_tsc_khz().unwrap_or(0)
    }

    /// Sets the rate of the guest's TSC, where it is another than that of a snapshot. Processors
    /// that cannot scale it are no obstacle: the guest's clock is kvmclock, which KVM fills anew
    /// with the rate there is, and a deadline that comes early is armed again by whoever set it.
    pub(super) fn try_tsc_khz(&self, khz: u32) {
        if khz != 0 && khz != self.tsc_khz() {
            let _unscaled = self.fd.set_tsc_khz(khz);
        }
    }

    /// Reads time-stamp counter and timer deadline, which stand still while the machine is paused.
    pub(super) fn timers(&self) -> Result<Vec<kvm_msr_entry>, VcpuError> {
        state::read_msrs(
            &self.fd,
            self.index,
            &[state::MSR_TSC, state::MSR_TSC_DEADLINE],
        )
    }

    /// Puts back what `timers` read.
    pub(super) fn set_timers(&self, timers: &[kvm_msr_entry]) -> Result<(), VcpuError> {
        state::write_msrs(&self.fd, self.index, timers.iter())
    }

    /// The page shared with the kernel.
    pub(super) fn run_page(&mut self) -> &mut kvm_run {
        self.fd.get_kvm_run()
    }

    /// Runs until an exit or until `limit` of host time has passed; true if there was an exit of
    /// the guest's own.
    ///
    /// # Errors
    /// As [`Vcpu::run`], and when the time limit cannot be set up.
    pub fn run_at_most(&mut self, limit: Duration) -> Result<bool, VcpuError> {
        let index = self.index;
        let failed = |operation| {
            move |source| VcpuError::Operation {
                index,
                operation,
                source,
            }
        };
        install_handler().map_err(failed("installing the kick signal's handler"))?;
        let kickable = Arc::new(Kickable::default());
        let page: *mut kvm_run = self.run_page();
        // SAFETY: the page is that of this vCPU, which outlives the guard.
        let _kickable = unsafe { kickable.register(page) };
        let _deadline = Deadline::new(&kickable, limit).map_err(failed("starting a thread"))?;
        Ok(!matches!(self.run(u64::MAX)?, Exit::Interrupted))
    }

    fn stuck(&self, reason: String) -> VcpuError {
        let rip = self.fd.get_regs().map_or(0, |r| r.rip);
        VcpuError::Stuck {
            index: self.index,
            rip,
            reason,
        }
    }

    fn internal_error(&mut self) -> VcpuError {
        let run = self.fd.get_kvm_run();
        let reason = if run.exit_reason == KVM_EXIT_INTERNAL_ERROR {
            // SAFETY: `internal` is the union's member for this exit reason.
            let internal = unsafe { run.__bindgen_anon_1.internal };
            let used = (internal.ndata as usize).min(internal.data.len());
            let data: Vec<String> = internal.data[..used]
                .iter()
                .map(|d| format!("{d:x}"))
                .collect();
            format!(
                "KVM internal error, suberror {} ({})",
                internal.suberror,
                data.join(" ")
            )
        } else {
            format!("KVM exit {}", run.exit_reason)
        };
        self.stuck(reason)
    }
}

/// An exit taken apart, so that other paths may use the vCPU before data is lent out. The pointers
/// lead into the `kvm_run` mapping.
enum Kind {
    Pio {
        port: u16,
        write: bool,
        data: *mut [u8],
    },
    Mmio {
        address: u64,
        write: bool,
        data: *mut [u8],
    },
    Interrupted,
    Hlt,
    Shutdown,
    Internal,
    Other(String),
}

impl Kind {
    fn of(result: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Result<Self, kvm_ioctls::Error> {
        Ok(match result {
            Ok(VcpuExit::IoIn(port, data)) => Self::Pio {
                port,
                write: false,
                data,
            },
            Ok(VcpuExit::IoOut(port, data)) => Self::Pio {
                port,
                write: true,
                data: ptr::from_ref(data).cast_mut(),
            },
            Ok(VcpuExit::MmioRead(address, data)) => Self::Mmio {
                address,
                write: false,
                data,
            },
            Ok(VcpuExit::MmioWrite(address, data)) => Self::Mmio {
                address,
                write: true,
                data: ptr::from_ref(data).cast_mut(),
            },
            Ok(VcpuExit::Hlt) => Self::Hlt,
            Ok(VcpuExit::Shutdown) => Self::Shutdown,
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Self::Interrupted,
            Ok(VcpuExit::InternalError) => Self::Internal,
            Ok(VcpuExit::FailEntry(reason, cpu)) => Self::Other(format!(
                "KVM cannot enter the guest (reason {reason:#x}, host CPU {cpu})"
            )),
            Ok(other) => Self::Other(format!("unexpected KVM exit {other:?}")),
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => Self::Interrupted,
            Err(e) => return Err(e),
        })
    }
}

impl KvmVcpu {
    /// Enters the guest once and lends the exit out; an error of KVM_RUN is this vCPU's.
    fn enter(&mut self) -> Result<Exit<'_>, VcpuError> {
        match Kind::of(self.fd.run()).map_err(state::failed(self.index, "KVM_RUN"))? {
            Kind::Pio { port, write, data } => {
                // SAFETY: `io` is the union's member for this exit reason.
                let io = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io };
                let size = usize::from(io.size).max(1);
                // SAFETY: the slice lies in the kvm_run mapping, which lives as long as `self.fd`,
                // and the returned borrow of `self` keeps everybody else away from it.
                let data = unsafe { &mut *data };
                Ok(match write {
                    true => Exit::PioWrite { port, size, data },
                    false => Exit::PioRead { port, size, data },
                })
            }
            Kind::Mmio {
                address,
                write,
                data,
            } => {
                // SAFETY: as above.
                let data = unsafe { &mut *data };
                Ok(match write {
                    true => Exit::MmioWrite { address, data },
                    false => Exit::MmioRead { address, data },
                })
            }
            Kind::Interrupted => {
                self.fd.set_kvm_immediate_exit(0);
                Ok(Exit::Interrupted)
            }
            Kind::Hlt => Ok(Exit::Hlt),
            Kind::Shutdown => Ok(Exit::Shutdown),
            Kind::Internal => Err(self.internal_error()),
            Kind::Other(reason) => Err(self.stuck(reason)),
        }
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, _budget: u64) -> Result<Exit<'_>, VcpuError> {
        self.enter()
    }

    fn finish_access(&mut self) -> Result<Option<Exit<'_>>, VcpuError> {
        self.fd.set_kvm_immediate_exit(1);
        // An interruption clears the flag; after a further access it must not stay either.
        let page: *mut kvm_run = self.run_page();
        match self.enter()? {
            Exit::Interrupted => Ok(None),
            exit => {
                // SAFETY: the page stays mapped as long as `self`; the byte is no part of what
                // `exit` borrows.
                unsafe { ptr::write_volatile(&raw mut (*page).immediate_exit, 0) };
                Ok(Some(exit))
            }
        }
    }

    fn state(&mut self) -> Result<VcpuState, VcpuError> {
        state::save(&self.fd, self.index)
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), VcpuError> {
        state::load(&self.fd, self.index, state)
    }
}
