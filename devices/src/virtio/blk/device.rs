//! The device between the guest's queue and the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::SECTOR;
use super::request::{ID_LEN, MAX_ZERO_RANGES, MAX_ZERO_SECTORS, Request, Status};
use super::store::SharedStore;
use crate::clock::{AlarmId, Clock};
use crate::kick::Kick;
use crate::memory::GuestMemory;
use crate::sync::lock;
use crate::virtio::chain::SavedChain;
use crate::virtio::state::{DeviceState, RestoreError};
use crate::virtio::{
    Chain, DeviceError, DeviceIo, RING_FEATURES, VirtioDevice, id, read_config_bytes,
};

const QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [256];
/// Data buffers per request: the ring's size without header and status.
const MAX_SEGMENTS: u32 = 254;

/// Feature bits (virtio 1.2, 5.2.3).
mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const READ_ONLY: u64 = 1 << 5;
    pub(super) const BLOCK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// What a disk is made with.
pub struct BlkOptions {
    /// The disk's contents.
    pub store: SharedStore,
    /// Serial number by which the guest finds the disk (E-084); cut to 20 bytes.
    pub serial: String,
    /// The machine's clock, for requests that are put off.
    pub clock: Arc<dyn Clock>,
    /// Leads back to the transport that the device is put behind.
    pub kick: Arc<dyn Kick>,
}

/// A request that is put off.
#[derive(Debug)]
struct Parked {
    chain: Chain,
    request: Request,
    alarm: AlarmId,
}

/// The block device.
pub struct Blk {
    shared: Arc<Shared>,
    read_only: bool,
    serial: [u8; ID_LEN],
    clock: Arc<dyn Clock>,
    /// Capacity in sectors, as the guest was told.
    sectors: u64,
    /// By the guest time at which they are due, and by arrival.
    parked: BTreeMap<(u64, u64), Parked>,
    arrivals: u64,
    /// Saved parked requests that wait for guest memory to be checked against.
    restored: Vec<(u64, SavedChain)>,
}

struct Shared {
    store: Mutex<Option<SharedStore>>,
    changed: AtomicBool,
    kick: Arc<dyn Kick>,
}

/// The host's hold on a disk in a machine.
#[derive(Clone)]
pub struct BlkHandle {
    shared: Arc<Shared>,
}

impl BlkHandle {
    /// Announces to the guest that the size of the disk may have changed (L-160).
    pub fn resized(&self) {
        self.shared.changed.store(true, Ordering::Release);
        self.shared.kick.kick();
    }

    /// Takes the disk away: its size becomes 0 and every request fails (L-165).
    pub fn detach(&self) {
        *lock(&self.shared.store) = None;
        self.resized();
    }

    /// The contents, unless detached.
    pub fn store(&self) -> Option<SharedStore> {
        lock(&self.shared.store).clone()
    }
}

/// State in a snapshot. The contents are not part of it; snapshots keep them as files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkState {
    sectors: u64,
    /// Requests that are put off, with the guest time at which they are due.
    parked: Vec<(u64, SavedChain)>,
}

impl Blk {
    /// A disk and its handle.
    pub fn new(options: BlkOptions) -> (Self, BlkHandle) {
        let BlkOptions {
            store,
            serial,
            clock,
            kick,
        } = options;
        let mut serial_bytes = [0; ID_LEN];
        serial_bytes
            .iter_mut()
            .zip(serial.bytes())
            .for_each(|(to, from)| *to = from);
        let read_only = lock(&store).is_read_only();
        let shared = Arc::new(Shared {
            store: Mutex::new(Some(store)),
            changed: AtomicBool::new(false),
            kick,
        });
        let handle = BlkHandle {
            shared: Arc::clone(&shared),
        };
        let mut device = Self {
            shared,
            read_only,
            serial: serial_bytes,
            clock,
            sectors: 0,
            parked: BTreeMap::new(),
            arrivals: 0,
            restored: Vec::new(),
        };
        device.sectors = device.live_sectors();
        (device, handle)
    }

    fn live_sectors(&self) -> u64 {
        lock(&self.shared.store)
            .as_ref()
            .map_or(0, |store| lock(store).capacity() / SECTOR)
    }

    fn take_requests(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        loop {
            io.disable_notifications(QUEUE)?;
            while let Some(chain) = io.pop(QUEUE)? {
                self.take_request(chain, io)?;
            }
            if !io.enable_notifications(QUEUE)? {
                return Ok(());
            }
        }
    }

    fn take_request(&mut self, chain: Chain, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        match Request::parse(&chain, io.memory) {
            Err(status) => finish(chain, status, 0, io),
            Ok(request) => match self.delay_ns(&request) {
                0 => self.execute(chain, &request, io),
                delay => {
                    let due = self.clock.now_ns().saturating_add(delay);
                    self.park(due, chain, request);
                    Ok(())
                }
            },
        }
    }

    fn delay_ns(&self, request: &Request) -> u64 {
        let Some(op) = request.op() else { return 0 };
        lock(&self.shared.store)
            .as_ref()
            .map_or(0, |store| lock(store).delay_ns(&op))
    }

