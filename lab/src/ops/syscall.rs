//! Raw kernel access (lua-api L-107..L-111, L-235, L-236).

pub use provium_protocol::ops::Nested;
use provium_protocol::ops::{self, Blob, Slot, Which};

use super::{Guest, SyscallHandle};
use crate::agent::Stager;
use crate::error::{Error, Reason, Result};
use crate::vm::Connection;
use crate::wait::Pending;

/// A system call to make (L-107, L-108). Indices count from 0 here; the Lua side converts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Syscall {
    /// Its number.
    pub nr: u32,
    /// Its arguments, six at most.
    pub args: Vec<i64>,
    /// Buffers, copied in and out.
    pub bufs: Vec<Vec<u8>>,
    /// For `bufs[i]`: the argument that receives its address.
    pub ptrs: Vec<u32>,
    /// Addresses of buffers inside buffers.
    pub nested: Vec<Nested>,
}

impl Syscall {
    /// A call with plain arguments.
    #[must_use]
    pub fn new(nr: u32, args: &[i64]) -> Self {
        Self {
            nr,
            args: args.to_vec(),
            ..Self::default()
        }
    }

    /// Adds a buffer whose address becomes argument `slot`.
    #[must_use]
    pub fn buffer(mut self, slot: u32, data: impl Into<Vec<u8>>) -> Self {
        // Buffers with a slot come first: `ptrs` runs along with `bufs`.
        self.bufs.insert(self.ptrs.len(), data.into());
        self.ptrs.push(slot);
        self
    }

    fn check(&self) -> Result<(), Reason> {
        let refuse = |name: String, problem: String| Err(Reason::BadArgument { name, problem });
        if self.args.len() > 6 {
            return refuse(
                "args".into(),
                format!("at most 6 arguments, not {}", self.args.len()),
            );
        }
        if self.nr > i32::MAX as u32 {
            return refuse(
                "nr".into(),
                format!("must be 0 to {}, not {}", i32::MAX, self.nr),
            );
        }
        if self.ptrs.len() > self.bufs.len() {
            let counts = format!("{} slots for {} buffers", self.ptrs.len(), self.bufs.len());
            return refuse("ptrs".into(), counts);
        }
        if let Some((index, slot)) = self.ptrs.iter().enumerate().find(|(_, slot)| **slot > 5) {
            return refuse(
                format!("ptrs[{}]", index + 1),
                format!("slot {slot} is outside 0 to 5"),
            );
        }
        for (index, link) in self.nested.iter().enumerate() {
            let name = format!("nested[{}]", index + 1);
            let buffer = |which: u32| self.bufs.get(which as usize);
            let Some(parent) = buffer(link.parent) else {
                return refuse(
                    name,
                    format!("parent {} is no buffer", u64::from(link.parent) + 1),
                );
            };
            if buffer(link.child).is_none() {
                return refuse(
                    name,
                    format!("child {} is no buffer", u64::from(link.child) + 1),
                );
            }
            if link.offset.saturating_add(8) > parent.len() as u64 {
                let size = parent.len();
                let problem = format!(
                    "offset {} leaves no room for an address in {size} bytes",
                    link.offset
                );
                return refuse(name, problem);
            }
        }
        Ok(())
    }

    fn into_op(mut self, connection: &Connection) -> Result<ops::Syscall, Reason> {
        self.check()?;
        let total = self.bufs.iter().map(Vec::len).sum();
        let stager = Stager::new(connection.link(), total)
            .map_err(|limit| Reason::Refused(limit.to_string()))?;
        // Slots beyond the arguments extend them (L-108).
        let needed = self
            .ptrs
            .iter()
            .map(|slot| *slot as usize + 1)
            .max()
            .unwrap_or(0);
        self.args.resize(self.args.len().max(needed), 0);
        let slots = (0u32..)
            .zip(&self.ptrs)
            .map(|(buf, arg)| Slot { arg: *arg, buf })
            .collect();
        let bufs: Vec<Blob> = self.bufs.into_iter().map(|buf| stager.blob(buf)).collect();
        Ok(ops::Syscall {
            nr: self.nr,
            args: self.args,
            bufs,
            slots,
            nested: self.nested,
        })
    }
}

