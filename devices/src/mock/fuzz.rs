//! A fuzzing harness: a script of bytes becomes the doings of a guest and of host threads.
//!
//! Most steps are valid and some are broken, so that scripts get past the first check. Whatever a
//! script does, nothing may panic or hang, and afterwards a reset makes the device work as new.
//! `proptest` drives it in the ordinary tests, `cargo run --example fuzz` for longer.

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Buffer, Descriptor, Driver, RAM_SIZE};
use super::{Counter, ManualClock, flag};
use crate::bus::BusDevice;
use crate::clock::Clock;
use crate::stream::ByteStream;
use crate::virtio::blk::faults::{Effect, FaultPlan, FaultyStore, Rule};
use crate::virtio::blk::store::MemoryStore;
use crate::virtio::blk::{Blk, BlkOptions};
use crate::virtio::mmio::{register, status};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::{HOST_CID, Vsock, VsockHost, VsockListener, VsockStream};

/// The device that a script is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Entropy source.
    Rng,
    /// Socket device.
    Vsock,
    /// Block device.
    Block,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 3] = [Target::Rng, Target::Vsock, Target::Block];
}

const GUEST_CID: u64 = 10;
const LISTEN_PORT: u32 = 7;
const DISK_SIZE: u64 = 200 * 512;

/// Runs one script. Panics if the device misbehaves.
pub fn run(target: Target, script: &[u8]) {
    let mut guest = Guest::new(target);
    let mut script = Script(script);
    guest.driver.start(0);
    while !script.is_empty() {
        guest.step(&mut script);
    }
    guest.check_recovery(target);
}

/// The bytes of a script, read as numbers; zeros follow its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn rarely(&mut self) -> bool {
        self.byte() >= 240
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | (u32::from(self.u16()) << 16)
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | (u64::from(self.u32()) << 32)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Mostly an address in memory, rarely near an edge or anywhere.
    fn address(&mut self) -> u64 {
        if !self.rarely() {
            return u64::from(self.u32()) % (RAM_SIZE as u64 - 0x1_0000);
        }
        match self.below(3) {
            0 => RAM_SIZE as u64 - u64::from(self.byte()),
            1 => u64::MAX - u64::from(self.byte()),
            _ => self.u64(),
        }
    }
}

struct Guest {
    target: Target,
    driver: Driver,
    kicks: Arc<Counter>,
    clock: Arc<ManualClock>,
    faults: FaultPlan,
    host: Option<VsockHost>,
    listener: Option<VsockListener>,
    streams: Vec<VsockStream>,
    /// Streams that were dropped: with data, they may still wait for a driver.
    dropped: usize,
}

impl Guest {
    fn new(target: Target) -> Self {
        let (kicks, clock) = <(Arc<Counter>, Arc<ManualClock>)>::default();
        let faults = FaultPlan::new();
        let (driver, host) = match target {
            Target::Block => {
                let disk = Arc::new(Mutex::new(MemoryStore::new(DISK_SIZE)));
                let store = Arc::new(Mutex::new(FaultyStore::new(disk, faults.clone())));
                let (clock, kick) = (clock.clone(), kicks.clone());
                let serial = "fuzz".to_owned();
                let (device, _) = Blk::new(BlkOptions {
                    store,
                    serial,
                    clock,
                    kick,
                });
                (Driver::new(device), None)
            }
            Target::Rng => (Driver::new(Rng::new(1)), None),
            Target::Vsock => {
                let (device, host) = Vsock::new(GUEST_CID, kicks.clone());
                (Driver::new(device), Some(host))
            }
        };
        let listener = host.as_ref().and_then(|host| host.listen(LISTEN_PORT).ok());
        Self {
            target,
            driver,
            kicks,
            clock,
            faults,
            host,
            listener,
            streams: Vec::new(),
            dropped: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let queue = usize::from(script.byte()) % self.driver.queues.len();
        match script.below(16) {
            0 | 1 => self.request(queue, script),
            2 | 3 if self.target == Target::Block => self.block_request(script),
            2 | 3 => self.packet(script),
            4 => self.raw_descriptor(queue, script),
            5 => self.offer(queue, script),
            6 => self.driver.notify(queue),
            7 => self.register(script),
            8 => self.config(script),
            9 => self.scribble(queue, script),
            10 => self.restart(script),
            11 => self.save_and_restore(),
            12..=14 if self.target == Target::Block => self.disk_action(script),
            12..=14 => self.host_action(script),
            _ => self.poll(),
        }
        let next = self.driver.queues.len();
        (0..next).for_each(|queue| drop(self.driver.take_used(queue)));
    }

    fn poll(&mut self) {
        self.kicks.take();
        self.driver.kick.take();
        self.driver.poll();
    }

    fn request(&mut self, queue: usize, script: &mut Script<'_>) {
        let count = script.below(4);
        let buffers: Vec<Buffer> = (0..=count).map(|_| Self::buffer(script)).collect();
        self.driver.request(queue, &buffers);
        if !script.rarely() {
            self.driver.notify(queue);
        }
    }

    fn buffer(script: &mut Script<'_>) -> Buffer {
        if script.below(2) == 0 {
            let len = usize::from(script.byte());
            Buffer::Readable(script.bytes(len))
        } else {
            let len = if script.rarely() {
                script.u32() % 0x10_0000
            } else {
                script.u16().into()
            };
            Buffer::Writable(len)
        }
    }

    /// A mostly well-formed socket packet (harmless nonsense to other devices).
    fn packet(&mut self, script: &mut Script<'_>) {
        let queue = 1 % self.driver.queues.len();
        let len = u32::from(script.byte());
        let mut bytes = Vec::new();
        let guest_port = if script.rarely() {
            script.u32()
        } else {
            5000 + u32::from(script.below(8))
        };
        let host_port = match script.below(4) {
            0 => LISTEN_PORT,
            1 => script.u32(),
            _ => 49152 + u32::from(script.below(8)),
        };
        let src_cid = if script.rarely() {
            script.u64()
        } else {
            GUEST_CID
        };
        let dst_cid = if script.rarely() {
            script.u64()
        } else {
            HOST_CID
        };
        bytes.extend(src_cid.to_le_bytes());
        bytes.extend(dst_cid.to_le_bytes());
        bytes.extend(guest_port.to_le_bytes());
        bytes.extend(host_port.to_le_bytes());
        let claimed = if script.rarely() { script.u32() } else { len };
        bytes.extend(claimed.to_le_bytes());
        let kind = if script.rarely() { script.u16() } else { 1 };
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u16::from(script.below(9)).to_le_bytes());
        bytes.extend(u32::from(script.below(4)).to_le_bytes());
        bytes.extend(script.u32().to_le_bytes());
        let taken = if script.rarely() { script.u32() } else { 0 };
        bytes.extend(taken.to_le_bytes());
        bytes.extend(vec![0x55; len as usize]);
        if script.rarely() {
            bytes.truncate(usize::from(script.byte()));
        }
        self.driver.request(queue, &[Buffer::Readable(bytes)]);
        self.driver.notify(queue);
    }

