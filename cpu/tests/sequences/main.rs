//! Sequences of floating-point and vector instructions: the same machine code runs on the host and
//! in the interpreter, over the same addresses, and must leave the same memory.
//!
//! Single instructions are compared by `tests/native`; here it is what they leave for each other:
//! sticky flags, the register stack, exceptions that wait, pointers to the last instruction, and
//! state that goes through memory and back (SDM vol. 1, 8.1.8, 8.6, 9.5, 10.5, 11.5 and 13).

#[path = "../machine/mod.rs"]
mod machine;
mod programs;

use machine::{Memory, PRESENT, WRITE};
use programs::{DATA, Program};
use provium_cpu::{Activity, ArchState, Complex, Exit};

/// Rounds of random data for each program.
const ROUNDS: u64 = 64;

/// Physical addresses in the guest; page tables come last.
const STOP: u64 = 0x1000;
const STACK: u64 = 0x4000;
const ROOT: u64 = 0x5000;
const MEMORY: u64 = 0x10_000;
const CODE: u64 = 0x20_000;
const TABLES: u64 = 0x80_000;
const SIZE: usize = 0x100_000;
/// Where the guest's own pages are mapped.
const KERNEL: u64 = 0xffff_ffff_8000_0000;

/// Memory that a program works on, at the same address on both sides.
#[repr(C, align(4096))]
struct Data([u8; DATA]);

/// A guest in 64-bit mode that has the programs and their memory where the host has them.
struct Guest {
    complex: Complex,
    start: ArchState,
    memory: Memory,
}

impl Guest {
    fn new(data: u64) -> Guest {
        let mut memory = Memory::new(SIZE, TABLES);
        let code = programs::code();
        let at = code.as_ptr() as u64;
        assert_eq!(at % 4096, 0, "the programs start on a page of their own");
        memory.write(CODE, code);
        for offset in (0..code.len() as u64).step_by(4096) {
            memory.map(ROOT, at + offset, (CODE + offset) | PRESENT, 12);
        }
        for offset in (0..DATA as u64).step_by(4096) {
            memory.map(ROOT, data + offset, (MEMORY + offset) | PRESENT | WRITE, 12);
        }
        for page in (0..0x8000).step_by(4096) {
            memory.map(ROOT, KERNEL + page, page | PRESENT | WRITE, 12);
        }
        const HLT: u8 = 0xf4;
        memory.write(STOP, &[HLT]);
        memory.write_u64(STACK - 8, KERNEL + STOP);
        let complex = Complex::new(memory.ram(), vec![machine::cpuid()]);
        let start = start(&complex);
        Guest {
            complex,
            start,
            memory,
        }
    }

    /// Calls the program at `entry`; answers its memory.
    fn call(&mut self, entry: u64, data: u64, before: &[u8]) -> Vec<u8> {
        self.memory.write(MEMORY, before);
        self.start.rip = entry;
        self.start.gpr[4] = KERNEL + STACK - 8;
        self.start.gpr[7] = data;
        self.complex.cpu_mut(0).set_state(&self.start);
        let mut now = 0;
        // In quanta, so that state survives leaving the processor.
        while self.complex.run(0, now, now + 1_000) == Exit::Quantum {
            now = self.complex.ticks(0);
            assert!(now < 100_000_000, "the program does not end");
        }
        let cpu = self.complex.cpu(0);
        assert_eq!(
            (cpu.activity(), cpu.rip()),
            (Activity::Halted, KERNEL + STOP + 1)
        );
        self.memory.read(MEMORY, DATA)
    }
}

fn start(complex: &Complex) -> ArchState {
    let mut s = complex.cpu(0).state();
    let flat = |access| provium_cpu::SegmentState {
        selector: 8,
        base: 0,
        limit: u32::MAX,
        access,
        unusable: false,
    };
    s.segments = [flat(0xc093); 6];
    s.segments[1] = flat(0xa09b);
    // PE MP ET NE WP PG; PAE OSFXSR OSXMMEXCPT OSXSAVE; LME LMA.
    (s.cr0, s.cr4, s.efer) = (0x8001_0033, 0x4_0620, 0x500);
    (s.cr3, s.xcr0) = (ROOT, 3);
    // What a Linux process starts with.
    s.xsave[..2].copy_from_slice(&0x37fu16.to_le_bytes());
    s.xsave[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    s.xsave[512] = 2;
    s
}

/// Integers, small and special numbers and noise, as all programs like their input.
fn input(seed: u64) -> [u8; DATA] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data = [0; DATA];
    for word in data[..programs::INPUT].chunks_exact_mut(8) {
        let n = next();
        let value = match n % 8 {
            0 => SPECIAL[(n >> 8) as usize % SPECIAL.len()],
            1 => next(),
            2 => u64::from_ne_bytes([b'a' + (n >> 8 & 3) as u8; 8]) & next(),
            3 => (next() as i16 as f64).to_bits(),
            4 => (next() as i64 as f64 * 1e-300).to_bits(),
            5 => u64::from((next() as i16 as f32).to_bits()) | next() << 32,
            _ => (next() as i32 as f64 / 65536.0).to_bits(),
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    data
}

const SPECIAL: [u64; 10] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0001,
    0x7ff0_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x7fef_ffff_ffff_ffff,
    0x7f80_0001_ff80_0000,
];

fn compare(program: &Program) {
    let mut data = Box::new(Data([0; DATA]));
    let at = &raw mut data.0 as u64;
    let mut guest = Guest::new(at);
    for seed in 1..=ROUNDS {
        let before = input(seed);
        data.0 = before;
        program.run_on_host(&mut data.0);
        let ours = guest.call(program.entry(), at, &before);
        let differ = (0..DATA).find(|&i| data.0[i] != ours[i]);
        if let Some(i) = differ {
            let i = i & !15;
            panic!(
                "{}, seed {seed}, offset {i:#x}:\nhost {:02x?}\nours {:02x?}",
                program.name,
                &data.0[i..i + 16],
                &ours[i..i + 16]
            );
        }
    }
    assert!(guest.complex.unknown_instructions().is_empty());
}

macro_rules! compared {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            compare(&programs::$name());
        }
    )*};
}

compared! {
    x87_arithmetic
    x87_functions
    x87_stack_faults
    x87_unmasked
    x87_environment
    sse_doubles
    sse_singles
    sse_rounding
    sse_integers
    mmx_and_x87
    text
    saved_state
}
