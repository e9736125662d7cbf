//! What has to agree between the host and the interpreter, and what architecture leaves open.

use std::fmt::Write;

use iced_x86::{Instruction, Mnemonic, OpKind, RflagsBits};

use crate::case::{Case, Outcome};
use crate::sandbox;

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
/// Arithmetic flags, TF, DF, IOPL, NT, RF, AC and ID.
const FLAGS: u64 = CF
    | PF
    | AF
    | ZF
    | SF
    | OF
    | 1 << 8
    | 1 << 10
    | 3 << 12
    | 1 << 14
    | 1 << 16
    | 1 << 18
    | 1 << 21;

const PAGE_FAULT: u64 = 14;
/// Addresses of the kernel's half, about which Linux does not tell the truth.
const KERNEL_HALF: u64 = 1 << 47;

/// Whether architecture leaves the result itself open, so that nothing can be compared.
pub(crate) fn undefined_result(case: &Case, insn: &Instruction) -> bool {
    match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => shift_count(case, insn) > operand_bits(insn),
        Mnemonic::Bswap => insn.op0_register().size() == 2,
        _ => false,
    }
}

/// Describes every difference, one a line; empty if there is none. `insn` is the instruction that
/// came last.
pub(crate) fn differences(
    case: &Case,
    insn: &Instruction,
    open_flags: u64,
    native: &Outcome,
    ours: &Outcome,
) -> String {
    let mut d = String::new();
    if native.vector == PAGE_FAULT && selects_nothing(case, insn) {
        return d;
    }
    exception(insn, native, ours, &mut d);
    registers(case, insn, native, ours, &mut d);
    let mask = FLAGS & !open_flags;
    if (native.rflags ^ ours.rflags) & mask != 0 {
        let (n, o) = (flags(native.rflags & mask), flags(ours.rflags & mask));
        let _ = writeln!(d, "  flags: host {n}, ours {o}");
    }
    floating_point(insn, native, ours, &mut d);
    memory(insn, native, ours, &mut d);
    d
}

fn exception(insn: &Instruction, native: &Outcome, ours: &Outcome, d: &mut String) {
    if native.rip == ours.rip && either_operand(insn, native, ours) {
        return;
    }
    // Bytes that are no instruction, and too many of them: which of the two is said first?
    if insn.is_invalid() && [native, ours].iter().all(|o| matches!(o.vector, 6 | 13)) {
        return;
    }
    let name = |o: &Outcome| format!("vector {} error {:#x} cr2 {:#x}", o.vector, o.error, o.cr2);
    let mut same = native.vector == ours.vector;
    if same && native.vector == PAGE_FAULT {
        let open = hidden(native) | u64::from(in_any_order(insn));
        same = (native.cr2 == ours.cr2 || in_any_order(insn))
            && native.error | open == ours.error | open;
    } else if same {
        same = native.error == ours.error;
    }
    if !same {
        let _ = writeln!(d, "  exception: host {}, ours {}", name(native), name(ours));
    }
}

/// A masked store of nothing may fault or not (SDM vol. 2, MASKMOVDQU).
fn selects_nothing(case: &Case, insn: &Instruction) -> bool {
    if !matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu) {
        return false;
    }
    let mask = insn.op2_register();
    let (at, len) = if mask.is_mm() {
        let top = usize::from(case.fx[3] >> 3 & 7);
        (32 + 16 * ((mask.number() + 8 - top) & 7), 8)
    } else {
        (160 + 16 * mask.number(), 16)
    };
    case.fx[at..at + len].iter().all(|b| b & 0x80 == 0)
}

/// CMPS may read its operands in any order, so either may be the one that faults.
fn either_operand(insn: &Instruction, native: &Outcome, ours: &Outcome) -> bool {
    let compares = matches!(
        insn.mnemonic(),
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq
    );
    compares
        && insn.is_string_instruction()
        && [native, ours].iter().all(|o| matches!(o.vector, 12..=14))
}

/// Instructions that access several words, in an order of their own.
fn in_any_order(insn: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        insn.mnemonic(),
        M::Retf | M::Iret | M::Iretd | M::Iretq | M::Maskmovq | M::Maskmovdqu
    ) || insn.is_save_restore_instruction()
        || matches!(
            insn.mnemonic(),
            M::Fldenv | M::Fnstenv | M::Fnsave | M::Frstor
        )
}