/// What a system call gave (L-107).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallResult {
    /// The kernel's value; failures are -4095..-1.
    pub raw: i64,
    /// The value, or -1 on failure.
    pub ret: i64,
    /// The error number, or 0.
    pub errno: i32,
    /// The buffers after the call.
    pub out_bufs: Vec<Vec<u8>>,
}

impl SyscallResult {
    pub(super) fn new(ret: i64, errno: i32, out_bufs: Vec<Vec<u8>>) -> Self {
        let raw = if errno == 0 { ret } else { -i64::from(errno) };
        Self {
            raw,
            ret,
            errno,
            out_bufs,
        }
    }
}

/// An ioctl to make (L-111).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ioctl {
    /// The descriptor.
    pub fd: i32,
    /// The command.
    pub cmd: u32,
    /// Its argument.
    pub data: Option<IoctlData>,
    /// Further buffers, copied in and out.
    pub bufs: Vec<Vec<u8>>,
    /// Where in the data the address of each buffer is stored.
    pub ptr_offsets: Vec<u64>,
}

/// The third argument of an ioctl (L-111).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IoctlData {
    /// The address of a copy of these bytes.
    Bytes(Vec<u8>),
    /// The number itself.
    Int(i64),
}

/// What an ioctl gave (L-111).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoctlResult {
    /// The kernel's value; failures are -4095..-1.
    pub raw: i64,
    /// The value, or -1 on failure.
    pub ret: i64,
    /// The error number, or 0.
    pub errno: i32,
    /// The data after the call, when it was a buffer.
    pub out_data: Option<Vec<u8>>,
    /// The further buffers after the call.
    pub out_bufs: Vec<Vec<u8>>,
}

/// The zeroed buffer of a command that, by its own encoding, fills one (L-111).
fn written_by_kernel(cmd: u32) -> Option<IoctlData> {
    const READ: u32 = 2;
    let (direction, size) = (cmd >> 30, (cmd >> 16) & 0x3fff);
    (direction & READ != 0).then(|| IoctlData::Bytes(vec![0; size as usize]))
}