    fn park(&mut self, due: u64, chain: Chain, request: Request) {
        let kick = Arc::clone(&self.shared.kick);
        let alarm = self.clock.call_at(due, Box::new(move || kick.kick()));
        self.parked.insert(
            (due, self.arrivals),
            Parked {
                chain,
                request,
                alarm,
            },
        );
        self.arrivals += 1;
    }

    fn finish_due(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let now = self.clock.now_ns();
        while let Some(first) = self
            .parked
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            let Parked { chain, request, .. } = first.remove();
            self.execute(chain, &request, io)?;
        }
        Ok(())
    }

    fn execute(
        &self,
        chain: Chain,
        request: &Request,
        io: &mut DeviceIo<'_>,
    ) -> Result<(), DeviceError> {
        io.spend(request.pieces());
        let store = lock(&self.shared.store).clone();
        let result = match store {
            Some(store) => request
                .execute(&chain, io.memory, &mut *lock(&store), &self.serial)
                .ok(),
            None => None,
        };
        match result {
            Some(written) => finish(chain, Status::Ok, written, io),
            None => finish(chain, Status::IoError, 0, io),
        }
    }

    fn update_size(&mut self, io: &mut DeviceIo<'_>) {
        if self.shared.changed.swap(false, Ordering::AcqRel) {
            let sectors = self.live_sectors();
            if sectors != self.sectors {
                self.sectors = sectors;
                io.config_changed();
            }
        }
    }

    /// Parks again what was parked in a snapshot; what is not a request is given up.
    fn adopt_restored(&mut self, memory: &GuestMemory) {
        for (due, saved) in std::mem::take(&mut self.restored) {
            let Some(chain) = Chain::restore(memory, &saved) else {
                continue;
            };
            if let Ok(request) = Request::parse(&chain, memory) {
                self.park(due, chain, request);
            }
        }
    }

    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |offset: usize, bytes: &[u8]| {
            config[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &self.sectors.to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        put(36, &MAX_ZERO_SECTORS.to_le_bytes());
        put(40, &MAX_ZERO_RANGES.to_le_bytes());
        put(44, &1u32.to_le_bytes());
        put(48, &MAX_ZERO_SECTORS.to_le_bytes());
        put(52, &MAX_ZERO_RANGES.to_le_bytes());
        put(56, &[1]);
        config
    }
}

/// Writes the status and gives the request back.
fn finish(
    chain: Chain,
    status: Status,
    written: u64,
    io: &mut DeviceIo<'_>,
) -> Result<(), DeviceError> {
    let Some(at) = chain.writable_len().checked_sub(1) else {
        // Without a byte for the status nobody can be told.
        return io.complete(QUEUE, chain, 0);
    };
    // The chain was checked against memory, which does not shrink.
    let _in_memory = chain.write_at(io.memory, at, &[status as u8]);
    // Only what was filled from the start counts: up to the status if there is no gap.
    let len = if written == at { at + 1 } else { written };
    io.complete(QUEUE, chain, u32::try_from(len).unwrap_or(0))
}

impl VirtioDevice for Blk {
    fn device_id(&self) -> u32 {
        id::BLOCK
    }

    fn features(&self) -> u64 {
        let writable = feature::DISCARD | feature::WRITE_ZEROES;
        let access = if self.read_only {
            feature::READ_ONLY
        } else {
            writable
        };
        RING_FEATURES | feature::SEG_MAX | feature::BLOCK_SIZE | feature::FLUSH | access
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config(), offset, data);
    }

    fn activate(&mut self, _features: u64, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        io.queue(QUEUE).ok_or(DeviceError::MissingQueue(QUEUE))?;
        self.poll(io)
    }

    fn notify(&mut self, _queue: usize, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.take_requests(io)
    }

    fn poll(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.adopt_restored(io.memory);
        self.update_size(io);
        self.finish_due(io)?;
        self.take_requests(io)
    }

    fn reset(&mut self) {
        self.restored.clear();
        for parked in std::mem::take(&mut self.parked).into_values() {
            self.clock.cancel(parked.alarm);
        }
    }

    fn save(&self) -> DeviceState {
        let parked = self
            .parked
            .iter()
            .map(|(key, parked)| (key.0, parked.chain.save()));
        let parked = self.restored.iter().cloned().chain(parked).collect();
        DeviceState::Block(BlkState {
            sectors: self.sectors,
            parked,
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Block(BlkState { sectors, parked }) = state else {
            return Err(RestoreError::WrongDevice("a block"));
        };
        if parked.len() > usize::from(QUEUE_SIZES[0]) {
            return Err(RestoreError::Damaged(
                "more requests than fit into the queue",
            ));
        }
        self.sectors = *sectors;
        self.restored.clone_from(parked);
        // The disk may have another size now; the guest learns of it at the first poll.
        self.shared.changed.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
impl BlkState {
    pub(super) fn multiply_parked(&mut self, times: usize) {
        self.parked = self.parked.iter().cloned().cycle().take(times).collect();
    }
}
