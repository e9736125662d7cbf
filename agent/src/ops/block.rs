//! Finding a disk by its serial (E-084).

use provium_protocol::{Error, ErrorKind};

use crate::boot::modules;
use crate::sys::file;

/// How long a disk may take to appear.
pub(super) const WAIT_NS: u64 = 5_000_000_000;

/// How often it is looked for.
pub(super) const AGAIN_NS: u64 = 20_000_000;

/// The path of the disk with a serial, if it is there.
pub(super) fn find(serial: &str) -> Option<Vec<u8>> {
    // A disk that was just plugged in may be the first of its kind.
    modules::load_for_devices();
    let disks = file::list(b"/sys/block").ok()?;
    let found = disks.into_iter().find(|(name, _)| {
        let path = [b"/sys/block/", name.as_slice(), b"/serial"].concat();
        let known = file::contents(&path).unwrap_or_default();
        known.trim_ascii() == serial.as_bytes()
    });
    found.map(|(name, _)| [b"/dev/".as_slice(), &name].concat())
}

/// The disk did not appear.
pub(super) fn not_found(serial: &str) -> Error {
    let message = format!(
        "no disk with serial `{}` appeared in 5s",
        serial.escape_debug()
    );
    Error::new(ErrorKind::Timeout, message)
}
