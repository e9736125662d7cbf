//! A small machine for directed guests: flat tables, one page of handlers that halt, and a place
//! for code in each ring.
//!
//! Every guest runs twice, as blocks and by single steps ([`both_ways`]); the two must behave
//! alike.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Decoder, DecoderOptions, IcedError, Mnemonic};
use provium_cpu::{Activity, ArchState, Complex, Exit, SegmentState};

use crate::machine::{self, Memory, PRESENT, USER, WRITE};

/// Physical and linear addresses alike, below 4 MiB. Pages from [`USER_CODE`] on belong to ring 3.
pub(crate) const GDT: u64 = 0x1000;
pub(crate) const IDT: u64 = 0x2000;
pub(crate) const TSS: u64 = 0x3000;
pub(crate) const HANDLERS: u64 = 0x4000;
pub(crate) const LDT: u64 = 0x5000;
/// Tops of stacks.
pub(crate) const STACK: u64 = 0x8000;
pub(crate) const IST_STACK: u64 = 0x9000;
pub(crate) const ROOT: u64 = 0xb000;
pub(crate) const CODE: u64 = 0x1_0000;
pub(crate) const DATA: u64 = 0x1_8000;
pub(crate) const USER_CODE: u64 = 0x2_0000;
pub(crate) const USER_DATA: u64 = 0x3_0000;
pub(crate) const USER_STACK: u64 = 0x3_8000;
const TABLES: u64 = 0x10_0000;
const RAM: usize = 0x40_0000;
/// Mapped, but no RAM.
pub(crate) const DEVICE: u64 = 0xd000_0000;
pub(crate) const APIC: u64 = 0xfee0_0000;

/// Selectors, in an order that SYSCALL and SYSEXIT like.
pub(crate) const KERNEL_CS: u16 = 0x08;
pub(crate) const KERNEL_DS: u16 = 0x10;
pub(crate) const USER32_CS: u16 = 0x1b;
pub(crate) const USER_DS: u16 = 0x23;
pub(crate) const USER_CS: u16 = 0x2b;
pub(crate) const TSS_SELECTOR: u16 = 0x30;
pub(crate) const KERNEL32_CS: u16 = 0x40;
pub(crate) const CODE16: u16 = 0x48;
pub(crate) const DATA16: u16 = 0x50;
/// First selector without a descriptor; tests may put some there.
pub(crate) const FREE: u16 = 0x58;
const GDT_LIMIT: u16 = 0x9f;

const DESCRIPTORS: [(u16, u64); 9] = [
    (KERNEL_CS, 0x00af_9b00_0000_ffff),
    (KERNEL_DS, 0x00cf_9300_0000_ffff),
    (USER32_CS, 0x00cf_fb00_0000_ffff),
    (USER_DS, 0x00cf_f300_0000_ffff),
    (USER_CS, 0x00af_fb00_0000_ffff),
    (TSS_SELECTOR, 0x0000_8b00_3000_0067),
    (KERNEL32_CS, 0x00cf_9b00_0000_ffff),
    (CODE16, 0x000f_9b00_0000_ffff),
    (DATA16, 0x000f_9300_0000_ffff),
];

/// Control bits used by tests.
pub(crate) const CR0: u64 = 0x8005_0033;
pub(crate) const CR4_PSE: u64 = 1 << 4;
pub(crate) const CR4_PAE: u64 = 1 << 5;
pub(crate) const CR4_PGE: u64 = 1 << 7;
pub(crate) const CR4_SMEP: u64 = 1 << 20;
pub(crate) const CR4_SMAP: u64 = 1 << 21;
pub(crate) const EFER_NXE: u64 = 1 << 11;

thread_local! {
    static STEPPING: Cell<bool> = const { Cell::new(false) };
    static ASSEMBLED: RefCell<BTreeSet<Mnemonic>> = const { RefCell::new(BTreeSet::new()) };
}

/// Runs a test with guests executed as blocks, then one instruction at a time.
pub(crate) fn both_ways(test: impl Fn()) {
    for stepping in [false, true] {
        STEPPING.set(stepping);
        test();
    }
    STEPPING.set(false);
}

/// The instructions that guests of this thread have been made of.
pub(crate) fn assembled() -> BTreeSet<Mnemonic> {
    ASSEMBLED.take()
}

/// What a guest's handler found on its stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trap {
    pub(crate) vector: u64,
    /// Error code, where the vector has one.
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// How a guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// HLT, outside the handlers.
    Halt,
    /// A handler was reached.
    Trap(Trap),
    /// Anything else.
    Exit(Exit),
}

pub(crate) struct Guest {
    pub(crate) complex: Complex,
    pub(crate) memory: Memory,
    /// Bits of code that [`Guest::code`] assembles for.
    bits: u32,
    pub(crate) now: u64,
}

impl Guest {
    /// Ring 0 in 64-bit mode at [`CODE`], interrupts off.
    pub(crate) fn long() -> Guest {
        Guest::with_cpus(1)
    }

