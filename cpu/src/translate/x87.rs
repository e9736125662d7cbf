//! x87 instructions.

use iced_x86::{MemorySize, Mnemonic, Register};

use super::Emit;
use crate::exec::x87::native as n;
use crate::exec::x87::{NO_MEMORY, arith, check_x87, compare, control, function, load, store};
use crate::flags as cond;
use crate::op::{Handler, Op};

pub(super) fn emit(e: &mut Emit) -> bool {
    if e.insn.mnemonic() == Mnemonic::Wait {
        e.plain(control::wait);
        return true;
    }
    let Some(op) = arithmetic(e)
        .or_else(|| comparison(e))
        .or_else(|| loading(e))
        .or_else(|| storing(e))
        .or_else(|| calculation(e))
        .or_else(|| control_words(e))
    else {
        return false;
    };
    e.require(check_x87);
    let op = if e.is_memory(0) {
        // The handler tells the operand's offset from its linear address by the segment.
        let imm = u64::from(e.segment());
        e.memory(Op { imm, ..op })
    } else {
        Op {
            imm: NO_MEMORY,
            ..op
        }
    };
    e.push(op);
    true
}

/// Handlers of an instruction that takes its second operand from a register or from memory.
struct Family {
    registers: Handler,
    single: Handler,
    double: Handler,
    word: Handler,
    dword: Handler,
}

macro_rules! family {
    ($handlers:ident: $registers:ident, $single:ident, $double:ident, $word:ident, $dword:ident) => {
        Family {
            registers: $handlers::registers::<n::$registers>,
            single: $handlers::memory::<n::$single, u32>,
            double: $handlers::memory::<n::$double, u64>,
            word: $handlers::memory::<n::$word, u16>,
            dword: $handlers::memory::<n::$dword, u32>,
        }
    };
}

impl Family {
    /// The operation, for memory or for ST(`dst`) and ST(`src`).
    fn op(&self, e: &Emit, dst: u8, src: u8, pops: u8) -> Op {
        let run = match e.insn.memory_size() {
            _ if !e.is_memory(0) => self.registers,
            MemorySize::Float32 => self.single,
            MemorySize::Float64 => self.double,
            MemorySize::Int16 => self.word,
            _ => self.dword,
        };
        Op {
            dst,
            src,
            aux: pops,
            ..e.op(run)
        }
    }
}

/// Number of the stack register that is operand `n`; the top if there is none.
fn stack_register(e: &Emit, n: u32) -> u8 {
    if e.is_register(n) { e.register(n) } else { 0 }
}

fn arithmetic(e: &Emit) -> Option<Op> {
    use Mnemonic as M;
    let (family, pops) = match e.insn.mnemonic() {
        m @ (M::Fadd | M::Faddp | M::Fiadd) => (
            family!(arith: Fadd, FaddSingle, FaddDouble, FaddWord, FaddDword),
            m == M::Faddp,
        ),
        m @ (M::Fmul | M::Fmulp | M::Fimul) => (
            family!(arith: Fmul, FmulSingle, FmulDouble, FmulWord, FmulDword),
            m == M::Fmulp,
        ),
        m @ (M::Fsub | M::Fsubp | M::Fisub) => (
            family!(arith: Fsub, FsubSingle, FsubDouble, FsubWord, FsubDword),
            m == M::Fsubp,
        ),
        m @ (M::Fsubr | M::Fsubrp | M::Fisubr) => (
            family!(arith: Fsubr, FsubrSingle, FsubrDouble, FsubrWord, FsubrDword),
            m == M::Fsubrp,
        ),
        m @ (M::Fdiv | M::Fdivp | M::Fidiv) => (
            family!(arith: Fdiv, FdivSingle, FdivDouble, FdivWord, FdivDword),
            m == M::Fdivp,
        ),
        m @ (M::Fdivr | M::Fdivrp | M::Fidivr) => (
            family!(arith: Fdivr, FdivrSingle, FdivrDouble, FdivrWord, FdivrDword),
            m == M::Fdivrp,
        ),
        _ => return None,
    };
    Some(family.op(
        e,
        stack_register(e, 0),
        stack_register(e, 1),
        u8::from(pops),
    ))
}

