//! The programs: position-independent functions `fn(rdi: *mut [u8; DATA])` that read the first
//! [`INPUT`] bytes, write the rest, and leave the x87 unit and MXCSR as every function must.

use std::arch::global_asm;

/// Bytes that a program works on, and how many of them are its input.
pub(crate) const DATA: usize = 0x3000;
pub(crate) const INPUT: usize = 0x400;

/// One program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    function: unsafe extern "C" fn(*mut u8),
}

impl Program {
    pub(crate) fn entry(&self) -> u64 {
        self.function as *const () as u64
    }

    pub(crate) fn run_on_host(&self, data: &mut [u8; DATA]) {
        // SAFETY: the programs access nothing but their data, and follow the calling convention;
        // exceptions they unmask are masked or cleared before the next waiting instruction.
        unsafe { (self.function)(data.as_mut_ptr()) }
    }
}

macro_rules! programs {
    ($($name:ident)*) => {
        unsafe extern "C" {
            static sequences_start: u8;
            static sequences_end: u8;
        }
        $(pub(crate) fn $name() -> Program {
            unsafe extern "C" {
                #[link_name = concat!("sequence_", stringify!($name))]
                fn function(data: *mut u8);
            }
            Program { name: stringify!($name), function }
        })*
    };
}

programs! {
    x87_arithmetic x87_functions x87_stack_faults x87_unmasked x87_environment
    sse_doubles sse_singles sse_rounding sse_integers mmx_and_x87 text saved_state
}

/// The machine code of all programs, whole pages.
pub(crate) fn code() -> &'static [u8] {
    let (start, end) = (&raw const sequences_start, &raw const sequences_end);
    // SAFETY: the two labels enclose the programs, which nobody writes to.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

global_asm!(
    ".pushsection .text.sequences, \"ax\"",
    ".balign 4096",
    ".globl sequences_start",
    "sequences_start:",
    include_str!("x87.s"),
    include_str!("sse.s"),
    include_str!("state.s"),
    ".balign 4096",
    ".globl sequences_end",
    "sequences_end:",
    ".popsection",
);
