//! Streams: bytes sent to the harness as they appear, as far as it has granted credit (E-052,
//! E-053, E-075 to E-078).
//!
//! A stream takes from its source only what it may send, so a slow reader holds back whoever
//! writes into a pipe or socket, and nothing is lost (L-201).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use provium_protocol::message::{data_frame, eof_frame};
use provium_protocol::ops::{TailStart, Which};
use provium_protocol::{Error, ErrorKind, INITIAL_CREDIT};

use crate::server::handles::Handle;
use crate::server::state::State;
use crate::server::timers::Due;
use crate::server::token::{Kind, token};
use crate::sys::fd::{self, Fd};
use crate::sys::poll::{Inotify, ONCE, READABLE};
use crate::sys::{Sys, file, socket};

/// Most bytes in one frame.
const CHUNK: usize = 64 * 1024;

/// How often followed files are looked at when the kernel does not report their changes.
const POLL_FILES_NS: u64 = 100_000_000;

/// All streams of a connection.
#[derive(Default)]
pub(crate) struct Streams {
    live: BTreeMap<u64, Stream>,
    inotify: Option<Inotify>,
    /// Whether a look at the files is due.
    polling: bool,
    /// Whether a stream stopped because the link took no more.
    stalled: bool,
}

struct Stream {
    credit: u64,
    source: Source,
}

/// Where the bytes come from.
enum Source {
    /// A regular file, from an offset that moves on.
    File(Followed),
    /// Something that is read once.
    Descriptor { fd: Fd, how: Reading },
    /// Output of a process.
    Process {
        id: u64,
        which: Which,
        cursor: usize,
    },
}

/// A regular file that is followed.
pub(crate) struct Followed {
    fd: OwnedFd,
    offset: u64,
    /// Its size when it was last looked at.
    size: u64,
    /// The inotify watch, if the kernel gave one.
    watch: Option<i32>,
}

/// How a descriptor is read without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// By a call that does not wait.
    Socket,
    /// It is open in a way that does not wait.
    Pipe,
    /// Once each time the kernel says that something is there; whether it has.
    WhenReady(bool),
    /// It never waits, and the kernel will not say anything about it.
    Always,
}

/// What a source has to give.
enum Taken {
    Data(Vec<u8>),
    /// Nothing right now.
    Nothing,
    End(Option<Error>),
}

impl Followed {
    /// Follows a regular file.
    pub(crate) fn new(fd: OwnedFd, start: TailStart) -> Sys<Self> {
        let size = file::size(fd.as_raw_fd())?;
        let offset = match start {
            TailStart::End => size,
            TailStart::At(offset) => match u64::try_from(offset) {
                Ok(offset) => offset,
                Err(_) => size.saturating_sub(offset.unsigned_abs()),
            },
        };
        Ok(Self {
            fd,
            offset,
            size,
            watch: None,
        })
    }

    fn take(&mut self, max: usize) -> Taken {
        let fd = self.fd.as_raw_fd();
        let size = match file::size(fd) {
            Ok(size) => size,
            Err(errno) => return Taken::End(Some(Error::os("fstat", errno))),
        };
        // Cut below the cursor: what comes now is new (L-105).
        if size < self.size && size < self.offset {
            self.offset = 0;
        }
        self.size = size;
        let left = usize::try_from(size.saturating_sub(self.offset)).unwrap_or(max);
        let mut data = Vec::new();
        match fd::pread_append(fd, &mut data, max.min(left), self.offset) {
            Ok(0) | Err(libc::EINTR) => Taken::Nothing,
            Ok(count) => {
                self.offset += count as u64;
                Taken::Data(data)
            }
            Err(errno) => Taken::End(Some(Error::os("read", errno))),
        }
    }
}

fn take_from_descriptor(fd: RawFd, how: &mut Reading, max: usize) -> Taken {
    let mut data = Vec::new();
    let result = match how {
        Reading::Socket => socket::receive_append(fd, &mut data, max),
        Reading::WhenReady(false) => return Taken::Nothing,
        Reading::WhenReady(ready) => {
            *ready = false;
            fd::read_append(fd, &mut data, max)
        }
        Reading::Pipe | Reading::Always => fd::read_append(fd, &mut data, max),
    };
    match result {
        Ok(0) => Taken::End(None),
        Ok(_) => Taken::Data(data),
        Err(libc::EINTR) => Taken::Nothing,
        Err(errno) if socket::would_block(errno) => Taken::Nothing,
        // A terminal whose other side was closed.
        Err(libc::EIO) => Taken::End(None),
        Err(errno) => Taken::End(Some(Error::os("read", errno))),
    }
}

