//! A driver that talks to a device through its registers and rings, as a guest would.
//!
//! Ring 0 to 3 get a page-aligned area of [`QUEUE_AREA`] bytes each from [`QUEUES_AT`]; buffers of
//! well-formed requests come from [`HEAP_AT`] upward, in turn.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::Counter;
use crate::bus::BusDevice;
use crate::memory::GuestMemory;
use crate::virtio::mmio::{MmioTransport, interrupt_status, register, status};
use crate::virtio::{F_VERSION_1, VirtioDevice};

/// Guest memory of a mock machine.
pub const RAM_SIZE: usize = 0x40_0000;
const QUEUES_AT: u64 = 0x1_0000;
const QUEUE_AREA: u64 = 0x4000;
const AVAILABLE_OFFSET: u64 = 0x1000;
const USED_OFFSET: u64 = 0x2000;
const HEAP_AT: u64 = 0x10_0000;
const HEAP_END: u64 = 0x30_0000;
/// Rings of the mock driver have at most this many entries.
const MAX_SIZE: u16 = 256;

/// Descriptor flags (virtio 1.2, 2.7.5).
pub mod flag {
    /// The chain goes on.
    pub const NEXT: u16 = 1;
    /// The device writes this buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// One descriptor, as wild as a test likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub address: u64,
    /// Its length.
    pub len: u32,
    /// See [`flag`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A buffer of a well-formed request.
#[derive(Clone, Debug)]
pub enum Buffer {
    /// The device reads these bytes.
    Readable(Vec<u8>),
    /// The device may write this many bytes.
    Writable(u32),
}

/// The driver's view of one queue.
#[derive(Clone, Copy, Debug)]
pub struct DriverQueue {
    /// Number of entries.
    pub size: u16,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring.
    pub available: u64,
    /// Guest address of the used ring.
    pub used: u64,
    pub(crate) next_descriptor: u16,
    pub(crate) available_index: u16,
    pub(crate) used_seen: u16,
}

/// A machine of memory, one device and its driver.
pub struct Driver {
    /// The machine's memory.
    pub memory: Arc<GuestMemory>,
    /// The device's transport.
    pub transport: MmioTransport,
    /// The device's interrupt line.
    pub line: Arc<Counter>,
    /// The transport's kicks.
    pub kick: Arc<Counter>,
    /// The driver's queues, once set up.
    pub queues: Vec<DriverQueue>,
    heap: u64,
    /// Where the heap begins again when it is used up.
    heap_from: u64,
}

impl Driver {
    /// A machine with `device`, not yet set up.
    pub fn new(device: impl VirtioDevice + 'static) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM_SIZE)]);
        let memory = Arc::new(memory.expect("mock memory can be mapped"));
        let (line, kick) = <(Arc<Counter>, Arc<Counter>)>::default();
        let transport =
            MmioTransport::new(Box::new(device), memory.clone(), line.clone(), kick.clone());
        Self {
            memory,
            transport,
            line,
            kick,
            queues: Vec::new(),
            heap: HEAP_AT,
            heap_from: HEAP_AT,
        }
    }

    /// A machine whose driver has accepted every feature of the device but those in `without`.
    pub fn started(device: impl VirtioDevice + 'static, without: u64) -> Self {
        let mut driver = Self::new(device);
        driver.start(without);
        driver
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Adds bits to the device status.
    pub fn add_status(&mut self, bits: u32) {
        let status = self.read(register::STATUS);
        self.write(register::STATUS, status | bits);
    }

    /// The features that the device offers.
    pub fn offered(&mut self) -> u64 {
        self.write(register::DEVICE_FEATURES_SEL, 1);
        let high = u64::from(self.read(register::DEVICE_FEATURES));
        self.write(register::DEVICE_FEATURES_SEL, 0);
        (high << 32) | u64::from(self.read(register::DEVICE_FEATURES))
    }

    /// Accepts features; true if the device is content.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        for (half, value) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(register::DRIVER_FEATURES_SEL, half);
            self.write(
                register::DRIVER_FEATURES,
                u32::try_from(value).expect("half of a u64"),
            );
        }
        self.add_status(status::FEATURES_OK);
        self.read(register::STATUS) & status::FEATURES_OK != 0
    }

    /// Number of queues and greatest size of each.
    pub fn queue_sizes(&mut self) -> Vec<u32> {
        let mut sizes = Vec::new();
        loop {
            self.write(
                register::QUEUE_SEL,
                u32::try_from(sizes.len()).expect("few queues"),
            );
            match self.read(register::QUEUE_NUM_MAX) {
                0 => return sizes,
                size => sizes.push(size),
            }
        }
    }

