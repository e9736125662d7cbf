//! Guests whose root is a disk: the agent is then the whole initial RAM disk.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

use provium_protocol::errno::describe;

use super::cmdline::Cmdline;
use crate::sys::{Errno, c_string, file, mount, time};

/// Where the disk is mounted before it becomes the root.
const NEW_ROOT: &CStr = c"/provium-root";

/// What moves along into the new root, and where the disk has no place for it, stays behind.
const MOVED: [(&CStr, &CStr); 5] = [
    (c"/proc", c"/provium-root/proc"),
    (c"/sys", c"/provium-root/sys"),
    (c"/dev", c"/provium-root/dev"),
    (c"/run", c"/provium-root/run"),
    (c"/tmp", c"/provium-root/tmp"),
];

/// How long the disk may take to appear.
const WAIT_NS: u64 = 5_000_000_000;
const AGAIN_NS: u64 = 10_000_000;

/// Mounts the disk of `root=` and makes it our root. False if there is no such word.
pub(super) fn enter(cmdline: &Cmdline) -> Result<bool, String> {
    let Some(device) = cmdline.get(b"root") else {
        return Ok(false);
    };
    let shown = String::from_utf8_lossy(device).into_owned();
    let device = c_string(device).map_err(|errno| format!("root={shown}: {}", describe(errno)))?;
    wait_for(&device);
    mount_disk(cmdline, &device).map_err(|errno| format!("root={shown}: {}", describe(errno)))?;
    switch().map_err(|errno| format!("entering root={shown}: {}", describe(errno)))?;
    Ok(true)
}

fn wait_for(device: &CStr) {
    let until = time::monotonic() + WAIT_NS;
    while file::stat(device.to_bytes(), true).is_err() && time::monotonic() < until {
        time::sleep(AGAIN_NS);
    }
}

fn mount_disk(cmdline: &Cmdline, device: &CStr) -> Result<(), Errno> {
    match file::mkdir(NEW_ROOT.to_bytes(), 0o755) {
        Ok(()) | Err(libc::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = if cmdline.has(b"rw") {
        0
    } else {
        libc::MS_RDONLY
    };
    let options = c_string(cmdline.get(b"rootflags").unwrap_or_default())?;
    let kinds = match cmdline.get(b"rootfstype") {
        Some(kinds) => kinds
            .split(|byte| *byte == b',')
            .map(c_string)
            .collect::<Result<_, _>>()?,
        None => disk_types(),
    };
    let mut result = libc::ENODEV;
    for kind in kinds {
        match mount::mount(device, NEW_ROOT, &kind, flags, &options) {
            Ok(()) => return Ok(()),
            // Not of this type, or a type that the kernel lacks.
            Err(libc::EINVAL | libc::ENODEV) => {}
            Err(errno) => result = errno,
        }
    }
    Err(result)
}

/// The types of disks that the kernel knows.
fn disk_types() -> Vec<CString> {
    let text = file::contents(b"/proc/filesystems").unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    let disks = lines.filter(|line| !line.is_empty() && !line.starts_with(b"nodev"));
    disks
        .filter_map(|line| c_string(line.trim_ascii()).ok())
        .collect()
}

fn switch() -> Result<(), Errno> {
    for (from, to) in MOVED {
        // A disk without the directory keeps the mount hidden, which harms nobody.
        let _ = mount::move_mount(from, to);
    }
    let root = file::open(NEW_ROOT.to_bytes(), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    file::change_dir(NEW_ROOT)?;
    mount::move_mount(c".", c"/")?;
    file::enter_root(root.as_raw_fd())
}
