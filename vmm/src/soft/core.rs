//! The software backend's inside: vCPUs, interrupt controller and virtual time, moved by one
//! thread.
//!
//! There is one line of time, and the vCPUs take turns on it, like several on one processor of a
//! host: while one executes, the others stand still. So whatever one vCPU does is before whatever
//! the next one sees, time stamps included, and the order of all events depends on nothing but the
//! machine's inputs. Idle vCPUs take no time; when all are idle, time jumps to whatever comes next
//! (L-247).

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provium_devices::Clock;
use provium_devices::dirty::PAGE_SIZE;

use super::cpus::SoftCpus;
use super::ioapic::{IoApic, Pins};
use crate::boot::BootInfo;
use crate::cpuid;
use crate::engine::{MemoryChange, Parts};
use crate::error::Error;
use crate::layout::{VIRTIO_MMIO_SIZE, VIRTIO_MMIO_START, VIRTIO_SLOTS};
use crate::memory;
use crate::pace::next_end;
use crate::snapshot::EngineState;
use crate::vcpu::{Exit, Vcpu, VcpuError, VcpuState, settled_state};

/// Longest span of a single vCPU's turn: short enough that its thread looks up every few
/// milliseconds of host time.
const QUANTUM_ALONE: u64 = 250_000;
/// Longest turn among several vCPUs: what others may have to wait for theirs.
const QUANTUM_SHARED: u64 = 20_000;
/// Stores in this range may make a device write to guest memory.
const DEVICE_WINDOWS: Range<u64> =
    VIRTIO_MMIO_START..VIRTIO_MMIO_START + VIRTIO_SLOTS as u64 * VIRTIO_MMIO_SIZE;

/// What became of a stretch of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Time has moved on.
    Ran,
    /// Every vCPU is idle and nothing is due before the horizon: only the host can change that.
    Asleep,
    /// A vCPU has shut down.
    TripleFault,
}

pub(super) struct Core {
    // Declared before `parts`, so that it is gone before guest memory.
    cpus: SoftCpus,
    parts: Parts,
    ioapic: Arc<Mutex<IoApic>>,
    pins: Arc<Pins>,
    /// The vCPU that had the last turn.
    last: usize,
    /// Generation of the bell's signal that the waiters have judged.
    rung: u64,
    /// Counts of processors that a restart has replaced.
    retired_before: u64,
    unknown_before: Vec<(String, u64)>,
}

fn lock(m: &Mutex<IoApic>) -> MutexGuard<'_, IoApic> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_cpus(parts: &Parts) -> SoftCpus {
    // SAFETY: the only place of the processors is `Core::cpus`, which is dropped or replaced while
    // `Core::parts` still holds guest memory.
    unsafe {
        let shared = &parts.shared;
        SoftCpus::with_model(
            &shared.memory,
            shared.config.cpus,
            shared.clock.wall_base_ns(),
        )
    }
}

/// Puts fresh processors at the kernel's entry.
fn enter_kernel(cpus: &mut SoftCpus, boot: &BootInfo, now: u64) -> Result<(), VcpuError> {
    for index in 0..cpus.len() {
        let mut vcpu = cpus.vcpu(index, now);
        let mut state = vcpu.state()?;
        apply_msrs(&mut state, &cpuid::boot_msrs());
        if index == 0 {
            let start = boot.initial_state();
            state.regs = start.regs;
            start.apply(&mut state.sregs);
            apply_msrs(&mut state, &start.msrs);
        }
        vcpu.set_state(&state)?;
    }
    Ok(())
}

fn apply_msrs(state: &mut VcpuState, msrs: &[kvm_bindings::kvm_msr_entry]) {
    for msr in msrs {
        match state.msrs.iter_mut().find(|m| m.index == msr.index) {
            Some(known) => known.data = msr.data,
            None => state.msrs.push(*msr),
        }
    }
}

impl Core {
    pub(super) fn new(
        parts: Parts,
        boot: Option<&BootInfo>,
        ioapic: Arc<Mutex<IoApic>>,
        pins: Arc<Pins>,
    ) -> Result<Self, Error> {
        let mut cpus = new_cpus(&parts);
        if let Some(boot) = boot {
            enter_kernel(&mut cpus, boot, parts.shared.clock.now_ns())?;
        }
        Ok(Self {
            parts,
            cpus,
            ioapic,
            pins,
            last: 0,
            rung: 0,
            retired_before: 0,
            unknown_before: Vec::new(),
        })
    }

    /// Power-on state, at the kernel's entry.
    pub(super) fn reset(&mut self, boot: &BootInfo) -> Result<(), Error> {
        self.retired_before = self.retired();
        self.unknown_before = self.unknown();
        self.cpus = new_cpus(&self.parts);
        lock(&self.ioapic).reset();
        self.pins.take();
        enter_kernel(&mut self.cpus, boot, self.parts.shared.clock.now_ns())?;
        Ok(())
    }

