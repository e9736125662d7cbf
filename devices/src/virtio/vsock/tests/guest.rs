//! A guest's socket driver, speaking packets instead of sockets.

use std::collections::BTreeMap;

use crate::mock::{Buffer, Descriptor, Driver, flag};
use crate::virtio::vsock::device::Vsock;
use crate::virtio::vsock::packet::{HEADER_SIZE, Header, TYPE_STREAM, op};
use crate::virtio::vsock::{ConnectionState, HOST_CID, VsockHost, VsockStream};
use crate::{ByteStream, Kick, Progress, StreamError};

pub(super) const CID: u64 = 10;
pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
pub(super) const EVENT: usize = 2;
pub(super) const BUF_ALLOC: u32 = 0x4_0000;

/// The kick of the device: the tests poll by hand, and check that they were asked to.
type Kicks = std::sync::Arc<crate::mock::Counter>;

pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) host: VsockHost,
    pub(super) kicks: Kicks,
    /// Receive buffers by head: addresses of header and data.
    buffers: BTreeMap<u16, (u64, u64)>,
    /// Receive buffers that are not posted. They are used again: what is sent meanwhile must not
    /// come to lie in one that waits for long.
    spare: Vec<(u64, u64)>,
    buffer_size: u32,
}

impl Guest {
    /// A guest whose driver is not there yet.
    pub(super) fn off() -> Self {
        let kicks = Kicks::default();
        let kick: std::sync::Arc<dyn Kick> = kicks.clone();
        let (device, host) = Vsock::new(CID, kick);
        let driver = Driver::new(device);
        Self {
            driver,
            host,
            kicks,
            buffers: BTreeMap::new(),
            spare: Vec::new(),
            buffer_size: 4096,
        }
    }

    /// A guest with a driver that has posted 64 receive buffers of 4 KiB.
    pub(super) fn new() -> Self {
        let mut guest = Self::off();
        guest.start();
        guest.post(64);
        guest
    }

    pub(super) fn start(&mut self) {
        self.buffers.clear();
        self.driver.start(0);
    }

    /// Posts receive buffers, shaped as by Linux 6.1: header and data apart.
    pub(super) fn post(&mut self, count: usize) {
        for _ in 0..count {
            let addresses = self.spare.pop().unwrap_or_else(|| {
                let header = self.driver.allocate(HEADER_SIZE as u64);
                let data = self.driver.allocate(self.buffer_size.into());
                self.driver.keep_allocated();
                (header, data)
            });
            let writable = |address, len| Descriptor {
                address,
                len,
                flags: flag::WRITE,
                next: 0,
            };
            let header = writable(addresses.0, HEADER_SIZE as u32);
            let data = writable(addresses.1, self.buffer_size);
            let head = self.driver.request_placed(RX, &[header, data]);
            self.buffers.insert(head, addresses);
        }
        self.driver.notify(RX);
    }

    /// Lets the device look at the host side, if it asked for that.
    pub(super) fn run(&mut self) {
        if self.kicks.take() + self.driver.kick.take() > 0 {
            self.driver.poll();
        }
    }

    /// All packets that have arrived; their buffers are posted again.
    pub(super) fn receive(&mut self) -> Vec<(Header, Vec<u8>)> {
        let packets = self.receive_keeping_buffers();
        self.post(packets.len());
        packets
    }

    pub(super) fn receive_keeping_buffers(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.run();
        let used = self.driver.take_used(RX);
        let mut packets = Vec::new();
        for (head, len) in used {
            let (at_header, at_data) = self.buffers.remove(&(head as u16)).unwrap();
            let bytes = self.driver.bytes(at_header, HEADER_SIZE);
            let header = Header::from_bytes(&bytes.try_into().unwrap());
            assert_eq!(len, HEADER_SIZE as u32 + header.len);
            packets.push((header, self.driver.bytes(at_data, header.len as usize)));
            self.spare.push((at_header, at_data));
        }
        packets
    }

    /// The one packet that has arrived.
    pub(super) fn receive_one(&mut self) -> (Header, Vec<u8>) {
        let mut packets = self.receive();
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }

    /// The operations of the packets that have arrived.
    pub(super) fn receive_ops(&mut self) -> Vec<u16> {
        self.receive().iter().map(|(header, _)| header.op).collect()
    }

    /// Sends a packet as it is.
    pub(super) fn send_raw(&mut self, header: Header, data: &[u8]) {
        let bytes = header.to_bytes().to_vec();
        self.driver.request(
            TX,
            &[Buffer::Readable(bytes), Buffer::Readable(data.to_vec())],
        );
        self.driver.notify(TX);
        self.driver.take_used(TX);
    }

    /// Sends a packet of a connection, with a fixed announcement of room and nothing taken.
    pub(super) fn send(&mut self, ports: Ports, op: u16, data: &[u8]) {
        let len = data.len() as u32;
        self.send_raw(
            Header {
                len,
                buf_alloc: BUF_ALLOC,
                ..ports.header(op)
            },
            data,
        );
    }

    /// A connection opened by the host and accepted by the guest.
    pub(super) fn connected(&mut self) -> (VsockStream, Ports) {
        let stream = self.host.connect(5123).unwrap();
        let (request, _) = self.receive_one();
        assert_eq!((request.op, request.dst_port), (op::REQUEST, 5123));
        let ports = Ports {
            guest: request.dst_port,
            host: request.src_port,
        };
        self.send(ports, op::RESPONSE, &[]);
        assert_eq!(stream.connection(), ConnectionState::Connected);
        (stream, ports)
    }
}

/// The ports of a connection.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) guest: u32,
    pub(super) host: u32,
}

impl Ports {
    /// A header from the guest.
    pub(super) fn header(self, op: u16) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: self.guest,
            dst_port: self.host,
            kind: TYPE_STREAM,
            op,
            ..Header::default()
        }
    }
}

/// Reads all there is.
pub(super) fn read_all(stream: &VsockStream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.try_read(&mut buffer)? {
            Progress::Bytes(count) => all.extend(&buffer[..count]),
            Progress::Pending | Progress::Eof => return Ok(all),
        }
    }
}