/// Linux claims that pages of its own are present.
fn hidden(native: &Outcome) -> u64 {
    u64::from(native.cr2 >= KERNEL_HALF - 0x1000)
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

fn registers(case: &Case, insn: &Instruction, native: &Outcome, ours: &Outcome, d: &mut String) {
    let (count, mask) = if case.bits == 64 {
        (16, u64::MAX)
    } else {
        (8, 0xffff_ffff)
    };
    if partial_loads(insn) && native.vector != 3 && native.vector == ours.vector {
        return;
    }
    for (n, name) in NAMES.iter().enumerate().take(count) {
        if (native.gpr[n] ^ ours.gpr[n]) & mask & !undefined_bits(case, insn, n, native) != 0 {
            let _ = writeln!(
                d,
                "  {}: host {:#x}, ours {:#x}",
                name, native.gpr[n], ours.gpr[n]
            );
        }
    }
    let mut other = |name: &str, n: u64, o: u64| {
        if n != o {
            let _ = writeln!(d, "  {name}: host {n:#x}, ours {o:#x}");
        }
    };
    other("rip", native.rip, ours.rip);
    for (n, name) in ["es", "cs", "ss", "ds", "fs", "gs"].into_iter().enumerate() {
        // The way through the host's kernel makes all null selectors zero.
        let plain = |s: u16| if s < 4 { 0 } else { u64::from(s) };
        other(name, plain(native.selectors[n]), plain(ours.selectors[n]));
    }
    other("fs base", native.fs_base, ours.fs_base);
    other("gs base", native.gs_base, ours.gs_base);
}

/// Bits of general register `n` that the instruction leaves undefined (SDM vol. 2).
fn undefined_bits(case: &Case, insn: &Instruction, n: usize, native: &Outcome) -> u64 {
    // A repeated instruction with 32-bit addresses may clear the upper halves of its registers
    // before it does anything.
    let short = insn
        .op_kinds()
        .any(|k| matches!(k, OpKind::MemorySegESI | OpKind::MemoryESEDI));
    if case.bits == 64 && short && matches!(n, 1 | 6 | 7) {
        return 0xffff_ffff << 32;
    }
    if !insn.op0_register().is_gpr() || insn.op0_register().full_register().number() != n {
        return 0;
    }
    match insn.mnemonic() {
        Mnemonic::Bsf | Mnemonic::Bsr if native.rflags & ZF != 0 => u64::MAX,
        Mnemonic::Lar => 0xf << 16,
        _ => 0,
    }
}

/// Flags that a single instruction leaves undefined, if it was executed at all.
pub(crate) fn undefined_flags(case: &Case, insn: &Instruction, native: &Outcome) -> u64 {
    if native.vector != 3 && native.rip == case.rip {
        return 0;
    }
    match insn.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Shld
        | Mnemonic::Shrd
        | Mnemonic::Sar => {
            let count = shift_count(case, insn);
            let lost = insn.mnemonic() != Mnemonic::Sar && count >= operand_bits(insn);
            match count {
                0 => 0,
                1 => AF,
                _ => AF | OF | if lost { CF } else { 0 },
            }
        }
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr => {
            if shift_count(case, insn) > 1 { OF } else { 0 }
        }
        _ => flags_from_iced(insn.rflags_undefined()),
    }
}

pub(crate) fn flags_from_iced(bits: u32) -> u64 {
    const MAP: [(u32, u64); 6] = [
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
        (RflagsBits::AF, AF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::SF, SF),
        (RflagsBits::OF, OF),
    ];
    MAP.iter()
        .filter(|(i, _)| bits & i != 0)
        .map(|(_, f)| f)
        .sum()
}

fn shift_count(case: &Case, insn: &Instruction) -> u64 {
    let last = insn.op_count() - 1;
    let count = match insn.op_kind(last) {
        OpKind::Immediate8 => insn.immediate(last),
        _ => case.gpr[1],
    };
    count & if operand_bits(insn) == 64 { 63 } else { 31 }
}

fn operand_bits(insn: &Instruction) -> u64 {
    let bytes = if insn.op0_kind() == OpKind::Register {
        insn.op0_register().size()
    } else {
        insn.memory_size().size()
    };
    bytes as u64 * 8
}

