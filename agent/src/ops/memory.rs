//! The agent's own memory (L-237).

use provium_protocol::{Error, ErrorKind, MAX_FRAME};

use crate::sys::memory;

/// `mem_read`.
pub(super) fn read(addr: u64, len: u64) -> Result<Vec<u8>, Error> {
    let limit = MAX_FRAME - 64 * 1024;
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= limit)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::BadArgs,
                format!("field `len`: {len} is above {limit}"),
            )
        })?;
    memory::read(addr, len).map_err(|errno| failed("read", addr, errno))
}

/// `mem_write`.
pub(super) fn write(addr: u64, data: &[u8]) -> Result<(), Error> {
    memory::write(addr, data).map_err(|errno| failed("write", addr, errno))
}

fn failed(what: &str, addr: u64, errno: i32) -> Error {
    Error::os(&format!("{what} memory at {addr:#x}"), errno)
}
