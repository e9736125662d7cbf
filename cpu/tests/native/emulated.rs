//! Running cases in the interpreter: a guest whose ring 3 looks like a Linux process's, and whose
//! ring 0 is a HLT per exception.

use provium_cpu::{Activity, ArchState, Complex, Exit};

use crate::case::{Case, FX, HUNG, LOST, Outcome, Tracker};
use crate::child::{USER_CS, USER_DS, USER32_CS};
use crate::machine::{self, Memory, PRESENT, USER, WRITE};
use crate::sandbox;

/// Ticks after which a case counts as hung.
const LIMIT: u64 = 200_000;

/// Linear and physical addresses of what ring 0 needs.
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const HANDLERS: u64 = 0x4000;
const KERNEL_STACK: u64 = 0x6000;
const ROOT: u64 = 0x7000;
/// Where the areas lie in physical memory, then page tables.
const AREAS: u64 = 0x10_000;
const TABLES: u64 = 0x40_000;
const SIZE: usize = 0x80_000;

/// Supervisor memory has its own linear addresses, out of the program's way.
const KERNEL: u64 = 0xffff_ffff_8000_0000;

/// Descriptors at the places where Linux has them (arch/x86/include/asm/segment.h), so that
/// selectors mean the same on both sides.
const DESCRIPTORS: [(usize, u64); 6] = [
    (1, 0x00cf_9b00_0000_ffff),
    (2, 0x00af_9b00_0000_ffff),
    (3, 0x00cf_9300_0000_ffff),
    (4, 0x00cf_fb00_0000_ffff),
    (5, 0x00cf_f300_0000_ffff),
    (6, 0x00af_fb00_0000_ffff),
];
const KERNEL_CS: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x40;

/// The interpreter, with memory and tables set up.
pub(crate) struct Emulated {
    complex: Complex,
    tracker: Tracker,
    start: ArchState,
    code: *mut u8,
    areas: [(*mut u8, usize); 3],
    memory: Memory,
}

impl Emulated {
    pub(crate) fn new() -> Emulated {
        let mut memory = Memory::new(SIZE, TABLES);
        let (image, fixed) = sandbox::pristine();
        for page in (0..AREAS).step_by(0x1000) {
            memory.map(ROOT, KERNEL + page, page | PRESENT | WRITE, 12);
        }
        let mut gpa = AREAS;
        let mut place = |area: sandbox::Area, rights: u64, memory: &mut Memory| {
            let start = gpa;
            for offset in (0..area.len as u64).step_by(0x1000) {
                memory.map(ROOT, area.at + offset, gpa | rights, 12);
                gpa += 0x1000;
            }
            start
        };
        let areas = sandbox::WRITABLE.map(|area| {
            let gpa = place(
                area,
                PRESENT | USER | WRITE | machine::NO_EXECUTE,
                &mut memory,
            );
            let offset = sandbox::image_offset(area.at).unwrap_or(0);
            memory.write(gpa, &image[offset..offset + area.len]);
            (memory.host(gpa, area.len), area.len)
        });
        let at = place(
            sandbox::FIXED,
            PRESENT | USER | machine::NO_EXECUTE,
            &mut memory,
        );
        memory.write(at, &fixed);
        let at = place(sandbox::CODE, PRESENT | USER, &mut memory);
        memory.write(at, &[0xcc; sandbox::CODE.len]);
        let code = memory.host(at, sandbox::CODE.len);
        build_tables(&memory);
        let complex = Complex::new(memory.ram(), vec![machine::cpuid()]);
        let start = start_state(&complex);
        Emulated {
            complex,
            tracker: Tracker::new(&image),
            start,
            code,
            areas,
            memory,
        }
    }

    /// Runs one case; `stepping` by single steps, otherwise as blocks.
    pub(crate) fn run(&mut self, case: &Case, stepping: bool, out: &mut Outcome) {
        self.tracker.prepare(case, &mut memory(&self.areas));
        self.write_code(case, &case.code[..case.code_len as usize]);
        self.load(case);
        out.vector = self.execute(stepping);
        self.record(out);
        self.tracker.collect(case, &mut memory(&self.areas), out);
        self.write_code(case, &[0xcc; 64][..case.code_len as usize]);
    }

    /// How often each instruction that the interpreter lacks was met.
    pub(crate) fn unknown(&self) -> u64 {
        self.complex.unknown_instructions().values().sum()
    }

    fn write_code(&mut self, case: &Case, bytes: &[u8]) {
        let offset = (case.rip - sandbox::CODE.at) as usize;
        let gpa = AREAS + (sandbox::IMAGE + sandbox::FIXED.len + offset) as u64;
        // SAFETY: the generator keeps instructions within the code area.
        unsafe { self.code.add(offset).copy_from(bytes.as_ptr(), bytes.len()) };
        self.complex.code_written(gpa, bytes.len() as u64);
    }