    /// As [`Guest::long`], with more vCPUs that wait for start-up.
    pub(crate) fn with_cpus(count: usize) -> Guest {
        let mut memory = Memory::new(RAM, TABLES);
        for page in (0..RAM as u64).step_by(0x1000) {
            let user = if page >= USER_CODE { USER } else { 0 };
            memory.map(ROOT, page, page | PRESENT | WRITE | user, 12);
        }
        memory.map(ROOT, DEVICE, DEVICE | PRESENT | WRITE, 21);
        memory.map(ROOT, APIC, APIC | PRESENT | WRITE, 12);
        build_tables(&memory);
        let complex = Complex::new(memory.ram(), vec![machine::cpuid(); count]);
        let mut guest = Guest {
            complex,
            memory,
            bits: 64,
            now: 0,
        };
        let mut s = guest.state();
        s.segments = [segment(KERNEL_DS); 6];
        s.segments[1] = segment(KERNEL_CS);
        s.segments[4] = machine::null();
        s.segments[5] = machine::null();
        s.gdt = machine::table(GDT, GDT_LIMIT);
        s.idt = machine::table(IDT, 0xfff);
        s.tr = SegmentState {
            selector: TSS_SELECTOR,
            base: TSS,
            limit: 0x67,
            access: 0x8b,
            unusable: false,
        };
        s.ldtr = machine::null();
        (s.cr0, s.cr3, s.cr4, s.efer) = (CR0, ROOT, 0x5_06b0, 0xd01);
        (s.rip, s.rflags, s.gpr[4]) = (CODE, 2, STACK);
        guest.set_state(&s);
        guest
    }

    /// Ring 0 in 32-bit protected mode without paging.
    pub(crate) fn protected() -> Guest {
        let mut guest = Guest::long();
        guest.bits = 32;
        build_gates32(&guest.memory);
        let mut s = guest.state();
        s.segments[1] = segment(KERNEL32_CS);
        s.idt = machine::table(IDT, 0x7ff);
        (s.cr0, s.cr4, s.efer) = (0x33, 0x600, 0);
        guest.set_state(&s);
        guest
    }

    /// Real mode at 0:[`REAL_CODE`] with an empty vector table.
    pub(crate) fn real() -> Guest {
        let mut guest = Guest::long();
        guest.bits = 16;
        let mut s = guest.state();
        let flat = SegmentState {
            selector: 0,
            base: 0,
            limit: 0xffff,
            access: 0x93,
            unusable: false,
        };
        s.segments = [flat; 6];
        s.segments[1].access = 0x9b;
        s.idt = machine::table(0, 0x3ff);
        (s.cr0, s.cr3, s.cr4, s.efer) = (0x10, 0, 0, 0);
        (s.rip, s.rflags, s.gpr[4]) = (REAL_CODE, 2, 0x7000);
        guest.set_state(&s);
        guest
    }

    /// Assembles at the current instruction pointer.
    pub(crate) fn code(&mut self, f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
        let rip = self.complex.cpu(0).rip();
        self.code_at(rip, f);
    }

    /// Assembles at an address.
    pub(crate) fn code_at(
        &mut self,
        at: u64,
        f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        let bits = self.bits;
        self.code_of(bits, at, f);
    }

