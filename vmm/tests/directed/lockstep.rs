//! The same directed guests on both backends, compared at every exit: two implementations of one
//! machine.

use vm_memory::{Bytes, GuestAddress};

use crate::asm::{Asm, reg};
use crate::guest::kvm_usable;
use crate::rig::{KvmRig, Seen, SoftRig, assert_same, finish, next};

/// Runs `code` on both until both halt or have come out `exits` times.
fn lockstep(name: &str, code: &[u8], exits: usize) {
    let mut kvm = KvmRig::new(code);
    let mut soft = SoftRig::new(code);
    let mut now = 0;
    for step in 0..exits {
        // The same bytes for both, different at every step.
        let answers = || {
            let mut byte = step as u8;
            move || {
                byte = byte.wrapping_mul(167).wrapping_add(13);
                byte
            }
        };
        let (mut for_kvm, mut for_soft) = (answers(), answers());
        let on_kvm = next(&mut kvm.vcpu, &mut for_kvm);
        let mut vcpu = soft.cpus.vcpu(0, now);
        let on_soft = next(&mut vcpu, &mut for_soft);
        assert_eq!(on_soft, on_kvm, "{name}: exit {step}");
        let (soft_more, soft_state) = finish(&mut vcpu, &mut for_soft);
        now = soft.cpus.ticks(0);
        let (kvm_more, kvm_state) = finish(&mut kvm.vcpu, &mut for_kvm);
        assert_eq!(soft_more, kvm_more, "{name}: accesses after exit {step}");
        let what = format!("{name}: after exit {step} ({on_kvm:?})");
        assert_same(&what, &soft_state, &kvm_state);
        if on_kvm == Seen::PioWrite(END, vec![0]) {
            break;
        }
    }
    let ram = |memory: &provium_devices::GuestMemory| {
        let mut bytes = vec![0; 0x10_0000];
        memory
            .read_slice(&mut bytes, GuestAddress(SCRATCH))
            .unwrap();
        bytes
    };
    assert!(
        ram(&kvm.memory) == ram(&soft.memory),
        "{name}: memory differs"
    );
}

const END: u16 = 0xee;
/// RAM that guests compute in.
const SCRATCH: u64 = 0x50_0000;
const IDT: u64 = 0x40_0000;

/// A small generator of test programs; splitmix64, so that a seed is a program.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Registers that programs compute in: all but RSP (4), RBX (3: scratch pointer) and RDX (2:
/// ports).
const REGISTERS: [u8; 5] = [0, 1, 5, 6, 7];

/// One random integer instruction that leaves no flag undefined.
fn instruction(r: &mut Random, asm: &mut Asm) {
    let (a, b) = (r.pick(&REGISTERS), r.pick(&REGISTERS));
    let modrm = 0xc0 | b << 3 | a;
    let wide = r.pick(&[0x40, 0x48]);
    match r.below(10) {
        // add, adc, sub, sbb, cmp, xor, and, or on registers; the last three leave AF undefined, so
        // a flag-setting instruction follows them.
        0..=2 => drop(asm.raw(&[wide, r.pick(&[0x01, 0x11, 0x29, 0x19, 0x39]), modrm])),
        3 => {
            let logic = r.pick(&[0x31, 0x21, 0x09]);
            asm.raw(&[wide, logic, modrm]).raw(&[wide, 0x01, modrm]);
        }
        // mov between registers, xchg, bswap, not
        4 => drop(asm.raw(&[wide, r.pick(&[0x89, 0x87]), modrm])),
        5 => drop(asm.raw(&[wide, 0x0f, 0xc8 | a, wide, 0xf7, 0xd0 | a])),
        // inc, dec, neg
        6 => drop(asm.raw(&[wide]).raw(&r.pick(&[
            [0xff, 0xc0 | a],
            [0xff, 0xc8 | a],
            [0xf7, 0xd8 | a],
        ]))),
        // setcc, cmovcc, movzx, movsx
        7 => {
            let cc = r.below(16) as u8;
            asm.raw(&[0x40, 0x0f, 0x90 | cc, 0xc0 | a]).raw(&[
                wide,
                0x0f,
                0x40 | cc,
                0xc0 | a << 3 | b,
            ]);
        }
        8 => {
            let op = r.pick(&[0xb6, 0xb7, 0xbe, 0xbf]);
            asm.raw(&[wide, 0x0f, op, 0xc0 | a << 3 | b]);
        }
        // Memory: add [rbx + disp], reg; mov reg, [rbx + disp]; xadd
        _ => {
            let disp = u32::try_from(r.below(0x1000) * 8).unwrap().to_le_bytes();
            asm.raw(&[wide, 0x01, 0x83 | b << 3]).raw(&disp);
            asm.raw(&[wide, 0x8b, 0x83 | a << 3]).raw(&disp);
            asm.raw(&[wide, 0x0f, 0xc1, 0x83 | b << 3]).raw(&disp);
        }
    }
}

fn random_program(seed: u64) -> Vec<u8> {
    let mut r = Random(seed);
    let mut asm = Asm::new();
    for register in REGISTERS {
        asm.mov(register, r.next());
    }
    asm.mov(reg::RBX, SCRATCH);
    for _ in 0..20 {
        for _ in 0..8 {
            instruction(&mut r, &mut asm);
        }
        asm.mov(reg::RDX, 0x80);
        match r.below(4) {
            // out dx, eax / al; in eax, dx / al
            0 => asm.raw(&[0xef]),
            1 => asm.raw(&[0xee]),
            2 => asm.raw(&[0xed]),
            _ => asm.raw(&[0xec]),
        };
    }
    asm.out8(END, 0).hlt();
    asm.finish()
}

