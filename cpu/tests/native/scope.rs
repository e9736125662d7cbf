//! Which instructions are run on the host, and why the others are not.

use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind};

/// Features of the processor model (x86-64-v2 with FXSAVE, XSAVE, FSGSBASE and what is older).
const MODEL: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::CLFSH,
    CpuidFeature::CPUID,
    CpuidFeature::FSGSBASE,
    CpuidFeature::FXSR,
    CpuidFeature::MMX,
    CpuidFeature::MSR,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::POPCNT,
    CpuidFeature::PREFETCHW,
    CpuidFeature::RDPMC,
    CpuidFeature::RDTSCP,
    CpuidFeature::SEP,
    CpuidFeature::SMAP,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::SYSCALL,
    CpuidFeature::TSC,
    CpuidFeature::XSAVE,
];

/// Instructions whose effect in a program depends on the kernel or the moment rather than on the
/// state that a case sets up. `tests/directed` covers them.
const NOT_NATIVE: &[(Mnemonic, &str)] = &[
    (Mnemonic::Syscall, "enters the host's kernel"),
    (Mnemonic::Sysenter, "enters the host's kernel"),
    (Mnemonic::Cpuid, "answers differ from host to host"),
    (Mnemonic::Rdtsc, "time"),
    (Mnemonic::Rdtscp, "time"),
    (Mnemonic::Rdpmc, "counts, where the kernel permits it"),
    (Mnemonic::Xgetbv, "the host has more state components"),
    (Mnemonic::Sgdt, "the kernel emulates it (UMIP)"),
    (Mnemonic::Sidt, "the kernel emulates it (UMIP)"),
    (Mnemonic::Sldt, "the kernel emulates it (UMIP)"),
    (Mnemonic::Smsw, "the kernel emulates it (UMIP)"),
    (Mnemonic::Str, "the kernel emulates it (UMIP)"),
];

/// Instructions beyond the processor model that the interpreter executes all the same.
const BEYOND: &[(Mnemonic, &str)] = &[
    (Mnemonic::Endbr32, "a NOP to processors without CET"),
    (Mnemonic::Endbr64, "a NOP to processors without CET"),
    (Mnemonic::Prefetchwt1, "a hint, of the form of PREFETCHW"),
    (Mnemonic::Lzcnt, "BSR to processors without it"),
    (Mnemonic::Tzcnt, "BSF to processors without it"),
];

/// Why an instruction is not run on the host; `None` if it is.
#[allow(dead_code, reason = "the directed guests need the lists alone")]
pub(crate) fn reason_against(insn: &Instruction) -> Option<&'static str> {
    if insn.is_invalid() {
        return Some("not an instruction");
    }
    if insn.op_code().encoding() != EncodingKind::Legacy {
        return Some("not in the processor model");
    }
    if !insn.cpuid_features().iter().all(|f| MODEL.contains(f)) {
        return Some("not in the processor model");
    }
    if insn.code() == Code::Int_imm8
        && insn.immediate8() == 0x80
        && insn.op0_kind() == OpKind::Immediate8
    {
        return Some("enters the host's kernel");
    }
    NOT_NATIVE
        .iter()
        .find(|(m, _)| *m == insn.mnemonic())
        .map(|(_, why)| *why)
}

/// All instructions that the processor model has, and that can be encoded for `bits`.
pub(crate) fn candidates(bits: u8) -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.encoding() == EncodingKind::Legacy
                && info.is_available_in_mode(u32::from(bits))
                // These are two instructions in a row.
                && !info.fwait()
                && info.decoder_option() == 0
                && code.cpuid_features().iter().all(|f| MODEL.contains(f))
        })
        .collect()
}

/// Instructions that the interpreter knows beyond the processor model, with the reason.
#[allow(dead_code, reason = "the directed guests need the other lists")]
pub(crate) fn beyond_the_model() -> impl Iterator<Item = (Mnemonic, &'static str)> {
    BEYOND.iter().copied()
}

/// Instructions that are in [`candidates`] but not run on the host, by mnemonic.
pub(crate) fn not_native() -> impl Iterator<Item = (Mnemonic, &'static str)> {
    NOT_NATIVE.iter().copied()
}