    /// Assembles code of 16, 32 or 64 bits at an address; answers its length.
    pub(crate) fn code_of(
        &mut self,
        bits: u32,
        at: u64,
        f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> u64 {
        let bytes = assemble(bits, at, f);
        self.memory.write(at, &bytes);
        self.complex.code_written(at, bytes.len() as u64);
        bytes.len() as u64
    }

    pub(crate) fn state(&self) -> ArchState {
        self.complex.cpu(0).state()
    }

    pub(crate) fn set_state(&mut self, s: &ArchState) {
        self.complex.cpu_mut(0).set_state(s);
    }

    /// Changes the state by a function.
    pub(crate) fn adjust(&mut self, f: impl FnOnce(&mut ArchState)) {
        let mut s = self.state();
        f(&mut s);
        self.set_state(&s);
    }

    /// Goes to ring 3, 64-bit, at [`USER_CODE`].
    pub(crate) fn enter_user(&mut self) {
        self.adjust(|s| {
            s.segments[1] = segment(USER_CS);
            s.segments[2] = segment(USER_DS);
            (s.rip, s.gpr[4]) = (USER_CODE, USER_STACK);
            s.activity = Activity::Running;
        });
    }

    /// Goes to ring 3 in compatibility mode at [`USER_CODE`].
    pub(crate) fn enter_user32(&mut self) {
        self.bits = 32;
        self.adjust(|s| {
            s.segments = [segment(USER_DS); 6];
            s.segments[1] = segment(USER32_CS);
            (s.rip, s.gpr[4]) = (USER_CODE, USER_STACK);
            s.activity = Activity::Running;
        });
    }

    /// Runs vCPU 0 to the next end.
    pub(crate) fn run(&mut self) -> End {
        self.run_cpu(0)
    }

    pub(crate) fn run_cpu(&mut self, index: usize) -> End {
        const LIMIT: u64 = 1_000_000;
        let until = self.now + LIMIT;
        while self.now < until {
            let exit = if STEPPING.get() {
                self.complex.step(index, self.now)
            } else {
                self.complex.run(index, self.now, until)
            };
            self.now = self.complex.ticks(index).max(self.now);
            match exit {
                Exit::Quantum => {}
                Exit::Idle if self.complex.cpu(index).activity() == Activity::Halted => {
                    return self.halted(index);
                }
                other => return End::Exit(other),
            }
        }
        panic!(
            "the guest does not end: {:x?}",
            self.complex.cpu(index).state()
        );
    }

    /// Runs, expecting a HLT outside the handlers.
    #[track_caller]
    pub(crate) fn run_to_halt(&mut self) {
        let end = self.run();
        assert_eq!(end, End::Halt, "instead of a halt");
    }

    /// Goes on behind a HLT to the next one.
    #[track_caller]
    pub(crate) fn go_on_to_halt(&mut self) {
        self.adjust(|s| s.activity = Activity::Running);
        self.run_to_halt();
    }

    /// Runs, expecting an exception.
    #[track_caller]
    pub(crate) fn run_to_trap(&mut self) -> Trap {
        match self.run() {
            End::Trap(trap) => trap,
            other => panic!("{other:x?} instead of an exception"),
        }
    }

    /// Runs, expecting an exception of this vector and error code.
    #[track_caller]
    pub(crate) fn expect(&mut self, vector: u64, error: u64) -> Trap {
        let trap = self.run_to_trap();
        assert_eq!((trap.vector, trap.error), (vector, error), "{trap:x?}");
        trap
    }

    pub(crate) fn gpr(&self, n: usize) -> u64 {
        self.state().gpr[n]
    }

    fn halted(&self, index: usize) -> End {
        let s = self.complex.cpu(index).state();
        let at = s.rip.wrapping_sub(HANDLERS);
        if at >= 0x1000 {
            return End::Halt;
        }
        let mut trap = Trap {
            vector: at / 16,
            ..Trap::default()
        };
        let long = s.efer & 0x400 != 0;
        let size = if long { 8 } else { 4 };
        let mut at = s.gpr[4];
        let mut word = || {
            let v = self.memory.read_u64(at);
            at += size;
            if long { v } else { v & 0xffff_ffff }
        };
        if has_error(trap.vector) {
            trap.error = word();
        }
        (trap.rip, trap.cs, trap.rflags) = (word(), word() & 0xffff, word());
        if long || trap.cs & 3 != 0 {
            (trap.rsp, trap.ss) = (word(), word() & 0xffff);
        }
        End::Trap(trap)
    }
}

/// Where [`Guest::real`] starts.
pub(crate) const REAL_CODE: u64 = 0x6000;

/// Assembles, and notes the instructions for [`assembled`].
pub(crate) fn assemble(
    bits: u32,
    at: u64,
    f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("16, 32 or 64");
    f(&mut a).expect("an instruction that exists");
    let bytes = a.assemble(at).expect("code that can be encoded");
    for insn in &mut Decoder::with_ip(bits, &bytes, at, DecoderOptions::NONE) {
        ASSEMBLED.with_borrow_mut(|all| all.insert(insn.mnemonic()));
    }
    bytes
}

fn has_error(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

/// The segment register that a selector of the standard table loads.
pub(crate) fn segment(selector: u16) -> SegmentState {
    let found = DESCRIPTORS.iter().find(|(s, _)| s >> 3 == selector >> 3);
    machine::loaded(selector, found.expect("a selector of the table").1)
}

fn build_tables(memory: &Memory) {
    for (selector, descriptor) in DESCRIPTORS {
        memory.write_u64(GDT + u64::from(selector & !7), descriptor);
    }
    for vector in 0..256u64 {
        let at = HANDLERS + vector * 16;
        memory.write(at, &[0xf4]);
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0 };
        set_gate(memory, vector, machine::gate64(KERNEL_CS, at, dpl, 0, 0xe));
    }
    memory.write_u64(TSS + 4, STACK);
    memory.write_u64(TSS + 0x24, IST_STACK);
    memory.write(TSS + 0x66, &[0xff, 0xff]);
}

/// Replaces a gate of the 64-bit IDT.
pub(crate) fn set_gate(memory: &Memory, vector: u64, gate: [u64; 2]) {
    memory.write_u64(IDT + vector * 16, gate[0]);
    memory.write_u64(IDT + vector * 16 + 8, gate[1]);
}

fn build_gates32(memory: &Memory) {
    for vector in 0..256u64 {
        let at = HANDLERS + vector * 16;
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0 };
        memory.write_u64(
            IDT + vector * 8,
            machine::gate32(KERNEL32_CS, at as u32, dpl, 0xe),
        );
    }
    // A 32-bit TSS: ESP0 and SS0.
    memory.write(TSS, &[0; 0x68]);
    memory.write_u64(TSS + 4, STACK | u64::from(KERNEL_DS) << 32);
    memory.write(TSS + 0x66, &[0xff, 0xff]);
}
