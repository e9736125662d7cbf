//! Operands with which an instruction has something to do: registers that point into the sandbox,
//! memory that holds what is looked for there, stacks that can be returned from.

use iced_x86::{Code, FlowControl, Instruction, MemorySize, Mnemonic, OpKind, Register};

use crate::case::Case;
use crate::generate::decoder_at;
use crate::rng::Rng;
use crate::{fpu, sandbox, values};

const RSP: usize = 4;
const RBP: usize = 5;

pub(crate) fn stack_pointer(rng: &mut Rng) -> u64 {
    let stack = sandbox::STACK;
    match rng.below(16) {
        0 => stack.at + rng.below(24),
        1 => stack.at + stack.len as u64 - rng.below(24),
        2 => stack.at + rng.below(stack.len as u64),
        _ => stack.at + 0x400 + 8 * rng.below(0x100),
    }
}

pub(crate) fn register(case: &Case, r: Register) -> u64 {
    match r {
        Register::FS => case.fs_base,
        Register::GS => case.gs_base,
        Register::None | Register::ES | Register::CS | Register::SS | Register::DS => 0,
        Register::AL => case.gpr[0] & 0xff,
        r if r.is_gpr64() => case.gpr[r.number()],
        r if r.is_gpr32() => case.gpr[r.number()] & 0xffff_ffff,
        r if r.is_gpr16() => case.gpr[r.number()] & 0xffff,
        _ => 0,
    }
}

pub(crate) fn explicit_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory)
}

pub(crate) fn effective_address(case: &Case, insn: &Instruction) -> Option<u64> {
    let n = (0..insn.op_count()).find(|&n| insn.op_kind(n) == OpKind::Memory)?;
    insn.virtual_address(n, 0, |r, _, _| Some(register(case, r)))
}

/// Changes a register, or the displacement where there is none, so that the memory operand lies
/// at a useful place.
pub(crate) fn aim(rng: &mut Rng, case: &mut Case, insn: &Instruction) {
    let target = values::target(rng, case.bits as u8, insn.memory_size().size());
    let Some(now) = effective_address(case, insn) else {
        return;
    };
    let delta = target.wrapping_sub(now);
    let (base, index) = (insn.memory_base(), insn.memory_index());
    if base.is_gpr() && base != index {
        let r = &mut case.gpr[base.full_register().number()];
        *r = r.wrapping_add(delta);
    } else if index.is_gpr() {
        let factor = u64::from(insn.memory_index_scale()) + u64::from(base.is_gpr());
        let r = &mut case.gpr[index.full_register().number()];
        *r = r.wrapping_add((delta as i64 / factor as i64) as u64);
    } else if rng.chance(95) {
        aim_displacement(case, insn, delta);
    }
}

/// Moves the displacement by `delta`, if there is one of the size that the address needs.
fn aim_displacement(case: &mut Case, insn: &Instruction, delta: u64) {
    let size = match insn.memory_displ_size() {
        8 if !moffs(insn) => 4,
        n => n as usize,
    };
    let Some(offset) = displacement_offset(case, insn, size) else {
        return;
    };
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&case.code[offset..offset + size]);
    let moved = u64::from_le_bytes(bytes).wrapping_add(delta);
    case.code[offset..offset + size].copy_from_slice(&moved.to_le_bytes()[..size]);
}

fn moffs(insn: &Instruction) -> bool {
    use iced_x86::OpCodeOperandKind::mem_offs;
    insn.op_code().op_kinds().contains(&mem_offs)
}

/// Where in the case's code the displacement lies.
fn displacement_offset(case: &Case, insn: &Instruction, size: usize) -> Option<usize> {
    let start = insn.ip().wrapping_sub(case.rip) as usize;
    let mut decoder = decoder_at(case, start);
    let again = decoder.decode();
    let offsets = decoder.get_constant_offsets(&again);
    (offsets.has_displacement() && offsets.displacement_size() == size || moffs(insn))
        .then(|| start + offsets.displacement_offset())
        .filter(|&o| o > start && o + size <= case.code_len as usize)
}

