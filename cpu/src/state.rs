//! The architectural state of one vCPU as plain data: what a snapshot keeps and a debugger shows.

use crate::apic::ApicState;
use crate::cpu::{Activity, Cpu, Segment, Table};
use crate::flags::bit;
use crate::msr;
use crate::op::reg;

/// A segment register with its hidden part (SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Access rights as bits 55..40 of the descriptor: type, S, DPL, P, AVL, L, D/B, G at bits
    /// 0-3, 4, 5-6, 7, 12, 13, 14 and 15.
    pub access: u16,
    /// No descriptor is loaded; use raises #GP.
    pub unusable: bool,
}

/// An eight-byte descriptor in memory, for those who build tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor(pub u64);

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Linear address of the table.
    pub base: u64,
    /// Its last valid byte.
    pub limit: u16,
}

/// Everything that makes up one vCPU between two instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchState {
    /// General registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// ES CS SS DS FS GS.
    pub segments: [SegmentState; 6],
    /// Task register.
    pub tr: SegmentState,
    /// Local descriptor table register.
    pub ldtr: SegmentState,
    /// Global descriptor table.
    pub gdt: TableState,
    /// Interrupt descriptor table.
    pub idt: TableState,
    /// Control registers.
    pub cr0: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Page-table base.
    pub cr3: u64,
    /// Extensions enabled.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// Extended control register 0.
    pub xcr0: u64,
    /// DR0..DR3, DR6, DR7.
    pub debug: [u64; 6],
    /// x87 and SSE state in the standard XSAVE format (SDM vol. 1, 13.4), 576 bytes.
    pub xsave: Vec<u8>,
    /// The model's saved MSRs, (index, value).
    pub msrs: Vec<(u32, u64)>,
    /// Local APIC.
    pub apic: ApicState,
    /// Running, halted or waiting.
    pub activity: Activity,
    /// Interrupts are held off for one instruction (after STI or a load of SS).
    pub interrupt_shadow: bool,
    /// A non-maskable interrupt is pending.
    pub nmi_pending: bool,
    /// Non-maskable interrupts are blocked until IRET.
    pub nmi_blocked: bool,
}

impl Cpu {
    /// Copies the architectural state out.
    pub fn state(&self) -> ArchState {
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&self.regs[..16]);
        ArchState {
            gpr,
            rip: self.rip,
            rflags: self.rflags(),
            segments: self.seg.map(Segment::state),
            tr: self.tr.state(),
            ldtr: self.ldtr.state(),
            gdt: self.gdtr.state(),
            idt: self.idtr.state(),
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer,
            xcr0: self.xcr0,
            debug: self.dr,
            xsave: self.xsave_image(),
            msrs: msr::SAVED
                .iter()
                .filter_map(|&i| Some((i, self.read_msr(i)?)))
                .collect(),
            apic: self.apic.state(self.ticks),
            activity: self.activity,
            interrupt_shadow: self.shadow,
            nmi_pending: self.nmi_pending,
            nmi_blocked: self.nmi_blocked,
        }
    }

    /// Replaces the architectural state. Values that no processor could hold are cut down to what
    /// it can; unknown MSRs are ignored.
    pub fn set_state(&mut self, s: &ArchState) {
        self.regs[..16].copy_from_slice(&s.gpr);
        self.rip = s.rip;
        self.set_rflags(s.rflags & bit::WRITABLE);
        for (i, seg) in s.segments.iter().enumerate() {
            self.seg[i] = Segment::from_state(seg);
            self.regs[reg::ES_BASE + i] = seg.base;
        }
        self.tr = Segment::from_state(&s.tr);
        self.ldtr = Segment::from_state(&s.ldtr);
        self.gdtr = Table::from_state(&s.gdt);
        self.idtr = Table::from_state(&s.idt);
        (self.cr0, self.cr2, self.cr3, self.cr4) = (s.cr0, s.cr2, s.cr3, s.cr4);
        (self.efer, self.xcr0, self.dr) = (s.efer, s.xcr0, s.debug);
        self.load_xsave_image(&s.xsave);
        for &(index, value) in &s.msrs {
            self.restore_msr(index, value);
        }
        self.apic
            .set_state(&s.apic, self.ticks, self.msr.tsc_offset);
        self.activity = s.activity;
        self.shadow = s.interrupt_shadow;
        self.nmi_pending = s.nmi_pending;
        self.nmi_blocked = s.nmi_blocked;
        self.replay.clear();
        self.mode_changed();
        self.flush_tlb_all();
    }
}

impl Segment {
    fn state(self) -> SegmentState {
        SegmentState {
            selector: self.selector,
            base: self.base,
            limit: self.limit,
            access: self.access,
            unusable: self.unusable,
        }
    }

    fn from_state(s: &SegmentState) -> Segment {
        Segment {
            selector: s.selector,
            base: s.base,
            limit: s.limit,
            access: s.access,
            unusable: s.unusable,
        }
    }
}

impl Table {
    fn state(self) -> TableState {
        TableState {
            base: self.base,
            limit: self.limit,
        }
    }

    fn from_state(s: &TableState) -> Table {
        Table {
            base: s.base,
            limit: s.limit,
        }
    }
}
