//! Model-specific registers.

use crate::cpu::{Cpu, cr, seg};
use crate::mem::canonical;
use crate::op::reg;

pub(crate) const TSC: u32 = 0x10;
const APIC_BASE: u32 = 0x1b;
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const BIOS_SIGN: u32 = 0x8b;
const MTRR_CAP: u32 = 0xfe;
const ARCH_CAPABILITIES: u32 = 0x10a;
const FEATURE_CONTROL: u32 = 0x3a;
const TSC_ADJUST: u32 = 0x3b;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const MCG_CAP: u32 = 0x179;
const MISC_ENABLE: u32 = 0x1a0;
const PAT: u32 = 0x277;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const TSC_DEADLINE: u32 = 0x6e0;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SFMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;
const KVM_WALL_CLOCK_OLD: u32 = 0x11;
const KVM_SYSTEM_TIME_OLD: u32 = 0x12;
const KVM_WALL_CLOCK: u32 = 0x4b56_4d00;
const KVM_SYSTEM_TIME: u32 = 0x4b56_4d01;
const KVM_POLL_CONTROL: u32 = 0x4b56_4d05;

/// The MSRs that a snapshot keeps; the rest is constant, or part of other state.
pub(crate) const SAVED: &[u32] = &[
    TSC,
    SYSENTER_CS,
    SYSENTER_ESP,
    SYSENTER_EIP,
    MISC_ENABLE,
    PAT,
    MTRR_DEF_TYPE,
    STAR,
    LSTAR,
    CSTAR,
    SFMASK,
    KERNEL_GS_BASE,
    TSC_AUX,
    SPEC_CTRL,
    KVM_WALL_CLOCK,
    KVM_SYSTEM_TIME,
    TSC_ADJUST,
];

/// Values of MSRs that are nothing but storage to the processor.
pub(crate) struct Msrs {
    /// TSC less ticks.
    pub(crate) tsc_offset: u64,
    pub(crate) tsc_adjust: u64,
    pub(crate) tsc_aux: u64,
    pub(crate) star: u64,
    pub(crate) lstar: u64,
    pub(crate) cstar: u64,
    pub(crate) sfmask: u64,
    pub(crate) kernel_gs_base: u64,
    pub(crate) sysenter_cs: u64,
    pub(crate) sysenter_esp: u64,
    pub(crate) sysenter_eip: u64,
    pat: u64,
    misc_enable: u64,
    mtrr_def_type: u64,
    mtrr: [u64; 32],
    spec_ctrl: u64,
    wall_clock: u64,
    pub(crate) system_time: u64,
}

impl Msrs {
    pub(crate) fn new() -> Msrs {
        Msrs {
            tsc_offset: 0,
            tsc_adjust: 0,
            tsc_aux: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            // Power-up value (SDM vol. 3, 12.12.4).
            pat: 0x0007_0406_0007_0406,
            // Fast strings.
            misc_enable: 1,
            mtrr_def_type: 0,
            mtrr: [0; 32],
            spec_ctrl: 0,
            wall_clock: 0,
            system_time: 0,
        }
    }
}

/// Index into the MTRR storage: eight variable pairs and the fixed ranges.
fn mtrr_index(msr: u32) -> Option<usize> {
    Some(match msr {
        0x200..=0x20f => msr as usize - 0x200,
        0x250 => 16,
        0x258 => 17,
        0x259 => 18,
        0x268..=0x26f => 19 + msr as usize - 0x268,
        _ => return None,
    })
}

impl Cpu {
    /// The time-stamp counter.
    #[inline]
    pub(crate) fn tsc(&self) -> u64 {
        self.ticks.wrapping_add(self.msr.tsc_offset)
    }

    /// Reads an MSR; `None` raises #GP.
    pub(crate) fn read_msr(&self, index: u32) -> Option<u64> {
        let m = &self.msr;
        Some(match index {
            TSC => self.tsc(),
            TSC_ADJUST => m.tsc_adjust,
            APIC_BASE => self.apic.base(),
            FEATURE_CONTROL => 1,
            SPEC_CTRL => m.spec_ctrl,
            BIOS_SIGN => 0x1 << 32,
            // Eight variable ranges, fixed ranges, write-combining.
            MTRR_CAP => 0x508,
            // No Meltdown, enhanced IBRS, no L1TF, MDS, MCE-on-page-size-change, TAA, and the rest of
            // the list that would cost mitigations a software processor has no use for.
            ARCH_CAPABILITIES => ARCH_CAPABILITIES_VALUE,
            SYSENTER_CS => m.sysenter_cs,
            SYSENTER_ESP => m.sysenter_esp,
            SYSENTER_EIP => m.sysenter_eip,
            MCG_CAP | 0x17a => 0,
            MISC_ENABLE => m.misc_enable,
            PAT => m.pat,
            MTRR_DEF_TYPE => m.mtrr_def_type,
            TSC_DEADLINE => self.apic.tsc_deadline(),
            0x830 if self.x2apic() => self.apic.icr(),
            0x800..=0x83f if self.x2apic() => {
                u64::from(self.apic.read(index as usize - 0x800, self.ticks)?)
            }
            EFER => self.efer,
            STAR => m.star,
            LSTAR => m.lstar,
            CSTAR => m.cstar,
            SFMASK => m.sfmask,
            FS_BASE => self.regs[reg::ES_BASE + seg::FS],
            GS_BASE => self.regs[reg::ES_BASE + seg::GS],
            KERNEL_GS_BASE => m.kernel_gs_base,
            TSC_AUX => m.tsc_aux,
            KVM_WALL_CLOCK | KVM_WALL_CLOCK_OLD => m.wall_clock,
            KVM_SYSTEM_TIME | KVM_SYSTEM_TIME_OLD => m.system_time,
            // Machine-check banks, of which there are none, and platform information.
            0x400..=0x43f | 0xce | 0x17 | 0x1d9 | 0x140 | 0x186..=0x18a | 0x38d | 0x38f | 0x390 => {
                0
            }
            _ => return mtrr_index(index).map(|i| m.mtrr[i]),
        })
    }