    /// A mostly well-formed block request.
    fn block_request(&mut self, script: &mut Script<'_>) {
        let kind = if script.rarely() {
            script.u32()
        } else {
            script.below(14).into()
        };
        let sector = if script.rarely() {
            script.u64()
        } else {
            script.byte().into()
        };
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        let mut buffers = vec![Buffer::Readable(header)];
        match kind {
            0 => buffers.push(Buffer::Writable(512 * u32::from(script.below(32)))),
            1 => buffers.push(Buffer::Readable(vec![
                0x77;
                512 * usize::from(script.below(32))
            ])),
            11 | 13 => {
                let flags = u32::from(script.rarely());
                let range = [
                    &u64::from(script.byte()).to_le_bytes()[..],
                    &[script.byte(), 0, 0, 0],
                ];
                buffers.push(Buffer::Readable(
                    [&range.concat()[..], &flags.to_le_bytes()].concat(),
                ));
            }
            _ => buffers.push(Self::buffer(script)),
        }
        if !script.rarely() {
            buffers.push(Buffer::Writable(1));
        }
        self.driver.request(0, &buffers);
        self.driver.notify(0);
    }

    /// Faults come and go, and time passes.
    fn disk_action(&mut self, script: &mut Script<'_>) {
        let effect = match script.below(6) {
            0 => Effect::FailReads,
            1 => Effect::FailWrites,
            2 => Effect::Delay {
                ns: script.u16().into(),
            },
            3 => return self.faults.clear(),
            _ => {
                let now = self.clock.now_ns();
                self.clock.advance_to(now + u64::from(script.u16()));
                return self.poll();
            }
        };
        let hits = (script.below(2) == 0).then(|| script.below(4).into());
        self.faults.add(Rule {
            hits,
            ..Rule::new(effect)
        });
    }

    fn raw_descriptor(&mut self, queue: usize, script: &mut Script<'_>) {
        let size = self.driver.queues[queue].size;
        let flags = if script.rarely() {
            script.u16()
        } else {
            script.below(8).into()
        };
        let descriptor = Descriptor {
            address: script.address(),
            len: if script.rarely() {
                script.u32()
            } else {
                u32::from(script.byte()) * 16
            },
            flags,
            next: if script.rarely() {
                script.u16()
            } else {
                script.u16() % size
            },
        };
        let index = script.u16() % size;
        if flags & flag::INDIRECT != 0 && script.below(2) == 0 {
            let place = script.below(16).into();
            self.driver
                .put_descriptor_at(descriptor.address, place, descriptor);
        }
        self.driver.put_descriptor(queue, index, descriptor);
    }

    fn offer(&mut self, queue: usize, script: &mut Script<'_>) {
        let size = self.driver.queues[queue].size;
        if script.rarely() {
            let index = script.u16();
            self.driver.set_available_index(queue, index);
        } else {
            let head = if script.rarely() {
                script.u16()
            } else {
                script.u16() % size
            };
            self.driver.offer(queue, head);
        }
        self.driver.notify(queue);
    }

