//! One vCPU: its registers, and the small accessors that every instruction uses.

use crate::apic::LocalApic;
use crate::code::Shared;
use crate::cpuid::CpuidLeaf;
use crate::exec::fpu::Fpu;
use crate::flags::{Flags, bit};
use crate::jump::JumpCache;
use crate::mem::Replay;
use crate::op::{Op, reg};
use crate::run::StopReason;
use crate::tlb::{CodeTlb, DataTlb};
use crate::width::Width;

/// What a vCPU is doing (KVM calls it mp_state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Executing.
    #[default]
    Running,
    /// Stopped by HLT until an interrupt.
    Halted,
    /// An application processor after INIT, waiting for its start-up message.
    WaitForSipi,
    /// Stopped for good by a triple fault, until reset.
    Shutdown,
}

/// A loaded segment register.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) selector: u16,
    pub(crate) base: u64,
    pub(crate) limit: u32,
    pub(crate) access: u16,
    pub(crate) unusable: bool,
}

impl Segment {
    pub(crate) fn dpl(&self) -> u8 {
        (self.access >> 5 & 3) as u8
    }
    /// The L bit: 64-bit code.
    pub(crate) fn long(&self) -> bool {
        self.access & 1 << 13 != 0
    }
    /// The D/B bit: 32-bit code or stack.
    pub(crate) fn big(&self) -> bool {
        self.access & 1 << 14 != 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Table {
    pub(crate) base: u64,
    pub(crate) limit: u16,
}

/// Index of a segment register, in encoding order.
pub(crate) mod seg {
    pub(crate) const ES: usize = 0;
    pub(crate) const CS: usize = 1;
    pub(crate) const SS: usize = 2;
    pub(crate) const DS: usize = 3;
    pub(crate) const FS: usize = 4;
    pub(crate) const GS: usize = 5;
}

/// Bits of the control registers and EFER that the processor acts on (SDM vol. 3, 2.5).
pub(crate) mod cr {
    pub(crate) const CR0_PE: u64 = 1 << 0;
    pub(crate) const CR0_MP: u64 = 1 << 1;
    pub(crate) const CR0_EM: u64 = 1 << 2;
    pub(crate) const CR0_TS: u64 = 1 << 3;
    pub(crate) const CR0_ET: u64 = 1 << 4;
    pub(crate) const CR0_NE: u64 = 1 << 5;
    pub(crate) const CR0_WP: u64 = 1 << 16;
    pub(crate) const CR0_AM: u64 = 1 << 18;
    pub(crate) const CR0_NW: u64 = 1 << 29;
    pub(crate) const CR0_CD: u64 = 1 << 30;
    pub(crate) const CR0_PG: u64 = 1 << 31;
    pub(crate) const CR4_TSD: u64 = 1 << 2;
    pub(crate) const CR4_DE: u64 = 1 << 3;
    pub(crate) const CR4_PSE: u64 = 1 << 4;
    pub(crate) const CR4_PAE: u64 = 1 << 5;
    pub(crate) const CR4_PGE: u64 = 1 << 7;
    pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
    pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(crate) const CR4_FSGSBASE: u64 = 1 << 16;
    pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
    pub(crate) const CR4_SMEP: u64 = 1 << 20;
    pub(crate) const CR4_SMAP: u64 = 1 << 21;
    /// VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE and the bits above.
    pub(crate) const CR4_KNOWN: u64 =
        0x1ff | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP;
    pub(crate) const EFER_SCE: u64 = 1 << 0;
    pub(crate) const EFER_LME: u64 = 1 << 8;
    pub(crate) const EFER_LMA: u64 = 1 << 10;
    pub(crate) const EFER_NXE: u64 = 1 << 11;
}

/// One vCPU.
pub struct Cpu {
    /// The register file; see [`reg`].
    pub(crate) regs: [u64; 32],
    pub(crate) flags: Flags,
    /// All of RFLAGS but the arithmetic flags.
    pub(crate) eflags: u64,
    /// Address of the next instruction, in RIP space (without CS base); current at block
    /// boundaries and in handlers that end a block.
    pub(crate) rip: u64,
    /// All ones in 64-bit mode, else the width of EIP or IP.
    pub(crate) rip_mask: u64,
    /// Ticks executed so far, and when the loop has to look up.
    pub(crate) ticks: u64,
    pub(crate) limit: u64,
    pub(crate) dtlb: DataTlb,
    pub(crate) stop: StopReason,
    /// Memory, decoded code and what else all vCPUs of a package share; only the running vCPU
    /// has it.
    pub(crate) shared: Box<Shared>,
    pub(crate) itlb: CodeTlb,
    pub(crate) jump: JumpCache,
    /// What of the processor's mode decides how code is decoded and whether it may be fetched:
    /// `bits`, and whether the privilege is the user's.
    pub(crate) mode: u64,
    pub(crate) cpl: u8,
    /// 16, 32 or 64.
    pub(crate) bits: u8,
    /// Mask of the stack pointer's width.
    pub(crate) stack_mask: u64,

    pub(crate) seg: [Segment; 6],
    pub(crate) tr: Segment,
    pub(crate) ldtr: Segment,
    pub(crate) gdtr: Table,
    pub(crate) idtr: Table,
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
    pub(crate) xcr0: u64,
    /// DR0..DR3, DR6, DR7.
    pub(crate) dr: [u64; 6],
    pub(crate) fpu: Fpu,
    pub(crate) msr: crate::msr::Msrs,
    pub(crate) cpuid: Vec<CpuidLeaf>,
    pub(crate) apic: LocalApic,
    pub(crate) activity: Activity,
    /// Interrupts wait for one more instruction.
    pub(crate) shadow: bool,
    pub(crate) nmi_pending: bool,
    pub(crate) nmi_blocked: bool,
    /// Address of the page fault being raised; CR2 once it is delivered.
    pub(crate) fault_address: u64,
    /// The #GP being raised is for a non-canonical address.
    pub(crate) noncanonical: bool,
    /// Accesses outside RAM that the current instruction has already made.
    pub(crate) replay: Replay,
    /// The one instruction being stepped may write over code, its own included.
    pub(crate) stepping: bool,
    pub(crate) retired: u64,
    /// `code_epoch` of the shared part that this vCPU's TLB agrees with.
    pub(crate) code_epoch: u64,
    /// Numbering of code pages that this vCPU's code TLB agrees with.
    pub(crate) code_generation: u64,
    /// Count of invalidated pages that this vCPU's jump cache agrees with.
    pub(crate) code_invalidated: u64,
    /// Scratch operations for stepping single instructions.
    pub(crate) step_ops: Vec<Op>,
}

impl Cpu {
    pub(crate) fn new(index: usize, cpuid: Vec<CpuidLeaf>) -> Cpu {
        let mut cpu = Cpu {
            regs: [0; 32],
            flags: Flags::from_bits(0),
            eflags: bit::FIXED,
            rip: 0,
            rip_mask: 0xffff,
            ticks: 0,
            limit: 0,
            dtlb: DataTlb::new(),
            stop: StopReason::None,
            shared: Box::new(Shared::absent()),
            itlb: CodeTlb::new(),
            jump: JumpCache::new(),
            mode: 0,
            cpl: 0,
            bits: 16,
            stack_mask: 0xffff,
            seg: [Segment::default(); 6],
            tr: Segment::default(),
            ldtr: Segment::default(),
            gdtr: Table::default(),
            idtr: Table::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: 1,
            dr: [0; 6],
            fpu: Fpu::new(),
            msr: crate::msr::Msrs::new(),
            cpuid,
            apic: LocalApic::new(index as u32),
            activity: Activity::Running,
            shadow: false,
            nmi_pending: false,
            nmi_blocked: false,
            fault_address: 0,
            noncanonical: false,
            replay: Replay::default(),
            stepping: false,
            retired: 0,
            code_epoch: 0,
            code_generation: 0,
            code_invalidated: 0,
            step_ops: Vec::new(),
        };
        cpu.reset(index == 0);
        cpu
    }

    /// State after RESET or INIT (SDM vol. 3, table 9-1); an application processor waits for its
    /// start-up message.
    pub(crate) fn reset(&mut self, bootstrap: bool) {
        self.regs = [0; 32];
        self.regs[reg::RDX] = 0x0006_0f01;
        self.set_rflags(0);
        self.rip = 0xfff0;
        let real = |selector: u16, base: u64, access: u16| Segment {
            selector,
            base,
            limit: 0xffff,
            access,
            unusable: false,
        };
        self.seg = [real(0, 0, 0x93); 6];
        self.set_segment(seg::CS, real(0xf000, 0xffff_0000, 0x9b));
        self.tr = real(0, 0, 0x8b);
        self.ldtr = real(0, 0, 0x82);
        self.gdtr = Table {
            base: 0,
            limit: 0xffff,
        };
        self.idtr = Table {
            base: 0,
            limit: 0xffff,
        };
        self.cr0 = cr::CR0_ET | cr::CR0_CD | cr::CR0_NW;
        (self.cr2, self.cr3, self.cr4, self.efer) = (0, 0, 0, 0);
        self.dr = [0, 0, 0, 0, 0xffff_0ff0, 0x400];
        self.activity = if bootstrap {
            Activity::Running
        } else {
            Activity::WaitForSipi
        };
        (self.shadow, self.nmi_pending, self.nmi_blocked) = (false, false, false);
        self.replay.clear();
        self.mode_changed();
        self.flush_tlb_all();
    }

    /// The local APIC's view for the machine: its id and the like.
    pub fn apic_id(&self) -> u32 {
        self.apic.id()
    }

    /// Instructions retired since creation.
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// What the vCPU is doing.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Address of the next instruction.
    pub fn rip(&self) -> u64 {
        self.rip
    }

    /// Whether maskable interrupts are enabled.
    pub fn interrupts_enabled(&self) -> bool {
        self.eflags & bit::IF != 0
    }

    /// RFLAGS with the lazy flags worked out.
    pub(crate) fn rflags(&self) -> u64 {
        self.eflags | self.flags.bits()
    }

    /// Sets RFLAGS whole; the caller has masked what must not change.
    pub(crate) fn set_rflags(&mut self, value: u64) {
        self.flags = Flags::from_bits(value);
        self.eflags = value & !bit::ARITHMETIC | bit::FIXED;
        self.dtlb.select(self.cpl, value & bit::AC != 0);
    }

    /// Sets the bits of `mask` that arithmetic does not, such as IF or DF.
    pub(crate) fn set_eflag(&mut self, mask: u64, on: bool) {
        self.eflags = if on {
            self.eflags | mask
        } else {
            self.eflags & !mask
        };
        self.dtlb.select(self.cpl, self.eflags & bit::AC != 0);
    }

    pub(crate) fn set_cpl(&mut self, cpl: u8) {
        self.cpl = cpl;
        self.mode = u64::from(self.bits) << 1 | u64::from(cpl == 3);
        self.dtlb.select(cpl, self.eflags & bit::AC != 0);
    }

    /// Works out what follows from CR0, EFER and CS: operand size, stack width, privilege.
    pub(crate) fn mode_changed(&mut self) {
        let cs = &self.seg[seg::CS];
        let protected = self.cr0 & cr::CR0_PE != 0;
        self.bits = match (self.efer & cr::EFER_LMA != 0, cs.long(), cs.big()) {
            (true, true, _) => 64,
            (_, _, true) => 32,
            _ => 16,
        };
        self.rip_mask = if self.bits == 64 {
            u64::MAX
        } else {
            0xffff_ffff
        };
        self.stack_mask = match (self.bits, self.seg[seg::SS].big()) {
            (64, _) => u64::MAX,
            (_, true) => 0xffff_ffff,
            _ => 0xffff,
        };
        let cpl = if protected {
            self.seg[seg::SS].dpl()
        } else {
            0
        };
        self.set_cpl(if self.eflags & bit::VM != 0 { 3 } else { cpl });
        self.dtlb.set_smap(self.cr4 & cr::CR4_SMAP != 0);
    }

    /// Whether IA-32e mode is active (EFER.LMA).
    pub(crate) fn long_mode(&self) -> bool {
        self.efer & cr::EFER_LMA != 0
    }

    pub(crate) fn protected(&self) -> bool {
        self.cr0 & cr::CR0_PE != 0
    }

    pub(crate) fn set_segment(&mut self, which: usize, s: Segment) {
        self.seg[which] = s;
        self.regs[reg::ES_BASE + which] = s.base;
    }

    #[inline(always)]
    pub(crate) fn r(&self, index: u8) -> u64 {
        self.regs[usize::from(index & 31)]
    }

    /// Reads a register operand; bit 5 of the index picks the second byte.
    #[inline(always)]
    pub(crate) fn get<W: Width>(&self, index: u8) -> W {
        let r = self.regs[usize::from(index & 31)];
        if W::BITS == 8 {
            W::cut(r >> ((index & reg::HIGH) >> 2))
        } else {
            W::cut(r)
        }
    }

    /// Writes a register operand: 32-bit writes clear the upper half, narrower ones keep the rest
    /// (SDM vol. 1, 3.4.1.1).
    #[inline(always)]
    pub(crate) fn set<W: Width>(&mut self, index: u8, value: W) {
        let r = &mut self.regs[usize::from(index & 31)];
        match W::BITS {
            64 | 32 => *r = value.zx(),
            16 => *r = *r & !0xffff | value.zx(),
            _ => {
                let shift = (index & reg::HIGH) >> 2;
                *r = *r & !(0xff << shift) | value.zx() << shift;
            }
        }
    }

    /// Linear address of the memory operand.
    #[inline(always)]
    pub(crate) fn ea(&self, op: &Op) -> u64 {
        self.r(op.base)
            .wrapping_add(self.r(op.index) << (op.scale & 3))
            .wrapping_add(op.disp as i64 as u64)
            .wrapping_add(self.r(op.seg))
    }

    /// RIP of the instruction after `op`.
    #[inline(always)]
    pub(crate) fn next_rip(&self, op: &Op) -> u64 {
        self.regs[reg::PAGE].wrapping_add(u64::from(op.next)) & self.rip_mask
    }

    /// RIP of `op` itself.
    #[inline(always)]
    pub(crate) fn this_rip(&self, op: &Op) -> u64 {
        self.regs[reg::PAGE].wrapping_add(u64::from(op.at)) & self.rip_mask
    }
}