impl Ioctl {
    fn check(&self) -> Result<(), Reason> {
        let refuse = |name: &str, problem: String| {
            Err(Reason::BadArgument {
                name: name.to_owned(),
                problem,
            })
        };
        if self.ptr_offsets.len() > self.bufs.len() {
            let counts = format!(
                "{} offsets for {} buffers",
                self.ptr_offsets.len(),
                self.bufs.len()
            );
            return refuse("ptr_offsets", counts);
        }
        let room = match &self.data {
            Some(IoctlData::Bytes(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        match self
            .ptr_offsets
            .iter()
            .find(|offset| offset.saturating_add(8) > room)
        {
            None => Ok(()),
            Some(offset) => {
                let problem =
                    format!("offset {offset} leaves no room for an address in {room} bytes");
                refuse("ptr_offsets", problem)
            }
        }
    }

    fn into_op(self, connection: &Connection) -> Result<ops::Ioctl, Reason> {
        self.check()?;
        let data = self.data.or_else(|| written_by_kernel(self.cmd));
        let data_len = match &data {
            Some(IoctlData::Bytes(bytes)) => bytes.len(),
            _ => 0,
        };
        let total = data_len + self.bufs.iter().map(Vec::len).sum::<usize>();
        let stager = Stager::new(connection.link(), total)
            .map_err(|limit| Reason::Refused(limit.to_string()))?;
        let data = data.map(|data| match data {
            IoctlData::Bytes(bytes) => ops::IoctlData::Bytes(stager.blob(bytes)),
            IoctlData::Int(value) => ops::IoctlData::Int(value),
        });
        let bufs = self.bufs.into_iter().map(|buf| stager.blob(buf)).collect();
        Ok(ops::Ioctl {
            fd: self.fd,
            cmd: self.cmd,
            data,
            bufs,
            offsets: self.ptr_offsets,
        })
    }
}

impl Guest {
    /// Makes a system call on the agent's (or worker's) one op thread (L-107, L-110).
    pub fn syscall(&self, call: Syscall) -> Result<SyscallResult> {
        self.start_syscall(call).wait()
    }

    /// Starts [`Guest::syscall`].
    pub fn start_syscall(&self, syscall: Syscall) -> Pending<SyscallResult> {
        let call = self.call("vm:syscall", "worker:syscall");
        let guest = self.clone();
        self.start(call, async move {
            let resource = format!("{}: syscall {}", guest.resource(), syscall.nr);
            let connection = guest.connection(call).await?;
            let sizes: Vec<usize> = syscall.bufs.iter().map(Vec::len).collect();
            let op = syscall
                .into_op(&connection)
                .map_err(|reason| Error::new(call, &*resource, reason))?;
            let result = connection.request(call, &resource, &op).await?;
            finish(&connection, call, &resource, result, &sizes).await
        })
    }

    /// Makes a system call on a thread of its own in that process (L-235).
    pub fn syscall_async(&self, call: Syscall) -> Result<SyscallHandle> {
        self.start_syscall_async(call).wait()
    }

    /// Starts [`Guest::syscall_async`].
    pub fn start_syscall_async(&self, syscall: Syscall) -> Pending<SyscallHandle> {
        let call = self.call("vm:syscall_async", "worker:syscall_async");
        let guest = self.clone();
        self.start(call, async move {
            let resource = format!("{}: syscall {}", guest.resource(), syscall.nr);
            let connection = guest.connection(call).await?;
            let sizes: Vec<usize> = syscall.bufs.iter().map(Vec::len).collect();
            let op = syscall
                .into_op(&connection)
                .map_err(|reason| Error::new(call, &*resource, reason))?;
            let request = connection.link().request(&ops::SyscallAsync { call: op });
            Ok(SyscallHandle::new(
                guest, connection, resource, sizes, request,
            ))
        })
    }

    /// Makes an ioctl (L-111).
    pub fn ioctl(&self, ioctl: Ioctl) -> Result<IoctlResult> {
        self.start_ioctl(ioctl).wait()
    }

    /// Starts [`Guest::ioctl`].
    pub fn start_ioctl(&self, ioctl: Ioctl) -> Pending<IoctlResult> {
        let call = self.call("vm:ioctl", "worker:ioctl");
        let guest = self.clone();
        self.start(call, async move {
            let resource = format!(
                "{}: ioctl {:#x} on fd {}",
                guest.resource(),
                ioctl.cmd,
                ioctl.fd
            );
            let connection = guest.connection(call).await?;
            let sizes: Vec<usize> = ioctl.bufs.iter().map(Vec::len).collect();
            let op = ioctl
                .into_op(&connection)
                .map_err(|reason| Error::new(call, &*resource, reason))?;
            let mut result = connection.request(call, &resource, &op).await?;
            if let Some(h) = result.more {
                let all = read_buffers(&connection, call, &resource, h).await?;
                // The data comes first, as long as the rest leaves it; then the buffers in order.
                let rest = all.len().saturating_sub(sizes.iter().sum());
                let (data, bufs) = all.split_at(rest);
                result.out_data = Some(data.to_vec());
                result.out_bufs = Some(split(bufs, &sizes));
            }
            let errno = result.errno;
            let raw = if errno == 0 {
                result.ret
            } else {
                -i64::from(errno)
            };
            let out_bufs = result.out_bufs.unwrap_or_default();
            Ok(IoctlResult {
                raw,
                ret: result.ret,
                errno,
                out_data: result.out_data,
                out_bufs,
            })
        })
    }
}

/// Collects buffers that did not fit the answer's frame.
pub(super) async fn finish(
    connection: &Connection,
    call: &'static str,
    resource: &str,
    result: ops::SyscallResult,
    sizes: &[usize],
) -> Result<SyscallResult> {
    let out_bufs = match result.more {
        None => result.out_bufs.unwrap_or_default(),
        Some(h) => split(&read_buffers(connection, call, resource, h).await?, sizes),
    };
    Ok(SyscallResult::new(result.ret, result.errno, out_bufs))
}

async fn read_buffers(
    connection: &Connection,
    call: &'static str,
    resource: &str,
    h: u64,
) -> Result<Vec<u8>> {
    const STEP: u64 = 4 << 20;
    let mut all = Vec::new();
    loop {
        let op = ops::OutputRead {
            h,
            which: Which::Buffers,
            offset: all.len() as u64,
            max: STEP,
        };
        let piece = connection.request(call, resource, &op).await?;
        if piece.is_empty() {
            connection
                .link()
                .request(&ops::OutputRelease { h })
                .detach();
            return Ok(all);
        }
        all.extend_from_slice(&piece);
    }
}

/// Cuts bytes laid one behind the other into buffers of the given sizes.
fn split(mut bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let cut = |size: &usize| {
        let (head, tail) = bytes.split_at((*size).min(bytes.len()));
        bytes = tail;
        head.to_vec()
    };
    sizes.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l108_out_of_range_slots_indices_and_offsets_are_refused() {
        let text = |call: Syscall| call.check().unwrap_err().to_string();
        assert_eq!(
            text(Syscall::new(1, &[0; 7])),
            "args: at most 6 arguments, not 7"
        );
        assert_eq!(
            text(Syscall::new(1, &[]).buffer(6, b"x")),
            "ptrs[1]: slot 6 is outside 0 to 5"
        );
        let nested = |parent, child, offset| Syscall {
            nested: vec![Nested {
                parent,
                child,
                offset,
            }],
            ..Syscall::new(1, &[]).buffer(0, [0; 16]).buffer(1, [0; 4])
        };
        assert_eq!(nested(0, 1, 8).check().map_err(|e| e.to_string()), Ok(()));
        assert!(text(nested(0, 1, 9)).contains("offset 9"));
        assert!(text(nested(2, 1, 0)).contains("parent 3 is no buffer"));
        assert!(text(nested(0, 2, 0)).contains("child 3 is no buffer"));
        assert!(text(nested(0, 1, u64::MAX)).contains("no room"));
        assert!(text(Syscall::new(u32::MAX, &[])).starts_with("nr: must be 0 to 2147483647"));
    }

    #[test]
    fn l107_failures_keep_the_kernels_value() {
        let failed = SyscallResult::new(-1, 2, Vec::new());
        assert_eq!((failed.raw, failed.ret, failed.errno), (-2, -1, 2));
        let fine = SyscallResult::new(-5000, 0, Vec::new());
        assert_eq!((fine.raw, fine.ret), (-5000, -5000));
    }

    #[test]
    fn buffers_with_and_without_slots_keep_their_order() {
        let call = Syscall {
            bufs: vec![b"last".to_vec()],
            ..Syscall::new(1, &[])
        };
        let call = call.buffer(1, b"a").buffer(2, b"b");
        assert_eq!(call.bufs, [&b"a"[..], b"b", b"last"]);
        assert_eq!(call.ptrs, [1, 2]);
    }

    #[test]
    fn l111_offsets_must_lie_in_the_data() {
        let ioctl = |offset| Ioctl {
            fd: 0,
            cmd: 1,
            data: Some(IoctlData::Bytes(vec![0; 12])),
            bufs: vec![vec![0]],
            ptr_offsets: vec![offset],
        };
        assert!(ioctl(4).check().is_ok());
        assert!(ioctl(5).check().is_err());
        assert!(
            Ioctl {
                data: None,
                ..ioctl(0)
            }
            .check()
            .is_err()
        );
    }

    #[test]
    fn buffers_are_cut_apart_by_size() {
        assert_eq!(
            split(b"abcdef", &[1, 0, 3, 9]),
            [&b"a"[..], b"", b"bcd", b"ef"]
        );
    }
}
