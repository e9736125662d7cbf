//! Memory of the agent process, pseudo file systems, the kernel log (lua-api L-237, classic-api C-021, C-022).

use provium_protocol::ops;

use super::Guest;
use crate::error::Result;
use crate::wait::Pending;

impl Guest {
    /// Reads the agent's (or worker's) own address space (L-237).
    pub fn read_mem(&self, addr: u64, len: u64) -> Result<Vec<u8>> {
        self.start_read_mem(addr, len).wait()
    }

    /// Starts [`Guest::read_mem`].
    pub fn start_read_mem(&self, addr: u64, len: u64) -> Pending<Vec<u8>> {
        const STEP: u64 = 4 << 20;
        let call = self.call("vm:read_mem", "worker:read_mem");
        let guest = self.clone();
        self.start(call, async move {
            let resource = format!("{}: {len} bytes at {addr:#x}", guest.resource());
            let connection = guest.connection(call).await?;
            let mut data = Vec::new();
            while (data.len() as u64) < len || len == 0 {
                let done = data.len() as u64;
                let op = ops::MemRead {
                    addr: addr.wrapping_add(done),
                    len: (len - done).min(STEP),
                };
                let piece = connection.request(call, &resource, &op).await?;
                if piece.is_empty() {
                    break;
                }
                data.extend_from_slice(&piece);
            }
            Ok(data)
        })
    }

    /// Writes the agent's (or worker's) own address space (L-237).
    pub fn write_mem(&self, addr: u64, data: &[u8]) -> Result<()> {
        self.start_write_mem(addr, data).wait()
    }

    /// Starts [`Guest::write_mem`].
    pub fn start_write_mem(&self, addr: u64, data: &[u8]) -> Pending<()> {
        const STEP: usize = 4 << 20;
        let call = self.call("vm:write_mem", "worker:write_mem");
        let (guest, data) = (self.clone(), data.to_vec());
        self.start(call, async move {
            let resource = format!("{}: {} bytes at {addr:#x}", guest.resource(), data.len());
            let connection = guest.connection(call).await?;
            for (index, piece) in data.chunks(STEP).enumerate() {
                let addr = addr.wrapping_add((index * STEP) as u64);
                let op = ops::MemWrite {
                    addr,
                    data: piece.to_vec(),
                };
                connection.request(call, &resource, &op).await?;
            }
            Ok(())
        })
    }

    /// Mounts the pseudo file systems that are missing (classic-api C-022).
    pub fn mount_vfs(&self) -> Result<()> {
        self.start_mount_vfs().wait()
    }

    /// Starts [`Guest::mount_vfs`].
    pub fn start_mount_vfs(&self) -> Pending<()> {
        self.start_request(
            self.call("vm:mount_vfs", "worker:mount_vfs"),
            ops::MountVfs {},
            |()| (),
        )
    }

    /// The kernel log as text (classic-api C-021).
    pub fn dmesg(&self) -> Result<Vec<u8>> {
        self.start_dmesg().wait()
    }

    /// Starts [`Guest::dmesg`].
    pub fn start_dmesg(&self) -> Pending<Vec<u8>> {
        self.start_request(
            self.call("vm:dmesg", "worker:dmesg"),
            ops::Dmesg {},
            |log| log,
        )
    }
}
