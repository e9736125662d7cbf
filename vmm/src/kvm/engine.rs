//! The threads of a KVM machine, and what other threads see of its vCPUs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvm_bindings::{kvm_clock_data, kvm_msr_entry};
use provium_devices::Clock;

use super::events::{DeviceLoop, Wake};
use super::kick::{self, Kickable};
use super::state::{MSR_TSC, MSR_TSC_DEADLINE};
use super::vcpu::KvmVcpu;
use super::vm::{KvmVm, io_failed};
use crate::board::Board;
use crate::boot::BootInfo;
use crate::clock::MachineClock;
use crate::control::Go;
use crate::cpuid;
use crate::engine::{Engine, MemoryChange, Parts, chain, restart};
use crate::error::Error;
use crate::lifecycle::StopCause;
use crate::snapshot::EngineState;
use crate::vcpu::{Exit, Vcpu, VcpuError, VcpuState, settled_state};

/// A vCPU of a suspended guest looks this often whether it was woken.
const SUSPENDED_NAP: Duration = Duration::from_millis(10);

/// One vCPU and the handle on its thread.
struct Seat {
    /// Held by the vCPU's thread while it runs, by others while the world stands still.
    vcpu: Mutex<KvmVcpu>,
    kick: Kickable,
    /// The state right after creation.
    power_on: VcpuState,
}

pub(super) struct KvmEngine {
    vm: Arc<KvmVm>,
    board: Arc<Board>,
    clock: Arc<MachineClock>,
    seats: Vec<Seat>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Time while paused: kvmclock and each vCPU's TSC and timer.
    frozen: Mutex<Option<Frozen>>,
}

struct Frozen {
    clock: kvm_clock_data,
    timers: Vec<Vec<kvm_msr_entry>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KvmEngine {
    /// Creates the vCPUs and starts all threads.
    pub(super) fn start(
        parts: Parts,
        vm: Arc<KvmVm>,
        boot: Option<&BootInfo>,
    ) -> Result<Arc<Self>, Error> {
        kick::install_handler().map_err(io_failed("installing the kick signal's handler"))?;
        let cpus = parts.shared.config.cpus;
        let seat = |index| {
            let mut vcpu = vm.vcpu(cpus, index)?;
            let power_on = vcpu.state()?;
            Ok(Seat {
                vcpu: Mutex::new(vcpu),
                kick: Kickable::default(),
                power_on,
            })
        };
        let seats = (0..cpus).map(seat).collect::<Result<Vec<_>, Error>>()?;
        let wake = Wake::new()?;
        let devices = DeviceLoop::new(parts.clone(), &vm, wake.clone())?;
        let threads = Mutex::new(Vec::new());
        let board = parts.board.clone();
        let engine = Arc::new(Self {
            vm,
            board,
            clock: parts.shared.clock.clone(),
            seats,
            threads,
            frozen: Mutex::new(None),
        });
        if let Some(boot) = boot {
            engine.enter_kernel(boot)?;
            parts.shared.clock.set_paused(false);
        }
        let weak = Arc::downgrade(&engine);
        let nudge = wake.clone();
        parts
            .shared
            .control
            .set_nudge(Box::new(move || nudge.wake()));
        parts.shared.control.set_kick(Box::new(move || {
            wake.wake();
            if let Some(engine) = weak.upgrade() {
                engine.seats.iter().for_each(|seat| seat.kick.kick());
            }
        }));
        if let Err(e) = engine.start_threads(&parts, devices) {
            parts.shared.stop(StopCause::Killed);
            engine.join();
            return Err(e);
        }
        Ok(engine)
    }

    fn start_threads(self: &Arc<Self>, parts: &Parts, devices: DeviceLoop) -> Result<(), Error> {
        let engine = self.clone();
        self.spawn(parts, "devices".to_owned(), move || devices.run(&*engine))?;
        for index in 0..self.seats.len() {
            let (engine, parts_) = (self.clone(), parts.clone());
            self.spawn(parts, format!("vcpu{index}"), move || {
                engine.run_vcpu(&parts_, index)
            })?;
        }
        Ok(())
    }

    fn spawn(
        &self,
        parts: &Parts,
        role: String,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let shared = parts.shared.clone();
        shared.control.enter();
        let guarded = {
            let parts = parts.clone();
            move || {
                let _departure = Departure(&parts);
                run();
            }
        };
        let spawned = thread::Builder::new()
            .name(format!("{role}-{}", shared.name()))
            .spawn(guarded);
        match spawned {
            Ok(handle) => {
                lock(&self.threads).push(handle);
                Ok(())
            }
            Err(source) => {
                shared.control.leave();
                Err(io_failed("starting a thread")(source))
            }
        }
    }

    /// Puts all vCPUs into power-on state and the boot processor at the kernel's entry.
    fn enter_kernel(&self, boot: &BootInfo) -> Result<(), Error> {
        for (index, seat) in self.seats.iter().enumerate() {
            let mut state = seat.power_on.clone();
            apply_msrs(&mut state, &cpuid::boot_msrs());
            if index == 0 {
                let start = boot.initial_state();
                state.regs = start.regs;
                start.apply(&mut state.sregs);
                apply_msrs(&mut state, &start.msrs);
            }
            lock(&seat.vcpu).set_state(&state)?;
        }
        Ok(())
    }

    /// A vCPU thread's loop.
    fn run_vcpu(&self, parts: &Parts, index: usize) {
        let seat = &self.seats[index];
        let page: *mut _ = lock(&seat.vcpu).run_page();
        // SAFETY: the page belongs to this seat's vCPU, which `self` keeps until after this
        // thread's end.
        let _kickable = unsafe { seat.kick.register(page) };
        let shared = &parts.shared;
        loop {
            match shared.control.checkpoint(|| 0, 0) {
                Go::Stop => return,
                Go::Reset(by) => {
                    restart(shared, &parts.board, &parts.loader, self, by);
                    shared.control.reset_done();
                    continue;
                }
                Go::Run { .. } => {}
            }
            if parts.board.button.is_suspended() {
                shared.control.idle(Some(SUSPENDED_NAP));
                continue;
            }
            let mut vcpu = lock(&seat.vcpu);
            match vcpu.run(u64::MAX) {
                Ok(Exit::Shutdown) => shared.triple_fault(),
                Ok(exit) => {
                    shared.exits.count(&exit);
                    parts.board.answer(exit);
                }
                Err(e) => shared.stop(StopCause::VcpuError(chain(&e))),
            }
        }
    }
}

fn apply_msrs(state: &mut VcpuState, msrs: &[kvm_msr_entry]) {
    for msr in msrs {
        match state.msrs.iter_mut().find(|m| m.index == msr.index) {
            Some(known) => known.data = msr.data,
            None => state.msrs.push(*msr),
        }
    }
}

/// Leaves the control when a thread ends, in whatever way.
struct Departure<'a>(&'a Parts);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let cause = "a thread of the machine failed (a fault of Provium's own)".to_owned();
            self.0.shared.stop(StopCause::VcpuError(cause));
        }
        self.0.shared.control.leave();
    }
}