    /// Everything, as of one instant: the time that the vCPU furthest ahead has reached.
    pub(super) fn save(&mut self) -> Result<EngineState, Error> {
        // Finishes what is under way.
        self.states()?;
        let clock = &self.parts.shared.clock;
        for index in 0..self.cpus.len() {
            clock.advance_to(self.cpus.ticks(index));
        }
        let now = clock.now_ns();
        let mut vcpus = Vec::with_capacity(self.cpus.len());
        for index in 0..self.cpus.len() {
            self.cpus.complex().set_ticks(index, now);
            vcpus.push(self.cpus.vcpu(index, now).state()?);
        }
        Ok(EngineState {
            vcpus,
            chips: vec![lock(&self.ioapic).save_chip()],
            pit: None,
            kvmclock: None,
            tsc_khz: cpuid::SOFT_TSC_KHZ,
            instructions: Some(self.retired()),
            last_turn: self.last,
        })
    }

    /// Drops decoded code that is about to change with RAM.
    pub(super) fn memory_changes(&mut self, change: MemoryChange) {
        let complex = self.cpus.complex();
        if change == MemoryChange::Rewound {
            let pages: Vec<u64> = complex.code_pages().collect();
            let written = memory::for_each_own_page_of(&self.parts.shared.memory, &pages, |page| {
                complex.code_written(page, PAGE_SIZE as u64);
            });
            if written.is_ok() {
                return;
            }
            // Without the kernel's books, everything may have been written.
        }
        complex.forget_code();
    }

    /// Puts a saved state back, into fresh processors that keep what is still good of the code
    /// that those before have decoded.
    pub(super) fn load(&mut self, state: &EngineState) -> Result<(), Error> {
        let mut cpus = new_cpus(&self.parts);
        cpus.complex().adopt_code(self.cpus.complex());
        let now = self.parts.shared.clock.now_ns();
        for (index, vcpu) in state.vcpus.iter().enumerate() {
            cpus.complex().set_ticks(index, now);
            cpus.vcpu(index, now).set_state(vcpu)?;
            if state.tsc_khz != cpuid::SOFT_TSC_KHZ {
                cpus.complex().republish_clock(index);
            }
        }
        self.cpus = cpus;
        {
            let mut ioapic = lock(&self.ioapic);
            ioapic.reset();
            state
                .chips
                .iter()
                .for_each(|chip| ioapic.restore_chip(chip));
        }
        self.pins.take();
        self.last = state.last_turn.min(state.vcpus.len().saturating_sub(1));
        self.retired_before = state.instructions.unwrap_or(0);
        self.unknown_before.clear();
        // What devices have written, before and while they were put back.
        self.note_foreign_writes();
        Ok(())
    }

    pub(super) fn retired(&self) -> u64 {
        self.retired_before + self.cpus.retired()
    }

