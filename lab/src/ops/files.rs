//! Files and directories by path (lua-api L-096..L-105).

use std::path::Path;

use provium_protocol::ops::{self, open_mode};
pub use provium_protocol::ops::{DirEntry, EntryType, FileStat as Stat};

use super::Guest;
use super::stream::{StreamKind, Tail};
use crate::error::{Error, Reason, Result};
use crate::vm::Connection;
use crate::wait::Pending;

/// Largest piece of file data in one request or answer.
pub(super) const PIECE: usize = 4 << 20;

/// Where following a file begins (L-105).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailStart {
    /// Behind what is there now.
    End,
    /// At this offset; a negative one counts back from the end.
    At(i64),
}

/// How text shows a guest path.
pub(super) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Guest {
    fn on_path(&self, path: &[u8]) -> String {
        format!("{}: {}", self.resource(), show(path))
    }

    fn path_request<O, T>(
        &self,
        call: &'static str,
        path: &[u8],
        op: O,
        convert: impl FnOnce(O::Reply) -> T + Send + 'static,
    ) -> Pending<T>
    where
        O: provium_protocol::Operation + Send + Sync + 'static,
        O::Reply: Send,
        T: Send + 'static,
    {
        let (guest, resource) = (self.clone(), self.on_path(path));
        self.start(call, async move {
            let connection = guest.connection(call).await?;
            Ok(convert(connection.request(call, &resource, &op).await?))
        })
    }

    /// The whole content of a file, also of one without a size such as those in /proc (L-096).
    pub fn read_file(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.start_read_file(path).wait()
    }

    /// Starts [`Guest::read_file`].
    pub fn start_read_file(&self, path: impl AsRef<[u8]>) -> Pending<Vec<u8>> {
        let call = self.call("vm:read_file", "worker:read_file");
        let path = path.as_ref().to_vec();
        let (guest, resource) = (self.clone(), self.on_path(&path));
        self.start(call, async move {
            let connection = guest.connection(call).await?;
            let op = ops::ReadFile {
                path,
                max: PIECE as u64,
            };
            let first = connection.request(call, &resource, &op).await?;
            let Some(h) = first.h else {
                return Ok(first.data);
            };
            let rest = read_rest(&connection, call, &resource, h, first.data).await;
            connection.link().request(&ops::Close { h }).detach();
            rest
        })
    }

    /// Creates a file (0644) or replaces its content, keeping its mode (L-097).
    pub fn write_file(&self, path: impl AsRef<[u8]>, data: impl Into<Vec<u8>>) -> Result<()> {
        self.start_write_file(path, data).wait()
    }

    /// Starts [`Guest::write_file`].
    pub fn start_write_file(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Vec<u8>>,
    ) -> Pending<()> {
        let call = self.call("vm:write_file", "worker:write_file");
        let (guest, path, data) = (self.clone(), path.as_ref().to_vec(), data.into());
        self.start(
            call,
            async move { guest.put_file(call, path, data, None).await },
        )
    }

    /// Copies a host file into the guest; `perm` is its exact mode, otherwise as [`Guest::write_file`] (L-098).
    pub fn push_file(&self, host: &Path, path: impl AsRef<[u8]>, perm: Option<u32>) -> Result<()> {
        self.start_push_file(host, path, perm).wait()
    }

    /// Starts [`Guest::push_file`].
    pub fn start_push_file(
        &self,
        host: &Path,
        path: impl AsRef<[u8]>,
        perm: Option<u32>,
    ) -> Pending<()> {
        let call = self.call("vm:push_file", "worker:push_file");
        let (guest, host, path) = (self.clone(), host.to_owned(), path.as_ref().to_vec());
        self.start(call, async move {
            let data = std::fs::read(&host).map_err(|source| {
                let reason = Reason::Host {
                    action: "read",
                    path: host.clone(),
                    source,
                };
                Error::new(call, guest.resource(), reason)
            })?;
            guest.put_file(call, path, data, perm).await
        })
    }

    async fn put_file(
        &self,
        call: &'static str,
        path: Vec<u8>,
        data: Vec<u8>,
        perm: Option<u32>,
    ) -> Result<()> {
        let resource = self.on_path(&path);
        let connection = self.connection(call).await?;
        if data.len() <= PIECE {
            let op = ops::WriteFile {
                path,
                data: data.into(),
                perm,
            };
            return connection.request(call, &resource, &op).await;
        }
        let mode = open_mode::WRITE | open_mode::CREATE | open_mode::TRUNCATE;
        let opened = connection
            .request(call, &resource, &ops::Open { path, mode, perm })
            .await?;
        let written = write_all(&connection, call, &resource, opened.h, &data).await;
        connection
            .link()
            .request(&ops::Close { h: opened.h })
            .detach();
        written
    }

    /// What is at a path; the last symbolic link is not followed unless asked for (L-099).
    pub fn stat(&self, path: impl AsRef<[u8]>, follow: bool) -> Result<Stat> {
        self.start_stat(path, follow).wait()
    }

    /// Starts [`Guest::stat`].
    pub fn start_stat(&self, path: impl AsRef<[u8]>, follow: bool) -> Pending<Stat> {
        let path = path.as_ref();
        let op = ops::Stat {
            path: path.to_vec(),
            follow,
        };
        self.path_request(self.call("vm:stat", "worker:stat"), path, op, |stat| stat)
    }

    /// Entries of a directory, sorted by name, without `.` and `..` (L-100).
    pub fn listdir(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        self.start_listdir(path).wait()
    }

    /// Starts [`Guest::listdir`].
    pub fn start_listdir(&self, path: impl AsRef<[u8]>) -> Pending<Vec<DirEntry>> {
        let path = path.as_ref();
        let op = ops::ListDir {
            path: path.to_vec(),
        };
        self.path_request(
            self.call("vm:listdir", "worker:listdir"),
            path,
            op,
            |mut entries| {
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                entries
            },
        )
    }

    /// Creates a directory (L-101).
    pub fn mkdir(&self, path: impl AsRef<[u8]>, parents: bool, perm: Option<u32>) -> Result<()> {
        self.start_mkdir(path, parents, perm).wait()
    }

    /// Starts [`Guest::mkdir`].
    pub fn start_mkdir(
        &self,
        path: impl AsRef<[u8]>,
        parents: bool,
        perm: Option<u32>,
    ) -> Pending<()> {
        let path = path.as_ref();
        let op = ops::Mkdir {
            path: path.to_vec(),
            parents,
            perm,
        };
        self.path_request(self.call("vm:mkdir", "worker:mkdir"), path, op, |()| ())
    }

    /// Removes a file, symbolic link or empty directory (L-102).
    pub fn unlink(&self, path: impl AsRef<[u8]>) -> Result<()> {
        self.start_unlink(path).wait()
    }

    /// Starts [`Guest::unlink`].
    pub fn start_unlink(&self, path: impl AsRef<[u8]>) -> Pending<()> {
        let path = path.as_ref();
        let op = ops::Unlink {
            path: path.to_vec(),
        };
        self.path_request(self.call("vm:unlink", "worker:unlink"), path, op, |()| ())
    }

    /// Renames, atomically (L-103).
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.start_rename(from, to).wait()
    }

    /// Starts [`Guest::rename`].
    pub fn start_rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Pending<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let shown = [from, b" -> ", to].concat();
        let op = ops::Rename {
            from: from.to_vec(),
            to: to.to_vec(),
        };
        self.path_request(self.call("vm:rename", "worker:rename"), &shown, op, |()| ())
    }

    /// Follows a file (L-105).
    pub fn tail_file(&self, path: impl AsRef<[u8]>, start: TailStart) -> Result<Tail> {
        self.start_tail_file(path, start).wait()
    }

    /// Starts [`Guest::tail_file`].
    pub fn start_tail_file(&self, path: impl AsRef<[u8]>, start: TailStart) -> Pending<Tail> {
        let call = self.call("vm:tail_file", "worker:tail_file");
        let path = path.as_ref().to_vec();
        let (guest, resource) = (self.clone(), self.on_path(&path));
        self.start(call, async move {
            let connection = guest.connection(call).await?;
            let start = match start {
                TailStart::End => ops::TailStart::End,
                TailStart::At(offset) => ops::TailStart::At(offset),
            };
            let detail = show(&path);
            let op = ops::TailOpen { path, start };
            let stream = connection.request(call, &resource, &op).await?;
            Ok(Tail::new(
                &guest,
                &connection,
                stream,
                StreamKind::TailFile,
                detail,
            ))
        })
    }

    /// Streams what a descriptor of the agent (or worker) process yields (L-106).
    pub fn fd_stream(&self, fd: i32) -> Result<Tail> {
        self.start_fd_stream(fd).wait()
    }

    /// Starts [`Guest::fd_stream`].
    pub fn start_fd_stream(&self, fd: i32) -> Pending<Tail> {
        let call = self.call("vm:fd_stream", "worker:fd_stream");
        let guest = self.clone();
        self.start(call, async move {
            let connection = guest.connection(call).await?;
            let op = ops::FdStreamOpen {
                fd: Some(fd),
                h: None,
                offset: None,
            };
            let stream = connection.request(call, &guest.resource(), &op).await?;
            Ok(Tail::new(
                &guest,
                &connection,
                stream,
                StreamKind::FdStream,
                fd.to_string(),
            ))
        })
    }
}

/// Reads an open file to its end behind what is there already.
pub(super) async fn read_rest(
    connection: &Connection,
    call: &'static str,
    resource: &str,
    h: u64,
    mut data: Vec<u8>,
) -> Result<Vec<u8>> {
    loop {
        let op = ops::Read {
            h,
            max: PIECE as u64,
        };
        let piece = connection.request(call, resource, &op).await?;
        if piece.is_empty() {
            return Ok(data);
        }
        data.extend_from_slice(&piece);
    }
}

async fn write_all(
    connection: &Connection,
    call: &'static str,
    resource: &str,
    h: u64,
    mut data: &[u8],
) -> Result<()> {
    while !data.is_empty() {
        let piece = &data[..data.len().min(PIECE)];
        let op = ops::Write {
            h,
            data: piece.to_vec(),
        };
        let written = connection.request(call, resource, &op).await?;
        let written = usize::try_from(written)
            .unwrap_or(usize::MAX)
            .min(piece.len());
        if written == 0 {
            let reason = Reason::Refused("the guest's file takes no more bytes".to_owned());
            return Err(Error::new(call, resource, reason));
        }
        data = &data[written..];
    }
    Ok(())
}
