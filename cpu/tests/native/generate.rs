//! Random cases: an instruction or a few, and a state in which they have something to do.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory};

use crate::case::Case;
use crate::rng::Rng;
use crate::{encode, fpu, hazards, operands, sandbox, scope, sequence, values};

/// A case and what it consists of.
pub(crate) struct Program {
    pub(crate) case: Case,
    pub(crate) insns: Vec<Instruction>,
}

/// Most instructions of a case.
const LONGEST: u64 = 6;
/// Bytes of a case's code.
const CODE_LEN: usize = 64;

/// Makes cases from seeds.
pub(crate) struct Generator {
    codes64: Vec<Code>,
    codes32: Vec<Code>,
    info: InstructionInfoFactory,
}

impl Generator {
    pub(crate) fn new() -> Generator {
        let runs = |code: &Code| !scope::not_native().any(|(m, _)| m == code.mnemonic());
        Generator {
            codes64: scope::candidates(64).into_iter().filter(runs).collect(),
            codes32: scope::candidates(32).into_iter().filter(runs).collect(),
            info: InstructionInfoFactory::new(),
        }
    }

    /// The case of a seed.
    pub(crate) fn case(&mut self, seed: u64) -> Program {
        let mut rng = Rng::new(seed);
        loop {
            let bits = if rng.chance(75) { 64 } else { 32 };
            let mut case = Case {
                seed,
                bits,
                ..Case::blank()
            };
            let fits = match rng.below(100) {
                0..=3 => raw(&mut rng, &mut case),
                4..=24 => self.sequence(&mut rng, &mut case),
                _ => self.single(&mut rng, &mut case),
            };
            if !fits {
                continue;
            }
            self.state(&mut rng, &mut case);
            let insns = decode(&case);
            let bad = |insn: &Instruction| {
                hazards::splits_lock(&case, insn)
                    || hazards::asks_for_too_much(&case, insn)
                    || hazards::loops(&case, insn)
            };
            if !insns.iter().any(bad) {
                return Program { case, insns };
            }
        }
    }

    fn pick(&self, rng: &mut Rng, bits: u64) -> Vec<u8> {
        let codes = if bits == 64 {
            &self.codes64
        } else {
            &self.codes32
        };
        let code = rng.pick(codes);
        encode::random(rng, code, bits as u8)
    }

    /// One instruction of the model.
    fn single(&self, rng: &mut Rng, case: &mut Case) -> bool {
        let bytes = self.pick(rng, case.bits);
        let insn = decode_bytes(&bytes, case.bits, 0);
        put(case, 0, &bytes[..insn.len()]);
        case.rip = place(rng, case.code_len);
        let insn = decode(case)[0];
        scope::reason_against(&insn).is_none()
    }

    /// A few instructions that work on each other's results.
    fn sequence(&self, rng: &mut Rng, case: &mut Case) -> bool {
        let want = 2 + rng.below(LONGEST - 1) as usize;
        let mut insns: Vec<Instruction> = Vec::new();
        for _ in 0..8 * want {
            let bytes = self.pick(rng, case.bits);
            let insn = decode_bytes(&bytes, case.bits, 0);
            let at = case.code_len as usize;
            if scope::reason_against(&insn).is_some() || !sequence::may_follow(&insns, &insn) {
                continue;
            }
            if at + insn.len() > CODE_LEN {
                break;
            }
            put(case, at, &bytes[..insn.len()]);
            insns.push(insn);
            if insns.len() == want {
                break;
            }
        }
        case.rip = place(rng, case.code_len);
        !insns.is_empty()
    }

    fn state(&mut self, rng: &mut Rng, case: &mut Case) {
        let bits = case.bits as u8;
        for r in 0..16 {
            case.gpr[r] = match rng.below(16) {
                0..=6 => values::address(rng, bits),
                7 => values::code_address(rng),
                _ => values::integer(rng),
            };
        }
        case.gpr[4] = operands::stack_pointer(rng);
        case.rflags = 0x202 | rng.next() & 0x8d5 | if rng.chance(15) { 0x400 } else { 0 };
        if rng.chance(2) {
            case.rflags |= 0x20_0000;
        }
        if bits == 64 {
            let base = |rng: &mut Rng| sandbox::DATA.at + rng.below(0x2000);
            (case.fs_base, case.gs_base) = (base(rng), base(rng));
        }
        case.fx = fpu::image(rng);
        for n in 0..decode(case).len() {
            self.shape(rng, case, n);
        }
        if bits == 32 {
            case.gpr[8..].fill(0);
            case.gpr.iter_mut().for_each(|r| *r &= 0xffff_ffff);
        }
    }

