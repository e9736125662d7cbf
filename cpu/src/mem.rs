//! Loads and stores: the fast way through the TLB, and everything that is not fast.

use crate::complex::Exit;
use crate::cpu::{Cpu, cr};
use crate::op::Stop;
use crate::paging::{Access, Who};
use crate::run::StopReason;
use crate::tlb::{self, Entry};

/// Integers that guest memory is read and written as.
///
/// # Safety
/// Every bit pattern must be a value, with no padding.
pub(crate) unsafe trait Plain: Copy + Default {}
// SAFETY: integers.
unsafe impl Plain for u8 {}
// SAFETY: integers.
unsafe impl Plain for u16 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
// SAFETY: integers.
unsafe impl Plain for u128 {}

/// Accesses outside RAM that an instruction has made before it had to leave the processor.
///
/// Such an access abandons the instruction, and the machine around answers it; the instruction
/// is then executed again from its start and finds the answers here, in order.
#[derive(Default)]
pub(crate) struct Replay {
    done: Vec<u64>,
    next: usize,
    /// Reads of the pending exit, to be supplied with `complete_read`.
    pub(crate) awaiting: bool,
}

impl Replay {
    pub(crate) fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.done.clear();
        self.next = 0;
        self.awaiting = false;
    }

    /// The instruction starts over.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }

    /// Appends the answer to the last exit.
    pub(crate) fn push(&mut self, value: u64) {
        self.done.push(value);
    }

    /// The answer to this access, if the instruction has made it before.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let value = self.done.get(self.next).copied();
        self.next += usize::from(value.is_some());
        value
    }
}

/// Where a linear address leads.
enum Target {
    Host(*mut u8),
    /// RAM that holds decoded code: page number and host address.
    Code(usize, *mut u8),
    Apic(u64),
    Device(u64),
}

impl Cpu {
    /// Loads from linear memory.
    #[inline(always)]
    pub(crate) fn load<T: Plain>(&mut self, address: u64) -> Result<T, Stop> {
        match self.load_cached(address) {
            Some(value) => Ok(value),
            None => self.load_slow(address),
        }
    }

    /// Loads from a page that the TLB has.
    #[inline(always)]
    pub(crate) fn load_cached<T: Plain>(&self, address: u64) -> Option<T> {
        let size = size_of::<T>() as u64;
        let e = self.dtlb.slot(address);
        if e.read != address.wrapping_add(size - 1) & !0xfff {
            return None;
        }
        let host = address.wrapping_add(e.addend) as *const T;
        // SAFETY: the entry translates the whole page to RAM (`Ram::new`'s contract keeps that
        // valid), and first and last byte of the access are on that page.
        Some(unsafe { host.read_unaligned() })
    }

    /// Stores to linear memory.
    #[inline(always)]
    pub(crate) fn store<T: Plain>(&mut self, address: u64, value: T) -> Result<(), Stop> {
        let size = size_of::<T>() as u64;
        let e = self.dtlb.slot(address);
        if e.write == address.wrapping_add(size - 1) & !0xfff {
            let host = address.wrapping_add(e.addend) as *mut T;
            // SAFETY: as in `load`; a write tag is only set for writable RAM.
            unsafe { host.write_unaligned(value) };
            return Ok(());
        }
        self.store_slow(address, value)
    }

    /// Checks that a store would succeed, so that an instruction may load, compute and store
    /// without having to undo anything.
    #[inline(always)]
    pub(crate) fn load_for_store<T: Plain>(&mut self, address: u64) -> Result<T, Stop> {
        let size = size_of::<T>() as u64;
        let e = self.dtlb.slot(address);
        if e.write == address.wrapping_add(size - 1) & !0xfff {
            let host = address.wrapping_add(e.addend) as *const T;
            // SAFETY: as in `load`.
            return Ok(unsafe { host.read_unaligned() });
        }
        self.probe_write(address, size)?;
        self.load(address)
    }

    /// A load that misses the TLB: nearly always because the page has not been seen for a while.
    #[inline(never)]
    fn load_slow<T: Plain>(&mut self, address: u64) -> Result<T, Stop> {
        if (address & 0xfff) as usize + size_of::<T>() <= 4096 {
            self.check_canonical(address, 1)?;
            if let Target::Host(p) | Target::Code(_, p) =
                self.resolve(address, Access::Read, Who::Program)?
            {
                // SAFETY: `resolve` gave the host address, and the access stays on its page.
                return Ok(unsafe { p.cast::<T>().read_unaligned() });
            }
        }
        self.load_bytes(address)
    }

