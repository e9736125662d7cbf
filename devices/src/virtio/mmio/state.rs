//! Saving and restoring a transport with its device.

use serde::{Deserialize, Serialize};

use super::{MmioTransport, Negotiation};
use crate::virtio::F_EVENT_IDX;
use crate::virtio::queue::{QueueSetup, SavedQueue, VirtQueue};
use crate::virtio::state::{DeviceState, RestoreError};

/// Transport and device as saved in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    pub(super) negotiation: Negotiation,
    pub(super) queue_select: u32,
    pub(super) setups: Vec<QueueSetup>,
    pub(super) queues: Vec<Option<SavedQueue>>,
    pub(super) interrupt_status: u32,
    pub(super) config_generation: u32,
    pub(super) device: DeviceState,
}

impl TransportState {
    /// The device's own part, to be changed for a machine that goes on as somebody new.
    pub fn device_mut(&mut self) -> &mut DeviceState {
        &mut self.device
    }
}

impl MmioTransport {
    /// The state for a snapshot.
    pub fn save(&self) -> TransportState {
        TransportState {
            negotiation: self.negotiation,
            queue_select: self.queue_select,
            setups: self.setups.clone(),
            queues: self
                .queues
                .iter()
                .map(|queue| queue.as_ref().map(VirtQueue::save))
                .collect(),
            interrupt_status: self.interrupt_status,
            config_generation: self.config_generation,
            device: self.device.save(),
        }
    }

    /// Takes over a saved state. On an error the transport is as after a reset.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), RestoreError> {
        self.reset();
        let count = self.setups.len();
        if state.setups.len() != count || state.queues.len() != count {
            return Err(RestoreError::Damaged("wrong number of queues"));
        }
        let features = state.negotiation.driver_features;
        if features & !self.offered_features() != 0 {
            return Err(RestoreError::Damaged("features that were never offered"));
        }
        let queues = self.restore_queues(&state.queues, features & F_EVENT_IDX != 0)?;
        self.device.restore(&state.device)?;
        self.negotiation = state.negotiation;
        self.queue_select = state.queue_select;
        self.setups.clone_from(&state.setups);
        self.queues = queues;
        self.interrupt_status = state.interrupt_status;
        self.config_generation = state.config_generation;
        // Requests may have been waiting when the state was saved.
        self.kick.kick();
        Ok(())
    }

    fn restore_queues(
        &self,
        saved: &[Option<SavedQueue>],
        event_idx: bool,
    ) -> Result<Vec<Option<VirtQueue>>, RestoreError> {
        let restore = |(index, saved): (usize, &Option<SavedQueue>)| {
            let max_size = self.device.queue_sizes()[index];
            let restore = |saved| VirtQueue::restore(&self.memory, max_size, saved, event_idx);
            let queue = saved.as_ref().map(restore).transpose();
            queue.map_err(|source| RestoreError::Queue { index, source })
        };
        saved.iter().enumerate().map(restore).collect()
    }
}
