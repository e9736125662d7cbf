//! Arguments larger than a frame: uploaded in pieces before the call that uses them (E-102, L-252).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use provium_protocol::ops::{Blob, Stage};

use super::Link;

/// Most bytes one call may carry (L-252).
pub(crate) const CALL_LIMIT: usize = 256 << 20;

/// Calls that carry no more than this travel in their own frame, which has room for it to spare.
const INLINE_LIMIT: usize = 8 << 20;

/// Size of one piece.
const PIECE: usize = 4 << 20;

/// Keys are unique in the process, so that two calls on one connection never share one.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// A call carries more than [`CALL_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("call carries {0} bytes, the limit is 256 MiB ({CALL_LIMIT} bytes)")]
pub(crate) struct CallTooLarge(pub(crate) usize);

/// Turns the byte arguments of one call into blobs, uploading them when together they are too much for a frame.
pub(crate) struct Stager {
    link: Arc<Link>,
    inline: bool,
}

impl Stager {
    /// For a call whose byte arguments sum up to `total`.
    pub(crate) fn new(link: &Arc<Link>, total: usize) -> Result<Self, CallTooLarge> {
        if total > CALL_LIMIT {
            return Err(CallTooLarge(total));
        }
        Ok(Self {
            link: link.clone(),
            inline: total <= INLINE_LIMIT,
        })
    }

    /// One argument. Pieces go out at once; the call that follows on the same link finds them in place, and an
    /// agent that refused one refuses the call for want of it.
    pub(crate) fn blob(&self, data: Vec<u8>) -> Blob {
        // Many small arguments are cheaper inline than as uploads of their own.
        if self.inline || data.len() < 1024 {
            return Blob::Inline(data);
        }
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let count = data.len().div_ceil(PIECE);
        for (index, piece) in data.chunks(PIECE).enumerate() {
            let stage = Stage {
                key,
                data: piece.to_vec(),
                last: index + 1 == count,
            };
            self.link.request(&stage).detach();
        }
        Blob::Staged(key)
    }
}
