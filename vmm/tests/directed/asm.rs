//! A very small assembler: the handful of instructions that directed guests are made of, in 64-bit
//! mode.
//!
//! Only instructions that every backend executes, KVMs that emulate included: integer ring 0 code.

/// Where guests are loaded and entered.
pub(crate) const CODE: u64 = 0x20_0000;

/// Machine code in the making.
#[derive(Default)]
pub(crate) struct Asm {
    bytes: Vec<u8>,
}

/// A place in the code.
#[derive(Clone, Copy)]
pub(crate) struct Label(usize);

impl Label {
    /// Its guest address.
    pub(crate) fn address(self) -> u64 {
        CODE + self.0 as u64
    }
}

/// General registers by number.
pub(crate) mod reg {
    pub(crate) const RAX: u8 = 0;
    pub(crate) const RCX: u8 = 1;
    pub(crate) const RDX: u8 = 2;
    pub(crate) const RBX: u8 = 3;
    pub(crate) const RSI: u8 = 6;
    pub(crate) const RDI: u8 = 7;
}

impl Asm {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Address of the next instruction, for jumps backwards.
    pub(crate) fn here(&self) -> Label {
        Label(self.bytes.len())
    }

    /// Guest address of the next instruction.
    pub(crate) fn address(&self) -> u64 {
        CODE + self.bytes.len() as u64
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Fills with zeroes up to `offset` from the start.
    pub(crate) fn pad_to(&mut self, offset: usize) -> &mut Self {
        assert!(
            self.bytes.len() <= offset,
            "code has reached {:#x}",
            self.bytes.len()
        );
        self.bytes.resize(offset, 0);
        self
    }

    /// mov reg, imm64
    pub(crate) fn mov(&mut self, reg: u8, value: u64) -> &mut Self {
        self.raw(&[0x48, 0xb8 + reg]).raw(&value.to_le_bytes())
    }

    /// mov [reg + disp32], eax
    pub(crate) fn store_eax(&mut self, base: u8, disp: u32) -> &mut Self {
        self.raw(&[0x89, 0x80 | base]).raw(&disp.to_le_bytes())
    }

    /// mov eax, [reg + disp32]
    pub(crate) fn load_eax(&mut self, base: u8, disp: u32) -> &mut Self {
        self.raw(&[0x8b, 0x80 | base]).raw(&disp.to_le_bytes())
    }

    /// mov [reg + disp32], rax
    pub(crate) fn store_rax(&mut self, base: u8, disp: u32) -> &mut Self {
        self.raw(&[0x48, 0x89, 0x80 | base])
            .raw(&disp.to_le_bytes())
    }

    /// mov rax, [reg + disp32]
    pub(crate) fn load_rax(&mut self, base: u8, disp: u32) -> &mut Self {
        self.raw(&[0x48, 0x8b, 0x80 | base])
            .raw(&disp.to_le_bytes())
    }

    /// mov eax, value; mov [address], eax (through RBX)
    pub(crate) fn poke32(&mut self, address: u64, value: u32) -> &mut Self {
        self.mov(reg::RBX, address)
            .mov(reg::RAX, u64::from(value))
            .store_eax(reg::RBX, 0)
    }

    /// Prints text on the first serial port.
    pub(crate) fn print(&mut self, text: &str) -> &mut Self {
        self.mov(reg::RDX, 0x3f8);
        for byte in text.bytes() {
            // mov al, imm; out dx, al
            self.raw(&[0xb0, byte, 0xee]);
        }
        self
    }

    /// out dx, al to the given port, from a byte
    pub(crate) fn out8(&mut self, port: u16, value: u8) -> &mut Self {
        self.mov(reg::RDX, u64::from(port))
            .raw(&[0xb0, value, 0xee])
    }

    /// wrmsr of a 64-bit value
    pub(crate) fn wrmsr(&mut self, msr: u32, value: u64) -> &mut Self {
        self.mov(reg::RCX, u64::from(msr))
            .mov(reg::RAX, value & 0xffff_ffff)
            .mov(reg::RDX, value >> 32)
            .raw(&[0x0f, 0x30])
    }

    /// A loop of `count` rounds over nothing.
    pub(crate) fn spin(&mut self, count: u64) -> &mut Self {
        // dec rcx; jnz
        self.mov(reg::RCX, count)
            .raw(&[0x48, 0xff, 0xc9, 0x75, 0xfb])
    }

    /// jmp to a label behind
    pub(crate) fn jmp(&mut self, to: Label) -> &mut Self {
        let next = self.bytes.len() + 5;
        let distance = i32::try_from(to.0 as i64 - next as i64).unwrap();
        self.raw(&[0xe9]).raw(&distance.to_le_bytes())
    }

    /// jz to a label behind
    pub(crate) fn jz(&mut self, to: Label) -> &mut Self {
        let next = self.bytes.len() + 6;
        let distance = i32::try_from(to.0 as i64 - next as i64).unwrap();
        self.raw(&[0x0f, 0x84]).raw(&distance.to_le_bytes())
    }

    pub(crate) fn hlt(&mut self) -> &mut Self {
        self.raw(&[0xf4])
    }

    pub(crate) fn cli(&mut self) -> &mut Self {
        self.raw(&[0xfa])
    }

    pub(crate) fn sti(&mut self) -> &mut Self {
        self.raw(&[0xfb])
    }

    pub(crate) fn iretq(&mut self) -> &mut Self {
        self.raw(&[0x48, 0xcf])
    }

    /// Switches the machine off through the ACPI sleep register.
    pub(crate) fn power_off(&mut self) -> &mut Self {
        self.out8(0x600, (1 << 5) | (5 << 2));
        let stay = self.here();
        self.hlt().jmp(stay)
    }

    /// Writes the gate of `vector` at `idt` so that it leads to `handler` (64-bit interrupt gate).
    pub(crate) fn gate(&mut self, idt: u64, vector: u8, handler: u64) -> &mut Self {
        const CODE_SELECTOR: u64 = 0x10;
        let low =
            handler & 0xffff | CODE_SELECTOR << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        self.mov(reg::RBX, idt + u64::from(vector) * 16)
            .mov(reg::RAX, low)
            .store_rax(reg::RBX, 0)
            .mov(reg::RAX, handler >> 32)
            .store_rax(reg::RBX, 8)
    }

    /// Loads the IDT register with a table of 256 gates at `idt`; uses the ten bytes before it.
    pub(crate) fn lidt(&mut self, idt: u64) -> &mut Self {
        self.mov(reg::RBX, idt - 16)
            .mov(reg::RAX, 0x0fff | idt << 16)
            .store_rax(reg::RBX, 0)
            .mov(reg::RAX, idt >> 48)
            .store_rax(reg::RBX, 8)
            // lidt [rbx]
            .raw(&[0x0f, 0x01, 0x1b])
    }
}
