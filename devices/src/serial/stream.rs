//! A byte stream over a serial port: the fallback for guests without sockets.
//!
//! A serial line has no connections, so the host makes them up: opening a stream drops what is
//! left of the one before, and a reset of the machine ends the stream. The guest sees nothing of
//! either; the protocol above starts over with its own hello.

use std::sync::{Arc, Mutex};

use super::uart::{ConsoleSink, Input, Serial};
use crate::byte_queue::ByteQueue;
use crate::interrupt::Interrupt;
use crate::kick::Kick;
use crate::signal::{Signal, Subscribers};
use crate::stream::{ByteStream, Progress, StreamError};
use crate::sync::lock;

/// Bytes from the guest that may wait for the host before the guest is held back.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes from the guest that are kept at most: a guest that writes into a busy transmitter loses
/// bytes, as it would on a real one.
const RECEIVE_LIMIT: usize = 2 * RECEIVE_BUFFER;
/// Bytes for the guest that may wait in the port.
const SEND_BUFFER: usize = 1 << 20;

#[derive(Default)]
struct Output {
    /// The stream that is open, by number; bytes are dropped while there is none.
    open: Option<u64>,
    opened: u64,
    queue: ByteQueue,
    /// The guest was held back because the queue was full.
    was_full: bool,
    subscribers: Subscribers,
}

struct Shared {
    input: Arc<Mutex<Input>>,
    output: Mutex<Output>,
    kick: Arc<dyn Kick>,
}

struct StreamSink(Arc<Shared>);

impl ConsoleSink for StreamSink {
    fn output(&mut self, bytes: &[u8]) {
        let mut output = lock(&self.0.output);
        if output.open.is_some() && output.queue.len() + bytes.len() <= RECEIVE_LIMIT {
            output.queue.push(bytes);
            output.subscribers.notify();
        }
    }

    fn is_ready(&self) -> bool {
        let mut output = lock(&self.0.output);
        output.was_full = output.queue.len() >= RECEIVE_BUFFER;
        !output.was_full
    }
}

/// The host side of a serial port that carries a byte stream. Clones are the same port.
#[derive(Clone)]
pub struct SerialHost {
    shared: Arc<Shared>,
}

impl Serial {
    /// A port that carries a byte stream, and its host side.
    pub fn with_stream(line: Arc<dyn Interrupt>, kick: Arc<dyn Kick>) -> (Self, SerialHost) {
        let input = Arc::new(Mutex::new(Input::default()));
        let output = Mutex::new(Output::default());
        let shared = Arc::new(Shared {
            input: Arc::clone(&input),
            output,
            kick,
        });
        let sink = Box::new(StreamSink(Arc::clone(&shared)));
        (Serial::with_input(sink, line, input), SerialHost { shared })
    }
}

impl SerialHost {
    /// Opens a stream; one that was open before ends, and what waited in it is dropped.
    pub fn open(&self) -> SerialStream {
        let number = self.restart(true);
        SerialStream {
            shared: Arc::clone(&self.shared),
            number,
        }
    }

    /// The machine was reset: the open stream ends, and nothing of it reaches the next guest.
    pub fn machine_reset(&self) {
        self.restart(false);
    }

    fn restart(&self, open: bool) -> u64 {
        let mut input = lock(&self.shared.input);
        input.queue.clear();
        input.subscribers.notify();
        drop(input);
        let mut output = lock(&self.shared.output);
        output.queue.clear();
        output.subscribers.notify();
        output.subscribers = Subscribers::default();
        output.opened += 1;
        output.open = open.then_some(output.opened);
        let number = output.opened;
        drop(output);
        self.shared.kick.kick();
        number
    }
}

/// A byte stream over a serial port; see [`ByteStream`].
///
/// [`ByteStream::shutdown_write`] does nothing: a serial line cannot say that it ends.
pub struct SerialStream {
    shared: Arc<Shared>,
    number: u64,
}

impl SerialStream {
    /// Fails if the stream is not the one that is open, or the machine is gone.
    fn check(&self) -> Result<(), StreamError> {
        if lock(&self.shared.input).machine_gone {
            return Err(StreamError::MachineGone);
        }
        match lock(&self.shared.output).open {
            Some(open) if open == self.number => Ok(()),
            _ => Err(StreamError::DeviceReset),
        }
    }
}

impl ByteStream for SerialStream {
    fn try_read(&self, buffer: &mut [u8]) -> Result<Progress, StreamError> {
        let state = self.check();
        if state == Err(StreamError::DeviceReset) {
            return Err(StreamError::DeviceReset);
        }
        let mut output = lock(&self.shared.output);
        if output.queue.is_empty() && !buffer.is_empty() {
            return state.map(|()| Progress::Pending);
        }
        let count = output.queue.pop(buffer);
        let resume = output.was_full && output.queue.len() < RECEIVE_BUFFER / 2;
        if resume {
            output.was_full = false;
            drop(output);
            self.shared.kick.kick();
        }
        Ok(Progress::Bytes(count))
    }

    fn try_write(&self, data: &[u8]) -> Result<Progress, StreamError> {
        self.check()?;
        let mut input = lock(&self.shared.input);
        let count = data
            .len()
            .min(SEND_BUFFER.saturating_sub(input.queue.len()));
        if count == 0 && !data.is_empty() {
            return Ok(Progress::Pending);
        }
        input.queue.push(&data[..count]);
        drop(input);
        self.shared.kick.kick();
        Ok(Progress::Bytes(count))
    }

    fn is_open(&self) -> bool {
        self.check().is_ok()
    }

    fn shutdown_write(&self) {}

    fn subscribe(&self, signal: &Arc<Signal>) {
        lock(&self.shared.input).subscribers.add(signal);
        lock(&self.shared.output).subscribers.add(signal);
        signal.notify();
    }
}

impl Drop for SerialStream {
    fn drop(&mut self) {
        let mut output = lock(&self.shared.output);
        if output.open == Some(self.number) {
            output.open = None;
            output.queue.clear();
        }
    }
}
