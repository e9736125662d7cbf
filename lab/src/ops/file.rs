//! Open files (lua-api L-104 and section 6).

use std::sync::Arc;

use provium_protocol::Operation;
use provium_protocol::ops::{self, open_mode};

use super::Guest;
use super::files::{PIECE, show};
use super::stream::{StreamKind, Tail};
use crate::error::{Error, Reason, Result};
use crate::session::{Class, Closable, Registration};
use crate::vm::{Connection, Since, VmCore};
use crate::wait::Pending;

/// How a file is opened (L-104).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Create it if absent.
    pub create: bool,
    /// Cut it to nothing.
    pub truncate: bool,
    /// Write at its end.
    pub append: bool,
    /// Fail if it exists.
    pub exclusive: bool,
    /// Exact mode of a new file; absent is 0644.
    pub perm: Option<u32>,
}

impl OpenMode {
    /// Reading only.
    #[must_use]
    pub fn read() -> Self {
        Self {
            read: true,
            ..Self::default()
        }
    }

    /// Writing to a file that is created or emptied first.
    #[must_use]
    pub fn write_new() -> Self {
        Self {
            write: true,
            create: true,
            truncate: true,
            ..Self::default()
        }
    }

    fn bits(self) -> u32 {
        let flags = [
            (self.read, open_mode::READ),
            (self.write, open_mode::WRITE),
            (self.create, open_mode::CREATE),
            (self.truncate, open_mode::TRUNCATE),
            (self.append, open_mode::APPEND),
            (self.exclusive, open_mode::EXCLUSIVE),
        ];
        flags
            .iter()
            .filter(|(set, _)| *set)
            .fold(0, |bits, (_, bit)| bits | bit)
    }
}

/// What an offset counts from (L-124).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// The start.
    Set,
    /// The cursor.
    Cur,
    /// The end.
    End,
}

impl Whence {
    /// By its word, `set`, `cur` or `end`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "set" => Self::Set,
            "cur" => Self::Cur,
            "end" => Self::End,
            _ => return None,
        })
    }
}

/// An open file of a guest. Clones are the same file.
#[derive(Clone)]
pub struct File(Arc<Core>);

struct Core {
    guest: Guest,
    connection: Connection,
    h: u64,
    fd: i32,
    path: String,
    closed: Since<()>,
    registration: Registration,
}

impl Guest {
    /// Opens a file (L-104).
    pub fn open_file(&self, path: impl AsRef<[u8]>, mode: OpenMode) -> Result<File> {
        self.start_open_file(path, mode).wait()
    }

    /// Starts [`Guest::open_file`].
    pub fn start_open_file(&self, path: impl AsRef<[u8]>, mode: OpenMode) -> Pending<File> {
        let call = self.call("vm:open_file", "worker:open_file");
        let (guest, path) = (self.clone(), path.as_ref().to_vec());
        self.start(call, async move {
            let shown = show(&path);
            let resource = format!("{}: {shown}", guest.resource());
            if !(mode.read || mode.write || mode.append) {
                let text = "mode needs at least one of read, write and append";
                return Err(Error::new(call, resource, Reason::Refused(text.to_owned())));
            }
            let connection = guest.connection(call).await?;
            let op = ops::Open {
                path,
                mode: mode.bits(),
                perm: mode.perm,
            };
            let opened = connection.request(call, &resource, &op).await?;
            Ok(File::new(guest, connection, opened, shown))
        })
    }
}

impl File {
    fn new(guest: Guest, connection: Connection, opened: ops::Opened, path: String) -> Self {
        let registration = guest.session().register(Class::File);
        connection.file_opened();
        let file = Self(Arc::new(Core {
            guest,
            connection,
            h: opened.h,
            fd: opened.fd,
            path,
            closed: Since::default(),
            registration,
        }));
        file.0.registration.set(&file);
        file
    }