/// Registers that the instruction uses without naming them.
pub(crate) fn implicit(rng: &mut Rng, case: &mut Case, insn: &Instruction) {
    let bits = case.bits as u8;
    if insn.is_string_instruction()
        || matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu)
    {
        for r in [6, 7] {
            if rng.chance(90) {
                case.gpr[r] = values::target(rng, bits, 8);
            }
        }
        if rng.chance(92) {
            case.gpr[1] = rng.below(24);
        }
    }
    match insn.mnemonic() {
        Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
            (case.gpr[0], case.gpr[2]) = (rng.below(4), 0);
        }
        Mnemonic::Xlatb => {
            case.gpr[3] = values::target(rng, bits, 1).wrapping_sub(case.gpr[0] & 0xff)
        }
        Mnemonic::Enter | Mnemonic::Leave if rng.chance(90) => case.gpr[RBP] = stack_pointer(rng),
        Mnemonic::Div | Mnemonic::Idiv if rng.chance(80) => dividend(rng, case, insn),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            if explicit_memory(insn) && insn.op1_register().is_gpr() && rng.chance(80) =>
        {
            case.gpr[insn.op1_register().number()] = rng.below(4096).wrapping_sub(2048);
        }
        Mnemonic::Loop
        | Mnemonic::Loope
        | Mnemonic::Loopne
        | Mnemonic::Jrcxz
        | Mnemonic::Jecxz
        | Mnemonic::Jcxz => {
            case.gpr[1] = rng.pick(&[0, 1, 2, 1 << 32, 1 << 32 | 1, 0x1_0000, 0x1_0001]);
        }
        Mnemonic::Cmpxchg if rng.chance(50) => {
            let r = insn.op0_register();
            if r.is_gpr() {
                case.gpr[0] = case.gpr[r.full_register().number()];
            }
        }
        Mnemonic::Aaa | Mnemonic::Aas | Mnemonic::Daa | Mnemonic::Das => {
            case.gpr[0] = rng.below(0x1_0000)
        }
        // Lengths of PCMPESTRx.
        Mnemonic::Pcmpestri | Mnemonic::Pcmpestrm => {
            for r in [0, 2] {
                if rng.chance(80) {
                    case.gpr[r] = rng.below(40).wrapping_sub(20);
                }
            }
        }
        _ => {}
    }
}

/// A high half that lets the quotient fit, often.
fn dividend(rng: &mut Rng, case: &mut Case, insn: &Instruction) {
    let signed = insn.mnemonic() == Mnemonic::Idiv;
    let low = values::integer(rng);
    case.gpr[0] = low;
    case.gpr[2] = match rng.below(4) {
        0..=1 if signed => ((low as i64) >> 63) as u64,
        0..=1 => 0,
        2 => rng.below(16),
        _ => values::integer(rng),
    };
    if insn.op0_register().size() == 1 || insn.memory_size().size() == 1 {
        case.gpr[0] = rng
            .below(0x2000)
            .wrapping_sub(if signed { 0x1000 } else { 0 });
    }
}

/// What the memory operand holds.
pub(crate) fn contents(
    rng: &mut Rng,
    case: &mut Case,
    insn: &Instruction,
    address: u64,
    size: MemorySize,
) {
    match insn.mnemonic() {
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
            return state_image(rng, case, address);
        }
        Mnemonic::Ldmxcsr if rng.chance(85) => {
            let value = fpu::mxcsr(rng);
            return case.patch(address, &value.to_le_bytes());
        }
        Mnemonic::Fbld if rng.chance(80) => {
            let mut digits = [0u8; 10];
            digits[..9].fill_with(|| (rng.below(10) << 4 | rng.below(10)) as u8);
            digits[9] = rng.pick(&[0, 0x80]);
            return case.patch(address, &digits);
        }
        Mnemonic::Fldcw if rng.chance(80) => {
            let value = 0x40 | 0x3f | rng.next() as u16 & 0xf00;
            return case.patch(address, &value.to_le_bytes());
        }
        _ => {}
    }
    let mut bytes = [0; 64];
    for (n, lane) in bytes.chunks_exact_mut(16).enumerate() {
        let value = match size {
            MemorySize::Float80 | MemorySize::FpuEnv28 | MemorySize::FpuState108 if n == 0 => {
                let (significand, exponent) = values::extended(rng);
                u128::from(exponent) << 64 | u128::from(significand)
            }
            MemorySize::Float32 => u128::from(values::single(rng)),
            MemorySize::Float64 => u128::from(values::double(rng)),
            s if s.size() <= 8 && s.size() > 0 => u128::from(values::integer(rng)),
            _ => values::vector(rng),
        };
        lane.copy_from_slice(&value.to_le_bytes());
    }
    case.patch(address, &bytes);
    if insn.mnemonic() == Mnemonic::Cmpxchg8b && rng.chance(50) {
        (case.gpr[0], case.gpr[2]) = (word(&bytes, 0) & 0xffff_ffff, word(&bytes, 0) >> 32);
    }
    if insn.mnemonic() == Mnemonic::Cmpxchg16b && rng.chance(50) {
        (case.gpr[0], case.gpr[2]) = (word(&bytes, 0), word(&bytes, 8));
    }
    if insn.mnemonic() == Mnemonic::Cmpxchg && rng.chance(50) {
        case.gpr[0] = word(&bytes, 0);
    }
}