    fn register(&mut self, script: &mut Script<'_>) {
        let offset = if script.rarely() {
            script.u64() % 0x1000
        } else {
            u64::from(script.byte() & 0x3f) * 4
        };
        let value = if script.rarely() {
            script.u32()
        } else {
            script.byte().into()
        };
        if script.below(2) == 0 {
            self.driver.read(offset);
        } else {
            self.driver.write(offset, value);
        }
    }

    fn config(&mut self, script: &mut Script<'_>) {
        let mut data = script.bytes(8);
        data.truncate(1 << script.below(4));
        let offset = register::CONFIG + u64::from(script.u16() % 0xf00);
        if script.below(2) == 0 {
            self.driver.transport.read(offset, &mut data);
        } else {
            self.driver.transport.write(offset, &data);
        }
    }

    /// Random bytes into the rings.
    fn scribble(&mut self, queue: usize, script: &mut Script<'_>) {
        let place = self.driver.queues[queue];
        let base = [place.descriptors, place.available, place.used][usize::from(script.below(3))];
        let offset = u64::from(script.u16() % 0x800);
        let len = usize::from(script.below(32));
        let bytes = script.bytes(len);
        self.driver
            .memory
            .write_slice(&bytes, GuestAddress(base + offset))
            .expect("in memory");
    }

    fn restart(&mut self, script: &mut Script<'_>) {
        let without = if script.below(2) == 0 {
            0
        } else {
            crate::virtio::F_EVENT_IDX
        };
        self.driver.set_up(without);
        if script.rarely() {
            self.driver.add_status(status::FAILED);
        }
        self.driver.add_status(status::DRIVER_OK);
    }

    fn save_and_restore(&mut self) {
        let saved = self.driver.transport.save();
        if self.driver.transport.restore(&saved).is_ok() {
            assert_eq!(self.driver.transport.save(), saved);
        }
    }

    fn host_action(&mut self, script: &mut Script<'_>) {
        let Some(host) = &self.host else { return };
        if self.streams.is_empty() || script.below(8) == 0 {
            self.streams
                .extend(host.connect(5000 + u32::from(script.below(8))));
        }
        if let Some(accepted) = self
            .listener
            .as_ref()
            .and_then(|l| l.try_accept().ok().flatten())
        {
            self.streams.push(accepted);
        }
        let index = usize::from(script.byte()) % self.streams.len();
        let stream = &self.streams[index];
        let len = usize::from(script.u16());
        match script.below(8) {
            0..=2 => drop(stream.try_write(&vec![0xaa; len]).is_ok()),
            3 | 4 => drop(stream.try_read(&mut vec![0; len]).is_ok()),
            5 => stream.shutdown_write(),
            6 => stream.reset(),
            _ => {
                self.dropped += 1;
                drop(self.streams.swap_remove(index));
            }
        }
        if !script.rarely() {
            self.poll();
        }
    }

    /// After a reset everything works, whatever happened before.
    fn check_recovery(&mut self, target: Target) {
        self.streams.drain(..).for_each(|stream| stream.reset());
        self.listener = None;
        self.driver.start(0);
        assert!(
            self.driver.transport.is_active(),
            "{:?}",
            self.driver.transport.fault()
        );
        let (_, addresses) = self.driver.request(0, &[Buffer::Writable(64)]);
        match target {
            Target::Rng => {
                self.driver.notify(0);
                assert_eq!(self.driver.take_used(0), [(0, 64)]);
            }
            Target::Block => {
                self.faults.clear();
                self.driver.notify(0);
                assert_eq!(
                    self.driver.take_used(0),
                    [(0, 0)],
                    "a request without header"
                );
                let header = Buffer::Readable(vec![0; 16]);
                let (_, addresses) = self.driver.request(0, &[header, Buffer::Writable(513)]);
                self.driver.notify(0);
                assert_eq!(self.driver.take_used(0), [(1, 513)]);
                assert_eq!(self.driver.bytes(addresses[1] + 512, 1), [0]);
            }
            Target::Vsock => {
                let host = self
                    .host
                    .as_ref()
                    .expect("the socket device has a host side");
                let left = host.connection_count();
                assert!(
                    left <= self.dropped,
                    "{left} left of {} dropped",
                    self.dropped
                );
                let stream = host.connect(5123);
                self.poll();
                assert_eq!(self.driver.take_used(0), [(0, 44)]);
                assert_eq!(self.driver.bytes(addresses[0] + 30, 1), [1], "a request");
                drop(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn rng_survives(script in prop::collection::vec(any::<u8>(), 0..2000)) {
            run(Target::Rng, &script);
        }

        #[test]
        fn blk_survives(script in prop::collection::vec(any::<u8>(), 0..2000)) {
            run(Target::Block, &script);
        }

        #[test]
        fn vsock_survives(script in prop::collection::vec(any::<u8>(), 0..2000)) {
            run(Target::Vsock, &script);
        }
    }

    #[test]
    fn the_empty_script_passes() {
        Target::ALL.into_iter().for_each(|target| run(target, &[]));
    }
}
