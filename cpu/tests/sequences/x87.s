# Registers that nobody has set yet differ between host and guest.
.macro known_state
    lea rsi, [rdi + 0x400]
    fninit
    .rept 8
    fldz
    .endr
    fninit
    ldmxcsr [rip + default_mxcsr]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    pxor xmm\n, xmm\n
    .endr
.endm

# x87: rdi points to 1 KiB of input, results go behind it.

# All arithmetic on pairs of doubles, single and integer sources, stored in every format.
.globl sequence_x87_arithmetic
sequence_x87_arithmetic:
    known_state
    xor ecx, ecx
1:
    fld qword ptr [rdi + rcx]
    fld qword ptr [rdi + rcx + 8]
    fadd st(0), st(1)
    fst dword ptr [rsi]
    fmul dword ptr [rdi + rcx]
    fsub st(1), st(0)
    fsubr qword ptr [rdi + rcx + 16]
    fiadd word ptr [rdi + rcx]
    fidivr dword ptr [rdi + rcx + 4]
    fist dword ptr [rsi + 4]
    fld st(1)
    fdivp st(1), st(0)
    fstp qword ptr [rsi + 8]
    fld st(0)
    fmul st(0), st(0)
    fxch
    fabs
    fsqrt
    faddp
    fistp qword ptr [rsi + 16]
    fnstsw word ptr [rsi + 24]
    fild qword ptr [rdi + rcx]
    frndint
    fstp tbyte ptr [rsi + 26]
    fild word ptr [rdi + rcx + 2]
    fisttp word ptr [rsi + 36]
    fld qword ptr [rdi + rcx]
    fcomp qword ptr [rdi + rcx + 8]
    fnstsw word ptr [rsi + 38]
    fld qword ptr [rdi + rcx]
    fld qword ptr [rdi + rcx + 8]
    fucomip st, st(1)
    fcmovb st(0), st(0)
    pushfq
    pop rax
    and eax, 0x45
    mov [rsi + 40], al
    fbstp [rsi + 42]
    add rsi, 64
    add rcx, 16
    cmp ecx, 0x3e0
    jb 1b
    fninit
    ret

# Transcendental functions, remainders and scaling, under each rounding and precision.
.globl sequence_x87_functions
sequence_x87_functions:
    known_state
    xor ecx, ecx
    mov word ptr [rdi + 0x2ff0], 0x7f
1:
    fldcw word ptr [rdi + 0x2ff0]
    fld qword ptr [rdi + rcx + 8]
    fld qword ptr [rdi + rcx]
    fsincos
    fpatan
    fstp tbyte ptr [rsi]
    fprem
    fnstsw word ptr [rsi + 10]
    fptan
    fnstsw word ptr [rsi + 12]
    fxtract
    fscale
    fstp tbyte ptr [rsi + 14]
    fyl2x
    f2xm1
    fstp tbyte ptr [rsi + 24]
    fninit
    fldcw word ptr [rdi + 0x2ff0]
    fldpi
    fldl2t
    fyl2xp1
    fld qword ptr [rdi + rcx + 16]
    fprem1
    fxam
    fnstsw word ptr [rsi + 34]
    fcos
    fld1
    fsin
    faddp
    fstp qword ptr [rsi + 36]
    ftst
    fnstsw word ptr [rsi + 44]
    fchs
    fnstcw word ptr [rsi + 46]
    fstp tbyte ptr [rsi + 48]
    fninit
    add word ptr [rdi + 0x2ff0], 0x100
    and word ptr [rdi + 0x2ff0], 0xfff
    add rsi, 64
    add rcx, 8
    cmp ecx, 0x3e0
    jb 1b
    mov word ptr [rdi + 0x2ff0], 0
    ret