fn comparison(e: &Emit) -> Option<Op> {
    use Mnemonic as M;
    let ordered = || family!(compare: Fcom, FcomSingle, FcomDouble, FcomWord, FcomDword);
    let src = stack_register(e, 1);
    let pair = |run: Handler, src: u8, aux: u8| Op {
        src,
        aux,
        ..e.op(run)
    };
    Some(match e.insn.mnemonic() {
        M::Fcom | M::Ficom => ordered().op(e, 0, src, 0),
        M::Fcomp | M::Ficomp => ordered().op(e, 0, src, 1),
        M::Fcompp => pair(compare::registers::<n::Fcom>, 1, 2),
        M::Fucom => pair(compare::registers::<n::Fucom>, src, 0),
        M::Fucomp => pair(compare::registers::<n::Fucom>, src, 1),
        M::Fucompp => pair(compare::registers::<n::Fucom>, 1, 2),
        M::Fcomi => pair(compare::to_eflags::<n::Fcom>, src, 0),
        M::Fcomip => pair(compare::to_eflags::<n::Fcom>, src, 1),
        M::Fucomi => pair(compare::to_eflags::<n::Fucom>, src, 0),
        M::Fucomip => pair(compare::to_eflags::<n::Fucom>, src, 1),
        M::Ftst => e.op(compare::zero::<n::Ftst>),
        M::Fxam => e.op(compare::examine),
        _ => return None,
    })
}

fn loading(e: &Emit) -> Option<Op> {
    use Mnemonic as M;
    let run: Handler = match e.insn.mnemonic() {
        M::Fld => match e.insn.memory_size() {
            _ if !e.is_memory(0) => {
                return Some(Op {
                    src: stack_register(e, 0),
                    ..e.op(load::register)
                });
            }
            MemorySize::Float32 => load::from_memory::<n::FldSingle, u32>,
            MemorySize::Float64 => load::from_memory::<n::FldDouble, u64>,
            _ => load::extended,
        },
        M::Fild => match e.insn.memory_size() {
            MemorySize::Int16 => load::from_memory::<n::FildWord, u16>,
            MemorySize::Int32 => load::from_memory::<n::FildDword, u32>,
            _ => load::from_memory::<n::FildQword, u64>,
        },
        M::Fbld => load::decimal::<n::Fbld>,
        M::Fld1 => load::constant::<n::Fld1>,
        M::Fldl2t => load::constant::<n::Fldl2t>,
        M::Fldl2e => load::constant::<n::Fldl2e>,
        M::Fldpi => load::constant::<n::Fldpi>,
        M::Fldlg2 => load::constant::<n::Fldlg2>,
        M::Fldln2 => load::constant::<n::Fldln2>,
        M::Fldz => load::constant::<n::Fldz>,
        M::Fxch => load::exchange,
        M::Fcmovb => load::conditional::<cond::B>,
        M::Fcmove => load::conditional::<cond::E>,
        M::Fcmovbe => load::conditional::<cond::Be>,
        M::Fcmovu => load::conditional::<cond::P>,
        M::Fcmovnb => load::conditional::<cond::Ae>,
        M::Fcmovne => load::conditional::<cond::Ne>,
        M::Fcmovnbe => load::conditional::<cond::A>,
        M::Fcmovnu => load::conditional::<cond::Np>,
        _ => return None,
    };
    Some(Op {
        src: stack_register(e, 1),
        ..e.op(run)
    })
}

