# SSE: rdi points to 1 KiB of input, results go behind it.

# Doubles, with the sticky flags as they come.
.globl sequence_sse_doubles
sequence_sse_doubles:
    known_state
    xor ecx, ecx
1:
    movapd xmm0, [rdi + rcx]
    movapd xmm1, [rdi + rcx + 16]
    movapd xmm2, xmm0
    addpd xmm2, xmm1
    mulpd xmm2, [rdi + rcx]
    movapd xmm3, xmm2
    divpd xmm3, xmm1
    stmxcsr [rsi]
    sqrtpd xmm4, xmm3
    minpd xmm4, xmm0
    maxsd xmm4, xmm1
    subsd xmm4, [rdi + rcx + 8]
    haddpd xmm4, xmm3
    addsubpd xmm4, xmm2
    movupd [rsi + 8], xmm4
    cvtsd2ss xmm5, xmm4
    cvttsd2si rax, xmm3
    cvtsd2si edx, xmm2
    cvtsi2sd xmm5, rax
    cmpltpd xmm0, xmm1
    movmskpd r8d, xmm0
    ucomisd xmm3, xmm4
    setb r8b
    seto r9b
    mov [rsi + 24], rax
    mov [rsi + 32], edx
    mov [rsi + 36], r8b
    mov [rsi + 37], r9b
    movupd [rsi + 40], xmm5
    stmxcsr [rsi + 56]
    add rsi, 64
    add rcx, 16
    cmp ecx, 0x3e0
    jb 2f
    ldmxcsr [rip + default_mxcsr]
    ret
2:
    test cl, 0x30
    jnz 1b
    ldmxcsr [rip + default_mxcsr]
    jmp 1b

# Singles under every rounding mode, with and without denormals.
.globl sequence_sse_singles
sequence_sse_singles:
    known_state
    xor ecx, ecx
    mov dword ptr [rdi + 0x2ff0], 0x1f80
1:
    ldmxcsr [rdi + 0x2ff0]
    movaps xmm0, [rdi + rcx]
    movaps xmm1, [rdi + rcx + 16]
    movaps xmm2, xmm0
    addps xmm2, xmm1
    mulps xmm0, xmm2
    divps xmm0, xmm1
    hsubps xmm0, xmm2
    addsubps xmm0, xmm1
    sqrtss xmm0, xmm2
    cvtps2pd xmm3, xmm0
    cvtpd2ps xmm4, [rdi + rcx]
    cvttps2dq xmm5, xmm2
    cvtdq2ps xmm6, xmm5
    cvtps2dq xmm7, xmm0
    cmpunordps xmm1, xmm2
    xorps xmm3, xmm4
    xorps xmm5, xmm6
    xorps xmm7, xmm1
    pxor xmm3, xmm5
    pxor xmm3, xmm7
    dpps xmm0, xmm4, 0x7b
    movups [rsi], xmm3
    movups [rsi + 16], xmm0
    stmxcsr [rsi + 32]
    add dword ptr [rdi + 0x2ff0], 0x2040
    and dword ptr [rdi + 0x2ff0], 0xffc0
    or dword ptr [rdi + 0x2ff0], 0x1f80
    add rsi, 64
    add rcx, 16
    cmp ecx, 0x3e0
    jb 1b
    mov dword ptr [rdi + 0x2ff0], 0
    ldmxcsr [rip + default_mxcsr]
    ret

# ROUNDxx with every immediate.
.globl sequence_sse_rounding
sequence_sse_rounding:
    known_state
    xor ecx, ecx
1:
    .set imm, 0
    .rept 16
    roundpd xmm0, [rdi + rcx], imm
    roundps xmm1, [rdi + rcx], imm
    roundsd xmm2, [rdi + rcx + 8], imm
    roundss xmm3, [rdi + rcx + 4], imm
    paddq xmm0, xmm1
    paddq xmm2, xmm3
    pxor xmm0, xmm2
    pxor xmm0, [rsi]
    movdqa [rsi], xmm0
    .set imm, imm + 1
    .endr
    stmxcsr [rsi + 16]
    add rsi, 32
    add rcx, 16
    cmp ecx, 0x400
    jb 1b
    ldmxcsr [rip + default_mxcsr]
    ret

# Integers: something of every kind, folded into one value a round.
.globl sequence_sse_integers
sequence_sse_integers:
    known_state
    xor ecx, ecx
1:
    movdqa xmm0, [rdi + rcx]
    movdqu xmm1, [rdi + rcx + 3]
    movq xmm2, qword ptr [rdi + rcx + 5]
    movdqa xmm3, xmm0
    .irp insn, paddb, psubusw, pmaddwd, pavgb, punpcklbw, packuswb, pshufb, phaddsw, pmulhrsw, psignd, pmaddubsw, pmulld, pmaxsd, packusdw, pcmpgtq, pmuldq, psadbw, pminuw, punpckhqdq, phminposuw, psrlw, pslld, psraw
    movdqa xmm4, xmm3
    \insn xmm4, xmm1
    pxor xmm0, xmm4
    paddd xmm3, xmm0
    .endr
    pshufd xmm4, xmm3, 0x9c
    pshuflw xmm5, xmm0, 0x1b
    pshufhw xmm6, [rdi + rcx], 0x72
    shufps xmm4, xmm5, 0xe4
    palignr xmm4, xmm6, 5
    mpsadbw xmm5, xmm4, 6
    pblendw xmm6, xmm5, 0x5a
    pblendvb xmm4, xmm6
    pinsrw xmm4, eax, 3
    pextrb edx, xmm4, 9
    insertps xmm4, xmm5, 0x9a
    ptest xmm4, xmm6
    setc dl
    pmovmskb eax, xmm4
    pmovzxbw xmm7, xmm6
    pmovsxwd xmm8, xmm7
    psrldq xmm8, 3
    pslldq xmm7, 6
    pxor xmm7, xmm8
    movdqu [rsi], xmm4
    movdqa [rsi + 16], xmm7
    mov [rsi + 32], eax
    mov [rsi + 36], edx
    add rsi, 48
    add rcx, 16
    cmp ecx, 0x3e0
    jb 1b
    ret

# String comparisons with every immediate.
.globl sequence_text
sequence_text:
    push rbx
    known_state
    xor ebx, ebx
1:
    movdqa xmm1, [rdi + rbx]
    .set imm, 0
    .rept 128
    pcmpistri xmm1, [rdi + rbx + 7], imm
    setz al
    setc ah
    add [rsi], ecx
    add [rsi + 4], ax
    pcmpistrm xmm1, [rdi + rbx + 7], imm
    paddd xmm0, [rsi + 16]
    movdqa [rsi + 16], xmm0
    mov eax, imm & 31
    lea edx, [rbx - 20]
    pcmpestri xmm1, [rdi + rbx + 16], imm
    sets al
    seto ah
    add [rsi + 8], ecx
    add [rsi + 12], ax
    .set imm, imm + 1
    .endr
    add rsi, 32
    add rbx, 16
    cmp ebx, 0x3e0
    jb 1b
    pop rbx
    ret

default_mxcsr:
    .long 0x1f80