    /// Gives the operands of instruction `n` what makes it work, most of the time.
    fn shape(&mut self, rng: &mut Rng, case: &mut Case, n: usize) {
        let insn = decode(case)[n];
        operands::implicit(rng, case, &insn);
        if operands::explicit_memory(&insn) {
            operands::aim(rng, case, &insn);
        }
        let insn = decode(case)[n];
        let first = self.info.info(&insn).used_memory().first().copied();
        let size = insn.memory_size();
        let address = if operands::explicit_memory(&insn) {
            operands::effective_address(case, &insn)
        } else {
            first.and_then(|m| m.virtual_address(0, |r, _, _| Some(operands::register(case, r))))
        };
        if let Some(address) = address {
            operands::contents(rng, case, &insn, address, size);
        }
        operands::stack_contents(rng, case, &insn);
        operands::branch_target(rng, case, &insn);
    }
}

/// Any bytes at all; what the decoder refuses should be refused by the host too.
fn raw(rng: &mut Rng, case: &mut Case) -> bool {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    if rng.chance(30) {
        // Too many prefixes, or nearly.
        let prefixes = 10 + rng.below(6) as usize;
        bytes[..prefixes].fill_with(|| rng.pick(&[0x66, 0x2e, 0x3e, 0x64, 0xf2, 0xf3, 0x67]));
    }
    let insn = decode_bytes(&bytes, case.bits, 0);
    put(
        case,
        0,
        if insn.is_invalid() {
            &bytes
        } else {
            &bytes[..insn.len()]
        },
    );
    case.rip = place(rng, case.code_len);
    insn.is_invalid() || scope::reason_against(&decode(case)[0]).is_none()
}

fn put(case: &mut Case, at: usize, bytes: &[u8]) {
    case.code[at..at + bytes.len()].copy_from_slice(bytes);
    case.code_len = (at + bytes.len()) as u64;
}

fn decode_bytes(bytes: &[u8], bits: u64, ip: u64) -> Instruction {
    Decoder::with_ip(bits as u32, bytes, ip, DecoderOptions::NONE).decode()
}

/// A case with some encoding of `code`, to see what becomes of it; `None` if the encoder can't
/// make one.
pub(crate) fn plain(code: Code, bits: u8) -> Option<Case> {
    let mut rng = Rng::new(code as u64);
    if !code.op_code().is_instruction() || !code.op_code().is_available_in_mode(u32::from(bits)) {
        return None;
    }
    (0..200).find_map(|_| {
        let bytes = encode::random(&mut rng, code, bits);
        let mut case = Case {
            bits: bits.into(),
            rip: sandbox::CODE.at,
            ..Case::blank()
        };
        let insn = decode_bytes(&bytes, case.bits, case.rip);
        put(&mut case, 0, &bytes[..insn.len()]);
        (insn.code() == code).then_some(case)
    })
}

/// Decodes a case's instructions; of bytes that are none, the refusal.
pub(crate) fn decode(case: &Case) -> Vec<Instruction> {
    let mut insns: Vec<Instruction> = decoder_at(case, 0).iter().collect();
    let valid = insns.iter().take_while(|i| !i.is_invalid()).count();
    insns.truncate(valid.max(1));
    insns
}

/// A decoder that stands at an offset of a case's code.
pub(crate) fn decoder_at(case: &Case, offset: usize) -> Decoder<'_> {
    let ip = case.rip + offset as u64;
    Decoder::with_ip(
        case.bits as u32,
        &case.bytes()[offset..],
        ip,
        DecoderOptions::NONE,
    )
}

/// Where the code lies: at times at the end of its page, or of all pages.
fn place(rng: &mut Rng, len: u64) -> u64 {
    let code = sandbox::CODE;
    let end = code.at + code.len as u64;
    match rng.below(32) {
        0 => end - len,
        1 => code.at,
        2..=3 => code.at + 0x1000 - rng.below(len + 1),
        _ => code.at + rng.below(code.len as u64 - len),
    }
}
