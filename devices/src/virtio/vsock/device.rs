//! The device between the guest's queues and the hub.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::connection::RECEIVE_BUFFER;
use super::host::VsockHost;
use super::hub::Hub;
use super::packet::{HEADER_SIZE, Header};
use crate::kick::Kick;
use crate::virtio::state::{DeviceState, RestoreError};
use crate::virtio::{
    Chain, DeviceError, DeviceIo, RING_FEATURES, VirtioDevice, id, read_config_bytes,
};

/// Queues (virtio 1.2, 5.10.2).
const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;
const QUEUE_SIZES: [u16; 3] = [256, 256, 64];
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (5.10.6.7.2).
const TRANSPORT_RESET: u32 = 0;

/// The socket device.
pub struct Vsock {
    hub: Arc<Hub>,
    /// Scratch for the data of one packet.
    payload: Vec<u8>,
    /// The guest's packets wait until it takes the answers to earlier ones.
    tx_held_back: bool,
}

/// Its state in a snapshot. Connections end at a snapshot: their host ends are not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The guest's context id.
    pub guest_cid: u64,
}

impl Vsock {
    /// A device for a guest with this context id, and its host side. `kick` leads back to the
    /// transport that the device is put behind.
    pub fn new(guest_cid: u64, kick: Arc<dyn Kick>) -> (Self, VsockHost) {
        let hub = Hub::new(guest_cid, kick);
        let host = VsockHost::new(Arc::clone(&hub));
        (
            Self {
                hub,
                payload: Vec::new(),
                tx_held_back: false,
            },
            host,
        )
    }

    /// Moves packets both ways until nothing moves any more.
    fn pump(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.send_event(io)?;
        loop {
            self.take_packets(io)?;
            self.give_packets(io)?;
            let resumable = self.tx_held_back && !self.hub.with(|hub| hub.replies_full());
            if !resumable {
                return Ok(());
            }
        }
    }

    /// Takes up the guest's packets.
    fn take_packets(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.tx_held_back = false;
        loop {
            io.disable_notifications(TX)?;
            loop {
                if self.hub.with(|hub| hub.replies_full()) {
                    self.tx_held_back = true;
                    return Ok(());
                }
                let Some(chain) = io.pop(TX)? else { break };
                self.take_packet(&chain, io);
                io.complete(TX, chain, 0)?;
            }
            if !io.enable_notifications(TX)? {
                return Ok(());
            }
        }
    }

    /// A packet whose header or data is not there is dropped: nobody can be told.
    fn take_packet(&mut self, chain: &Chain, io: &DeviceIo<'_>) {
        let mut bytes = [0; HEADER_SIZE];
        if !matches!(chain.read_at(io.memory, 0, &mut bytes), Ok(HEADER_SIZE)) {
            return;
        }
        let header = Header::from_bytes(&bytes);
        // One byte more than can be right is enough to find that out.
        let len = header.len.min(RECEIVE_BUFFER + 1) as usize;
        self.payload.resize(len, 0);
        let read = chain.read_at(io.memory, HEADER_SIZE as u64, &mut self.payload);
        if read.is_ok_and(|count| count == len) {
            self.hub.with(|hub| hub.receive(&header, &self.payload));
        }
    }

    /// Hands packets to the guest, as far as it has buffers for them.
    fn give_packets(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        while self.hub.with(|hub| hub.has_packet()) {
            let Some(chain) = io.pop(RX)? else {
                if io.enable_notifications(RX)? {
                    continue;
                }
                return Ok(());
            };
            if !self.give_packet(chain, io)? {
                break;
            }
        }
        io.disable_notifications(RX)
    }

    /// Puts one packet into a receive buffer; false if there was none that fits.
    fn give_packet(&mut self, chain: Chain, io: &mut DeviceIo<'_>) -> Result<bool, DeviceError> {
        let Some(room) = chain.writable_len().checked_sub(HEADER_SIZE as u64) else {
            io.complete(RX, chain, 0)?;
            return Ok(true);
        };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let Some(header) = self
            .hub
            .with(|hub| hub.next_packet(room, &mut self.payload))
        else {
            io.undo_pop(RX, chain);
            return Ok(false);
        };
        // The chain was checked against memory, which does not shrink: both writes succeed.
        let written = chain
            .write_at(io.memory, 0, &header.to_bytes())
            .and_then(|_| chain.write_at(io.memory, HEADER_SIZE as u64, &self.payload));
        let len = written.map_or(0, |_| HEADER_SIZE as u32 + header.len);
        io.complete(RX, chain, len)?;
        Ok(true)
    }

    /// Tells the guest that its connections are gone, if they are and it has a buffer for it.
    fn send_event(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        while self.hub.with(|hub| hub.has_transport_reset()) {
            let Some(chain) = io.pop(EVENT)? else {
                if io.enable_notifications(EVENT)? {
                    continue;
                }
                return Ok(());
            };
            let event = TRANSPORT_RESET.to_le_bytes();
            let written = chain.write_at(io.memory, 0, &event).unwrap_or(0);
            io.complete(EVENT, chain, written as u32)?;
            if written == event.len() {
                self.hub.with(|hub| hub.take_transport_reset());
            }
        }
        io.disable_notifications(EVENT)
    }
}

impl VirtioDevice for Vsock {
    fn device_id(&self) -> u32 {
        id::VSOCK
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let cid = self.hub.with(|hub| hub.guest_cid());
        read_config_bytes(&cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, _features: u64, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        for queue in [RX, TX, EVENT] {
            io.queue(queue).ok_or(DeviceError::MissingQueue(queue))?;
        }
        self.pump(io)
    }

    fn notify(&mut self, _queue: usize, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.pump(io)
    }

    fn poll(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.pump(io)
    }

    fn reset(&mut self) {
        self.tx_held_back = false;
        self.hub.with(|hub| hub.device_reset());
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock(VsockState {
            guest_cid: self.hub.with(|hub| hub.guest_cid()),
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Vsock(VsockState { guest_cid }) = *state else {
            return Err(RestoreError::WrongDevice("a socket"));
        };
        self.hub.with_kick(|hub| {
            hub.set_guest_cid(guest_cid);
            hub.restored();
        });
        Ok(())
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.hub.with(|hub| hub.machine_gone());
    }
}