    /// As errors name it.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("file {} on {}", self.0.path, self.0.guest.resource())
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    fn is_closed(&self) -> bool {
        let core = &self.0;
        if core.connection.undone(&core.closed) {
            // A restore has opened it again (L-012): it counts, and its scope is to close it.
            core.connection.file_opened();
            core.registration.set(self);
        }
        core.connection.recall(&core.closed).is_some()
    }

    /// Notes that it is closed; false if it is already.
    fn note_closed(&self) -> bool {
        let core = &self.0;
        !self.is_closed() && core.connection.note(&core.closed, ())
    }

    fn start<T: Send + 'static>(
        &self,
        call: &'static str,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        if self.is_closed() {
            let error = Error::new(call, self.resource(), Reason::Closed("file is closed"));
            return Pending::failed(self.0.guest.world(), error);
        }
        Pending::new(self.0.guest.world(), call, self.resource(), operation)
    }

    async fn request<O: Operation + Sync>(&self, call: &'static str, op: O) -> Result<O::Reply> {
        self.0.connection.request(call, &self.resource(), &op).await
    }

    /// Up to `n` bytes at the cursor, none at the end (L-121).
    pub fn read(&self, n: u64) -> Result<Vec<u8>> {
        self.start_read(n).wait()
    }

    /// Starts [`File::read`].
    pub fn start_read(&self, n: u64) -> Pending<Vec<u8>> {
        let (file, call) = (self.clone(), "file:read");
        self.start(call, async move {
            let mut data = Vec::new();
            // More than a frame holds is read in pieces; a short piece ends it, as with any read.
            loop {
                let wanted = (n - data.len() as u64).min(PIECE as u64);
                let piece = file
                    .request(
                        call,
                        ops::Read {
                            h: file.0.h,
                            max: wanted,
                        },
                    )
                    .await?;
                data.extend_from_slice(&piece);
                if (piece.len() as u64) < wanted || data.len() as u64 >= n {
                    return Ok(data);
                }
            }
        })
    }

    /// Everything from the cursor to the end, read in pieces of 64 KiB (L-122).
    pub fn read_all(&self) -> Result<Vec<u8>> {
        self.start_read_all().wait()
    }

    /// Starts [`File::read_all`].
    pub fn start_read_all(&self) -> Pending<Vec<u8>> {
        const STEP: u64 = 64 * 1024;
        let (file, call) = (self.clone(), "file:read_all");
        self.start(call, async move {
            let mut data = Vec::new();
            loop {
                let piece = file
                    .request(
                        call,
                        ops::Read {
                            h: file.0.h,
                            max: STEP,
                        },
                    )
                    .await?;
                if piece.is_empty() {
                    return Ok(data);
                }
                data.extend_from_slice(&piece);
            }
        })
    }

    /// Writes at the cursor; gives the number of bytes, which may be short (L-123).
    pub fn write(&self, data: &[u8]) -> Result<u64> {
        self.start_write(data).wait()
    }

    /// Starts [`File::write`].
    pub fn start_write(&self, data: &[u8]) -> Pending<u64> {
        let (file, call, data) = (self.clone(), "file:write", data.to_vec());
        self.start(call, async move {
            let mut written = 0u64;
            // At least one request, so that writing nothing still asks the guest.
            for piece in pieces(&data) {
                let op = ops::Write {
                    h: file.0.h,
                    data: piece.to_vec(),
                };
                let count = file.request(call, op).await?;
                written += count;
                if count < piece.len() as u64 {
                    break;
                }
            }
            Ok(written)
        })
    }

    /// Moves the cursor; gives the new offset (L-124).
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        self.start_seek(offset, whence).wait()
    }

    /// Starts [`File::seek`].
    pub fn start_seek(&self, offset: i64, whence: Whence) -> Pending<u64> {
        self.seek_op("file:seek", offset, whence)
    }

    /// The cursor, asked of the guest (L-125).
    pub fn tell(&self) -> Result<u64> {
        self.start_tell().wait()
    }

    /// Starts [`File::tell`].
    pub fn start_tell(&self) -> Pending<u64> {
        self.seek_op("file:tell", 0, Whence::Cur)
    }

    fn seek_op(&self, call: &'static str, offset: i64, whence: Whence) -> Pending<u64> {
        let whence = match whence {
            Whence::Set => ops::Whence::Set,
            Whence::Cur => ops::Whence::Cur,
            Whence::End => ops::Whence::End,
        };
        let file = self.clone();
        self.start(call, async move {
            file.request(
                call,
                ops::Seek {
                    h: file.0.h,
                    offset,
                    whence,
                },
            )
            .await
        })
    }

    /// The descriptor in the agent's (or worker's) process; 0 once closed (L-126, L-127).
    #[must_use]
    pub fn fd(&self) -> i32 {
        if self.is_closed() { 0 } else { self.0.fd }
    }

    /// Streams it from the current cursor without moving that (L-128).
    pub fn tail_stream(&self) -> Result<Tail> {
        self.start_tail_stream().wait()
    }

    /// Starts [`File::tail_stream`].
    pub fn start_tail_stream(&self) -> Pending<Tail> {
        self.stream_op("file:tail_stream", StreamKind::FileTail)
    }

    /// The same, as [`Guest::fd_stream`] of this file (L-106).
    pub fn start_fd_stream(&self) -> Pending<Tail> {
        self.stream_op("vm:fd_stream", StreamKind::FdStream)
    }

    fn stream_op(&self, call: &'static str, kind: StreamKind) -> Pending<Tail> {
        let file = self.clone();
        self.start(call, async move {
            let op = ops::FdStreamOpen {
                fd: None,
                h: Some(file.0.h),
                offset: None,
            };
            let resource = file.resource();
            // A stream belongs to the link it was opened on, which is not that of a file from before a restore.
            let connection = file.0.connection.renewed(call, &resource).await?;
            let stream = connection.request(call, &resource, &op).await?;
            Ok(Tail::new(
                &file.0.guest,
                &connection,
                stream,
                kind,
                file.0.path.clone(),
            ))
        })
    }

    /// Closes it; doing so again changes nothing (L-126).
    pub fn close(&self) -> Result<()> {
        self.start_close().wait()
    }

    /// Starts [`File::close`].
    pub fn start_close(&self) -> Pending<()> {
        let file = self.clone();
        let first = self.note_closed();
        Pending::new(
            self.0.guest.world(),
            "file:close",
            self.resource(),
            async move {
                let core = &file.0;
                core.registration.done();
                if !first {
                    return Ok(());
                }
                core.connection.file_closed();
                if core.connection.is_stale() {
                    return Ok(());
                }
                let closed = file.request("file:close", ops::Close { h: core.h }).await;
                // It may have gone with its worker (L-063).
                closed.or_else(Error::unless_stale)
            },
        )
    }
}

fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = data.is_empty().then_some(data);
    empty.into_iter().chain(data.chunks(PIECE))
}

impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Closable for File {
    fn describe(&self) -> String {
        self.resource()
    }

    fn vm(&self) -> &Arc<VmCore> {
        &self.0.guest.vm
    }

    fn start_close(&self) -> Pending<()> {
        File::start_close(self)
    }

    fn abandon(&self) {
        if self.note_closed() {
            self.0.connection.file_closed();
        }
        self.0.registration.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e072_modes_become_bits() {
        assert_eq!(OpenMode::read().bits(), 1);
        assert_eq!(OpenMode::write_new().bits(), 2 | 4 | 8);
        let mode = OpenMode {
            append: true,
            exclusive: true,
            ..OpenMode::default()
        };
        assert_eq!(mode.bits(), 16 | 32);
    }

    #[test]
    fn writing_nothing_is_one_piece() {
        assert_eq!(pieces(b"").count(), 1);
        assert_eq!(pieces(&vec![0; PIECE + 1]).count(), 2);
    }

    #[test]
    fn l124_whence_words() {
        assert_eq!(Whence::by_name("cur"), Some(Whence::Cur));
        assert_eq!(Whence::by_name("SET"), None);
    }
}
