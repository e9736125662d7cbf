//! Pseudo file systems and the kernel log (E-082, C-021, C-022).

use provium_protocol::Error;

use crate::boot::mounts;
use crate::sys::system;

/// How long the answer to `shutdown` may take to leave.
pub(super) const LEAVE_NS: u64 = 2_000_000;

/// `mount_vfs`: what is mounted already or unknown to the kernel is fine; anything else is told.
pub(super) fn mount_vfs() -> Result<(), Error> {
    for mount in mounts::CLASSIC {
        match mount.apply() {
            Ok(()) | Err(libc::EBUSY | libc::ENODEV | libc::ENOENT) => {}
            Err(errno) => {
                return Err(Error::os("mount", errno).about(mount.target.to_bytes()));
            }
        }
    }
    Ok(())
}

/// `dmesg`: the kernel's lines without their priorities.
pub(super) fn dmesg() -> Result<Vec<u8>, Error> {
    let log = system::kernel_log().map_err(|errno| Error::os("read the kernel log", errno))?;
    let mut text = Vec::with_capacity(log.len());
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(without_priority(line));
    }
    Ok(text)
}

/// A line without the `<6>` in front.
fn without_priority(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"<") else {
        return line;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.get(digits) {
        Some(b'>') if digits > 0 => &rest[digits + 1..],
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C-021: lines start with their time.
    #[test]
    fn priorities_are_taken_off() {
        assert_eq!(without_priority(b"<6>[    0.1] a\n"), b"[    0.1] a\n");
        assert_eq!(without_priority(b"<12>[    0.1] a"), b"[    0.1] a");
        assert_eq!(without_priority(b"<x>a"), b"<x>a");
        assert_eq!(without_priority(b"<6"), b"<6");
        assert_eq!(without_priority(b"plain"), b"plain");
    }
}