impl Streams {
    /// Drops all streams: their connection is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a stream shows output of this process.
    pub(crate) fn use_process(&self, id: u64) -> bool {
        self.live
            .values()
            .any(|s| matches!(s.source, Source::Process { id: of, .. } if of == id))
    }

    fn ids(&self, of: impl Fn(&Source) -> bool) -> Vec<u64> {
        self.live
            .iter()
            .filter(|(_, stream)| of(&stream.source))
            .map(|(id, _)| *id)
            .collect()
    }
}

impl State {
    /// Streams a regular file. `path` is by which the kernel can be asked to report its changes.
    pub(crate) fn stream_file(&mut self, mut followed: Followed, path: &[u8]) -> u64 {
        followed.watch = self.watch_file(path);
        if followed.watch.is_none() {
            self.poll_files_later();
        }
        self.add_stream(Source::File(followed))
    }

    fn watch_file(&mut self, path: &[u8]) -> Option<i32> {
        if self.streams.inotify.is_none() {
            let inotify = Inotify::new().ok()?;
            self.epoll
                .add(inotify.raw(), token(Kind::Inotify, 0), READABLE)
                .ok()?;
            self.streams.inotify = Some(inotify);
        }
        self.streams.inotify.as_ref()?.watch(path).ok()
    }

    /// Streams a pipe, socket or device to its end. `proc_dir` leads to the agent's descriptors.
    pub(crate) fn stream_descriptor(&mut self, fd: RawFd, proc_dir: &Fd) -> Sys<u64> {
        let kind = file::fstat(fd)?.st_mode & libc::S_IFMT;
        let (fd, mut how) = match kind {
            libc::S_IFSOCK => (fd::duplicate(fd)?, Reading::Socket),
            // A pipe of our own making never waits, whoever else reads it.
            libc::S_IFIFO => (file::reopen_nonblocking(proc_dir, fd)?, Reading::Pipe),
            libc::S_IFDIR => return Err(libc::EISDIR),
            _ => (fd::duplicate(fd)?, Reading::WhenReady(false)),
        };
        let id = self.handles.add(Handle::Stream);
        match self.epoll.add(fd.raw(), token(Kind::Stream, id), ONCE) {
            Err(libc::EPERM) => how = Reading::Always,
            other => other?,
        }
        let source = Source::Descriptor { fd, how };
        self.streams.live.insert(
            id,
            Stream {
                credit: INITIAL_CREDIT,
                source,
            },
        );
        Ok(id)
    }

    /// `proc_stream_open`.
    pub(crate) fn stream_process(&mut self, h: u64, which: Which) -> Result<u64, Error> {
        self.proc(h)?;
        if which == Which::Buffers {
            let message = format!("field `which`: process {h} has no buffers");
            return Err(Error::new(ErrorKind::BadArgs, message));
        }
        Ok(self.add_stream(Source::Process {
            id: h,
            which,
            cursor: 0,
        }))
    }

    fn add_stream(&mut self, source: Source) -> u64 {
        let id = self.handles.add(Handle::Stream);
        self.streams.live.insert(
            id,
            Stream {
                credit: INITIAL_CREDIT,
                source,
            },
        );
        id
    }

    /// `stream_close`.
    pub(crate) fn stream_close(&mut self, id: u64) -> Result<(), Error> {
        match self.handles.get(id) {
            Some(Handle::Stream) => {
                self.drop_stream(id);
                Ok(())
            }
            // One that came to its end by itself is closed already.
            _ => match self.handles.wrong(id, "a stream") {
                error if error.kind == ErrorKind::Stale => Ok(()),
                error => Err(error),
            },
        }
    }

    fn drop_stream(&mut self, id: u64) {
        self.handles.remove(id);
        match self.streams.live.remove(&id).map(|stream| stream.source) {
            Some(Source::File(Followed {
                watch: Some(watch), ..
            })) => {
                let same = |s: &Source| matches!(s, Source::File(f) if f.watch == Some(watch));
                if let Some(inotify) = &self.streams.inotify
                    && self.streams.ids(same).is_empty()
                {
                    inotify.forget(watch);
                }
            }
            Some(Source::Process { id, .. }) => self.forget_if_unused(id),
            _ => {}
        }
    }

    /// The harness grants credit (E-053). One for a stream that is gone is late, nothing more.
    pub(crate) fn grant(&mut self, id: u64, credit: u64) {
        if let Some(stream) = self.streams.live.get_mut(&id) {
            stream.credit = stream.credit.saturating_add(credit);
            self.pump(id);
        }
    }