fn flags(value: u64) -> String {
    const ALL: [(u64, &str); 13] = [
        (CF, "CF"),
        (PF, "PF"),
        (AF, "AF"),
        (ZF, "ZF"),
        (SF, "SF"),
        (1 << 8, "TF"),
        (1 << 10, "DF"),
        (OF, "OF"),
        (3 << 12, "IOPL"),
        (1 << 14, "NT"),
        (1 << 16, "RF"),
        (1 << 18, "AC"),
        (1 << 21, "ID"),
    ];
    let names: Vec<&str> = ALL
        .iter()
        .filter(|(bit, _)| value & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    format!("[{}]", names.join(" "))
}

fn floating_point(insn: &Instruction, native: &Outcome, ours: &Outcome, d: &mut String) {
    let field = |o: &Outcome, at: usize, len: usize| {
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&o.fx[at..at + len]);
        u128::from_le_bytes(bytes)
    };
    let mut compare = |name: &str, at: usize, len: usize, mask: u128| {
        let (n, o) = (field(native, at, len) & mask, field(ours, at, len) & mask);
        if n != o && !(sums_in_any_order(insn) && only_nans_differ(n, o)) {
            let _ = writeln!(d, "  {name}: host {n:#x}, ours {o:#x}");
        }
    };
    // An instruction may go over to MMX state before it faults.
    let entered = native.vector != 3 && uses_mmx(insn);
    if entered && native.vector == ours.vector {
        return;
    }
    compare("fcw", 0, 2, u128::MAX);
    compare("fsw", 2, 2, !u128::from(undefined_conditions(insn)));
    compare("ftw", 4, 1, u128::MAX);
    compare("mxcsr", 24, 4, u128::MAX);
    for n in 0..8 {
        compare(
            ["st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"][n],
            32 + 16 * n,
            10,
            u128::MAX,
        );
    }
    for n in 0..16 {
        compare(&format!("xmm{n}"), 160 + 16 * n, 16, u128::MAX);
    }
}

fn uses_mmx(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|n| insn.op_register(n).is_mm())
}

/// Which of several NaNs a dot product results in depends on the order of its additions, which
/// differs from lane to lane.
fn sums_in_any_order(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Dpps | Mnemonic::Dppd)
}

fn only_nans_differ(a: u128, b: u128) -> bool {
    let nan = |v: u32| v & 0x7fff_ffff > 0x7f80_0000;
    (0..4).all(|n| {
        let (a, b) = ((a >> (32 * n)) as u32, (b >> (32 * n)) as u32);
        a == b || nan(a) && nan(b)
    })
}

/// Condition codes of the x87 status word that the instruction leaves undefined.
fn undefined_conditions(insn: &Instruction) -> u16 {
    const MAP: [(u32, u16); 4] = [
        (RflagsBits::C0, 1 << 8),
        (RflagsBits::C1, 1 << 9),
        (RflagsBits::C2, 1 << 10),
        (RflagsBits::C3, 1 << 14),
    ];
    MAP.iter()
        .filter(|(i, _)| insn.rflags_undefined() & i != 0)
        .map(|(_, c)| c)
        .sum()
}

/// Processors may load a part of the registers before they raise the fault.
fn partial_loads(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Popa | Mnemonic::Popad)
}

/// Processors may store a part before they raise the fault.
fn partial_stores(insn: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        insn.mnemonic(),
        M::Call | M::Fbstp | M::Fnsave | M::Fnstenv | M::Enter
    ) || matches!(insn.mnemonic(), M::Pusha | M::Pushad)
        || insn.is_save_restore_instruction()
}

fn memory(insn: &Instruction, native: &Outcome, ours: &Outcome, d: &mut String) {
    if partial_stores(insn) && native.vector != 3 && native.vector == ours.vector {
        return;
    }
    if native.changed == ours.changed && native.checksum == ours.checksum {
        return;
    }
    let (n, o) = (native.lines(), ours.lines());
    let mut indices: Vec<u64> = n.iter().chain(o).map(|l| l.index).collect();
    indices.sort_unstable();
    indices.dedup();
    for index in indices.into_iter().take(12) {
        let find =
            |lines: &[crate::case::Line]| lines.iter().find(|l| l.index == index).map(|l| l.bytes);
        let (a, b) = (find(n), find(o));
        if a != b {
            let at = sandbox::image_address(index as usize * sandbox::LINE);
            let _ = writeln!(
                d,
                "  memory {at:#x}:\n    host {}\n    ours {}",
                hex(a),
                hex(b)
            );
        }
    }
    if d.is_empty() {
        let _ = writeln!(
            d,
            "  memory: host changed {} lines, ours {}",
            native.changed, ours.changed
        );
    }
}

fn hex(line: Option<[u8; sandbox::LINE]>) -> String {
    match line {
        None => "unchanged".into(),
        Some(bytes) => bytes
            .chunks(8)
            .map(|c| c.iter().map(|b| format!("{b:02x}")).collect::<String>() + " ")
            .collect(),
    }
}