# Empty and full registers, with the invalid operation masked.
.globl sequence_x87_stack_faults
sequence_x87_stack_faults:
    known_state
    fadd st(0), st(3)
    fnstsw word ptr [rsi]
    fstp tbyte ptr [rsi + 2]
    fnclex
    .rept 9
    fld qword ptr [rdi]
    .endr
    fnstsw word ptr [rsi + 12]
    fstp tbyte ptr [rsi + 14]
    fnclex
    ffree st(2)
    fxch st(2)
    fstp tbyte ptr [rsi + 24]
    fstp tbyte ptr [rsi + 34]
    fnstsw word ptr [rsi + 44]
    fdecstp
    fcom st(1)
    fnstsw word ptr [rsi + 46]
    fincstp
    fincstp
    .rept 9
    fistp word ptr [rsi + 48]
    .endr
    fnstsw word ptr [rsi + 50]
    fst dword ptr [rsi + 52]
    fbstp [rsi + 56]
    fsincos
    fstp qword ptr [rsi + 66]
    fcmovne st(0), st(5)
    fstp qword ptr [rsi + 74]
    fxtract
    fnstsw word ptr [rsi + 82]
    fprem
    fcomi st, st(4)
    fld1
    fst st(4)
    fyl2x
    fnsave [rsi + 128]
    fninit
    ret

# Exceptions that are not masked: what they keep from happening, and what is recorded of them. They
# are cleared before anything waits.
.globl sequence_x87_unmasked
sequence_x87_unmasked:
    known_state
    xor ecx, ecx
    mov word ptr [rdi + 0x2ff0], 0x300
    .macro observed insn:vararg
    fninit
    fld qword ptr [rdi + rcx + 8]
    fld qword ptr [rdi + rcx]
    fnclex
    fldcw word ptr [rdi + 0x2ff0]
    \insn
    fxsave64 [rsi]
    fnclex
    mov dword ptr [rsi + 28], 0
    # The next one records into what this one has left.
    add rsi, 160
    .endm
1:
    observed fadd st(0), st(1)
    observed fdiv st(0), st(1)
    observed fmulp
    observed fsub dword ptr [rdi + rcx]
    observed fst dword ptr [rdi + 0x2fc0]
    observed fstp qword ptr [rdi + 0x2fc8]
    observed fistp qword ptr [rdi + 0x2fd0]
    observed fist word ptr [rdi + 0x2fd8]
    observed fld dword ptr [rdi + rcx]
    observed fld tbyte ptr [rdi + rcx]
    observed fsqrt
    observed fcompp
    observed fcomip st, st(1)
    observed fscale
    observed fxtract
    observed fprem
    observed fyl2x
    observed fbld [rdi + rcx]
    observed fbstp [rdi + 0x2fe0]
    observed fadd st(0), st(5)
    observed fdecstp
    observed ffree st(0)
    observed fnop
    observed fxch
    lea rsi, [rdi + 0x400]
    add word ptr [rdi + 0x2ff0], 0x405
    and word ptr [rdi + 0x2ff0], 0xf3f
    add rcx, 16
    cmp ecx, 0x3e0
    jb 1b
    fninit
    ret

# The environment and the registers, to memory and back, in both sizes.
.globl sequence_x87_environment
sequence_x87_environment:
    known_state
    fld qword ptr [rdi]
    fld qword ptr [rdi + 8]
    fldz
    fld tbyte ptr [rdi + 16]
    fdiv st(0), st(1)
    fnstenv [rsi]
    fnstcw word ptr [rsi + 30]
    # MOV does not wait, an environment store masks everything.
    fldenv [rsi]
    fnsave [rsi + 32]
    fnstenv [rsi + 140]
    frstor [rsi + 32]
    fincstp
    ffree st(3)
    .byte 0x66
    fnstenv [rsi + 168]
    .byte 0x66
    fnsave [rsi + 192]
    .byte 0x66
    frstor [rsi + 192]
    # Random tags and status, all masked.
    and word ptr [rsi + 32], 0x3f
    or word ptr [rsi + 32], 0x33f
    mov ax, [rdi + 32]
    mov [rsi + 36], ax
    mov ax, [rdi + 34]
    mov [rsi + 40], ax
    frstor [rsi + 32]
    fnsave [rsi + 296]
    fninit
    ret