    /// A stream's descriptor has something.
    pub(crate) fn stream_ready(&mut self, id: u64) {
        if let Some(stream) = self.streams.live.get_mut(&id)
            && let Source::Descriptor {
                how: Reading::WhenReady(ready),
                ..
            } = &mut stream.source
        {
            *ready = true;
        }
        self.pump(id);
    }

    /// Files that are followed have changed.
    pub(crate) fn files_changed(&mut self) {
        let changed = self
            .streams
            .inotify
            .as_ref()
            .map(Inotify::changes)
            .unwrap_or_default();
        let of = |s: &Source| matches!(s, Source::File(f) if f.watch.is_some_and(|w| changed.contains(&w)));
        self.streams
            .ids(of)
            .into_iter()
            .for_each(|id| self.pump(id));
    }

    /// Looks at the files whose changes nobody reports.
    pub(crate) fn poll_files(&mut self) {
        self.streams.polling = false;
        let unwatched = |s: &Source| matches!(s, Source::File(f) if f.watch.is_none());
        let ids = self.streams.ids(unwatched);
        if !ids.is_empty() {
            self.poll_files_later();
        }
        ids.into_iter().for_each(|id| self.pump(id));
    }

    fn poll_files_later(&mut self) {
        if !std::mem::replace(&mut self.streams.polling, true) {
            self.timers.after(POLL_FILES_NS, Due::PollFiles);
        }
    }

    /// Output of a process has grown or is complete.
    pub(crate) fn pump_process_streams(&mut self, process: u64) {
        if !self.streams.live.is_empty() {
            let of = |s: &Source| matches!(s, Source::Process { id, .. } if *id == process);
            self.streams
                .ids(of)
                .into_iter()
                .for_each(|id| self.pump(id));
        }
    }

    /// The link takes bytes again.
    pub(crate) fn pump_stalled_streams(&mut self) {
        if std::mem::replace(&mut self.streams.stalled, false) {
            self.streams
                .ids(|_| true)
                .into_iter()
                .for_each(|id| self.pump(id));
        }
    }

    /// Sends what a stream has and may send. Called for the first time when its opener has been
    /// answered.
    pub(crate) fn pump(&mut self, id: u64) {
        loop {
            if self.current.outbox.is_busy() {
                self.streams.stalled = true;
                return;
            }
            match self.take(id) {
                None => return,
                Some(Taken::Nothing) => return self.watch_stream(id),
                Some(Taken::Data(data)) => {
                    if let Some(stream) = self.streams.live.get_mut(&id) {
                        stream.credit -= data.len() as u64;
                    }
                    if let Ok(frame) = data_frame(id, &data) {
                        self.send(frame);
                    }
                }
                Some(Taken::End(error)) => {
                    self.drop_stream(id);
                    if let Ok(frame) = eof_frame(id, error.as_ref()) {
                        self.send(frame);
                    }
                    return;
                }
            }
        }
    }

    /// Takes the next bytes of a stream; `None` if it is gone or may not send.
    fn take(&mut self, id: u64) -> Option<Taken> {
        let stream = self.streams.live.get_mut(&id)?;
        let max = CHUNK.min(usize::try_from(stream.credit).unwrap_or(CHUNK));
        let source = match &mut stream.source {
            // The end of an output costs no credit.
            Source::Process { id, which, cursor } => {
                let proc = self.procs.get_mut(*id)?;
                let done = proc.is_done();
                let pipe = if *which == Which::Stdout {
                    &proc.stdout
                } else {
                    &proc.stderr
                };
                let rest = &pipe.data()[(*cursor).min(pipe.data().len())..];
                return match (rest, max) {
                    ([], _) if done => Some(Taken::End(None)),
                    ([], _) => Some(Taken::Nothing),
                    (_, 0) => None,
                    (rest, max) => {
                        let data = rest[..rest.len().min(max)].to_vec();
                        *cursor += data.len();
                        Some(Taken::Data(data))
                    }
                };
            }
            source if max > 0 => source,
            _ => return None,
        };
        Some(match source {
            Source::File(followed) => followed.take(max),
            Source::Descriptor { fd, how } => take_from_descriptor(fd.raw(), how, max),
            Source::Process { .. } => Taken::Nothing,
        })
    }

    /// Has the io thread tell when a descriptor has more.
    fn watch_stream(&mut self, id: u64) {
        if let Some(Stream {
            source: Source::Descriptor { fd, how },
            ..
        }) = self.streams.live.get(&id)
            && *how != Reading::Always
        {
            let _ = self
                .epoll
                .change(fd.raw(), token(Kind::Stream, id), ONCE | READABLE);
        }
    }
}