fn storing(e: &Emit) -> Option<Op> {
    use Mnemonic as M;
    let size = e.insn.memory_size();
    let (run, pops): (Handler, bool) = match e.insn.mnemonic() {
        M::Fstpnce => (store::register_unchecked, true),
        m @ (M::Fst | M::Fstp) => {
            let run: Handler = match size {
                _ if !e.is_memory(0) => store::register,
                MemorySize::Float32 => store::float::<n::FstSingle, u32>,
                MemorySize::Float64 => store::float::<n::FstDouble, u64>,
                _ => store::extended,
            };
            (run, m != M::Fst)
        }
        m @ (M::Fist | M::Fistp) => {
            let run: Handler = match size {
                MemorySize::Int16 => store::integer::<n::FistWord, u16>,
                MemorySize::Int32 => store::integer::<n::FistDword, u32>,
                _ => store::integer::<n::FistQword, u64>,
            };
            (run, m == M::Fistp)
        }
        M::Fisttp => match size {
            MemorySize::Int16 => (store::truncated::<n::FistWord, u16>, true),
            MemorySize::Int32 => (store::truncated::<n::FistDword, u32>, true),
            _ => (store::truncated::<n::FistQword, u64>, true),
        },
        M::Fbstp => (store::decimal::<n::Fbstp>, true),
        _ => return None,
    };
    Some(Op {
        dst: stack_register(e, 0),
        aux: u8::from(pops),
        ..e.op(run)
    })
}

fn calculation(e: &Emit) -> Option<Op> {
    use Mnemonic as M;
    let run: Handler = match e.insn.mnemonic() {
        M::Fchs => function::sign::<true>,
        M::Fabs => function::sign::<false>,
        M::Fsqrt => function::unary::<n::Fsqrt>,
        M::Frndint => function::unary::<n::Frndint>,
        M::F2xm1 => function::unary::<n::F2xm1>,
        M::Fsin => function::angle::<n::Fsin>,
        M::Fcos => function::angle::<n::Fcos>,
        M::Fscale => function::binary::<n::Fscale>,
        M::Fprem => function::remainder::<n::Fprem>,
        M::Fprem1 => function::remainder::<n::Fprem1>,
        M::Fyl2x => function::binary_pop::<n::Fyl2x>,
        M::Fyl2xp1 => function::binary_pop::<n::Fyl2xp1>,
        M::Fpatan => function::binary_pop::<n::Fpatan>,
        M::Fxtract => function::two_results::<n::Fxtract, false>,
        M::Fsincos => function::two_results::<n::Fsincos, true>,
        M::Fptan => function::two_results::<n::Fptan, true>,
        _ => return None,
    };
    Some(e.op(run))
}

fn control_words(e: &Emit) -> Option<Op> {
    use Mnemonic as M;
    let dst = stack_register(e, 0);
    // The environment's size goes by that of the operand: 14 and 94 bytes, or 28 and 108.
    let wide = !matches!(
        e.insn.memory_size(),
        MemorySize::FpuEnv14 | MemorySize::FpuState94
    );
    let sized = |run: Handler| Op {
        aux: u8::from(wide),
        ..e.op(run)
    };
    Some(match e.insn.mnemonic() {
        M::Fninit => e.op(control::fninit),
        M::Fnclex => e.op(control::fnclex),
        M::Fnop => e.op(control::fnop),
        M::Fneni | M::Fndisi | M::Fnsetpm | M::Frstpm => e.op(control::nothing),
        M::Fldcw => e.op(control::fldcw),
        M::Fnstcw => e.op(control::fnstcw),
        M::Fnstsw if e.insn.op0_register() == Register::AX => e.op(control::fnstsw_ax),
        M::Fnstsw => e.op(control::fnstsw),
        M::Fincstp => e.op(control::rotate::<1>),
        M::Fdecstp => e.op(control::rotate::<7>),
        M::Ffree => Op {
            dst,
            ..e.op(control::ffree)
        },
        M::Ffreep => Op {
            dst,
            aux: 1,
            ..e.op(control::ffree)
        },
        M::Fnstenv => sized(control::fnstenv),
        M::Fldenv => sized(control::fldenv),
        M::Fnsave => sized(control::fnsave),
        M::Frstor => sized(control::frstor),
        _ => return None,
    })
}
