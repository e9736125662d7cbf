//! A package of vCPUs over one RAM.

use std::collections::BTreeMap;

use crate::apic::{DeliveryMode, InterruptMessage};
use crate::code::Shared;
use crate::cpu::{Activity, Cpu, Segment, seg};
use crate::cpuid::CpuidLeaf;
use crate::ram::Ram;

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The tick given to [`Complex::run`] has come.
    Quantum,
    /// The vCPU waits for an interrupt ([`Activity::Halted`]) or for start-up, or spins and says so
    /// by PAUSE often enough that another vCPU had better run.
    Idle,
    /// The guest reads `len` (1 to 8) bytes outside RAM; answer by [`Complex::complete_read`] before
    /// running the vCPU again.
    MmioRead {
        /// Guest-physical address.
        gpa: u64,
        /// Bytes.
        len: u8,
    },
    /// The guest writes `len` (1 to 8) bytes outside RAM.
    MmioWrite {
        /// Guest-physical address.
        gpa: u64,
        /// Bytes.
        len: u8,
        /// The bytes, little-endian.
        data: u64,
    },
    /// The guest reads an I/O port of 1, 2 or 4 bytes; answer by [`Complex::complete_read`].
    PioIn {
        /// Port.
        port: u16,
        /// Bytes.
        len: u8,
    },
    /// The guest writes an I/O port of 1, 2 or 4 bytes.
    PioOut {
        /// Port.
        port: u16,
        /// Bytes.
        len: u8,
        /// The value.
        data: u32,
    },
    /// Triple fault: the vCPU has shut down.
    Shutdown,
}

/// All vCPUs of a machine, run one at a time.
pub struct Complex {
    cpus: Vec<Cpu>,
    /// Held here while no vCPU runs.
    shared: Box<Shared>,
}

impl Complex {
    /// A package with one vCPU per CPUID table, in reset state: vCPU 0 is the bootstrap processor,
    /// the others wait for start-up messages.
    pub fn new(ram: Ram, cpuid: Vec<Vec<CpuidLeaf>>) -> Complex {
        let cpus = cpuid
            .into_iter()
            .enumerate()
            .map(|(i, table)| Cpu::new(i, table))
            .collect();
        Complex {
            cpus,
            shared: Box::new(Shared::new(ram)),
        }
    }

    /// Number of vCPUs.
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Whether there is no vCPU.
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// A vCPU.
    ///
    /// # Panics
    /// If there is no vCPU `index`.
    pub fn cpu(&self, index: usize) -> &Cpu {
        &self.cpus[index]
    }

    /// A vCPU, to set its state.
    ///
    /// # Panics
    /// If there is no vCPU `index`.
    pub fn cpu_mut(&mut self, index: usize) -> &mut Cpu {
        &mut self.cpus[index]
    }

    /// Runs a vCPU from tick `now` until tick `until` or an exit, whichever comes first; it may
    /// overshoot by the rest of a block. The tick reached is [`Complex::ticks`].
    ///
    /// # Panics
    /// If there is no vCPU `index`.
    pub fn run(&mut self, index: usize, now: u64, until: u64) -> Exit {
        self.with_shared(index, |cpu| cpu.run(now, until))
    }

    /// Executes exactly one instruction, after delivering an interrupt that is due, as
    /// [`Complex::run`] would.
    ///
    /// # Panics
    /// If there is no vCPU `index`.
    pub fn step(&mut self, index: usize, now: u64) -> Exit {
        self.with_shared(index, |cpu| cpu.run_one(now))
    }

    /// Lends the vCPU what all vCPUs share.
    fn with_cpu<T>(&mut self, index: usize, f: impl FnOnce(&mut Cpu) -> T) -> T {
        let cpu = &mut self.cpus[index];
        std::mem::swap(&mut cpu.shared, &mut self.shared);
        let result = f(cpu);
        std::mem::swap(&mut cpu.shared, &mut self.shared);
        result
    }

    fn with_shared(&mut self, index: usize, f: impl FnOnce(&mut Cpu) -> Exit) -> Exit {
        let exit = self.with_cpu(index, |cpu| {
            crate::exec::sse::mxcsr::enter();
            let exit = f(cpu);
            cpu.collect_mxcsr();
            exit
        });
        for message in std::mem::take(&mut self.shared.messages) {
            self.deliver(message);
        }
        exit
    }

    /// Tick that the vCPU has reached.
    pub fn ticks(&self, index: usize) -> u64 {
        self.cpus[index].ticks
    }

    /// Puts the vCPU at tick `now`, from which its TSC and timers count: before its state is read
    /// for a snapshot, and before one is put back.
    ///
    /// # Panics
    /// If there is no vCPU `index`.
    pub fn set_ticks(&mut self, index: usize, now: u64) {
        self.cpus[index].ticks = now;
    }

