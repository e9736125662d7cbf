//! One connection to an agent: frames, request ids, streams, and when the peer was last heard.

use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use provium_devices::{ByteStream, Progress};
use provium_protocol::message::{self, Outcome};
use provium_protocol::wire::Wire;
use provium_protocol::{
    Error, ErrorKind, FrameReader, HelloErr, HelloOk, Operation, Response, StreamFrame, ToHost,
};

use super::channel::{Channel, ChannelEnd};

/// Guest time now, in nanoseconds.
pub(crate) type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Streams whose opening answer has not been read yet; more are an attack.
const MAX_UNCLAIMED: usize = 64;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// The agent answered with an error (E-051).
    #[error("{0}")]
    Agent(Error),
    /// The link ended; the text says how.
    #[error("{0}")]
    Down(String),
    /// The answer is not what the operation promises.
    #[error("answer to {op}: {problem}")]
    Answer {
        /// The operation.
        op: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// One connection; see the module documentation.
pub(crate) struct Link {
    stream: Box<dyn ByteStream>,
    now: Now,
    state: Mutex<State>,
}

struct State {
    reader: FrameReader,
    out: Vec<u8>,
    /// Bytes of `out` that are on their way.
    sent: usize,
    next_id: u64,
    pending: HashMap<u64, Slot>,
    channels: HashMap<u64, Channel>,
    hello: Option<Result<HelloOk, HelloErr>>,
    down: Option<String>,
    last_frame_ns: u64,
    ping: Option<u64>,
    /// One warning per connection for frames that belong to nothing (E-098).
    strays: u64,
}

enum Slot {
    Waiting,
    /// Nobody waits any more.
    Given,
    Answered(Outcome),
}

impl Link {
    /// A link over `stream`, what comes from it going through `reader`; nothing is sent yet.
    pub(crate) fn new(stream: Box<dyn ByteStream>, reader: FrameReader, now: Now) -> Arc<Self> {
        let state = State {
            reader,
            out: Vec::new(),
            sent: 0,
            next_id: 0,
            pending: HashMap::new(),
            channels: HashMap::new(),
            hello: None,
            down: None,
            last_frame_ns: now(),
            ping: None,
            strays: 0,
        };
        Arc::new(Self {
            stream,
            now,
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues raw bytes: the greeting, and the preamble of the serial fallback.
    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.out.extend_from_slice(bytes);
        self.pump(&mut state);
    }

    /// The agent's answer to the greeting, once it is there; the inner error is its refusal (E-045).
    pub(crate) fn hello(&self) -> Poll<Result<Result<HelloOk, HelloErr>, LinkError>> {
        let mut state = self.lock();
        self.pump(&mut state);
        match (&state.hello, &state.down) {
            (Some(answer), _) => Poll::Ready(Ok(answer.clone())),
            (None, Some(cause)) => Poll::Ready(Err(LinkError::Down(cause.clone()))),
            (None, None) => Poll::Pending,
        }
    }

    /// Sends a request; the result is its answer to come. Dropping that cancels the operation (E-054).
    pub(crate) fn request<O: Operation>(self: &Arc<Self>, op: &O) -> Request<O::Reply> {
        let mut state = self.lock();
        state.next_id += 1;
        let id = state.next_id;
        let slot = match message::request_frame(id, op) {
            Ok(frame) => {
                state.out.extend_from_slice(&frame);
                Slot::Waiting
            }
            Err(too_large) => Slot::Answered(Err(too_large)),
        };
        state.pending.insert(id, slot);
        self.pump(&mut state);
        drop(state);
        Request {
            link: self.clone(),
            id,
            op: O::NAME,
            reply: PhantomData,
        }
    }

    /// Guest time at which the last frame came in.
    pub(crate) fn last_frame_ns(&self) -> u64 {
        let mut state = self.lock();
        self.pump(&mut state);
        state.last_frame_ns
    }

    /// How the link ended, if it has.
    pub(crate) fn down(&self) -> Option<String> {
        let mut state = self.lock();
        self.pump(&mut state);
        state.down.clone()
    }

    /// Ends the link: everything pending fails with `cause`. The first cause stays.
    pub(crate) fn fail(&self, cause: &str) {
        self.lock().fail(cause);
        self.stream.shutdown_write();
    }

    /// Requests without an answer yet that somebody waits for.
    pub(crate) fn in_flight(&self) -> usize {
        let mut state = self.lock();
        self.pump(&mut state);
        state
            .pending
            .values()
            .filter(|slot| matches!(slot, Slot::Waiting))
            .count()
    }

    /// Sends a ping unless one is on its way (E-100). Its answer counts as a frame and nothing else.
    pub(crate) fn ping(&self) {
        let mut state = self.lock();
        if state.ping.is_some() {
            return;
        }
        state.next_id += 1;
        let id = state.next_id;
        if let Ok(frame) = message::request_frame(id, &provium_protocol::ops::Ping {}) {
            state.out.extend_from_slice(&frame);
            state.pending.insert(id, Slot::Given);
            state.ping = Some(id);
        }
        self.pump(&mut state);
    }

    /// Takes over the stream that an opening answer named.
    pub(crate) fn claim(&self, stream: u64) {
        self.lock().channels.entry(stream).or_default().claimed = true;
    }

    /// The next chunk of a claimed stream: `Pending` while there is none.
    pub(crate) fn read_stream(&self, stream: u64) -> Poll<Result<Vec<u8>, ChannelEnd>> {
        let mut state = self.lock();
        self.pump(&mut state);
        let down = state.down.clone();
        let Some(channel) = state.channels.get_mut(&stream) else {
            return Poll::Ready(Err(ChannelEnd::Eof));
        };
        if let Some((chunk, grant)) = channel.pop() {
            if let Some(credit) = grant
                && let Ok(frame) = message::credit_frame(stream, credit)
            {
                state.out.extend_from_slice(&frame);
                self.pump(&mut state);
            }
            return Poll::Ready(Ok(chunk));
        }
        match (&channel.end, down) {
            (Some(end), _) => Poll::Ready(Err(end.clone())),
            (None, Some(cause)) => Poll::Ready(Err(ChannelEnd::Lost(cause))),
            (None, None) => Poll::Pending,
        }
    }

    /// Whether a claimed stream has ended, or its guest is gone, and nothing of it is left (L-197).
    pub(crate) fn stream_ended(&self, stream: u64, gone: bool) -> bool {
        let mut state = self.lock();
        self.pump(&mut state);
        let down = gone || state.down.is_some();
        let channel = state.channels.get(&stream);
        channel.is_none_or(|channel| channel.is_empty() && (down || channel.end.is_some()))
    }

    /// Forgets a stream; what still arrives for it is dropped.
    pub(crate) fn forget_stream(&self, stream: u64) {
        self.lock().channels.remove(&stream);
    }

    /// Moves bytes in both directions, as far as they go without blocking.
    fn pump(&self, state: &mut State) {
        if state.down.is_none() {
            self.read(state);
        }
        if state.down.is_none() {
            self.flush(state);
        }
    }

    fn flush(&self, state: &mut State) {
        while state.sent < state.out.len() {
            match self.stream.try_write(&state.out[state.sent..]) {
                Ok(Progress::Bytes(count)) => state.sent += count,
                Ok(Progress::Pending) => return,
                Ok(Progress::Eof) => return state.fail("the agent closed the connection"),
                Err(error) => return state.fail(&error.to_string()),
            }
        }
        state.out.clear();
        state.out.shrink_to(1 << 20);
        state.sent = 0;
    }

    fn read(&self, state: &mut State) {
        loop {
            let progress = self.stream.try_read(state.reader.space());
            match progress {
                Ok(Progress::Bytes(count)) => {
                    state.reader.filled(count);
                    state.take_frames((self.now)());
                }
                Ok(Progress::Pending) => return,
                Ok(Progress::Eof) => {
                    let cause = match state.reader.finish() {
                        Ok(()) => "the agent closed the connection".to_owned(),
                        Err(truncated) => format!("from the agent: {truncated}"),
                    };
                    return state.fail(&cause);
                }
                Err(error) => return state.fail(&error.to_string()),
            }
            if state.down.is_some() {
                return;
            }
        }
    }
}

impl State {
    fn fail(&mut self, cause: &str) {
        if self.down.is_none() {
            self.down = Some(cause.to_owned());
            self.out.clear();
            self.sent = 0;
        }
    }

    fn take_frames(&mut self, now_ns: u64) {
        loop {
            let offset = self.reader.offset();
            let message = match self.reader.next_frame() {
                Ok(None) => return,
                Ok(Some(body)) => ToHost::from_body(body).map_err(|malformed| {
                    format!("from the agent: frame at byte {offset}: {malformed}")
                }),
                Err(error) => Err(format!("from the agent: {error}")),
            };
            self.last_frame_ns = now_ns;
            match message.and_then(|message| self.dispatch(message)) {
                Ok(()) => {}
                Err(violation) => return self.fail(&violation),
            }
        }
    }

    fn dispatch(&mut self, message: ToHost) -> Result<(), String> {
        match message {
            // A second greeting can come on the serial fallback, where several may be on their way.
            ToHost::HelloOk(answer) => drop(self.hello.get_or_insert(Ok(answer))),
            ToHost::HelloErr(answer) => drop(self.hello.get_or_insert(Err(answer))),
            ToHost::Response(response) => return self.answer(response),
            ToHost::Stream { stream, frame } => return self.stream_frame(stream, frame),
        }
        Ok(())
    }

    fn answer(&mut self, response: Response) -> Result<(), String> {
        if self.ping == Some(response.id) {
            self.ping = None;
        }
        match (self.pending.get_mut(&response.id), response.outcome) {
            (Some(slot @ Slot::Waiting), outcome) => *slot = Slot::Answered(outcome),
            (Some(Slot::Given), _) => drop(self.pending.remove(&response.id)),
            // Id 0 is the agent's complaint about us (E-093).
            (None, Err(error)) if response.id == 0 && error.kind == ErrorKind::Protocol => {
                return Err(format!("to the agent: {}", error.message));
            }
            (None | Some(Slot::Answered(_)), _) => self.strays += 1,
        }
        Ok(())
    }

    fn stream_frame(&mut self, stream: u64, frame: StreamFrame) -> Result<(), String> {
        let unclaimed = self
            .channels
            .values()
            .filter(|channel| !channel.claimed)
            .count();
        if !self.channels.contains_key(&stream) && unclaimed >= MAX_UNCLAIMED {
            self.strays += 1;
            return Ok(());
        }
        let channel = self.channels.entry(stream).or_default();
        match frame {
            StreamFrame::Data(data) => {
                if !channel.push(data) {
                    return Err(format!(
                        "from the agent: stream {stream} exceeds its credit"
                    ));
                }
            }
            StreamFrame::Eof(None) => channel.end = Some(ChannelEnd::Eof),
            StreamFrame::Eof(Some(error)) => channel.end = Some(ChannelEnd::Failed(error)),
        }
        Ok(())
    }
}

/// The answer to a request, to come.
pub(crate) struct Request<T> {
    link: Arc<Link>,
    id: u64,
    op: &'static str,
    reply: PhantomData<fn() -> T>,
}

impl<T> Request<T> {
    /// Asks the agent to interrupt the operation; its answer is still waited for (E-054).
    pub(crate) fn cancel(&self) {
        let mut state = self.link.lock();
        if let (Some(Slot::Waiting), Ok(frame)) =
            (state.pending.get(&self.id), message::cancel_frame(self.id))
        {
            state.out.extend_from_slice(&frame);
            self.link.pump(&mut state);
        }
    }

    /// Lets the operation go on without anybody waiting for its answer.
    pub(crate) fn detach(self) {
        let mut state = self.link.lock();
        if let Some(slot @ Slot::Waiting) = state.pending.get_mut(&self.id) {
            *slot = Slot::Given;
        }
    }
}

impl<T: Wire> Future for Request<T> {
    type Output = Result<T, LinkError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.link.lock();
        self.link.pump(&mut state);
        match state.pending.remove(&self.id) {
            Some(Slot::Answered(Ok(value))) => {
                Poll::Ready(value.get().map_err(|error| LinkError::Answer {
                    op: self.op,
                    problem: error.to_string(),
                }))
            }
            Some(Slot::Answered(Err(error))) => Poll::Ready(Err(LinkError::Agent(error))),
            other => match &state.down {
                Some(cause) => Poll::Ready(Err(LinkError::Down(cause.clone()))),
                None => {
                    state
                        .pending
                        .insert(self.id, other.unwrap_or(Slot::Waiting));
                    Poll::Pending
                }
            },
        }
    }
}

impl<T> Drop for Request<T> {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        match state.pending.get_mut(&self.id) {
            Some(slot @ Slot::Waiting) => {
                *slot = Slot::Given;
                if let Ok(frame) = message::cancel_frame(self.id) {
                    state.out.extend_from_slice(&frame);
                    self.link.pump(&mut state);
                }
            }
            Some(Slot::Answered(_)) => drop(state.pending.remove(&self.id)),
            Some(Slot::Given) | None => {}
        }
    }
}