#[test]
fn random_integer_programs_agree() {
    if !kvm_usable() {
        return;
    }
    for seed in 0..60 {
        lockstep(
            &format!("random program {seed}"),
            &random_program(seed),
            100,
        );
    }
}

#[test]
fn device_accesses_of_every_width_agree() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.mov(reg::RBX, 0xd000_0000)
        .mov(reg::RAX, 0x1122_3344_5566_7788);
    // Stores of 1, 2, 4, 8 bytes, then loads, then read-modify-write.
    asm.raw(&[0x88, 0x43, 0x01])
        .raw(&[0x66, 0x89, 0x43, 0x02])
        .raw(&[0x89, 0x43, 0x04]);
    asm.raw(&[0x48, 0x89, 0x43, 0x08]);
    asm.raw(&[0x8a, 0x43, 0x11])
        .raw(&[0x66, 0x8b, 0x43, 0x12])
        .raw(&[0x8b, 0x43, 0x14]);
    asm.raw(&[0x48, 0x8b, 0x43, 0x18]);
    // add [rbx + 0x20], eax
    asm.raw(&[0x01, 0x43, 0x20]);
    // movzx ecx, byte [rbx]; movsx rcx, word [rbx]
    asm.raw(&[0x0f, 0xb6, 0x0b]).raw(&[0x48, 0x0f, 0xbf, 0x0b]);
    asm.out8(END, 0);
    lockstep("device accesses", &asm.finish(), 40);
}

#[test]
fn exceptions_and_their_handlers_agree() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    let handler = crate::asm::CODE + 0x800;
    for vector in [0, 6, 13, 14] {
        asm.gate(IDT, vector, handler + u64::from(vector) * 0x40);
    }
    asm.lidt(IDT);
    // Division by zero, undefined instruction, non-canonical address, page fault.
    asm.mov(reg::RCX, 0).raw(&[0x48, 0xf7, 0xf1]);
    asm.raw(&[0x0f, 0x0b]);
    asm.mov(reg::RBX, 0x8000_0000_0000_0000)
        .load_eax(reg::RBX, 0);
    asm.mov(reg::RBX, 0x10_0000_0000).load_eax(reg::RBX, 0);
    asm.out8(END, 0);
    for (vector, skip, has_code) in [
        (0u8, 3u8, false),
        (6, 2, false),
        (13, 6, true),
        (14, 6, true),
    ] {
        asm.pad_to(0x800 + usize::from(vector) * 0x40);
        asm.out8(0x90, vector);
        if has_code {
            // pop rax; out dx, eax: the error code
            asm.raw(&[0x58, 0xef]);
        }
        // add qword [rsp], skip: past the faulting instruction
        asm.raw(&[0x48, 0x83, 0x04, 0x24, skip]).iretq();
    }
    lockstep("exceptions", &asm.finish(), 40);
}

#[test]
fn string_instructions_agree() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    // rep stosq, rep movsb, repe cmpsb, repne scasb, lodsw
    asm.mov(reg::RDI, SCRATCH)
        .mov(reg::RCX, 40)
        .mov(reg::RAX, 0x0102_0304_0506_0708);
    asm.raw(&[0xf3, 0x48, 0xab]).out8(0x80, 1);
    asm.mov(reg::RSI, SCRATCH + 3)
        .mov(reg::RDI, SCRATCH + 0x1000)
        .mov(reg::RCX, 100);
    asm.raw(&[0xf3, 0xa4]).out8(0x80, 2);
    asm.mov(reg::RSI, SCRATCH + 3)
        .mov(reg::RDI, SCRATCH + 0x1000)
        .mov(reg::RCX, 200);
    asm.raw(&[0xf3, 0xa6]).out8(0x80, 3);
    asm.mov(reg::RDI, SCRATCH)
        .mov(reg::RCX, 50)
        .mov(reg::RAX, 3)
        .raw(&[0xf2, 0xae]);
    asm.out8(0x80, 4).raw(&[0x66, 0xad]).out8(END, 0);
    lockstep("strings", &asm.finish(), 20);
}

#[test]
fn system_registers_agree() {
    if !kvm_usable() {
        return;
    }
    let mut asm = Asm::new();
    asm.wrmsr(0xc000_0082, 0xffff_ffff_8123_4567)
        .wrmsr(0xc000_0102, 0x7fff_1234_5000);
    // swapgs; mov rax, cr0; mov rax, cr4; mov dr0, rax; mov rax, dr7
    asm.raw(&[0x0f, 0x01, 0xf8]).out8(0x80, 1);
    asm.raw(&[
        0x0f, 0x20, 0xc0, 0xef, 0x0f, 0x20, 0xe0, 0xef, 0x0f, 0x23, 0xc0, 0x0f, 0x21, 0xf8, 0xef,
    ]);
    // pushfq; pop rax; out; std; pushfq; pop rax; out; cld
    asm.raw(&[0x9c, 0x58, 0xef, 0xfd, 0x9c, 0x58, 0xef, 0xfc]);
    asm.out8(END, 0);
    lockstep("system registers", &asm.finish(), 20);
}