    /// A load across pages, or from a device.
    #[cold]
    #[inline(never)]
    fn load_bytes<T: Plain>(&mut self, address: u64) -> Result<T, Stop> {
        let mut value = T::default();
        // SAFETY: `T` is plain, so its bytes may be written in any way.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut value).cast::<u8>(), size_of::<T>())
        };
        self.read_bytes(address, bytes, Who::Program)?;
        Ok(value)
    }

    /// A store that misses the TLB.
    #[inline(never)]
    fn store_slow<T: Plain>(&mut self, address: u64, value: T) -> Result<(), Stop> {
        if (address & 0xfff) as usize + size_of::<T>() <= 4096 {
            self.check_canonical(address, 1)?;
            if let Target::Host(p) = self.resolve(address, Access::Write, Who::Program)? {
                // SAFETY: as in `load_slow`.
                unsafe { p.cast::<T>().write_unaligned(value) };
                return Ok(());
            }
        }
        self.store_bytes(address, value)
    }

    /// A store across pages, near code, or to a device.
    #[cold]
    #[inline(never)]
    fn store_bytes<T: Plain>(&mut self, address: u64, value: T) -> Result<(), Stop> {
        // SAFETY: `T` is plain: all its bytes are initialised.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.write_bytes(address, bytes, Who::Program)
    }

    /// Reads any number of bytes, page by page.
    pub(crate) fn read_bytes(
        &mut self,
        address: u64,
        out: &mut [u8],
        who: Who,
    ) -> Result<(), Stop> {
        self.check_canonical(address, out.len() as u64)?;
        let mut at = address;
        let mut rest = out;
        while !rest.is_empty() {
            let n = rest.len().min(4096 - (at & 0xfff) as usize);
            let (part, tail) = rest.split_at_mut(n);
            match self.resolve(at, Access::Read, who)? {
                Target::Host(p) | Target::Code(_, p) => {
                    // SAFETY: `resolve` gave the host address of `at`, and `n` bytes from there
                    // stay on the page.
                    unsafe { p.copy_to_nonoverlapping(part.as_mut_ptr(), n) };
                }
                Target::Apic(offset) => {
                    let value = self.apic_mmio_read(offset);
                    let bytes = value.to_le_bytes();
                    let n = part.len().min(4);
                    part[..n].copy_from_slice(&bytes[..n]);
                }
                Target::Device(gpa) => self.device_read(gpa, part)?,
            }
            at = at.wrapping_add(n as u64);
            rest = tail;
        }
        Ok(())
    }

    /// Writes any number of bytes; nothing is written unless all may be.
    pub(crate) fn write_bytes(&mut self, address: u64, data: &[u8], who: Who) -> Result<(), Stop> {
        self.check_canonical(address, data.len() as u64)?;
        if (address & 0xfff) + data.len() as u64 > 4096 {
            self.probe_pages(address, data.len() as u64, who)?;
        }
        let mut at = address;
        let mut rest = data;
        while !rest.is_empty() {
            let n = rest.len().min(4096 - (at & 0xfff) as usize);
            let (part, tail) = rest.split_at(n);
            match self.resolve(at, Access::Write, who)? {
                Target::Host(p) => {
                    // SAFETY: as in `read_bytes`.
                    unsafe { p.copy_from_nonoverlapping(part.as_ptr(), n) };
                }
                Target::Code(page, p) => {
                    self.write_near_code(page, at, n)?;
                    // SAFETY: as in `read_bytes`.
                    unsafe { p.copy_from_nonoverlapping(part.as_ptr(), n) };
                }
                Target::Apic(offset) => {
                    let mut word = [0; 4];
                    let n = part.len().min(4);
                    word[..n].copy_from_slice(&part[..n]);
                    self.apic_mmio_write(offset, u32::from_le_bytes(word));
                }
                Target::Device(gpa) => self.device_write(gpa, part)?,
            }
            at = at.wrapping_add(n as u64);
            rest = tail;
        }
        Ok(())
    }

    /// Raises what a write of `len` bytes would raise, without writing.
    #[cold]
    pub(crate) fn probe_write(&mut self, address: u64, len: u64) -> Result<(), Stop> {
        self.check_canonical(address, len)?;
        self.probe_pages(address, len, Who::Program)
    }

    fn probe_pages(&mut self, address: u64, len: u64, who: Who) -> Result<(), Stop> {
        let mut at = address;
        let end = address.wrapping_add(len);
        while at != end {
            let n = (end.wrapping_sub(at)).min(4096 - (at & 0xfff));
            if let Target::Code(page, _) = self.resolve(at, Access::Write, who)? {
                self.write_near_code(page, at, n as usize)?;
            }
            at = at.wrapping_add(n);
        }
        Ok(())
    }

    /// #GP for a non-canonical address; [`Cpu::stack_fault`] makes it #SS where it has to be.
    #[inline]
    fn check_canonical(&mut self, address: u64, len: u64) -> Result<(), Stop> {
        if self.long_mode() {
            let last = address.wrapping_add(len - 1);
            if !canonical(address) || !canonical(last) {
                self.noncanonical = true;
                return Err(self.gp(0));
            }
        }
        Ok(())
    }

    /// Translates one page's address and caches the translation.
    fn resolve(&mut self, address: u64, access: Access, who: Who) -> Result<Target, Stop> {
        let t = self.walk(address, access, who)?;
        let Some((host, page)) = self.shared.ram.page(t.gpa) else {
            if t.gpa & !0xfff == self.apic.mmio_page() {
                return Ok(Target::Apic(t.gpa & 0xfff));
            }
            return Ok(Target::Device(t.gpa));
        };
        let code = self.shared.code.holds_code(page);
        if who == Who::Program || self.cpl != 3 && self.cr4 & cr::CR4_SMAP == 0 {
            let linear = address & !0xfff;
            self.dtlb.fill(
                address,
                Entry {
                    read: linear,
                    write: if t.writable && !code {
                        linear
                    } else {
                        u64::MAX
                    },
                    addend: (host as u64).wrapping_sub(linear),
                    gpa: t.gpa & !0xfff | t.kind & (tlb::GLOBAL | tlb::LARGE | tlb::HUGE),
                },
            );
        }
        let at = host.wrapping_add((address & 0xfff) as usize);
        Ok(if code {
            Target::Code(page, at)
        } else {
            Target::Host(at)
        })
    }

    /// A write to a page that holds decoded code. Where it hits an instruction, the page's blocks
    /// are dropped and the writing instruction is executed again on its own, since the block it
    /// belongs to may be among them.
    fn write_near_code(&mut self, page: usize, address: u64, len: usize) -> Result<(), Stop> {
        if !self.shared.code.hit(page, (address & 0xfff) as usize, len) {
            return Ok(());
        }
        if !self.stepping {
            self.stop = StopReason::Retry;
            return Err(Stop);
        }
        self.shared.code.invalidate(page);
        self.code_invalidated = self.shared.code.invalidated;
        self.jump.forget();
        Ok(())
    }

    fn device_read(&mut self, gpa: u64, out: &mut [u8]) -> Result<(), Stop> {
        let mut at = gpa;
        for part in out.chunks_mut(8) {
            let value = match self.replay.take() {
                Some(v) => v,
                None => {
                    self.replay.awaiting = true;
                    return self.exit(Exit::MmioRead {
                        gpa: at,
                        len: part.len() as u8,
                    });
                }
            };
            part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
            at += part.len() as u64;
        }
        Ok(())
    }

    fn device_write(&mut self, gpa: u64, data: &[u8]) -> Result<(), Stop> {
        let mut at = gpa;
        for part in data.chunks(8) {
            if self.replay.take().is_none() {
                self.replay.push(0);
                let mut bytes = [0; 8];
                bytes[..part.len()].copy_from_slice(part);
                return self.exit(Exit::MmioWrite {
                    gpa: at,
                    len: part.len() as u8,
                    data: u64::from_le_bytes(bytes),
                });
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Leaves the processor in the middle of an instruction, which will start over.
    pub(crate) fn exit<T>(&mut self, exit: Exit) -> Result<T, Stop> {
        self.stop = StopReason::Exit(exit);
        Err(Stop)
    }

    /// Reads a word on the processor's own behalf (descriptor tables, TSS, stacks of handlers).
    pub(crate) fn system_read<T: Plain>(&mut self, address: u64) -> Result<T, Stop> {
        let mut value = T::default();
        // SAFETY: `T` is plain, so its bytes may be written in any way.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut value).cast::<u8>(), size_of::<T>())
        };
        self.read_bytes(address, bytes, Who::System)?;
        Ok(value)
    }

    /// Writes a word on the processor's own behalf.
    pub(crate) fn system_write<T: Plain>(&mut self, address: u64, value: T) -> Result<(), Stop> {
        // SAFETY: `T` is plain: all its bytes are initialised.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        self.write_bytes(address, bytes, Who::System)
    }

    /// Drops every cached translation.
    pub(crate) fn flush_tlb_all(&mut self) {
        self.dtlb.flush_all();
        self.itlb.flush_all();
        self.jump.forget();
    }

    /// Drops what a load of CR3 drops.
    pub(crate) fn flush_tlb_local(&mut self) {
        self.dtlb.flush_local();
        self.itlb.flush_local();
        self.jump.forget();
    }

    /// Drops one page.
    pub(crate) fn flush_tlb_page(&mut self, address: u64) {
        self.dtlb.flush_page(address);
        self.itlb.flush_page(address);
        self.jump.forget();
    }

    /// The host bytes from `address` to the end of its page, if they may be read (or written) the
    /// fast way; at most `want` of them.
    pub(crate) fn span(
        &mut self,
        address: u64,
        want: usize,
        write: bool,
    ) -> Option<(*mut u8, usize)> {
        let e = self.dtlb.slot(address);
        let tag = if write { e.write } else { e.read };
        (tag == address & !0xfff).then(|| {
            let n = want.min(4096 - (address & 0xfff) as usize);
            (address.wrapping_add(e.addend) as *mut u8, n)
        })
    }
}

/// Whether bits 63..47 are all alike (48-bit linear addresses).
#[inline(always)]
pub(crate) fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}
