//! The port itself, around `vm-superio`'s UART.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial as Uart, Trigger};

use super::SIZE;
use crate::bus::BusDevice;
use crate::byte_queue::ByteQueue;
use crate::interrupt::Interrupt;
use crate::kick::Kick;
use crate::signal::{Signal, Subscribers};
use crate::sync::lock;

const DATA: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
const LINE_CONTROL: u8 = 3;
const LINE_STATUS: u8 = 5;

const IER_RECEIVE: u8 = 1 << 0;
const LCR_DIVISOR_LATCH: u8 = 1 << 7;
const LSR_TRANSMITTER_EMPTY: u8 = (1 << 5) | (1 << 6);
/// Size of the receive FIFO that `vm-superio` keeps.
const FIFO_SIZE: usize = 64;

/// Where the bytes go that the guest writes.
pub trait ConsoleSink: Send {
    /// Takes bytes in the order the guest wrote them. Called on the machine's thread with the
    /// device locked: it must not block.
    fn output(&mut self, bytes: &[u8]);

    /// False asks the guest to hold back (its driver sees a busy transmitter) until a kick. A few
    /// bytes more still come.
    fn is_ready(&self) -> bool {
        true
    }
}

struct Line(Arc<dyn Interrupt>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.trigger();
        Ok(())
    }
}

/// What host threads and the port share: the input still to come.
#[derive(Default)]
pub(super) struct Input {
    pub(super) queue: ByteQueue,
    pub(super) subscribers: Subscribers,
    pub(super) machine_gone: bool,
}

/// The port.
pub struct Serial {
    /// Its output is a buffer that is emptied into the sink after every access.
    uart: Uart<Line, NoEvents, Vec<u8>>,
    sink: Box<dyn ConsoleSink>,
    line: Arc<dyn Interrupt>,
    input: Arc<Mutex<Input>>,
    /// Shadows of two registers of the chip.
    interrupt_enable: u8,
    line_control: u8,
    /// The guest has seen a busy transmitter and is to be told when that is over.
    held_back: bool,
}

/// The host's end of a console: what is written here the guest reads.
#[derive(Clone)]
pub struct SerialHandle {
    input: Arc<Mutex<Input>>,
    kick: Arc<dyn Kick>,
}

impl SerialHandle {
    /// Appends to the guest's input. Never blocks; what the guest has not read yet waits.
    pub fn write(&self, bytes: &[u8]) {
        lock(&self.input).queue.push(bytes);
        self.kick.kick();
    }

    /// Bytes the guest has not taken yet.
    pub fn pending(&self) -> usize {
        lock(&self.input).queue.len()
    }

    /// Drops the last bytes written, as far as the guest has not taken them; returns how many of
    /// `count` that were. For a write that gives up at its timeout (L-149).
    pub fn take_back(&self, count: usize) -> usize {
        let mut input = lock(&self.input);
        let keep = input.queue.len().saturating_sub(count);
        let dropped = input.queue.len() - keep;
        input.queue.truncate(keep);
        dropped
    }

    /// Notifies `signal` when the guest has taken all input, and when the machine is gone.
    pub fn subscribe(&self, signal: &Arc<Signal>) {
        lock(&self.input).subscribers.add(signal);
        signal.notify();
    }
}

impl Serial {
    /// A port whose output goes to `sink`, and its handle for input. `line` is its interrupt;
    /// `kick` leads back to [`BusDevice::poll`].
    pub fn new(
        sink: Box<dyn ConsoleSink>,
        line: Arc<dyn Interrupt>,
        kick: Arc<dyn Kick>,
    ) -> (Self, SerialHandle) {
        let input = Arc::new(Mutex::new(Input::default()));
        let handle = SerialHandle {
            input: Arc::clone(&input),
            kick,
        };
        (Self::with_input(sink, line, input), handle)
    }

    pub(super) fn with_input(
        sink: Box<dyn ConsoleSink>,
        line: Arc<dyn Interrupt>,
        input: Arc<Mutex<Input>>,
    ) -> Self {
        let chip = SerialState::default();
        Self {
            uart: Uart::new(Line(Arc::clone(&line)), Vec::new()),
            sink,
            line,
            input,
            interrupt_enable: chip.interrupt_enable,
            line_control: chip.line_control,
            held_back: false,
        }
    }

    /// Back to power-on state, for a reset of the machine. Input the guest has not read stays.
    pub fn reset(&mut self) {
        self.uart = Uart::new(Line(Arc::clone(&self.line)), Vec::new());
        let chip = SerialState::default();
        self.interrupt_enable = chip.interrupt_enable;
        self.line_control = chip.line_control;
        self.held_back = false;
    }

