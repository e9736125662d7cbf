//! The host's x87 unit at work: one function per instruction.
//!
//! Each loads its operands to an empty unit, sets the guest's control word, executes the
//! instruction and stores what it leaves. Since exceptions are reported by the *next* waiting
//! instruction, even unmasked ones do no harm: the flags are read and cleared without waiting,
//! before anything else is done. The unit is left empty and with its default control word.

use core::arch::asm;

/// Control word after FNINIT, and of every Linux process: all masked, extended precision, to
/// nearest.
const DEFAULT: u16 = 0x37f;

/// What an instruction leaves.
#[derive(Default)]
pub(crate) struct Outcome {
    /// ST(0), or the bytes stored to memory.
    pub(crate) value: u128,
    /// ST(1), for those that leave two values.
    pub(crate) second: u128,
    /// The status word; exceptions and condition code are this instruction's.
    pub(crate) status: u16,
}

/// An instruction with operands `a` in ST(0), `b` in ST(1) or `m` in memory, as it needs.
pub(crate) trait Native {
    fn run(control: u16, a: u128, b: u128, m: u64) -> Outcome;
}

/// The asm block: load, execute, fetch the status, store.
macro_rules! execute {
    ($o:ident, $control:ident, $a:ident, $b:ident, $m:ident;
     $($line:literal)*) => {
        // SAFETY: the operands are locals that outlive the block, of at least ten bytes where it
        // accesses ten. The unit is empty on entry, as the clobbers demand, and on exit; the
        // control word is restored and the exceptions are cleared.
        unsafe {
            asm!(
                $($line,)*
                // Not every instruction uses every operand.
                "# {a} {b} {m} {control} {default} {value} {second}",
                a = in(reg) &raw const $a,
                b = in(reg) &raw const $b,
                m = in(reg) &raw const $m,
                control = in(reg) &raw const $control,
                default = in(reg) &raw const DEFAULT_WORD,
                value = in(reg) &raw mut $o.value,
                second = in(reg) &raw mut $o.second,
                out("ax") $o.status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
    };
}

static DEFAULT_WORD: u16 = DEFAULT;

/// Instructions that share how operands get in and results out. With the default control word all
/// exceptions are masked, so the stack's depth is known afterwards; else FNINIT settles it.
macro_rules! instructions {
    (load $load:tt store $store:tt $($name:ident = $insn:literal;)*) => {$(
        pub(crate) struct $name;
        instructions! { @one $name $insn $load $store }
    )*};
    (@one $name:ident $insn:literal [$($load:literal)*] [$($store:literal)*]) => {
        impl Native for $name {
            fn run(control: u16, a: u128, b: u128, m: u64) -> Outcome {
                let mut o = Outcome::default();
                if control == DEFAULT {
                    execute!(o, control, a, b, m;
                        $($load)* $insn "fnstsw ax"
                        "test al, 0x3f" "jz 2f" "fnclex" "2:"
                        $($store)*);
                } else {
                    execute!(o, control, a, b, m;
                        $($load)* "fldcw word ptr [{control}]" $insn "fnstsw ax" "fnclex"
                        "fldcw word ptr [{default}]" $($store)* "fninit");
                }
                o
            }
        }
    };
}

// Two registers to one.
instructions! {
    load ["fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]"]
    store ["fstp tbyte ptr [{value}]" "fstp st(0)"]
    Fadd = "fadd st(0), st(1)";
    Fmul = "fmul st(0), st(1)";
    Fsub = "fsub st(0), st(1)";
    Fsubr = "fsubr st(0), st(1)";
    Fdiv = "fdiv st(0), st(1)";
    Fdivr = "fdivr st(0), st(1)";
    Fprem = "fprem";
    Fprem1 = "fprem1";
    Fscale = "fscale";
}

// Two registers to one, the upper popped.
instructions! {
    load ["fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]"]
    store ["fstp tbyte ptr [{value}]"]
    Fyl2x = "fyl2x";
    Fyl2xp1 = "fyl2xp1";
    Fpatan = "fpatan";
}

// A register and memory.
instructions! {
    load ["fld tbyte ptr [{a}]"]
    store ["fstp tbyte ptr [{value}]"]
    FaddSingle = "fadd dword ptr [{m}]";
    FmulSingle = "fmul dword ptr [{m}]";
    FsubSingle = "fsub dword ptr [{m}]";
    FsubrSingle = "fsubr dword ptr [{m}]";
    FdivSingle = "fdiv dword ptr [{m}]";
    FdivrSingle = "fdivr dword ptr [{m}]";
    FaddDouble = "fadd qword ptr [{m}]";
    FmulDouble = "fmul qword ptr [{m}]";
    FsubDouble = "fsub qword ptr [{m}]";
    FsubrDouble = "fsubr qword ptr [{m}]";
    FdivDouble = "fdiv qword ptr [{m}]";
    FdivrDouble = "fdivr qword ptr [{m}]";
    FaddWord = "fiadd word ptr [{m}]";
    FmulWord = "fimul word ptr [{m}]";
    FsubWord = "fisub word ptr [{m}]";
    FsubrWord = "fisubr word ptr [{m}]";
    FdivWord = "fidiv word ptr [{m}]";
    FdivrWord = "fidivr word ptr [{m}]";
    FaddDword = "fiadd dword ptr [{m}]";
    FmulDword = "fimul dword ptr [{m}]";
    FsubDword = "fisub dword ptr [{m}]";
    FsubrDword = "fisubr dword ptr [{m}]";
    FdivDword = "fidiv dword ptr [{m}]";
    FdivrDword = "fidivr dword ptr [{m}]";
}

// One register.
instructions! {
    load ["fld tbyte ptr [{a}]"]
    store ["fstp tbyte ptr [{value}]"]
    Fsqrt = "fsqrt";
    Frndint = "frndint";
    F2xm1 = "f2xm1";
    Fsin = "fsin";
    Fcos = "fcos";
}

// One register to two, or to one if the operand is out of range; the last line tells them apart.
instructions! {
    load ["fld tbyte ptr [{a}]"]
    store ["fstp tbyte ptr [{value}]" "fstp tbyte ptr [{second}]" "fninit"]
    Fxtract = "fxtract";
    Fsincos = "fsincos";
    Fptan = "fptan";
}

// Loads and constants.
instructions! {
    load []
    store ["fstp tbyte ptr [{value}]"]
    FldSingle = "fld dword ptr [{m}]";
    FldDouble = "fld qword ptr [{m}]";
    FildWord = "fild word ptr [{m}]";
    FildDword = "fild dword ptr [{m}]";
    FildQword = "fild qword ptr [{m}]";
    Fld1 = "fld1";
    Fldl2t = "fldl2t";
    Fldl2e = "fldl2e";
    Fldpi = "fldpi";
    Fldlg2 = "fldlg2";
    Fldln2 = "fldln2";
    Fldz = "fldz";
}

// A packed decimal comes in `a`, since it has ten bytes.
instructions! {
    load []
    store ["fstp tbyte ptr [{value}]"]
    Fbld = "fbld tbyte ptr [{a}]";
}

// Stores, which pop.
instructions! {
    load ["fld tbyte ptr [{a}]"]
    store []
    FstSingle = "fstp dword ptr [{value}]";
    FstDouble = "fstp qword ptr [{value}]";
    FistWord = "fistp word ptr [{value}]";
    FistDword = "fistp dword ptr [{value}]";
    FistQword = "fistp qword ptr [{value}]";
    Fbstp = "fbstp tbyte ptr [{value}]";
}

// Comparisons with a register.
instructions! {
    load ["fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]"]
    store ["fstp st(0)" "fstp st(0)"]
    Fcom = "fcom st(1)";
    Fucom = "fucom st(1)";
}

// Comparisons with memory or zero.
instructions! {
    load ["fld tbyte ptr [{a}]"]
    store ["fstp st(0)"]
    Ftst = "ftst";
    FcomSingle = "fcom dword ptr [{m}]";
    FcomDouble = "fcom qword ptr [{m}]";
    FcomWord = "ficom word ptr [{m}]";
    FcomDword = "ficom dword ptr [{m}]";
}