impl KvmEngine {
    /// Ends the accesses that vCPUs came back with, whatever they wanted. KVM finishes an access when
    /// the vCPU is entered the next time, instruction pointer and all: it would do that to a state
    /// that was put in place meanwhile.
    fn abandon_accesses(&self) -> Result<(), VcpuError> {
        for seat in &self.seats {
            settled_state(&mut *lock(&seat.vcpu), |_| {})?;
        }
        Ok(())
    }
}

impl Engine for KvmEngine {
    fn reset(&self, boot: &BootInfo) -> Result<(), Error> {
        self.abandon_accesses()?;
        self.vm.power_on()?;
        if let Some(frozen) = &mut *lock(&self.frozen) {
            // Timers that were armed before are none of the new guest's.
            frozen.timers.clear();
        }
        self.enter_kernel(boot)
    }

    fn states(&self) -> Result<Vec<VcpuState>, VcpuError> {
        let state = |seat: &Seat| {
            settled_state(&mut *lock(&seat.vcpu), |exit| {
                self.board.answer(exit);
            })
        };
        self.seats.iter().map(state).collect()
    }

    fn paused(&self, paused: bool) -> Result<(), Error> {
        let mut frozen = lock(&self.frozen);
        if paused {
            let timers = self.seats.iter().map(|seat| lock(&seat.vcpu).timers());
            let timers = timers.collect::<Result<_, VcpuError>>()?;
            *frozen = Some(Frozen {
                clock: self.vm.clock()?,
                timers,
            });
        } else if let Some(Frozen { clock, timers }) = frozen.take() {
            self.vm.set_clock(&clock)?;
            for (seat, timers) in self.seats.iter().zip(&timers) {
                lock(&seat.vcpu).set_timers(timers)?;
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<EngineState, Error> {
        let mut vcpus = self.states()?;
        let frozen = lock(&self.frozen);
        let (Some(frozen), Some(seat)) = (&*frozen, self.seats.first()) else {
            return Err(io_failed("saving a machine that runs")(
                std::io::ErrorKind::InvalidInput.into(),
            ));
        };
        // The counters as they stood when the machine was paused, not as they have run on since.
        for (vcpu, timers) in vcpus.iter_mut().zip(&frozen.timers) {
            apply_msrs(vcpu, timers);
        }
        let (chips, pit) = self.vm.save()?.into_parts();
        Ok(EngineState {
            vcpus,
            chips,
            pit: Some(pit),
            kvmclock: Some(frozen.clock),
            tsc_khz: lock(&seat.vcpu).tsc_khz(),
            instructions: None,
            last_turn: 0,
        })
    }

    fn load(&self, state: &EngineState) -> Result<(), Error> {
        self.abandon_accesses()?;
        self.vm.power_on()?;
        self.vm.restore_parts(&state.chips, state.pit.as_ref())?;
        // What `soft` calls guest time is what KVM's clock counts: nanoseconds since the start.
        let clock = state.kvmclock.unwrap_or(kvm_clock_data {
            clock: self.clock.now_ns(),
            ..Default::default()
        });
        // Before the vCPUs' clock MSRs, from whose writing on KVM fills the guest's clock pages.
        self.vm.set_clock(&clock)?;
        let mut timers = Vec::with_capacity(self.seats.len());
        for (seat, saved) in self.seats.iter().zip(&state.vcpus) {
            let mut vcpu = lock(&seat.vcpu);
            vcpu.try_tsc_khz(state.tsc_khz);
            vcpu.set_state(saved)?;
            let kept = |m: &&kvm_msr_entry| [MSR_TSC, MSR_TSC_DEADLINE].contains(&m.index);
            timers.push(saved.msrs.iter().filter(kept).copied().collect());
        }
        *lock(&self.frozen) = Some(Frozen { clock, timers });
        Ok(())
    }

    fn memory_changes(&self, _: MemoryChange) {
        // The processor sees to its own caches.
    }

    fn instructions(&self) -> Option<u64> {
        None
    }

    fn unknown_instructions(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                // A panic of that thread has been turned into a stop cause by `Departure`.
                drop(thread.join());
            }
        }
    }
}
