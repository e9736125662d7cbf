//! The serial port as a plain byte link.

use std::os::fd::IntoRawFd;

use super::fd::Fd;
use super::{Sys, check, file};

/// Opens a serial port raw: no echo, no translation, no modem lines, never our controlling
/// terminal, never waiting.
pub(crate) fn open_raw(path: &[u8]) -> Sys<Fd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let tty = Fd::new(file::open(path, flags, 0)?.into_raw_fd());
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid during the call.
    check(unsafe { libc::tcgetattr(tty.raw(), &raw mut settings) })?;
    // SAFETY: it only changes the structure.
    unsafe { libc::cfmakeraw(&raw mut settings) };
    settings.c_cflag &= !(libc::CBAUD | libc::CRTSCTS | libc::HUPCL);
    settings.c_cflag |= libc::B115200 | libc::CLOCAL | libc::CREAD;
    settings.c_cc[libc::VMIN] = 1;
    settings.c_cc[libc::VTIME] = 0;
    // SAFETY: the structure is valid during the call.
    check(unsafe { libc::tcsetattr(tty.raw(), libc::TCSANOW, &raw const settings) })?;
    Ok(tty)
}
