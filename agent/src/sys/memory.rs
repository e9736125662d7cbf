//! The address space of the agent process, for tests that look at what a system call did to it.

use super::{Errno, Sys, check_size};

/// Reads our own memory; a bad address is `EFAULT`.
pub(crate) fn read(addr: u64, len: usize) -> Sys<Vec<u8>> {
    let mut buffer = vec![0; len];
    transfer(&mut buffer, addr, libc::process_vm_readv)?;
    Ok(buffer)
}

/// Writes our own memory; a bad address is `EFAULT`.
pub(crate) fn write(addr: u64, bytes: &[u8]) -> Sys<()> {
    transfer(&mut bytes.to_vec(), addr, libc::process_vm_writev)
}

type Transfer = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> libc::ssize_t;

fn transfer(buffer: &mut [u8], addr: u64, call: Transfer) -> Sys<()> {
    let addr = usize::try_from(addr).map_err(|_| libc::EFAULT)?;
    let mut done = 0;
    while done < buffer.len() {
        let left = buffer.len() - done;
        let local = libc::iovec {
            iov_base: buffer[done..].as_mut_ptr().cast(),
            iov_len: left,
        };
        let remote = addr.checked_add(done).ok_or(libc::EFAULT)?;
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(remote),
            iov_len: left,
        };
        // SAFETY: the local side is our buffer; the kernel checks the remote side like that of
        // another process. What a write does to us is what the test asked for.
        let count = unsafe { call(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        match check_size(count)? {
            0 => return Err(libc::EFAULT),
            count => done += count,
        }
    }
    Ok(())
}

/// Buffers laid out in one block of memory for a system call: each aligned to 16 bytes, each with
/// a valid address even when empty (C-029).
pub(crate) struct Arena {
    block: Vec<u128>,
    /// Byte offset and length of each buffer.
    parts: Vec<(usize, usize)>,
}

impl Arena {
    /// Copies the buffers in.
    pub(crate) fn new(buffers: &[impl AsRef<[u8]>]) -> Self {
        let mut parts = Vec::with_capacity(buffers.len());
        let mut end = 0;
        for buffer in buffers {
            let len = buffer.as_ref().len();
            parts.push((end, len));
            end += len.max(1).next_multiple_of(16);
        }
        let mut arena = Self {
            block: vec![0; end / 16],
            parts,
        };
        for (index, buffer) in buffers.iter().enumerate() {
            arena.part_mut(index).copy_from_slice(buffer.as_ref());
        }
        arena
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is initialised memory of this size, and bytes need no alignment.
        unsafe { std::slice::from_raw_parts(self.block.as_ptr().cast(), self.block.len() * 16) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.block.len() * 16;
        // SAFETY: as above, and we hold the block exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.block.as_mut_ptr().cast(), len) }
    }

    /// Address of a buffer. Whoever uses it may change the contents: that is the point.
    pub(crate) fn address(&mut self, index: usize) -> Option<u64> {
        let (start, _) = *self.parts.get(index)?;
        Some(self.bytes_mut()[start..].as_mut_ptr().expose_provenance() as u64)
    }

    /// Contents of a buffer.
    pub(crate) fn part(&self, index: usize) -> &[u8] {
        let (start, len) = self.parts[index];
        &self.bytes()[start..start + len]
    }

    fn part_mut(&mut self, index: usize) -> &mut [u8] {
        let (start, len) = self.parts[index];
        &mut self.bytes_mut()[start..start + len]
    }

    /// Stores an address in a buffer.
    pub(crate) fn store(&mut self, index: usize, offset: u64, address: u64) -> Result<(), Errno> {
        let offset = usize::try_from(offset).map_err(|_| libc::EINVAL)?;
        let part = self.part_mut(index);
        let end = offset
            .checked_add(8)
            .filter(|end| *end <= part.len())
            .ok_or(libc::EINVAL)?;
        part[offset..end].copy_from_slice(&address.to_ne_bytes());
        Ok(())
    }

    /// Contents of all buffers.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        (0..self.parts.len())
            .map(|index| self.part(index).to_vec())
            .collect()
    }

    /// Keeps the memory for ever, for calls after which the kernel goes on using it.
    pub(crate) fn leak(self) {
        std::mem::forget(self);
    }
}
