//! What a failure looks like: the instruction, the state it started from as far as it matters,
//! what differs, and how to run it again.

use std::collections::BTreeMap;
use std::fmt::Write;

use iced_x86::{
    Formatter, Instruction, InstructionInfoFactory, IntelFormatter, Mnemonic, Register,
};

use crate::case::Case;
use crate::generate::Program;

/// Full descriptions of the first failures of each instruction form only.
const DETAILED: usize = 2;
/// Forms described at all.
const FORMS: usize = 60;

/// Failures by instruction form.
#[derive(Default)]
pub(crate) struct Failures {
    by_form: BTreeMap<String, Vec<String>>,
    pub(crate) count: usize,
}

impl Failures {
    pub(crate) fn add(&mut self, program: &Program, last: &Instruction, differences: &str) {
        self.count += 1;
        let seen = self.by_form.entry(form(program, last)).or_default();
        seen.push(if seen.len() < DETAILED {
            describe(program, differences)
        } else {
            String::new()
        });
    }

    pub(crate) fn summary(&self) -> String {
        let mut out = String::new();
        for (form, all) in self.by_form.iter().take(FORMS) {
            let _ = writeln!(out, "{form}: {} failures", all.len());
            all.iter()
                .take(DETAILED)
                .for_each(|text| out.push_str(text));
        }
        if self.by_form.len() > FORMS {
            let rest: Vec<String> = self
                .by_form
                .iter()
                .skip(FORMS)
                .map(|(f, all)| format!("{f} ({})", all.len()))
                .collect();
            let _ = writeln!(out, "and {} more forms: {}", rest.len(), rest.join(", "));
        }
        out
    }
}

/// What failures are gathered by.
fn form(program: &Program, last: &Instruction) -> String {
    match program.insns.len() {
        1 => format!("{:?}", last.code()),
        _ => format!("sequence up to {:?}", last.mnemonic()),
    }
}

fn describe(program: &Program, differences: &str) -> String {
    let case = &program.case;
    let mut out = String::new();
    for insn in &program.insns {
        let mut text = String::new();
        IntelFormatter::new().format(insn, &mut text);
        let at = (insn.ip() - case.rip) as usize;
        let bytes: String = case.code[at..at + insn.len()]
            .iter()
            .map(|b| format!("{b:02x} "))
            .collect();
        let _ = writeln!(
            out,
            "- {text}    [{}-bit at {:#x}: {}]",
            case.bits,
            insn.ip(),
            bytes.trim_end()
        );
    }
    out.push_str(&inputs(program));
    out.push_str(differences);
    let _ = writeln!(
        out,
        "  replay: PROVIUM_CPU_SEED={:#x} PROVIUM_CPU_CASES=1",
        case.seed
    );
    out
}

fn inputs(program: &Program) -> String {
    let case = &program.case;
    let mut used = Vec::new();
    for insn in &program.insns {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(insn);
        used.extend(info.used_registers().iter().map(|r| r.register()));
        used.extend(
            info.used_memory()
                .iter()
                .flat_map(|m| [m.base(), m.index()]),
        );
    }
    used.sort_unstable();
    used.dedup();
    let mut out = format!("  from rflags {:#x}", case.rflags);
    for r in used {
        if r.is_gpr() {
            let _ = write!(out, ", {r:?} {:#x}", gpr(case, r));
        } else if r.is_xmm() {
            let at = 160 + 16 * r.number();
            let _ = write!(out, ", {r:?} {}", hex(&case.fx[at..at + 16]));
        } else if r == Register::FS || r == Register::GS {
            let _ = write!(
                out,
                ", fs base {:#x}, gs base {:#x}",
                case.fs_base, case.gs_base
            );
        }
    }
    if program
        .insns
        .iter()
        .any(|insn| insn.is_fpu() || used_mmx(insn))
    {
        let _ = write!(
            out,
            "\n  fcw {} fsw {} ftw {}",
            hex(&case.fx[0..2]),
            hex(&case.fx[2..4]),
            hex(&case.fx[4..5])
        );
        for n in 0..8 {
            let _ = write!(out, " st{n} {}", hex(&case.fx[32 + 16 * n..42 + 16 * n]));
        }
    }
    let _ = write!(out, ", mxcsr {}", hex(&case.fx[24..28]));
    for p in case.patches() {
        let at = crate::sandbox::image_address(p.offset as usize);
        let _ = write!(out, "\n  [{at:#x}] = {}", plain(&p.bytes[..p.len as usize]));
    }
    out + "\n"
}

trait Fpu {
    fn is_fpu(&self) -> bool;
}

impl Fpu for Instruction {
    fn is_fpu(&self) -> bool {
        self.fpu_stack_increment_info().writes_top()
            || format!("{:?}", self.mnemonic()).starts_with('F')
                && self.mnemonic() != Mnemonic::Fxsave
    }
}

fn used_mmx(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|n| insn.op_register(n).is_mm())
}

fn gpr(case: &Case, r: Register) -> u64 {
    case.gpr[r.full_register().number()]
}

/// A little-endian number.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|b| format!("{b:02x}")).collect()
}

fn plain(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