    /// Feeds the FIFO once it is empty: refilling earlier would only cost interrupts.
    fn refill(&mut self) {
        let enabled = self.interrupt_enable & IER_RECEIVE != 0;
        if !enabled || self.uart.fifo_capacity() < FIFO_SIZE {
            return;
        }
        let mut input = lock(&self.input);
        if input.queue.is_empty() {
            return;
        }
        let mut bytes = [0; FIFO_SIZE];
        let count = input.queue.peek(&mut bytes);
        // In loopback mode the chip takes nothing; an error would mean a full FIFO.
        let taken = self.uart.enqueue_raw_bytes(&bytes[..count]).unwrap_or(0);
        input.queue.skip(taken);
        if input.queue.is_empty() {
            input.subscribers.notify();
        }
    }

    fn divisor_latch(&self) -> bool {
        self.line_control & LCR_DIVISOR_LATCH != 0
    }

    fn read_register(&mut self, offset: u8) -> u8 {
        let value = self.uart.read(offset);
        match offset {
            DATA if !self.divisor_latch() => self.refill(),
            LINE_STATUS if !self.sink.is_ready() => {
                self.held_back = true;
                return value & !LSR_TRANSMITTER_EMPTY;
            }
            _ => {}
        }
        value
    }

    fn write_register(&mut self, offset: u8, value: u8) {
        // The interrupt cannot fail, nor can a write into a buffer.
        let _infallible = self.uart.write(offset, value);
        match offset {
            INTERRUPT_ENABLE if !self.divisor_latch() => {
                self.interrupt_enable = value;
                self.refill();
            }
            LINE_CONTROL => self.line_control = value,
            _ => {}
        }
        let output = self.uart.writer_mut();
        if !output.is_empty() {
            self.sink.output(output);
            output.clear();
        }
    }
}

impl BusDevice for Serial {
    /// The chip has 8-bit registers; a wider access reaches one after the other, as on the ISA bus.
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (offset, byte) in (offset..SIZE).zip(data.iter_mut()) {
            *byte = self.read_register(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (offset, byte) in (offset..SIZE).zip(data) {
            self.write_register(offset as u8, *byte);
        }
    }

    fn poll(&mut self) {
        self.refill();
        if self.held_back && self.sink.is_ready() {
            self.held_back = false;
            if !self.divisor_latch() {
                // Writing the register anew makes the chip report its empty transmitter again.
                self.write_register(INTERRUPT_ENABLE, self.interrupt_enable);
            }
        }
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        let mut input = lock(&self.input);
        input.machine_gone = true;
        input.subscribers.notify();
    }
}

/// A port as saved in a snapshot: the chip's registers, its FIFO, and the input still to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialPortState {
    baud_divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    fifo: Vec<u8>,
    input: Vec<u8>,
    held_back: bool,
}

#[cfg(test)]
impl SerialPortState {
    pub(super) fn overfill(&mut self) {
        self.fifo = vec![0; FIFO_SIZE + 1];
    }
}

/// Why a saved state was refused.
#[derive(Debug, thiserror::Error)]
pub enum SerialRestoreError {
    /// More bytes than the FIFO has room for.
    #[error("the saved serial port has {0} bytes in its FIFO")]
    FifoTooLong(usize),
}

impl Serial {
    /// The state for a snapshot.
    pub fn save(&self) -> SerialPortState {
        let chip = self.uart.state();
        SerialPortState {
            baud_divisor: [chip.baud_divisor_low, chip.baud_divisor_high],
            interrupt_enable: chip.interrupt_enable,
            interrupt_identification: chip.interrupt_identification,
            line_control: chip.line_control,
            line_status: chip.line_status,
            modem_control: chip.modem_control,
            modem_status: chip.modem_status,
            scratch: chip.scratch,
            fifo: chip.in_buffer,
            input: lock(&self.input).queue.to_vec(),
            held_back: self.held_back,
        }
    }

    /// Takes over a saved state; on an error nothing has changed.
    pub fn restore(&mut self, state: &SerialPortState) -> Result<(), SerialRestoreError> {
        let [baud_divisor_low, baud_divisor_high] = state.baud_divisor;
        let chip = SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo.clone(),
        };
        let line = Line(Arc::clone(&self.line));
        self.uart = Uart::from_state(&chip, line, NoEvents, Vec::new())
            .map_err(|_| SerialRestoreError::FifoTooLong(state.fifo.len()))?;
        self.interrupt_enable = state.interrupt_enable;
        self.line_control = state.line_control;
        self.held_back = state.held_back;
        lock(&self.input).queue = ByteQueue::from(state.input.as_slice());
        Ok(())
    }
}
