//! Between the software processor's state and the KVM shapes in which vCPU state is kept.

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED, KVM_MP_STATE_STOPPED, KVM_MP_STATE_UNINITIALIZED,
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_debugregs, kvm_dtable,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_vcpu_events,
};
use provium_cpu::{Activity, ApicState, ArchState, SegmentState, TableState};

use crate::vcpu::{VcpuError, VcpuState, XSAVE_LEN};

const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// Numbers of the APIC registers that are treated specially: offset in the xAPIC page divided by
/// 16.
const APIC_ID: usize = 0x02;
const APIC_TPR: usize = 0x08;
const APIC_ISR: usize = 0x10;
const APIC_IRR: usize = 0x20;
/// IA32_APIC_BASE: enabled, in x2APIC mode.
const X2APIC: u64 = 0xc00;
/// KVM's interrupt shadow after STI.
const SHADOW_STI: u8 = 2;

/// The KVM shape of `s`.
pub(crate) fn to_kvm(s: &ArchState) -> VcpuState {
    let mut msrs: Vec<kvm_msr_entry> = s
        .msrs
        .iter()
        .map(|&(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();
    msrs.push(kvm_msr_entry {
        index: MSR_TSC_DEADLINE,
        data: s.apic.tsc_deadline,
        ..Default::default()
    });
    VcpuState {
        regs: regs_to_kvm(s),
        sregs: sregs_to_kvm(s),
        xsave: s.xsave.clone(),
        xcr0: s.xcr0,
        msrs,
        lapic: lapic_to_kvm(&s.apic),
        events: events_to_kvm(s),
        mp_state: kvm_mp_state {
            mp_state: activity_to_kvm(s.activity),
        },
        debugregs: kvm_debugregs {
            db: [s.debug[0], s.debug[1], s.debug[2], s.debug[3]],
            dr6: s.debug[4],
            dr7: s.debug[5],
            ..Default::default()
        },
    }
}

/// The processor's form of `k`; `index` is for error messages.
pub(crate) fn from_kvm(k: &VcpuState, index: u32) -> Result<ArchState, VcpuError> {
    if k.xsave.len() != XSAVE_LEN {
        let reason = format!(
            "XSAVE area of {} bytes instead of {XSAVE_LEN}",
            k.xsave.len()
        );
        return Err(VcpuError::BadState { index, reason });
    }
    let r = &k.regs;
    let sr = &k.sregs;
    let mut state = ArchState {
        gpr: [
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
        segments: [&sr.es, &sr.cs, &sr.ss, &sr.ds, &sr.fs, &sr.gs].map(segment_from_kvm),
        tr: segment_from_kvm(&sr.tr),
        ldtr: segment_from_kvm(&sr.ldt),
        gdt: TableState {
            base: sr.gdt.base,
            limit: sr.gdt.limit,
        },
        idt: TableState {
            base: sr.idt.base,
            limit: sr.idt.limit,
        },
        cr0: sr.cr0,
        cr2: sr.cr2,
        cr3: sr.cr3,
        cr4: sr.cr4,
        efer: sr.efer,
        xcr0: k.xcr0,
        debug: debug_from_kvm(&k.debugregs),
        xsave: k.xsave.clone(),
        msrs: msrs_from_kvm(&k.msrs),
        apic: lapic_from_kvm(k),
        activity: activity_from_kvm(k.mp_state),
        interrupt_shadow: k.events.interrupt.shadow != 0,
        nmi_pending: k.events.nmi.pending != 0 || k.events.nmi.injected != 0,
        nmi_blocked: k.events.nmi.masked != 0,
    };
    take_back_injected(k, &mut state.apic);
    Ok(state)
}

fn regs_to_kvm(s: &ArchState) -> kvm_regs {
    let g = &s.gpr;
    kvm_regs {
        rax: g[0],
        rcx: g[1],
        rdx: g[2],
        rbx: g[3],
        rsp: g[4],
        rbp: g[5],
        rsi: g[6],
        rdi: g[7],
        r8: g[8],
        r9: g[9],
        r10: g[10],
        r11: g[11],
        r12: g[12],
        r13: g[13],
        r14: g[14],
        r15: g[15],
        rip: s.rip,
        rflags: s.rflags,
    }
}

fn sregs_to_kvm(s: &ArchState) -> kvm_sregs {
    let [es, cs, ss, ds, fs, gs] = s.segments.map(|x| segment_to_kvm(&x));
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr: segment_to_kvm(&s.tr),
        ldt: segment_to_kvm(&s.ldtr),
        gdt: kvm_dtable {
            base: s.gdt.base,
            limit: s.gdt.limit,
            ..Default::default()
        },
        idt: kvm_dtable {
            base: s.idt.base,
            limit: s.idt.limit,
            ..Default::default()
        },
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: u64::from(s.apic.registers[APIC_TPR] >> 4 & 0xf),
        efer: s.efer,
        apic_base: s.apic.base,
        interrupt_bitmap: [0; 4],
    }
}

fn segment_to_kvm(s: &SegmentState) -> kvm_segment {
    let bit = |n: u32| (s.access >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: (s.access & 0xf) as u8,
        s: bit(4),
        dpl: (s.access >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: u8::from(s.unusable),
        padding: 0,
    }
}

fn segment_from_kvm(k: &kvm_segment) -> SegmentState {
    let bit = |value: u8, n: u32| u16::from(value & 1) << n;
    SegmentState {
        selector: k.selector,
        base: k.base,
        limit: k.limit,
        access: u16::from(k.type_ & 0xf)
            | bit(k.s, 4)
            | u16::from(k.dpl & 3) << 5
            | bit(k.present, 7)
            | bit(k.avl, 12)
            | bit(k.l, 13)
            | bit(k.db, 14)
            | bit(k.g, 15),
        unusable: k.unusable != 0,
    }
}

fn debug_from_kvm(d: &kvm_debugregs) -> [u64; 6] {
    [d.db[0], d.db[1], d.db[2], d.db[3], d.dr6, d.dr7]
}

fn msrs_from_kvm(msrs: &[kvm_msr_entry]) -> Vec<(u32, u64)> {
    msrs.iter()
        .filter(|m| m.index != MSR_TSC_DEADLINE)
        .map(|m| (m.index, m.data))
        .collect()
}

fn lapic_to_kvm(apic: &ApicState) -> kvm_lapic_state {
    let mut lapic = kvm_lapic_state::default();
    for (number, register) in apic.registers.iter().enumerate() {
        // KVM's format keeps the x2APIC's id where the xAPIC has it.
        let x2 = number == APIC_ID && apic.base & X2APIC == X2APIC;
        let value = if x2 { *register << 24 } else { *register };
        for (to, from) in lapic.regs[number * 16..]
            .iter_mut()
            .zip(value.to_le_bytes())
        {
            *to = from.cast_signed();
        }
    }
    lapic
}

fn lapic_from_kvm(k: &VcpuState) -> ApicState {
    let mut registers = [0; 64];
    for (number, register) in registers.iter_mut().enumerate() {
        let b = &k.lapic.regs[number * 16..];
        *register = u32::from_le_bytes([b[0], b[1], b[2], b[3]].map(i8::cast_unsigned));
    }
    if k.sregs.apic_base & X2APIC == X2APIC {
        registers[APIC_ID] >>= 24;
    }
    let deadline = k.msrs.iter().find(|m| m.index == MSR_TSC_DEADLINE);
    ApicState {
        base: k.sregs.apic_base,
        registers,
        tsc_deadline: deadline.map_or(0, |m| m.data),
    }
}

/// KVM may have accepted an interrupt that has not entered the guest yet. The software processor
/// has no such state between instructions, so the interrupt goes back to where it was: requested,
/// not in service.
fn take_back_injected(k: &VcpuState, apic: &mut ApicState) {
    let interrupt = &k.events.interrupt;
    if interrupt.injected != 0 && interrupt.soft == 0 {
        let (word, bit) = (usize::from(interrupt.nr / 32), 1 << (interrupt.nr % 32));
        apic.registers[APIC_ISR + word] &= !bit;
        apic.registers[APIC_IRR + word] |= bit;
    }
}

fn events_to_kvm(s: &ArchState) -> kvm_vcpu_events {
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING,
        ..Default::default()
    };
    events.interrupt.shadow = if s.interrupt_shadow { SHADOW_STI } else { 0 };
    events.nmi.pending = u8::from(s.nmi_pending);
    events.nmi.masked = u8::from(s.nmi_blocked);
    events
}

fn activity_to_kvm(activity: Activity) -> u32 {
    match activity {
        Activity::Running => KVM_MP_STATE_RUNNABLE,
        Activity::Halted => KVM_MP_STATE_HALTED,
        Activity::WaitForSipi => KVM_MP_STATE_UNINITIALIZED,
        Activity::Shutdown => KVM_MP_STATE_STOPPED,
    }
}

fn activity_from_kvm(mp: kvm_mp_state) -> Activity {
    match mp.mp_state {
        KVM_MP_STATE_HALTED => Activity::Halted,
        KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED | KVM_MP_STATE_SIPI_RECEIVED => {
            Activity::WaitForSipi
        }
        KVM_MP_STATE_STOPPED => Activity::Shutdown,
        _ => Activity::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state with a different value in every place.
    fn sample() -> ArchState {
        let segment = |n: u16| SegmentState {
            selector: n << 3,
            base: u64::from(n) << 32,
            limit: 0xffff_0000 | u32::from(n),
            access: 0xf0ff & !(1 << (n % 4)),
            unusable: n == 3,
        };
        let mut registers: [u32; 64] = std::array::from_fn(|i| 0x0101_0000 + i as u32);
        registers[APIC_ID] = 9;
        ArchState {
            gpr: std::array::from_fn(|i| 0x1111_0000 + i as u64),
            rip: 0xffff_ffff_8100_0000,
            rflags: 0x246,
            segments: std::array::from_fn(|i| segment(i as u16 + 1)),
            tr: segment(8),
            ldtr: segment(9),
            gdt: TableState {
                base: 0x500,
                limit: 31,
            },
            idt: TableState {
                base: 0x600,
                limit: 4095,
            },
            cr0: 0x8005_0033,
            cr2: 0xdead_b000,
            cr3: 0x9000,
            cr4: 0x6b0,
            efer: 0xd01,
            xcr0: 3,
            debug: [1, 2, 3, 4, 0xffff_0ff0, 0x400],
            xsave: (0..XSAVE_LEN).map(|i| i as u8).collect(),
            msrs: vec![(0x10, 77), (0xc000_0082, 0xffff_ffff_8200_0000)],
            apic: ApicState {
                base: 0xfee0_0d00,
                registers,
                tsc_deadline: 123_456,
            },
            activity: Activity::Halted,
            interrupt_shadow: true,
            nmi_pending: true,
            nmi_blocked: true,
        }
    }

    #[test]
    fn every_field_survives_the_way_there_and_back() {
        let state = sample();
        assert_eq!(from_kvm(&to_kvm(&state), 0).unwrap(), state);
    }

    #[test]
    fn all_activities_survive() {
        for activity in [
            Activity::Running,
            Activity::Halted,
            Activity::WaitForSipi,
            Activity::Shutdown,
        ] {
            let state = ArchState {
                activity,
                ..sample()
            };
            assert_eq!(from_kvm(&to_kvm(&state), 0).unwrap().activity, activity);
        }
    }

    #[test]
    fn an_injected_interrupt_becomes_a_requested_one() {
        let mut kvm = to_kvm(&sample());
        kvm.events.interrupt.injected = 1;
        kvm.events.interrupt.nr = 0x41;
        let apic = from_kvm(&kvm, 0).unwrap().apic;
        assert_eq!(apic.registers[APIC_IRR + 2] & 2, 2);
        assert_eq!(apic.registers[APIC_ISR + 2] & 2, 0);
    }

    #[test]
    fn a_short_xsave_area_is_refused() {
        let mut kvm = to_kvm(&sample());
        kvm.xsave.pop();
        assert!(matches!(
            from_kvm(&kvm, 3),
            Err(VcpuError::BadState { index: 3, .. })
        ));
    }
}