    /// Writes the registers of one queue and enables it.
    pub fn set_up_queue(&mut self, index: u32, queue: &DriverQueue) {
        self.write(register::QUEUE_SEL, index);
        self.write(register::QUEUE_NUM, queue.size.into());
        for (low, high, address) in [
            (
                register::QUEUE_DESC_LOW,
                register::QUEUE_DESC_HIGH,
                queue.descriptors,
            ),
            (
                register::QUEUE_DRIVER_LOW,
                register::QUEUE_DRIVER_HIGH,
                queue.available,
            ),
            (
                register::QUEUE_DEVICE_LOW,
                register::QUEUE_DEVICE_HIGH,
                queue.used,
            ),
        ] {
            self.write(low, u32::try_from(address & 0xffff_ffff).expect("masked"));
            self.write(high, u32::try_from(address >> 32).expect("shifted"));
        }
        self.write(register::QUEUE_READY, 1);
    }

    /// The place where queue `index` is put.
    pub fn queue_place(index: u64, size: u16) -> DriverQueue {
        let base = QUEUES_AT + index * QUEUE_AREA;
        DriverQueue {
            size,
            descriptors: base,
            available: base + AVAILABLE_OFFSET,
            used: base + USED_OFFSET,
            next_descriptor: 0,
            available_index: 0,
            used_seen: 0,
        }
    }

    /// Brings the device up, from reset to DRIVER_OK.
    pub fn start(&mut self, without: u64) {
        self.set_up(without);
        self.add_status(status::DRIVER_OK);
    }

    /// Brings the device up to just before DRIVER_OK.
    pub fn set_up(&mut self, without: u64) {
        self.write(register::STATUS, 0);
        let features = self.offered() & !without;
        assert!(
            self.negotiate(features | F_VERSION_1),
            "device refuses its own features"
        );
        let sizes = self.queue_sizes();
        self.queues.clear();
        for (index, size) in (0..).zip(sizes) {
            let size = u16::try_from(size).expect("queue size").min(MAX_SIZE);
            let queue = Self::queue_place(index.into(), size);
            let zeros = [0; QUEUE_AREA as usize];
            self.memory
                .write_slice(&zeros, GuestAddress(queue.descriptors))
                .expect("queue area");
            self.set_up_queue(index, &queue);
            self.queues.push(queue);
        }
    }

    /// True if the device says that it needs a reset.
    pub fn needs_reset(&mut self) -> bool {
        self.read(register::STATUS) & status::DEVICE_NEEDS_RESET != 0
    }

    /// Reads and acknowledges the interrupt status; true if used buffers were announced.
    pub fn take_used_interrupt(&mut self) -> bool {
        let bits = self.read(register::INTERRUPT_STATUS);
        self.write(register::INTERRUPT_ACK, bits);
        bits & interrupt_status::USED_BUFFER != 0
    }

    /// Writes one descriptor of a queue's table.
    pub fn put_descriptor(&self, queue: usize, index: u16, descriptor: Descriptor) {
        self.put_descriptor_at(self.queues[queue].descriptors, index, descriptor);
    }

    /// Writes one descriptor of any table, also one that is not in memory.
    pub fn put_descriptor_at(&self, table: u64, index: u16, descriptor: Descriptor) {
        let address = GuestAddress(table.wrapping_add(u64::from(index) * 16));
        // A table outside of memory is a legitimate wish of a test.
        let _ignored = self.memory.write_slice(&descriptor.to_bytes(), address);
    }