    /// Writes an MSR; `false` raises #GP.
    pub(crate) fn write_msr(&mut self, index: u32, value: u64) -> bool {
        match index {
            TSC => {
                let offset = value.wrapping_sub(self.ticks);
                self.msr.tsc_adjust = self
                    .msr
                    .tsc_adjust
                    .wrapping_add(offset.wrapping_sub(self.msr.tsc_offset));
                self.msr.tsc_offset = offset;
            }
            TSC_ADJUST => {
                let delta = value.wrapping_sub(self.msr.tsc_adjust);
                self.msr.tsc_offset = self.msr.tsc_offset.wrapping_add(delta);
                self.msr.tsc_adjust = value;
            }
            APIC_BASE => {
                self.attention();
                let ok = self.apic.set_base(value);
                self.flush_tlb_all();
                return ok;
            }
            SPEC_CTRL if value & !7 == 0 => self.msr.spec_ctrl = value,
            PRED_CMD if value & !1 == 0 => {}
            BIOS_SIGN | MISC_ENABLE => {
                self.msr.misc_enable = if index == MISC_ENABLE {
                    value
                } else {
                    self.msr.misc_enable
                }
            }
            SYSENTER_CS => self.msr.sysenter_cs = value & 0xffff_ffff,
            SYSENTER_ESP if canonical(value) => self.msr.sysenter_esp = value,
            SYSENTER_EIP if canonical(value) => self.msr.sysenter_eip = value,
            PAT if (0..8).all(|i| matches!(value >> (8 * i) & 0xff, 0 | 1 | 4..=7)) => {
                self.msr.pat = value
            }
            MTRR_DEF_TYPE => self.msr.mtrr_def_type = value,
            TSC_DEADLINE => {
                self.apic.set_tsc_deadline(value, self.msr.tsc_offset);
                self.attention();
            }
            0x830 if self.x2apic() => {
                let effect = self.apic.write_icr(value);
                return self.apic_effect(effect);
            }
            0x800..=0x83f if self.x2apic() => {
                let effect = self.apic.write(
                    index as usize - 0x800,
                    value as u32,
                    self.ticks,
                    self.msr.tsc_offset,
                );
                return value >> 32 == 0 && self.apic_effect(effect);
            }
            EFER => return self.write_efer(value),
            STAR => self.msr.star = value,
            LSTAR if canonical(value) => self.msr.lstar = value,
            CSTAR if canonical(value) => self.msr.cstar = value,
            SFMASK => self.msr.sfmask = value & 0xffff_ffff,
            FS_BASE if canonical(value) => self.set_segment_base(seg::FS, value),
            GS_BASE if canonical(value) => self.set_segment_base(seg::GS, value),
            KERNEL_GS_BASE if canonical(value) => self.msr.kernel_gs_base = value,
            TSC_AUX => self.msr.tsc_aux = value & 0xffff_ffff,
            KVM_WALL_CLOCK | KVM_WALL_CLOCK_OLD => {
                self.msr.wall_clock = value;
                self.publish_wall_clock(value);
            }
            KVM_SYSTEM_TIME | KVM_SYSTEM_TIME_OLD => {
                self.msr.system_time = value;
                self.publish_system_time(value);
            }
            KVM_POLL_CONTROL => {}
            0x400..=0x43f | 0x1d9 | 0x140 | 0x186..=0x18a | 0x38d | 0x38f | 0x390 => {}
            _ => match mtrr_index(index) {
                Some(i) => self.msr.mtrr[i] = value,
                None => return false,
            },
        }
        true
    }

    /// Puts back a saved MSR, without the side effects of a guest's write.
    pub(crate) fn restore_msr(&mut self, index: u32, value: u64) {
        match index {
            TSC => self.msr.tsc_offset = value.wrapping_sub(self.ticks),
            TSC_ADJUST => self.msr.tsc_adjust = value,
            KVM_WALL_CLOCK => self.msr.wall_clock = value,
            // The page at that address is part of memory, and stays right as long as TSC and ticks
            // keep their distance (see `republish_system_time`).
            KVM_SYSTEM_TIME => self.msr.system_time = value,
            _ => {
                self.write_msr(index, value);
            }
        }
    }

    pub(crate) fn set_segment_base(&mut self, which: usize, base: u64) {
        self.seg[which].base = base;
        self.regs[reg::ES_BASE + which] = base;
    }

    fn x2apic(&self) -> bool {
        self.apic.base() & 0xc00 == 0xc00
    }

    fn write_efer(&mut self, value: u64) -> bool {
        let known = cr::EFER_SCE | cr::EFER_LME | cr::EFER_LMA | cr::EFER_NXE;
        let paging = self.cr0 & cr::CR0_PG != 0;
        if value & !known != 0 || paging && (value ^ self.efer) & cr::EFER_LME != 0 {
            return false;
        }
        self.efer = value & !cr::EFER_LMA | self.efer & cr::EFER_LMA;
        self.flush_tlb_all();
        true
    }
}

/// IA32_ARCH_CAPABILITIES (SDM vol. 4): RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
/// IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO.
const ARCH_CAPABILITIES_VALUE: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27;