    fn load(&mut self, case: &Case) {
        let s = &mut self.start;
        (s.gpr, s.rip, s.rflags) = (case.gpr, case.rip, case.rflags);
        let cs = if case.bits == 64 { USER_CS } else { USER32_CS } as u16;
        let data = machine::loaded(USER_DS as u16, DESCRIPTORS[4].1);
        let code = machine::loaded(cs, DESCRIPTORS[usize::from(cs >> 3) - 1].1);
        let based = |base| match case.bits {
            64 => provium_cpu::SegmentState {
                base,
                ..machine::null()
            },
            _ => data,
        };
        s.segments = [
            data,
            code,
            data,
            data,
            based(case.fs_base),
            based(case.gs_base),
        ];
        s.activity = Activity::Running;
        s.interrupt_shadow = false;
        s.cr2 = 0;
        s.xsave[..FX].copy_from_slice(&case.fx);
        // XSTATE_BV: x87 and SSE.
        s.xsave[512] = 3;
        self.complex.cpu_mut(0).set_state(s);
    }

    /// Runs into a handler; answers the vector.
    fn execute(&mut self, stepping: bool) -> u64 {
        let mut now = 0;
        while now < LIMIT {
            let exit = if stepping {
                self.complex.step(0, now)
            } else {
                self.complex.run(0, now, LIMIT)
            };
            now = self.complex.ticks(0).max(now + 1);
            match exit {
                Exit::Quantum => {}
                Exit::Idle if self.complex.cpu(0).activity() == Activity::Halted => {
                    let at = self.complex.cpu(0).rip().wrapping_sub(KERNEL + HANDLERS);
                    return if at < 0x1000 { at / 16 } else { LOST };
                }
                _ => return LOST,
            }
        }
        HUNG
    }

    fn record(&self, out: &mut Outcome) {
        let s = self.complex.cpu(0).state();
        out.gpr = s.gpr;
        out.selectors = s.segments.map(|s| s.selector);
        (out.fs_base, out.gs_base) = (s.segments[4].base, s.segments[5].base);
        out.fx.copy_from_slice(&s.xsave[..FX]);
        (out.rip, out.rflags, out.error, out.cr2) = (s.rip, s.rflags, 0, s.cr2);
        if out.vector < 256 {
            self.unwind(s.gpr[4] - KERNEL, out);
        }
    }

    /// Takes what delivery has pushed off the kernel's stack.
    fn unwind(&self, sp: u64, out: &mut Outcome) {
        let mut at = sp;
        if sp == KERNEL_STACK - 48 {
            out.error = self.memory.read_u64(at);
            at += 8;
        }
        let word = |n: u64| self.memory.read_u64(at + 8 * n);
        (out.rip, out.rflags, out.gpr[4]) = (word(0), word(2), word(3));
        (out.selectors[1], out.selectors[2]) = (word(1) as u16, word(4) as u16);
    }
}

fn memory<'a>(areas: &[(*mut u8, usize); 3]) -> [&'a mut [u8]; 3] {
    // SAFETY: each area is a range of the guest's RAM of its own, which lives as long as the
    // `Emulated` that holds both; the slices are dropped before the interpreter runs.
    areas.map(|(at, len)| unsafe { std::slice::from_raw_parts_mut(at, len) })
}

fn build_tables(memory: &Memory) {
    for (index, descriptor) in DESCRIPTORS {
        memory.write_u64(GDT + 8 * index as u64, descriptor);
    }
    for vector in 0..256u64 {
        let at = HANDLERS + vector * 16;
        memory.write(at, &[0xf4]);
        // Linux lets programs call the breakpoint and overflow handlers only.
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0 };
        let gate = machine::gate64(KERNEL_CS, KERNEL + at, dpl, 0, 0xe);
        memory.write_u64(IDT + vector * 16, gate[0]);
        memory.write_u64(IDT + vector * 16 + 8, gate[1]);
    }
    memory.write_u64(TSS + 4, KERNEL + KERNEL_STACK);
    // No port bitmap: it would begin behind the segment's end.
    memory.write(TSS + 0x66, &[0xff, 0xff]);
}

fn start_state(complex: &Complex) -> ArchState {
    let mut s = complex.cpu(0).state();
    s.gdt = machine::table(KERNEL + GDT, 0x7f);
    s.idt = machine::table(KERNEL + IDT, 0xfff);
    s.tr = provium_cpu::SegmentState {
        selector: TSS_SELECTOR,
        base: KERNEL + TSS,
        limit: 0x67,
        access: 0x8b,
        unusable: false,
    };
    s.ldtr = machine::null();
    // PE MP ET NE WP AM PG; PAE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE; SCE LME LMA NXE.
    s.cr0 = 0x8005_0033;
    s.cr4 = 0x5_06a0;
    s.cr3 = ROOT;
    s.efer = 0xd01;
    s.xcr0 = 3;
    s
}
