//! kvmclock: the paravirtual clock pages that a guest asks for by MSR.
//!
//! Layouts are those of `struct pvclock_vcpu_time_info` and `struct pvclock_wall_clock` in the
//! kernel's KVM documentation. With one tick a nanosecond and a TSC of 1 GHz, the scale is one.

use crate::cpu::Cpu;

/// Flag of the time page: the TSC is in step on all vCPUs.
const TSC_STABLE: u8 = 1;

impl Cpu {
    /// Fills the time page at the address in the MSR's value, if its enable bit is set.
    pub(crate) fn publish_system_time(&mut self, value: u64) {
        if value & 1 == 0 {
            return;
        }
        let mut page = [0u8; 32];
        // Another version than before, so that a vCPU that was reading the page starts over.
        let before = self.shared.ram.read_u32(value & !3).unwrap_or(0);
        let version = (before & !1).wrapping_add(2).max(2);
        page[0..4].copy_from_slice(&version.to_le_bytes());
        page[8..16].copy_from_slice(&self.tsc().to_le_bytes());
        page[16..24].copy_from_slice(&self.ticks.to_le_bytes());
        // 2^31 with a shift of one: nanoseconds are TSC cycles.
        page[24..28].copy_from_slice(&0x8000_0000u32.to_le_bytes());
        page[28] = 1;
        page[29] = TSC_STABLE;
        self.shared.ram.write(value & !1, &page);
    }

    /// Fills the wall-clock page: realtime at tick 0.
    pub(crate) fn publish_wall_clock(&mut self, gpa: u64) {
        let base = self.shared.wall_clock;
        let mut page = [0u8; 12];
        page[0..4].copy_from_slice(&2u32.to_le_bytes());
        page[4..8].copy_from_slice(&(base.div_euclid(1_000_000_000) as u32).to_le_bytes());
        page[8..12].copy_from_slice(&(base.rem_euclid(1_000_000_000) as u32).to_le_bytes());
        self.shared.ram.write(gpa, &page);
    }
}
