//! What host threads hold: the device's host side, its listeners and its streams.

use std::sync::Arc;

use super::connection::{Connection, Phase};
use super::hub::{ConnectionId, Hub};
use super::packet::shutdown;
use crate::signal::Signal;
use crate::stream::{ByteStream, Progress, StreamError};

/// The host side of a machine's socket device. Clones are the same device.
#[derive(Clone)]
pub struct VsockHost {
    hub: Arc<Hub>,
}

/// Why listening failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("host vsock port {0} is in use")]
    PortInUse(u32),
}

impl VsockHost {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// The guest's context id, as its driver knows it.
    pub fn guest_cid(&self) -> u64 {
        self.hub.with(|state| state.guest_cid())
    }

    /// Opens a connection to a port of the guest, without waiting for the answer:
    /// [`VsockStream::connection`] tells it. The request waits until the guest has a driver; once
    /// it has, a port nobody listens on refuses at once. Bytes may be written right away.
    pub fn connect(&self, port: u32) -> Result<VsockStream, StreamError> {
        let id = self.hub.with_kick(|state| state.connect(port))?;
        Ok(VsockStream::new(&self.hub, id))
    }

    /// Accepts connections that the guest opens to this port of the host.
    pub fn listen(&self, port: u32) -> Result<VsockListener, ListenError> {
        if !self.hub.with(|state| state.listen(port)) {
            return Err(ListenError::PortInUse(port));
        }
        Ok(VsockListener {
            hub: Arc::clone(&self.hub),
            port,
        })
    }

    /// Connections that exist for either side, those still closing included.
    pub fn connection_count(&self) -> usize {
        self.hub.with(|state| state.connection_count())
    }
}

/// A port of the host that the guest can connect to; dropping it closes the port.
pub struct VsockListener {
    hub: Arc<Hub>,
    port: u32,
}

impl VsockListener {
    /// The next connection, if one is waiting.
    pub fn try_accept(&self) -> Result<Option<VsockStream>, StreamError> {
        self.hub.with(|state| match state.accept(self.port) {
            Some(id) => Ok(Some(VsockStream::new(&self.hub, id))),
            None if state.is_machine_gone() => Err(StreamError::MachineGone),
            None => Ok(None),
        })
    }

    /// Notifies `signal` when a connection arrives.
    pub fn subscribe(&self, signal: &Arc<Signal>) {
        self.hub.with(|state| {
            if let Some(subscribers) = state.listener_subscribers(self.port) {
                subscribers.add(signal);
            }
        });
        signal.notify();
    }

    /// The port.
    pub fn port(&self) -> u32 {
        self.port
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        self.hub.with_kick(|state| state.unlisten(self.port));
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// The guest has not answered yet.
    Connecting,
    /// Both sides know.
    Connected,
    /// It is over. The error says why, None that it ended in order. What the guest had sent can
    /// still be read.
    Ended(Option<StreamError>),
}

/// One connection; see [`ByteStream`].
pub struct VsockStream {
    hub: Arc<Hub>,
    id: ConnectionId,
}

impl VsockStream {
    fn new(hub: &Arc<Hub>, id: ConnectionId) -> Self {
        Self {
            hub: Arc::clone(hub),
            id,
        }
    }

    /// Runs `f` on the connection, then lets it send what became due.
    fn with<T>(&self, f: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        self.hub.with_kick(|state| {
            let result = f(state.connection(self.id)?);
            state.enqueue(self.id);
            Some(result)
        })
    }

    /// How far the connection has come.
    pub fn connection(&self) -> ConnectionState {
        let phase = self.with(|connection| connection.phase);
        match phase {
            Some(Phase::Wanted | Phase::Requested) => ConnectionState::Connecting,
            Some(Phase::Accepted | Phase::Established) => ConnectionState::Connected,
            Some(Phase::Ended(error)) => ConnectionState::Ended(error),
            None => ConnectionState::Ended(None),
        }
    }

    /// Bytes that can be read at once.
    pub fn readable(&self) -> usize {
        self.with(|connection| connection.readable()).unwrap_or(0)
    }

    /// Bytes written that the guest has not been given yet.
    pub fn unsent(&self) -> usize {
        self.with(|connection| connection.unsent()).unwrap_or(0)
    }

    /// Port numbers: (host, guest).
    pub fn ports(&self) -> (u32, u32) {
        self.with(|c| (c.key.host_port, c.key.guest_port))
            .unwrap_or_default()
    }

    /// Says that no more will be read; what waits is dropped, and the guest can no longer send.
    pub fn shutdown_read(&self) {
        self.with(|connection| connection.shut_down(shutdown::RECEIVE));
    }

    /// Ends the connection at once, dropping what is on its way.
    pub fn reset(&self) {
        self.hub
            .with_kick(|state| state.abort(self.id, Some(StreamError::ShutDown)));
    }
}

impl ByteStream for VsockStream {
    fn try_read(&self, buffer: &mut [u8]) -> Result<Progress, StreamError> {
        self.with(|connection| connection.read(buffer))
            .unwrap_or(Err(StreamError::ShutDown))
    }

    fn try_write(&self, data: &[u8]) -> Result<Progress, StreamError> {
        self.with(|connection| connection.write(data))
            .unwrap_or(Err(StreamError::ShutDown))
    }

    fn is_open(&self) -> bool {
        self.with(|connection| !connection.has_ended())
            .unwrap_or(false)
    }

    fn shutdown_write(&self) {
        self.with(|connection| connection.shut_down(shutdown::SEND));
    }

    fn subscribe(&self, signal: &Arc<Signal>) {
        self.with(|connection| connection.subscribers.add(signal));
        signal.notify();
    }
}

impl Drop for VsockStream {
    fn drop(&mut self) {
        self.hub.with_kick(|state| state.release(self.id));
    }
}
