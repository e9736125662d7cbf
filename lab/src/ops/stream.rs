//! Streams from the agent (lua-api section 14): followed files, descriptors, outputs of processes.
//!
//! What all streams share, pending bytes and the calls of L-192..L-197, is [`Reader`]; a source yields chunks and
//! says when it has ended. [`Tail`] is the reader of agent streams, the console has its own.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use provium_protocol::ops;
use provium_vmm::{Machine, MachineState};

use super::Guest;
use crate::agent::ChannelEnd;
use crate::error::{Error, Reason, Result};
use crate::session::{Class, Closable, Registration, Site};
use crate::vm::{Connection, Offender, VmCore};
use crate::wait::{Either, Limit, LimitReached, Pending, World, both, lock};

/// What a stream is, for diagnostics (L-200).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// `vm:tail_file`.
    TailFile,
    /// `vm:fd_stream`.
    FdStream,
    /// `file:tail_stream`.
    FileTail,
    /// `proc:stdout_stream`.
    ProcStdout,
    /// `proc:stderr_stream`.
    ProcStderr,
    /// `console:read`.
    Console,
}

impl StreamKind {
    /// The word of the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TailFile => "tail_file",
            Self::FdStream => "fd_stream",
            Self::FileTail => "file_tail_stream",
            Self::ProcStdout => "proc_stdout_stream",
            Self::ProcStderr => "proc_stderr_stream",
            Self::Console => "console",
        }
    }
}

/// Where the bytes of a [`Reader`] come from.
pub(crate) trait Source: Send + Sync {
    /// The next chunk; an error text, or none, when there will be no more.
    fn poll_chunk(&self) -> Poll<Result<Vec<u8>, Option<Reason>>>;

    /// True when the source has ended and has nothing left.
    fn ended(&self) -> bool;

    /// The machine in whose time this stream's timeouts run.
    fn machine(&self) -> Option<Arc<Machine>>;

    /// As errors name it.
    fn resource(&self) -> String;

    /// What every call but `next` and `drain` says after close (L-196).
    fn closed_text(&self) -> &'static str;
}

/// Pending bytes and the calls all streams share.
pub(crate) struct Reader<S> {
    world: Arc<World>,
    pub(crate) source: S,
    state: Mutex<ReaderState>,
}

#[derive(Default)]
struct ReaderState {
    pending: Vec<u8>,
    closed: bool,
}

impl<S: Source> Reader<S> {
    pub(crate) fn new(world: &Arc<World>, source: S) -> Self {
        Self {
            world: world.clone(),
            source,
            state: Mutex::default(),
        }
    }