    /// Writes the vCPU's kvmclock page anew, for a state that another processor has saved: its TSC
    /// ran at another rate.
    ///
    /// # Panics
    /// If there is no vCPU `index`.
    pub fn republish_clock(&mut self, index: usize) {
        self.with_cpu(index, |cpu| cpu.publish_system_time(cpu.msr.system_time));
    }

    /// Answers [`Exit::MmioRead`] or [`Exit::PioIn`], little-endian.
    pub fn complete_read(&mut self, index: usize, value: u64) {
        let cpu = &mut self.cpus[index];
        if std::mem::take(&mut cpu.replay.awaiting) {
            cpu.replay.push(value);
        }
    }

    /// Whether the vCPU has something to do at tick `now`: it runs, or an interrupt or its timer
    /// would wake it.
    pub fn runnable(&self, index: usize, now: u64) -> bool {
        let cpu = &self.cpus[index];
        match cpu.activity {
            Activity::Running => true,
            Activity::Halted => cpu.would_wake(now),
            Activity::WaitForSipi | Activity::Shutdown => false,
        }
    }

    /// Tick at which the vCPU's APIC timer fires next, if it is armed.
    pub fn next_timer(&self, index: usize) -> Option<u64> {
        Some(self.cpus[index].apic.next_timer()).filter(|&t| t != u64::MAX)
    }

    /// Delivers an interrupt message, from an I/O APIC or as an MSI.
    pub fn deliver(&mut self, m: InterruptMessage) {
        let mut targets: Vec<usize> = (0..self.cpus.len())
            .filter(|&i| {
                Some(i) != m.except && self.cpus[i].apic.is_target(m.destination, m.logical)
            })
            .collect();
        if m.mode == DeliveryMode::LowestPriority {
            targets.truncate(1);
        }
        let alone = self.cpus.len() == 1;
        for i in targets {
            let cpu = &mut self.cpus[i];
            match m.mode {
                DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                    cpu.apic.request(m.vector, m.level)
                }
                DeliveryMode::Nmi => cpu.nmi_pending = true,
                DeliveryMode::Init => {
                    if i != 0 || alone || cpu.activity == Activity::Shutdown {
                        cpu.reset(false);
                        cpu.apic.reset();
                    }
                }
                DeliveryMode::StartUp => {
                    if cpu.activity == Activity::WaitForSipi {
                        let selector = u16::from(m.vector) << 8;
                        let cs = Segment {
                            selector,
                            base: u64::from(m.vector) << 12,
                            ..cpu.seg[seg::CS]
                        };
                        cpu.set_segment(seg::CS, cs);
                        cpu.rip = 0;
                        cpu.activity = Activity::Running;
                        cpu.mode_changed();
                    }
                }
            }
        }
    }

    /// Takes the vectors of level-triggered interrupts whose end was signalled since the last call.
    pub fn take_eois(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.shared.eois)
    }

    /// Someone other than a vCPU wrote to RAM: decoded code in the range is dropped.
    pub fn code_written(&mut self, gpa: u64, len: u64) {
        let mut at = gpa & !0xfff;
        while at < gpa.saturating_add(len) {
            if let Some((_, page)) = self.shared.ram.page(at)
                && self.shared.code.holds_code(page)
            {
                self.shared.code.invalidate(page);
            }
            at += 4096;
        }
    }

    /// Guest-physical addresses of the pages that hold decoded code, ascending.
    pub fn code_pages(&self) -> impl Iterator<Item = u64> + '_ {
        let shared = &self.shared;
        let pages = shared.code.pages_with_code();
        pages.filter_map(|page| shared.ram.address(page))
    }

    /// Goes on with what `before` has decoded: a package over the same RAM, whose content is the
    /// same wherever [`Complex::code_pages`] of `before` says. Only for a package that has not run.
    pub fn adopt_code(&mut self, before: &mut Complex) {
        std::mem::swap(&mut self.shared.code, &mut before.shared.code);
    }

    /// Drops all decoded code.
    pub fn forget_code(&mut self) {
        self.shared.code.clear();
    }

    /// Realtime at tick 0, in nanoseconds since 1970, for kvmclock's wall clock.
    pub fn set_wall_clock(&mut self, ns: i64) {
        self.shared.wall_clock = ns;
    }

    /// How often each instruction that the processor lacks was met, by name.
    pub fn unknown_instructions(&self) -> &BTreeMap<String, u64> {
        &self.shared.unknown
    }

    /// Blocks decoded and code pages invalidated so far.
    pub fn code_counters(&self) -> (u64, u64) {
        (self.shared.code.decoded, self.shared.code.invalidated)
    }
}
