//! The block device against the mock driver.

use std::sync::{Arc, Mutex};

use super::faults::{Effect, FaultPlan, FaultyStore, Rule};
use super::store::{FileStore, MemoryStore};
use super::*;
use crate::mock::{Buffer, Counter, Driver, ManualClock};
use crate::virtio::mmio::{interrupt_status, register};
use crate::virtio::{DeviceState, RestoreError, VirtioDevice};

const SECTORS: u64 = 256;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

struct Disk {
    driver: Driver,
    handle: BlkHandle,
    plan: FaultPlan,
    clock: Arc<ManualClock>,
    kick: Arc<Counter>,
}

fn device(inner: SharedStore) -> (Blk, BlkHandle, FaultPlan, Arc<ManualClock>, Arc<Counter>) {
    let plan = FaultPlan::new();
    let store = Arc::new(Mutex::new(FaultyStore::new(inner, plan.clone())));
    let (clock, kick) = <(Arc<ManualClock>, Arc<Counter>)>::default();
    let serial = "scratch-disk-with-a-long-name".to_owned();
    let options = BlkOptions {
        store,
        serial,
        clock: clock.clone(),
        kick: kick.clone(),
    };
    let (device, handle) = Blk::new(options);
    (device, handle, plan, clock, kick)
}

fn disk_with(inner: SharedStore) -> Disk {
    let (device, handle, plan, clock, kick) = device(inner);
    Disk {
        driver: Driver::started(device, 0),
        handle,
        plan,
        clock,
        kick,
    }
}