    /// Makes a chain available, whatever `head` is.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let queue = &mut self.queues[queue];
        let slot = u64::from(queue.available_index % queue.size);
        put_u16(&self.memory, queue.available + 4 + slot * 2, head);
        queue.available_index = queue.available_index.wrapping_add(1);
        put_u16(&self.memory, queue.available + 2, queue.available_index);
    }

    /// Writes the index of the available ring, whatever it should be.
    pub fn set_available_index(&mut self, queue: usize, index: u16) {
        self.queues[queue].available_index = index;
        put_u16(&self.memory, self.queues[queue].available + 2, index);
    }

    /// Writes the flags of the available ring.
    pub fn set_available_flags(&mut self, queue: usize, flags: u16) {
        put_u16(&self.memory, self.queues[queue].available, flags);
    }

    /// Writes `used_event`, the index after which the driver wants an interrupt.
    pub fn set_used_event(&mut self, queue: usize, index: u16) {
        let queue = self.queues[queue];
        put_u16(
            &self.memory,
            queue.available + 4 + u64::from(queue.size) * 2,
            index,
        );
    }

    /// The used ring's flags and `avail_event`: whether and when the device wants notifications.
    pub fn notification_wish(&self, queue: usize) -> (u16, u16) {
        let queue = self.queues[queue];
        let event = queue.used + 4 + u64::from(queue.size) * 8;
        (
            get_u16(&self.memory, queue.used),
            get_u16(&self.memory, event),
        )
    }

    /// Takes memory for a buffer.
    pub fn allocate(&mut self, len: u64) -> u64 {
        assert!(
            len <= HEAP_END - self.heap_from,
            "buffer larger than the mock's heap"
        );
        if self.heap + len > HEAP_END {
            self.heap = self.heap_from;
        }
        let address = self.heap;
        self.heap += len.next_multiple_of(16);
        address
    }

    /// Keeps what has been taken for good: other memory is used in turn.
    pub fn keep_allocated(&mut self) {
        self.heap_from = self.heap;
    }

    /// Offers a well-formed request; returns its head and the address of each buffer.
    pub fn request(&mut self, queue: usize, buffers: &[Buffer]) -> (u16, Vec<u64>) {
        let placed: Vec<_> = buffers.iter().map(|buffer| self.place(buffer)).collect();
        let addresses = placed.iter().map(|buffer| buffer.address).collect();
        (self.request_placed(queue, &placed), addresses)
    }

    /// The same with buffers that lie in memory already; returns its head.
    pub fn request_placed(&mut self, queue: usize, buffers: &[Descriptor]) -> u16 {
        let size = self.queues[queue].size;
        let head = self.queues[queue].next_descriptor % size;
        for (position, descriptor) in buffers.iter().enumerate() {
            let mut descriptor = *descriptor;
            let index = self.queues[queue].next_descriptor % size;
            let next = (index + 1) % size;
            self.queues[queue].next_descriptor = next;
            if position + 1 < buffers.len() {
                descriptor.flags |= flag::NEXT;
                descriptor.next = next;
            }
            self.put_descriptor(queue, index, descriptor);
        }
        self.offer(queue, head);
        head
    }

    fn place(&mut self, buffer: &Buffer) -> Descriptor {
        let (bytes, len, flags) = match buffer {
            Buffer::Readable(bytes) => (
                bytes.as_slice(),
                u32::try_from(bytes.len()).expect("small buffer"),
                0,
            ),
            Buffer::Writable(len) => (&[][..], *len, flag::WRITE),
        };
        let address = self.allocate(len.into());
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .expect("heap is in memory");
        Descriptor {
            address,
            len,
            flags,
            next: 0,
        }
    }

    /// Tells the device about new requests.
    pub fn notify(&mut self, queue: usize) {
        self.write(
            register::QUEUE_NOTIFY,
            u32::try_from(queue).expect("few queues"),
        );
    }

    /// Lets the device look at its host side.
    pub fn poll(&mut self) {
        self.transport.poll();
    }

    /// Takes what the device has given back: (head, length) of each.
    pub fn take_used(&mut self, queue: usize) -> Vec<(u32, u32)> {
        let memory = &self.memory;
        let queue = &mut self.queues[queue];
        let index = get_u16(memory, queue.used + 2);
        let mut used = Vec::new();
        while queue.used_seen != index {
            let entry = queue.used + 4 + u64::from(queue.used_seen % queue.size) * 8;
            used.push((get_u32(memory, entry), get_u32(memory, entry + 4)));
            queue.used_seen = queue.used_seen.wrapping_add(1);
        }
        used
    }

    /// Fills guest memory.
    pub fn memory_fill(&self, address: u64, value: u8, len: usize) {
        self.memory
            .write_slice(&vec![value; len], GuestAddress(address))
            .expect("inside of memory");
    }

    /// Bytes of guest memory.
    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("inside of memory");
        bytes
    }
}

fn put_u16(memory: &GuestMemory, address: u64, value: u16) {
    memory
        .write_slice(&value.to_le_bytes(), GuestAddress(address))
        .expect("ring is in memory");
}

fn get_u16(memory: &GuestMemory, address: u64) -> u16 {
    let mut bytes = [0; 2];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("ring is in memory");
    u16::from_le_bytes(bytes)
}

fn get_u32(memory: &GuestMemory, address: u64) -> u32 {
    let mut bytes = [0; 4];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("ring is in memory");
    u32::from_le_bytes(bytes)
}
