//! Proof that the software processor computes what a real one does: random instructions with
//! random registers, flags and memory run on the host, in a forked child, and in the interpreter,
//! and everything that architecture defines must agree, faults included.
//!
//! | variable | meaning |
//! |---|---|
//! | `PROVIUM_CPU_CASES` | number of cases; default [`DEFAULT_CASES`] |
//! | `PROVIUM_CPU_SEED` | seed of the first case (the next one's is one higher), or `random` |
//!
//! A failure prints the two variables that run exactly its case again.

mod case;
mod child;
mod compare;
mod emulated;
mod encode;
mod fpu;
mod generate;
mod hazards;
#[path = "../machine/mod.rs"]
mod machine;
mod native;
mod operands;
mod report;
mod rng;
mod sandbox;
mod scope;
mod seccomp;
mod sequence;
mod values;

use std::collections::BTreeMap;

use iced_x86::{Code, CodeSize, Instruction, Mnemonic, Register};

use case::{Case, HUNG, NOT_RUN, Outcome};
use emulated::Emulated;
use generate::{Generator, Program};
use native::{BATCH, Native};
use report::Failures;

const DEFAULT_CASES: u64 = 400_000;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
/// Cases from which on every instruction must have had its turn.
const COMPLETE: u64 = 200_000;
const DEFAULT_SEED: u64 = 0x5eed_0000_0000;

/// The interpreter does not check the types of segments in 32-bit code.
fn unchecked_segment(insn: &Instruction) -> bool {
    insn.code_size() == CodeSize::Code32 && insn.memory_segment() == Register::CS
}

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None if text == "random" => Ok(std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(default, |d| d.as_nanos() as u64)),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}

#[derive(Default)]
struct Tally {
    by_mnemonic: BTreeMap<Mnemonic, u64>,
    compared: u64,
    faults: u64,
    skipped: BTreeMap<&'static str, u64>,
    failures: Failures,
}

impl Tally {
    fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    /// Instructions of the processor model that should run on the host and have not.
    fn missing(&self) -> Vec<Mnemonic> {
        let not_native: Vec<_> = scope::not_native().map(|(m, _)| m).collect();
        let mut missing: Vec<_> = [32, 64]
            .into_iter()
            .flat_map(scope::candidates)
            .map(|code| code.mnemonic())
            .filter(|m| !not_native.contains(m) && self.by_mnemonic.get(m).is_none_or(|n| *n == 0))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn judge(&mut self, program: &Program, native: &Outcome, ours: &Outcome) {
        let (case, insns) = (&program.case, &program.insns);
        match (native.vector, ours.vector) {
            (NOT_RUN, _) => return self.skip("took the child down"),
            (HUNG, HUNG) => return self.skip("loops for ever on both sides"),
            (6 | 13 | 14, _) => {}
            _ if insns[0].is_invalid() => return self.skip("unknown to the decoder"),
            _ => {}
        }
        if insns.iter().any(unchecked_segment) {
            return self.skip("32-bit code that writes through CS");
        }
        let fault = insns
            .iter()
            .position(|i| i.ip() == native.rip && native.vector != BREAKPOINT);
        let last = &insns[fault.unwrap_or(insns.len() - 1)];
        if insns
            .iter()
            .any(|insn| compare::undefined_result(case, insn))
        {
            return self.skip("undefined result");
        }
        let open_flags = match insns.len() {
            1 => compare::undefined_flags(case, last, native),
            n => sequence::undefined_flags(&insns[..fault.unwrap_or(n)]),
        };
        for insn in insns {
            *self.by_mnemonic.entry(insn.mnemonic()).or_default() += 1;
        }
        self.compared += 1;
        self.faults += u64::from(native.vector != BREAKPOINT);
        let differences = compare::differences(case, last, open_flags, native, ours);
        if !differences.is_empty() {
            self.failures.add(program, last, &differences);
        }
    }
}

#[test]
fn random_instructions_agree_with_the_host() {
    let (cases, first) = (
        number("PROVIUM_CPU_CASES", DEFAULT_CASES),
        number("PROVIUM_CPU_SEED", DEFAULT_SEED),
    );
    println!("{cases} cases from seed {first:#x}");
    let mut generator = Generator::new();
    let mut native = Native::new().expect("shared memory for the child");
    let mut emulated = Emulated::new();
    let mut tally = Tally::default();
    let mut next = 0;
    while next < cases {
        let count = (cases - next).min(BATCH as u64);
        let batch: Vec<Program> = (next..next + count)
            .map(|n| generator.case(first.wrapping_add(n)))
            .collect();
        next += count;
        let plain: Vec<Case> = batch.iter().map(|p| p.case).collect();
        let outcomes = native.run(&plain).expect("a child to run cases in");
        for (program, theirs) in batch.iter().zip(outcomes) {
            let mut ours = Outcome::blank();
            let before = emulated.unknown();
            emulated.run(&program.case, program.case.seed & 1 != 0, &mut ours);
            if emulated.unknown() != before {
                tally.skip("unknown to the interpreter");
                continue;
            }
            tally.judge(program, theirs, &ours);
        }
    }
    let ran = tally.compared;
    println!(
        "{ran} cases compared, {} of them faulted; {} mnemonics",
        tally.faults,
        tally.by_mnemonic.len()
    );
    println!("not compared: {:?}", tally.skipped);
    assert!(
        cases < COMPLETE || tally.missing().is_empty(),
        "never compared: {:?}",
        tally.missing()
    );
    assert!(
        tally.failures.count == 0,
        "{} of {ran} cases differ\n{}",
        tally.failures.count,
        tally.failures.summary()
    );
}

/// Whatever the interpreter executes is in the processor model and so compared with the host, or
/// listed here with the reason why it need not be.
#[test]
fn the_interpreter_has_nothing_that_is_not_compared() {
    let listed: Vec<Mnemonic> = scope::beyond_the_model().map(|(m, _)| m).collect();
    let mut emulated = Emulated::new();
    let mut surprises = std::collections::BTreeSet::new();
    for bits in [32u8, 64] {
        let model = scope::candidates(bits);
        for code in Code::values().filter(|c| !model.contains(c)) {
            let Some(case) = generate::plain(code, bits) else {
                continue;
            };
            let before = emulated.unknown();
            let mut out = Outcome::blank();
            emulated.run(&case, true, &mut out);
            let known = emulated.unknown() == before && out.vector != INVALID_OPCODE;
            if known && !listed.contains(&code.mnemonic()) {
                surprises.insert(code.mnemonic());
            }
        }
    }
    assert!(
        surprises.is_empty(),
        "neither compared nor listed: {surprises:?}"
    );
}