fn disk() -> Disk {
    disk_with(Arc::new(Mutex::new(MemoryStore::new(SECTORS * SECTOR))))
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

impl Disk {
    /// Submits a request; returns the addresses of its writable buffer and of its status.
    fn submit(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> (u64, u64) {
        let mut buffers = vec![Buffer::Readable(header(kind, sector))];
        if !data.is_empty() {
            buffers.push(Buffer::Readable(data.to_vec()));
        }
        if room > 0 {
            buffers.push(Buffer::Writable(room));
        }
        buffers.push(Buffer::Writable(1));
        let (_, addresses) = self.driver.request(0, &buffers);
        let status = addresses[addresses.len() - 1];
        self.driver.memory_fill(status, 0xee, 1);
        self.driver.notify(0);
        (addresses[addresses.len() - 2], status)
    }

    fn run(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> (u8, Vec<u8>) {
        let (buffer, status) = self.submit(kind, sector, data, room);
        assert_eq!(self.driver.take_used(0).len(), 1);
        (
            self.driver.bytes(status, 1)[0],
            self.driver.bytes(buffer, room as usize),
        )
    }

    fn status(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> u8 {
        self.run(kind, sector, data, room).0
    }

    fn sectors(&mut self) -> u64 {
        let high = self.driver.read(register::CONFIG + 4);
        (u64::from(high) << 32) | u64::from(self.driver.read(register::CONFIG))
    }
}

fn ranges(ranges: &[(u64, u32, u32)]) -> Vec<u8> {
    let bytes = |&(sector, count, flags): &(u64, u32, u32)| {
        [
            &sector.to_le_bytes()[..],
            &count.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    };
    ranges.iter().flat_map(bytes).collect()
}

/// L-161: guest and host see the same bytes.
#[test]
fn what_is_written_is_read_by_guest_and_host() {
    let mut disk = disk();
    assert_eq!(disk.sectors(), SECTORS);
    let data: Vec<u8> = (0..200_000u32 / 512 * 512).map(|i| (i / 7) as u8).collect();
    let half = data.len() / 1024 * 512;
    assert_eq!(disk.status(OUT, 3, &data[..half], 0), OK);
    let mut seen = vec![0; half];
    let store = disk.handle.store().unwrap();
    store.lock().unwrap().read(3 * SECTOR, &mut seen).unwrap();
    assert_eq!(seen, data[..half]);
    store.lock().unwrap().write(0, &[7; 3]).unwrap();
    let (status, read) = disk.run(IN, 0, &[], 4 * 512);
    assert_eq!(
        (status, &read[..3], &read[3 * 512..]),
        (OK, &[7; 3][..], &data[..512])
    );
}

#[test]
fn the_used_length_covers_what_was_filled() {
    let mut disk = disk();
    disk.submit(IN, 0, &[], 512);
    disk.submit(OUT, 0, &[1; 512], 0);
    disk.submit(IN, SECTORS, &[], 512);
    let lengths: Vec<u32> = disk.driver.take_used(0).iter().map(|used| used.1).collect();
    assert_eq!(lengths, [513, 1, 0]);
}

#[test]
fn requests_outside_of_the_disk_fail() {
    let mut disk = disk();
    for sector in [
        SECTORS,
        SECTORS - 1,
        u64::MAX,
        u64::MAX / 512 + 1,
        u64::MAX / 512,
    ] {
        assert_eq!(disk.status(IN, sector, &[], 1024), IO_ERROR);
        assert_eq!(disk.status(OUT, sector, &[0; 1024], 0), IO_ERROR);
        assert_eq!(
            disk.status(WRITE_ZEROES, 0, &ranges(&[(sector, 2, 0)]), 0),
            IO_ERROR
        );
    }
    assert_eq!(disk.status(IN, SECTORS - 1, &[], 512), OK);
}

#[test]
fn malformed_requests_fail() {
    let mut disk = disk();
    assert_eq!(disk.status(IN, 0, &[], 511), IO_ERROR, "not whole sectors");
    assert_eq!(disk.status(OUT, 0, &[0; 513], 0), IO_ERROR);
    assert_eq!(disk.status(OUT, 0, &[], 0), IO_ERROR, "no data");
    assert_eq!(disk.status(99, 0, &[], 0), UNSUPPORTED);
    assert_eq!(disk.status(DISCARD, 0, &[0; 15], 0), IO_ERROR);
    assert_eq!(disk.status(DISCARD, 0, &[], 0), IO_ERROR);
    assert_eq!(
        disk.status(DISCARD, 0, &ranges(&[(0, 1, 1)]), 0),
        UNSUPPORTED
    );
    assert_eq!(
        disk.status(DISCARD, 0, &ranges(&[(0, 1, 0); 17]), 0),
        IO_ERROR
    );
    assert_eq!(
        disk.status(DISCARD, 0, &ranges(&[(0, u32::MAX, 0)]), 0),
        IO_ERROR
    );
    disk.driver
        .request(0, &[Buffer::Readable(vec![0; 15]), Buffer::Writable(1)]);
    disk.driver.request(0, &[Buffer::Readable(header(IN, 0))]);
    disk.driver.notify(0);
    assert_eq!(disk.driver.take_used(0).len(), 2);
    assert!(!disk.driver.needs_reset());
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let mut disk = disk();
    let mut buffers: Vec<Buffer> = header(IN, 0)
        .chunks(5)
        .map(|part| Buffer::Readable(part.to_vec()))
        .collect();
    buffers.extend([Buffer::Writable(100), Buffer::Writable(413)]);
    let (_, addresses) = disk.driver.request(0, &buffers);
    disk.driver.memory_fill(addresses[5], 0xee, 413);
    disk.driver.notify(0);
    assert_eq!(disk.driver.take_used(0), [(0, 513)]);
    assert_eq!(disk.driver.bytes(addresses[5], 413), [0; 413]);
}

#[test]
fn zeroing_and_discarding() {
    let mut disk = disk();
    disk.status(OUT, 0, &[1; 4 * 512], 0);
    assert_eq!(
        disk.status(WRITE_ZEROES, 0, &ranges(&[(0, 1, 1), (2, 1, 0)]), 0),
        OK
    );
    assert_eq!(disk.status(DISCARD, 0, &ranges(&[(3, 1, 0)]), 0), OK);
    let (_, data) = disk.run(IN, 0, &[], 4 * 512);
    let set: Vec<bool> = data.chunks(512).map(|sector| sector == [1; 512]).collect();
    assert_eq!(set, [false, true, false, false]);
}

/// E-084
#[test]
fn the_serial_number_is_cut_to_its_field() {
    let mut disk = disk();
    let (status, id) = disk.run(GET_ID, 0, &[], 20);
    assert_eq!((status, id.as_slice()), (OK, &b"scratch-disk-with-a-"[..]));
    assert_eq!(disk.run(GET_ID, 0, &[], 7).1, b"scratch");
}

/// L-157
#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 * SECTOR).unwrap();
    let mut disk = disk_with(Arc::new(Mutex::new(FileStore::new(file, true))));
    assert_ne!(disk.driver.offered() & (1 << 5), 0);
    assert_eq!(disk.status(OUT, 0, &[0; 512], 0), IO_ERROR);
    assert_eq!(disk.status(IN, 0, &[], 512), OK);
    assert_eq!(disk.status(FLUSH, 0, &[], 0), OK);
}

#[test]
fn a_call_does_a_bounded_amount_of_work() {
    let mut disk = disk_with(Arc::new(Mutex::new(MemoryStore::new(16 << 20))));
    let parts: Vec<Buffer> = (0..8).map(|_| Buffer::Writable(1 << 20)).collect();
    let buffers = [
        vec![Buffer::Readable(header(IN, 0))],
        parts,
        vec![Buffer::Writable(1)],
    ]
    .concat();
    for _ in 0..10 {
        disk.driver.request(0, &buffers);
    }
    disk.driver.notify(0);
    assert_eq!(disk.driver.take_used(0).len(), 8, "64 MiB");
    assert_eq!(disk.driver.kick.take(), 1, "asks to go on");
    disk.driver.poll();
    assert_eq!(disk.driver.take_used(0).len(), 2);
}

/// L-163
#[test]
fn injected_faults_reach_the_guest() {
    let mut disk = disk();
    disk.plan.add(Rule::new(Effect::FailWrites));
    assert_eq!(disk.status(OUT, 0, &[0; 512], 0), IO_ERROR);
    assert_eq!(disk.status(FLUSH, 0, &[], 0), IO_ERROR);
    assert_eq!(disk.status(DISCARD, 0, &ranges(&[(0, 1, 0)]), 0), IO_ERROR);
    assert_eq!(disk.status(IN, 0, &[], 512), OK);
    disk.plan.clear();
    assert_eq!(disk.status(OUT, 0, &[0; 512], 0), OK);
}

/// L-163: slow requests are put off each by itself, and faults are looked at again afterwards.
#[test]
fn slow_requests_complete_later_in_guest_time() {
    let mut disk = disk();
    disk.plan.add(Rule::new(Effect::Delay { ns: 50 }));
    let (_, first) = disk.submit(OUT, 0, &[1; 512], 0);
    disk.clock.advance_to(20);
    let (_, second) = disk.submit(IN, 0, &[], 512);
    disk.plan.clear();
    let (_, third) = disk.submit(FLUSH, 0, &[], 0);
    assert_eq!(
        disk.driver.take_used(0).len(),
        1,
        "a fast one passes the slow ones"
    );
    assert_eq!(disk.driver.bytes(third, 1), [OK]);
    disk.clock.advance_to(50);
    assert_eq!(disk.kick.take(), 1);
    disk.driver.poll();
    assert_eq!(disk.driver.take_used(0).len(), 1);
    assert_eq!(disk.driver.bytes(first, 1), [OK]);
    disk.plan.add(Rule::new(Effect::FailReads));
    disk.clock.advance_to(70);
    disk.driver.poll();
    assert_eq!(disk.driver.take_used(0).len(), 1);
    assert_eq!(disk.driver.bytes(second, 1), [IO_ERROR]);
}

#[test]
fn a_reset_forgets_slow_requests() {
    let mut disk = disk();
    disk.plan.add(Rule::new(Effect::Delay { ns: 50 }));
    disk.submit(OUT, 0, &[1; 512], 0);
    disk.driver.start(0);
    disk.clock.advance_to(100);
    assert_eq!(disk.kick.count(), 0);
    disk.driver.poll();
    assert_eq!(disk.driver.take_used(0), []);
}

#[test]
fn slow_requests_survive_a_restore() {
    let mut disk = disk();
    disk.plan.add(Rule::new(Effect::Delay { ns: 50 }));
    let (_, status) = disk.submit(OUT, 0, &[1; 512], 0);
    let saved = disk.driver.transport.save();
    disk.driver.transport.restore(&saved).unwrap();
    assert_eq!(disk.driver.transport.save(), saved, "before the first poll");
    disk.driver.poll();
    assert_eq!(disk.driver.transport.save(), saved, "and after it");
    assert_eq!(disk.driver.take_used(0), []);
    disk.clock.advance_to(50);
    disk.driver.poll();
    assert_eq!(disk.driver.take_used(0), [(0, 1)]);
    assert_eq!(disk.driver.bytes(status, 1), [OK]);
}

/// L-160
#[test]
fn a_new_size_is_announced() {
    let file = tempfile::tempfile().unwrap();
    let store = FileStore::new(file.try_clone().unwrap(), false);
    let mut disk = disk_with(Arc::new(Mutex::new(store)));
    assert_eq!(disk.sectors(), 0);
    file.set_len(10 * SECTOR + 5).unwrap();
    disk.handle.resized();
    assert_eq!(disk.kick.take(), 1);
    assert_eq!(disk.sectors(), 0, "not before the poll");
    disk.driver.poll();
    assert_eq!(disk.sectors(), 10);
    assert_eq!(
        disk.driver.read(register::INTERRUPT_STATUS),
        interrupt_status::CONFIG_CHANGE
    );
    disk.handle.resized();
    disk.driver.poll();
    assert_eq!(disk.driver.line.count(), 1, "the same size is no news");
}

/// L-165
#[test]
fn a_detached_disk_is_gone() {
    let mut disk = disk();
    disk.handle.detach();
    disk.driver.poll();
    assert_eq!(disk.sectors(), 0);
    assert!(disk.handle.store().is_none());
    assert_eq!(disk.status(IN, 0, &[], 512), IO_ERROR);
}

#[test]
fn damaged_states_are_refused() {
    let (mut device, ..) = device(Arc::new(Mutex::new(MemoryStore::new(SECTOR))));
    let rng = crate::virtio::rng::Rng::new(0).save();
    assert!(matches!(
        device.restore(&rng),
        Err(RestoreError::WrongDevice(_))
    ));
    let mut disk = disk();
    disk.plan.add(Rule::new(Effect::Delay { ns: 50 }));
    disk.submit(FLUSH, 0, &[], 0);
    let saved = disk.driver.transport.device().save();
    let DeviceState::Block(mut state) = saved else {
        panic!("{saved:?}")
    };
    state.multiply_parked(257);
    assert!(device.restore(&DeviceState::Block(state)).is_err());
}