    /// Marks it closed and drops what is pending; false when it was closed already.
    pub(crate) fn close(&self) -> bool {
        let mut state = lock(&self.state);
        state.pending = Vec::new();
        !std::mem::replace(&mut state.closed, true)
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// L-197.
    pub(crate) fn eof(&self) -> bool {
        let state = lock(&self.state);
        state.closed || (state.pending.is_empty() && self.source.ended())
    }

    fn limit(&self, timeout: Duration) -> Limit {
        match self.source.machine() {
            Some(machine) => Limit::new(&self.world, &machine, timeout),
            None => Limit::host(&self.world, timeout),
        }
    }

    /// The next chunk from the source, within `limit`; none at its end or the limit's. Ends with an error are the
    /// stream's error.
    async fn chunk(&self, call: &'static str, limit: &mut Limit) -> Result<Chunk> {
        let next = std::future::poll_fn(|_| match lock(&self.state).closed {
            true => Poll::Ready(Err(None)),
            false => self.source.poll_chunk(),
        });
        match both(next, limit).await {
            Either::First(Ok(chunk)) => Ok(Chunk::Data(chunk)),
            Either::First(Err(None)) => Ok(Chunk::End),
            Either::First(Err(Some(reason))) => {
                Err(Error::new(call, self.source.resource(), reason))
            }
            // Nothing comes from a machine that has stopped but what it had sent before (L-198).
            Either::Second(LimitReached::Stopped) => Ok(match self.source.poll_chunk() {
                Poll::Ready(Ok(chunk)) => Chunk::Data(chunk),
                Poll::Ready(Err(_)) | Poll::Pending => Chunk::End,
            }),
            Either::Second(_) => Ok(Chunk::Late),
        }
    }

    /// L-192.
    pub(crate) async fn next(
        &self,
        call: &'static str,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>> {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return Ok(None);
            }
            if !state.pending.is_empty() {
                return Ok(Some(std::mem::take(&mut state.pending)));
            }
        }
        match self.chunk(call, &mut self.limit(timeout)).await? {
            Chunk::Data(chunk) => Ok(Some(chunk)),
            Chunk::End | Chunk::Late => Ok(None),
        }
    }

    /// L-193: everything up to and including the first match; what follows it stays pending.
    pub(crate) async fn read_until(
        &self,
        call: &'static str,
        pattern: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>> {
        let error = |reason: Reason| Error::new(call, self.source.resource(), reason);
        let shown = || format!("{:?}", String::from_utf8_lossy(pattern));
        if pattern.is_empty() {
            return Err(error(Reason::Refused("the pattern is empty".to_owned())));
        }
        let mut limit = self.limit(timeout);
        let mut searched = 0;
        loop {
            {
                let mut state = lock(&self.state);
                if state.closed {
                    return Err(error(Reason::Closed(self.source.closed_text())));
                }
                let from = searched.min(state.pending.len());
                if let Some(at) = find(&state.pending[from..], pattern) {
                    let rest = state.pending.split_off(from + at + pattern.len());
                    return Ok(std::mem::replace(&mut state.pending, rest));
                }
                searched = state.pending.len().saturating_sub(pattern.len() - 1);
            }
            match self.chunk(call, &mut limit).await? {
                Chunk::Data(chunk) => lock(&self.state).pending.extend_from_slice(&chunk),
                Chunk::End if self.is_closed() => {}
                Chunk::End => return Err(error(Reason::StreamEof(shown()))),
                Chunk::Late => {
                    return Err(error(Reason::Timeout {
                        what: shown(),
                        after: timeout,
                    }));
                }
            }
        }
    }

    /// L-195.
    pub(crate) async fn drain(
        &self,
        call: &'static str,
        timeout: Duration,
    ) -> Result<Vec<Vec<u8>>> {
        let mut chunks = Vec::new();
        {
            let mut state = lock(&self.state);
            if state.closed {
                return Ok(chunks);
            }
            if !state.pending.is_empty() {
                chunks.push(std::mem::take(&mut state.pending));
            }
        }
        let mut limit = self.limit(timeout);
        while let Chunk::Data(chunk) = self.chunk(call, &mut limit).await? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }
}

enum Chunk {
    Data(Vec<u8>),
    End,
    Late,
}

/// First position of `needle`, which is not empty.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A stream from the agent. Clones are the same stream.
#[derive(Clone)]
pub struct Tail(Arc<Core>);

struct Core {
    reader: Reader<AgentSource>,
    registration: Registration,
    site: Option<Site>,
}

struct AgentSource {
    guest: Guest,
    connection: Connection,
    stream: u64,
    kind: StreamKind,
    detail: String,
}

impl Source for AgentSource {
    fn poll_chunk(&self) -> Poll<Result<Vec<u8>, Option<Reason>>> {
        self.connection
            .link()
            .read_stream(self.stream)
            .map_err(|end| match end {
                // A stream that outlives its connection has ended, whatever the cause (L-063, L-198).
                ChannelEnd::Eof | ChannelEnd::Lost(_) => None,
                ChannelEnd::Failed(error) => Some(crate::vm::guest_failure(error).into()),
            })
    }

    fn ended(&self) -> bool {
        let gone = matches!(self.connection.machine().state(), MachineState::Stopped(_));
        self.connection.link().stream_ended(self.stream, gone)
    }

    fn machine(&self) -> Option<Arc<Machine>> {
        Some(self.connection.machine())
    }