fn word(bytes: &[u8; 64], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// An image that FXRSTOR and XRSTOR accept.
fn state_image(rng: &mut Rng, case: &mut Case, address: u64) {
    let fx = fpu::image(rng);
    for n in 0..6 {
        case.patch(
            address + 64 * n,
            &fx[64 * n as usize..64 * (n as usize + 1)],
        );
    }
    // XSTATE_BV and XCOMP_BV; a few bits that only the host's processor knows are left out.
    let mut header = [0; 64];
    header[0] = rng.below(4) as u8;
    if rng.chance(3) {
        header[16] = 0x80 >> rng.below(8);
    }
    case.patch(address + 512, &header);
}

/// What instructions that pop find on the stack.
pub(crate) fn stack_contents(rng: &mut Rng, case: &mut Case, insn: &Instruction) {
    let (code, width) = (values::code_address(rng), stack_width(case, insn));
    // With AC set, IRET itself checks the alignment of its frame, for which Linux blames a split
    // lock and tries again for ever.
    let aligned = if case.gpr[RSP].is_multiple_of(8) {
        0x4_0000
    } else {
        0
    };
    let flags = rng.next() & (0x20_4ed5 | aligned) | if rng.chance(10) { 0x100 } else { 0 };
    let words = match insn.mnemonic() {
        Mnemonic::Ret => [code, 0, 0, 0, 0],
        Mnemonic::Retf => [
            code,
            selector(rng, true),
            stack_pointer(rng),
            selector(rng, false),
            0,
        ],
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => [
            code,
            selector(rng, true),
            flags,
            stack_pointer(rng),
            selector(rng, false),
        ],
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => [flags, 0, 0, 0, 0],
        // Processors differ in what they make of the upper bytes of a pushed selector.
        Mnemonic::Push if insn.op0_register().is_segment_register() => {
            let room = case.bits / 8;
            return case.patch(case.gpr[RSP].wrapping_sub(room), &[0; 8][..room as usize]);
        }
        Mnemonic::Pop if insn.op0_register().is_segment_register() => {
            [selector(rng, false), 0, 0, 0, 0]
        }
        _ => return,
    };
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend(&word.to_le_bytes()[..width]);
    }
    case.patch(case.gpr[RSP], &bytes);
}

fn stack_width(case: &Case, insn: &Instruction) -> usize {
    let pops = match insn.mnemonic() {
        Mnemonic::Iret | Mnemonic::Popf => 2,
        Mnemonic::Iretd | Mnemonic::Popfd => 4,
        Mnemonic::Iretq | Mnemonic::Popfq => 8,
        Mnemonic::Retf => match insn.code() {
            Code::Retfw | Code::Retfw_imm16 => 2,
            Code::Retfd | Code::Retfd_imm16 => 4,
            _ => 8,
        },
        _ => insn.stack_pointer_increment().unsigned_abs() as usize,
    };
    if matches!(pops, 2 | 4 | 8) {
        pops
    } else {
        case.bits as usize / 8
    }
}

/// A selector that Linux has, or null, or nonsense.
fn selector(rng: &mut Rng, code: bool) -> u64 {
    match rng.below(16) {
        0 => rng.below(4),
        1 => rng.pick(&[0x10, 0x18, 0x20, 0x28, 0x30, 0x2a, 0x31, 0x40, 0x83, 0x8000]),
        2 => 0x2b,
        3..=4 => 0x33,
        5..=6 => 0x23,
        _ if code => 0x33,
        _ => 0x2b,
    }
}

/// Where an indirect or far branch goes, and operands that are selectors.
pub(crate) fn branch_target(rng: &mut Rng, case: &mut Case, insn: &Instruction) {
    let code = values::code_address(rng);
    let chosen = selector(rng, insn.flow_control() != FlowControl::Next);
    let first = insn.op0_register();
    let takes_selector = matches!(
        insn.mnemonic(),
        Mnemonic::Verr | Mnemonic::Verw | Mnemonic::Lar | Mnemonic::Lsl
    ) || insn.mnemonic() == Mnemonic::Mov && first.is_segment_register();
    let address = if explicit_memory(insn) {
        effective_address(case, insn)
    } else {
        None
    };
    if takes_selector {
        match address {
            Some(a) => case.patch(a, &chosen.to_le_bytes()),
            None => {
                let r = if insn.op_count() == 1 {
                    first
                } else {
                    insn.op1_register()
                };
                case.gpr[r.full_register().number()] = chosen;
            }
        }
    }
    let far = match insn.memory_size() {
        MemorySize::SegPtr16 => 2,
        MemorySize::SegPtr32 => 4,
        MemorySize::SegPtr64 => 8,
        _ => 0,
    };
    match (insn.flow_control(), address) {
        (_, Some(a)) if far != 0 => {
            let mut bytes = code.to_le_bytes()[..far].to_vec();
            bytes.extend(&chosen.to_le_bytes()[..2]);
            case.patch(a, &bytes);
        }
        (FlowControl::IndirectBranch | FlowControl::IndirectCall, Some(a)) => {
            case.patch(a, &code.to_le_bytes())
        }
        (FlowControl::IndirectBranch | FlowControl::IndirectCall, None)
            if first.is_gpr() && rng.chance(85) =>
        {
            case.gpr[first.full_register().number()] = code;
        }
        _ => {}
    }
}
