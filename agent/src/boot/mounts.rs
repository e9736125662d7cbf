//! Pseudo file systems and where they go.

use std::ffi::CStr;

use crate::sys::{Sys, file, mount};

/// A file system to mount.
pub(crate) struct Mount {
    source: &'static CStr,
    pub(crate) target: &'static CStr,
    kind: &'static CStr,
    flags: u64,
    data: &'static CStr,
}

const SAFE: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

const fn mount(
    kind: &'static CStr,
    target: &'static CStr,
    flags: u64,
    data: &'static CStr,
) -> Mount {
    Mount {
        source: kind,
        target,
        kind,
        flags,
        data,
    }
}

const PROC: Mount = mount(c"proc", c"/proc", SAFE, c"");
const SYS: Mount = mount(c"sysfs", c"/sys", SAFE, c"");
const DEV: Mount = mount(c"devtmpfs", c"/dev", libc::MS_NOSUID, c"mode=0755");
const SECURITY: Mount = mount(c"securityfs", c"/sys/kernel/security", SAFE, c"");

/// What a guest gets at boot.
pub(crate) const BOOT: &[Mount] = &[
    PROC,
    SYS,
    DEV,
    mount(
        c"devpts",
        c"/dev/pts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        c"mode=0620,gid=5,ptmxmode=0666",
    ),
    mount(
        c"tmpfs",
        c"/dev/shm",
        libc::MS_NOSUID | libc::MS_NODEV,
        c"mode=1777",
    ),
    mount(
        c"tmpfs",
        c"/run",
        libc::MS_NOSUID | libc::MS_NODEV,
        c"mode=0755",
    ),
    mount(
        c"tmpfs",
        c"/tmp",
        libc::MS_NOSUID | libc::MS_NODEV,
        c"mode=1777",
    ),
    SECURITY,
];

/// What `mount_vfs` promises (C-022).
pub(crate) const CLASSIC: &[Mount] = &[PROC, SYS, SECURITY, DEV];

impl Mount {
    /// Mounts it, making its directory if that is missing.
    pub(crate) fn apply(&self) -> Sys<()> {
        let mount = || mount::mount(self.source, self.target, self.kind, self.flags, self.data);
        match mount() {
            Err(libc::ENOENT) => {
                file::mkdir(self.target.to_bytes(), 0o755)?;
                mount()
            }
            other => other,
        }
    }
}
