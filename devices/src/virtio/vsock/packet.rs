//! The packet header (virtio 1.2, 5.10.6) as bytes and as values.

/// Bytes of a header.
pub(super) const HEADER_SIZE: usize = 44;
/// The only socket type offered: a byte stream.
pub(super) const TYPE_STREAM: u16 = 1;

/// Operations.
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`]: what the sender will no longer do.
pub(super) mod shutdown {
    pub(in super::super) const RECEIVE: u32 = 1;
    pub(in super::super) const SEND: u32 = 2;
    pub(in super::super) const BOTH: u32 = RECEIVE | SEND;
}

/// One header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn from_bytes(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, &self.src_cid.to_le_bytes());
        put(&mut rest, &self.dst_cid.to_le_bytes());
        put(&mut rest, &self.src_port.to_le_bytes());
        put(&mut rest, &self.dst_port.to_le_bytes());
        put(&mut rest, &self.len.to_le_bytes());
        put(&mut rest, &self.kind.to_le_bytes());
        put(&mut rest, &self.op.to_le_bytes());
        put(&mut rest, &self.flags.to_le_bytes());
        put(&mut rest, &self.buf_alloc.to_le_bytes());
        put(&mut rest, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The reset that answers this packet.
    pub(super) fn reset_reply(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

/// Takes the next field; the fields of a header add up to its size.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, tail) = rest
        .split_first_chunk()
        .expect("header fields exceed its size");
    *rest = tail;
    *field
}

/// Puts the next field; the fields of a header add up to its size.
fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (head, tail) = std::mem::take(rest).split_at_mut(field.len());
    head.copy_from_slice(field);
    *rest = tail;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_of_a_header_survives(bytes in any::<[u8; 32]>(), tail in any::<[u8; 12]>()) {
            let mut header = [0; HEADER_SIZE];
            header[..32].copy_from_slice(&bytes);
            header[32..].copy_from_slice(&tail);
            prop_assert_eq!(Header::from_bytes(&header).to_bytes(), header);
        }
    }

    #[test]
    fn fields_lie_where_the_standard_puts_them() {
        let mut bytes = [0; HEADER_SIZE];
        for (offset, value) in [(0, 3), (8, 2), (16, 5), (20, 6), (24, 7), (28, 1), (30, 4)] {
            bytes[offset] = value;
        }
        let (flags, buf_alloc, fwd_cnt) = (8, 9, 10);
        (bytes[32], bytes[36], bytes[40]) = (8, 9, 10);
        let (src_cid, dst_cid, src_port, dst_port) = (3, 2, 5, 6);
        let expected = Header {
            src_cid,
            dst_cid,
            src_port,
            dst_port,
            len: 7,
            kind: 1,
            op: 4,
            flags,
            buf_alloc,
            fwd_cnt,
        };
        assert_eq!(Header::from_bytes(&bytes), expected);
    }
}