    /// Instructions the processor lacks, with counts.
    pub(super) fn unknown(&self) -> Vec<(String, u64)> {
        let mut all = self.unknown_before.clone();
        for (name, count) in self.cpus.complex_ref().unknown_instructions() {
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, total)) => *total += count,
                None => all.push((name.clone(), *count)),
            }
        }
        all
    }

    /// All vCPUs' states; accesses that are under way are finished first.
    pub(super) fn states(&mut self) -> Result<Vec<VcpuState>, VcpuError> {
        let now = self.parts.shared.clock.now_ns();
        let board = &self.parts.board;
        let mut states = Vec::with_capacity(self.cpus.len());
        for index in 0..self.cpus.len() {
            let at = now.max(self.cpus.ticks(index));
            let answer = |exit: Exit<'_>| {
                board.answer(exit);
            };
            states.push(settled_state(&mut self.cpus.vcpu(index, at), answer)?);
        }
        self.take_interrupts();
        Ok(states)
    }

    /// Takes up host activity: kicked devices, due alarms, memory that the host has written.
    pub(super) fn take_up_activity(&mut self) {
        self.parts.shared.clock.fire_due();
        self.parts.board.poll_kicked();
        self.take_interrupts();
        self.note_foreign_writes();
    }

    /// Gives the next vCPU that has something to do its turn, but not (by more than the rest of a
    /// block) beyond `until`; moves time on if none has.
    pub(super) fn run(&mut self, until: u64) -> Progress {
        let clock = self.parts.shared.clock.clone();
        let now = clock.now_ns();
        let alarm = clock.next_alarm_ns().unwrap_or(u64::MAX);
        if self.parts.board.button.is_suspended() {
            return self.skip_idle(now, until, alarm);
        }
        let Some(index) = self.next_runnable(now) else {
            let next = alarm.min(self.next_timer_of_others(usize::MAX));
            return self.skip_idle(now, until, next);
        };
        let alone = self.cpus.len() == 1;
        let quantum = if alone { QUANTUM_ALONE } else { QUANTUM_SHARED };
        let due = alarm.min(self.next_timer_of_others(index)).max(now + 1);
        let end = now.saturating_add(quantum).min(until).min(due);
        // A run may end there (see [`crate::pace`]), so a turn always does.
        let end = end.min(next_end(now));
        self.last = index;
        let shutdown = self.turn(index, now, end);
        clock.advance_to(self.cpus.ticks(index));
        if shutdown {
            Progress::TripleFault
        } else {
            Progress::Ran
        }
    }

    /// For how long from now nothing is due.
    pub(super) fn idle_ns(&self) -> u64 {
        let clock = &self.parts.shared.clock;
        let now = clock.now_ns();
        let alarm = clock.next_alarm_ns().unwrap_or(u64::MAX);
        let next = match self.next_runnable(now) {
            _ if self.parts.board.button.is_suspended() => alarm,
            Some(_) => now,
            None => alarm.min(self.next_timer_of_others(usize::MAX)),
        };
        next.saturating_sub(now)
    }

    /// The first vCPU after the one that had the last turn which has something to do.
    fn next_runnable(&self, now: u64) -> Option<usize> {
        let count = self.cpus.len();
        (1..=count)
            .map(|k| (self.last + k) % count)
            .find(|i| self.cpus.runnable(*i, now))
    }

    /// When the first timer of a halted vCPU other than `index` is due.
    fn next_timer_of_others(&self, index: usize) -> u64 {
        let others = (0..self.cpus.len()).filter(|i| *i != index);
        others
            .filter_map(|i| self.cpus.wake_time(i))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// All vCPUs are idle, or suspended: moves time to `next`, when something is due.
    fn skip_idle(&mut self, now: u64, until: u64, next: u64) -> Progress {
        if next == u64::MAX && until == u64::MAX {
            return Progress::Asleep;
        }
        self.parts.shared.clock.advance_to(next.min(until).max(now));
        Progress::Ran
    }

    /// Runs one vCPU from `now` to `end`, or until it is idle or the host is concerned. True if it
    /// has shut down.
    fn turn(&mut self, index: usize, now: u64, end: u64) -> bool {
        let alone = self.cpus.len() == 1;
        let mut at = now;
        while at < end && self.cpus.runnable(index, at) {
            let step = self.advance(index, at, end);
            at = self.cpus.ticks(index);
            match step {
                Step::Shutdown => return true,
                // A vCPU that spins leaves the rest of its turn to the one it waits for.
                Step::Idle if !alone && self.cpus.is_running(index) => break,
                // Somebody on the host has something to do with what the guest just did: machine
                // time is exactly here.
                Step::Access if self.host_is_concerned() => break,
                Step::Idle | Step::Budget | Step::Access => {}
            }
        }
        false
    }

    /// Runs vCPU `index` from `at` until `end` or an exit, and answers the exit.
    fn advance(&mut self, index: usize, at: u64, end: u64) -> Step {
        let shared = &self.parts.shared;
        let (exit, reached) = self.cpus.vcpu(index, at).into_run(end);
        shared.exits.count(&exit);
        let dma =
            matches!(&exit, Exit::MmioWrite { address, .. } if DEVICE_WINDOWS.contains(address));
        match exit {
            Exit::Hlt => return Step::Idle,
            Exit::Shutdown => return Step::Shutdown,
            Exit::Interrupted => return Step::Budget,
            access => {
                shared.clock.advance_to(reached);
                self.parts.board.answer(access);
            }
        }
        self.take_interrupts();
        if dma {
            self.note_foreign_writes();
        }
        Step::Access
    }

    /// Whether a host thread waits for something that may just have happened, or wants attention.
    fn host_is_concerned(&mut self) -> bool {
        let shared = &self.parts.shared;
        shared.control.wants_attention()
            || shared.bell.waiters() > 0 && shared.bell.signal().generation() != self.rung
    }

    /// Lets the host's waiters judge their conditions, if there is news for them (see
    /// [`crate::Bell`]).
    pub(super) fn settle(&mut self) {
        let shared = &self.parts.shared;
        if shared.bell.waiters() == 0 {
            return;
        }
        let latest = shared.bell.signal().generation();
        if latest != self.rung {
            shared.bell.settle(|| shared.control.wants_to_hold());
            self.rung = shared.bell.signal().generation();
        }
    }

    /// Turns the pulses that devices have sent into interrupts.
    fn take_interrupts(&mut self) {
        let mut pulses = self.pins.take();
        while pulses != 0 {
            let pin = pulses.trailing_zeros() as usize;
            pulses &= pulses - 1;
            let message = lock(&self.ioapic).pulse(pin);
            if let Some(message) = message {
                self.cpus.complex().deliver(message);
            }
        }
        for vector in self.cpus.complex().take_eois() {
            lock(&self.ioapic).end_of_interrupt(vector);
        }
    }

    /// Drops decoded code that devices or the host have overwritten.
    fn note_foreign_writes(&mut self) {
        let complex = self.cpus.complex();
        memory::drain_dirty(&self.parts.shared.memory, |gpa, len| {
            complex.code_written(gpa, len)
        });
    }
}

#[derive(PartialEq, Eq)]
enum Step {
    Idle,
    Budget,
    Access,
    Shutdown,
}