    fn resource(&self) -> String {
        format!(
            "stream {}({}) on {}",
            self.kind.name(),
            self.detail,
            self.guest.resource()
        )
    }

    fn closed_text(&self) -> &'static str {
        "stream closed"
    }
}

impl Tail {
    pub(super) fn new(
        guest: &Guest,
        connection: &Connection,
        stream: u64,
        kind: StreamKind,
        detail: String,
    ) -> Self {
        connection.link().claim(stream);
        connection.stream_opened();
        let session = guest.session();
        let source = AgentSource {
            guest: guest.clone(),
            connection: connection.clone(),
            stream,
            kind,
            detail,
        };
        let tail = Self(Arc::new(Core {
            reader: Reader::new(guest.world(), source),
            registration: session.register(Class::Stream),
            site: session.site(),
        }));
        tail.0.registration.set(&tail);
        tail
    }

    fn start<T: Send + 'static>(
        &self,
        call: &'static str,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let reader = &self.0.reader;
        Pending::new(&reader.world, call, reader.source.resource(), operation)
    }

    /// Pending bytes, else the next frame from the agent; none on timeout or at the end (L-192).
    pub fn next(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.start_next(timeout).wait()
    }

    /// Starts [`Tail::next`].
    pub fn start_next(&self, timeout: Duration) -> Pending<Option<Vec<u8>>> {
        let tail = self.clone();
        self.start("stream:next", async move {
            tail.0.reader.next("stream:next", timeout).await
        })
    }

    /// Bytes up to and including the first `pattern` (L-193).
    pub fn read_until(&self, pattern: &[u8], timeout: Duration) -> Result<Vec<u8>> {
        self.start_read_until("stream:read_until", pattern, timeout)
            .wait()
    }

    /// The same without the bytes (L-194).
    pub fn expect(&self, pattern: &[u8], timeout: Duration) -> Result<()> {
        self.start_read_until("stream:expect", pattern, timeout)
            .wait()
            .map(drop)
    }

    /// Starts [`Tail::read_until`]; `call` is its name in errors.
    pub fn start_read_until(
        &self,
        call: &'static str,
        pattern: &[u8],
        timeout: Duration,
    ) -> Pending<Vec<u8>> {
        let (tail, pattern) = (self.clone(), pattern.to_vec());
        self.start(call, async move {
            tail.0.reader.read_until(call, &pattern, timeout).await
        })
    }

    /// The chunks that arrive until `timeout` has passed or the stream ends (L-195).
    pub fn drain(&self, timeout: Duration) -> Result<Vec<Vec<u8>>> {
        self.start_drain(timeout).wait()
    }

    /// Starts [`Tail::drain`].
    pub fn start_drain(&self, timeout: Duration) -> Pending<Vec<Vec<u8>>> {
        let tail = self.clone();
        self.start("stream:drain", async move {
            tail.0.reader.drain("stream:drain", timeout).await
        })
    }

    /// True when the source has ended (or the stream is closed) and nothing is pending (L-197).
    #[must_use]
    pub fn eof(&self) -> bool {
        self.0.reader.eof()
    }

    /// Closes it; doing so again changes nothing (L-196).
    pub fn close(&self) -> Result<()> {
        self.start_close().wait()
    }

    /// Starts [`Tail::close`].
    pub fn start_close(&self) -> Pending<()> {
        let tail = self.clone();
        let first = self.0.reader.close();
        self.start("stream:close", async move {
            let core = &tail.0;
            core.registration.done();
            if first {
                let source = &core.reader.source;
                source.connection.stream_closed();
                if !source.connection.is_stale() {
                    let op = ops::StreamClose { s: source.stream };
                    source.connection.link().request(&op).detach();
                }
                source.connection.link().forget_stream(source.stream);
            }
            Ok(())
        })
    }

    /// What it is (L-200).
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.0.reader.source.kind
    }

    /// Path, descriptor or handle it is of (L-200).
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.reader.source.detail
    }

    /// Where the test opened it (L-199).
    #[must_use]
    pub fn creation_site(&self) -> Option<Site> {
        self.0.site.clone()
    }
}

