# MMX beside x87, and state that goes through memory.

.globl sequence_mmx_and_x87
sequence_mmx_and_x87:
    known_state
    xor ecx, ecx
1:
    fld qword ptr [rdi + rcx]
    fld1
    movq mm1, [rdi + rcx + 8]
    .irp insn, paddb, psubusw, pmaddwd, pavgb, punpcklbw, punpckhwd, packuswb, pshufb, phaddw, psignb, psadbw, psrlw, psllq, pmulhuw, pminsw
    movq mm2, mm1
    \insn mm2, [rdi + rcx]
    pxor mm0, mm2
    paddw mm1, mm0
    .endr
    pshufw mm3, mm1, 0x39
    palignr mm3, mm0, 3
    pinsrw mm3, ecx, 2
    pextrw eax, mm3, 1
    pmovmskb edx, mm0
    movd mm4, eax
    movq2dq xmm0, mm3
    movdq2q mm5, xmm0
    cvtpi2ps xmm1, mm4
    cvtps2pi mm6, xmm1
    cvtpi2pd xmm2, qword ptr [rdi + rcx]
    fxsave64 [rsi]
    mov dword ptr [rsi + 28], 0
    emms
    fld1
    fxsave64 [rdi + 0x1800]
    mov dword ptr [rdi + 0x181c], 0
    fninit
    mov [rsi + 416], eax
    mov [rsi + 420], edx
    add rsi, 48
    add rcx, 8
    cmp ecx, 0x80
    jb 1b
    ldmxcsr [rip + default_mxcsr]
    ret

# FXSAVE and XSAVE with each combination of components, and back.
.globl sequence_saved_state
sequence_saved_state:
    known_state
    fld qword ptr [rdi]
    fldpi
    fdivp
    .set n, 0
    .rept 16
    .altmacro
    .macro load_xmm n
    movdqu xmm\n, [rdi + 16 * \n + 8]
    .endm
    load_xmm %n
    .purgem load_xmm
    .set n, n + 1
    .endr
    divsd xmm0, xmm1
    fxsave [rsi]
    fxsave64 [rsi + 512]
    mov dword ptr [rsi + 28], 0
    mov dword ptr [rsi + 540], 0
    xor edx, edx
    .set n, 0
    .rept 4
    mov eax, n
    xsave64 [rsi + 1024 + 576 * n]
    mov dword ptr [rsi + 1024 + 576 * n + 28], 0
    .set n, n + 1
    .endr
    # The other half of the input is as good as any state, but for reserved bits and the header.
    lea rcx, [rdi + 0x180]
    and dword ptr [rcx + 24], 0xff80
    or dword ptr [rcx + 24], 0x1f80
    or word ptr [rcx], 0x3f
    mov dword ptr [rcx + 28], 0
    # Pointers are addresses.
    mov word ptr [rcx + 14], 0
    mov word ptr [rcx + 22], 0
    and byte ptr [rcx + 13], 0x7f
    and byte ptr [rcx + 21], 0x7f
    fxrstor64 [rcx]
    fxsave64 [rsi + 0x1400]
    mov dword ptr [rsi + 0x141c], 0
    # Components come back, stay or are reset.
    mov eax, 1
    xrstor64 [rsi + 1024 + 576 * 3]
    fxsave64 [rsi + 0x1600]
    mov dword ptr [rsi + 0x161c], 0
    mov eax, 3
    xrstor64 [rsi + 1024 + 576]
    fxsave64 [rsi + 0x1800]
    mov dword ptr [rsi + 0x181c], 0
    mov eax, 3
    xrstor [rsi + 1024 + 576 * 2]
    fxsave64 [rsi + 0x1a00]
    mov dword ptr [rsi + 0x1a1c], 0
    fninit
    ldmxcsr [rip + default_mxcsr]
    ret