impl PartialEq for Tail {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Closable for Tail {
    fn describe(&self) -> String {
        self.0.reader.source.resource()
    }

    fn vm(&self) -> &Arc<VmCore> {
        &self.0.reader.source.guest.vm
    }

    fn start_close(&self) -> Pending<()> {
        Tail::start_close(self)
    }

    fn abandon(&self) {
        self.0.registration.done();
        if self.0.reader.close() {
            self.0.reader.source.connection.stream_closed();
        }
    }

    fn offence(&self) -> Option<Offender> {
        Some(Offender {
            kind: self.kind().name(),
            detail: self.detail().to_owned(),
            site: self.creation_site(),
            test: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Chunks that are there, then the end.
    struct Canned(Mutex<VecDeque<&'static [u8]>>);

    impl Source for Canned {
        fn poll_chunk(&self) -> Poll<Result<Vec<u8>, Option<Reason>>> {
            Poll::Ready(lock(&self.0).pop_front().map(<[u8]>::to_vec).ok_or(None))
        }

        fn ended(&self) -> bool {
            lock(&self.0).is_empty()
        }

        fn machine(&self) -> Option<Arc<Machine>> {
            None
        }

        fn resource(&self) -> String {
            "stream x".to_owned()
        }

        fn closed_text(&self) -> &'static str {
            "stream closed"
        }
    }

    fn reader(chunks: &[&'static [u8]]) -> Arc<Reader<Canned>> {
        let source = Canned(Mutex::new(chunks.iter().copied().collect()));
        Arc::new(Reader::new(&World::new(), source))
    }

    fn run<T: Send + 'static>(
        reader: &Arc<Reader<Canned>>,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        Pending::new(&reader.world, "c", "r", operation).wait()
    }

    const LONG: Duration = Duration::from_secs(10);

    fn until(reader: &Arc<Reader<Canned>>, pattern: &'static str) -> Result<Vec<u8>> {
        let r = reader.clone();
        run(reader, async move {
            r.read_until("stream:read_until", pattern.as_bytes(), LONG)
                .await
        })
    }

    fn next(reader: &Arc<Reader<Canned>>) -> Option<Vec<u8>> {
        let r = reader.clone();
        run(reader, async move { r.next("stream:next", LONG).await }).unwrap()
    }

    #[test]
    fn l193_a_match_may_span_chunks_and_the_rest_stays_pending() {
        let r = reader(&[b"one t", b"w", b"o three", b" four"]);
        assert_eq!(until(&r, "two").unwrap(), b"one two");
        assert_eq!(next(&r).unwrap(), b" three");
        assert_eq!(next(&r).unwrap(), b" four");
        assert_eq!(next(&r), None);
        assert!(r.eof());
    }

    #[test]
    fn l193_a_failure_names_the_pattern_and_keeps_everything_pending() {
        let r = reader(&[b"ab", b"cd"]);
        let error = until(&r, "zz").unwrap_err().to_string();
        assert_eq!(
            error,
            "stream:read_until: stream x: stream EOF before \"zz\""
        );
        assert!(!r.eof());
        assert_eq!(next(&r).unwrap(), b"abcd");
        assert!(
            until(&r, "")
                .unwrap_err()
                .to_string()
                .contains("pattern is empty")
        );
    }

    #[test]
    fn l195_drain_starts_with_the_pending_bytes() {
        let r = reader(&[b"xa", b"b", b"c"]);
        until(&r, "x").unwrap();
        let all = r.clone();
        let chunks = run(&r, async move { all.drain("stream:drain", LONG).await }).unwrap();
        assert_eq!(chunks, [&b"a"[..], b"b", b"c"]);
    }

    #[test]
    fn l196_a_closed_stream_drops_pending_bytes() {
        let r = reader(&[b"ab"]);
        until(&r, "a").unwrap();
        assert!(r.close());
        assert!(!r.close());
        assert_eq!(next(&r), None);
        assert!(r.eof());
        assert!(
            until(&r, "b")
                .unwrap_err()
                .to_string()
                .ends_with("stream closed")
        );
    }
}
