//! Drivers of the machine's devices, where the image has them as modules.
//!
//! The bus driver comes first; then the bus tells which devices there are, and only their drivers
//! are loaded. What is built into the kernel, or missing, is fine.

use std::sync::OnceLock;

use provium_protocol::errno::describe;

use crate::log;
use crate::sys::{file, system};

/// Drivers that find devices, and those that no bus reports.
const ALWAYS: [&str; 2] = ["virtio_mmio", "button"];

/// Drivers by the number of a virtio device.
const BY_DEVICE: [(u32, &str); 5] = [
    (1, "virtio_net"),
    (2, "virtio_blk"),
    (3, "virtio_console"),
    (4, "virtio_rng"),
    (VSOCK, "vmw_vsock_virtio_transport"),
];

/// Number of the vsock device.
const VSOCK: u32 = 19;

const DEVICES: &[u8] = b"/sys/bus/virtio/devices";

/// Dependencies of the drivers, for images that have modules but no `modules.dep`. The last of a
/// line is loaded first. Which of `virtio` and `virtio_ring` needs the other depends on the kernel,
/// so one of them gets two tries.
const KNOWN: &str = "\
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/acpi/button.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/char/hw_random/rng-core.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko: kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko kernel/net/vmw_vsock/vsock.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
";

/// Loads what this machine needs at boot.
pub(super) fn load_at_boot() {
    ALWAYS.iter().for_each(|name| load(name));
    load_for_devices();
}

/// Loads drivers for devices that have none yet.
pub(crate) fn load_for_devices() {
    for (device, number) in devices() {
        let driver = [DEVICES, b"/", device.as_slice(), b"/driver"].concat();
        if let Some((_, name)) = BY_DEVICE.iter().find(|(known, _)| *known == number)
            && file::stat(&driver, false).is_err()
        {
            load(name);
        }
    }
}

/// Whether there is a vsock device with a driver.
pub(crate) fn has_vsock() -> bool {
    devices().into_iter().any(|(device, number)| {
        let driver = [DEVICES, b"/", device.as_slice(), b"/driver"].concat();
        number == VSOCK && file::stat(&driver, false).is_ok()
    })
}

/// Names and numbers of the devices on the virtio bus.
fn devices() -> Vec<(Vec<u8>, u32)> {
    let names = file::list(DEVICES).unwrap_or_default();
    let number = |name: &[u8]| {
        let text = file::contents(&[DEVICES, b"/", name, b"/device"].concat()).ok()?;
        let hex = std::str::from_utf8(text.trim_ascii())
            .ok()?
            .strip_prefix("0x")?;
        u32::from_str_radix(hex, 16).ok()
    };
    names
        .into_iter()
        .filter_map(|(name, _)| number(&name).map(|number| (name, number)))
        .collect()
}

/// Loads a module after those it needs. One that the image lacks is built in or not wanted.
fn load(name: &str) {
    let (directory, known) = known_modules();
    for path in order(known, name) {
        let full = [directory.as_bytes(), path].concat();
        let result = system::load_module(&full, !path.ends_with(b".ko"));
        // What it needs may fail in one order and not in the other; the driver itself tells.
        if let Err(errno) = result
            && same_name(path, name)
        {
            let path = String::from_utf8_lossy(&full);
            log(&format!("module {path}: {}", describe(errno)));
        }
    }
}

/// Where modules are, and the lines of `modules.dep` about the drivers above. Read once.
fn known_modules() -> &'static (String, Vec<u8>) {
    static MODULES: OnceLock<(String, Vec<u8>)> = OnceLock::new();
    MODULES.get_or_init(|| {
        let release = String::from_utf8_lossy(&system::kernel_release()).into_owned();
        let directory = format!("/lib/modules/{release}/");
        let text = file::contents(format!("{directory}modules.dep").as_bytes());
        let known = text.map_or_else(|_| KNOWN.as_bytes().to_vec(), |text| relevant(&text));
        (directory, known)
    })
}

/// The lines about drivers that we may want: the file of a whole distribution is large.
fn relevant(text: &[u8]) -> Vec<u8> {
    let wanted = |line: &&[u8]| {
        let module = module_of(line);
        let mut names = ALWAYS.iter().chain(BY_DEVICE.iter().map(|(_, name)| name));
        names.any(|name| same_name(module, name))
    };
    text.split_inclusive(|byte| *byte == b'\n')
        .filter(wanted)
        .collect::<Vec<_>>()
        .concat()
}

/// The module that a line is about: what stands before the colon.
fn module_of(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b':').next().unwrap_or_default()
}

/// Whether a path is that of a module; `-` and `_` are the same in names of modules.
fn same_name(path: &[u8], name: &str) -> bool {
    let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Some((stem, rest)) = file.split_at_checked(name.len()) else {
        return false;
    };
    let same = |(a, b): (&u8, u8)| *a == b || (*a == b'-' && b == b'_');
    rest.starts_with(b".ko") && stem.iter().zip(name.bytes()).all(same)
}

/// Paths of a module and what it needs, in the order in which they are loaded.
fn order<'a>(known: &'a [u8], name: &str) -> Vec<&'a [u8]> {
    let mut lines = known.split(|byte| *byte == b'\n');
    let Some(line) = lines.find(|line| same_name(module_of(line), name)) else {
        return Vec::new();
    };
    let module = module_of(line);
    let needs = line[module.len()..].split(|byte| *byte == b':' || byte.is_ascii_whitespace());
    let mut paths: Vec<&[u8]> = needs.filter(|path| !path.is_empty()).collect();
    paths.reverse();
    paths.push(module);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let text = b"kernel/a/virtio-rng.ko.xz: kernel/a/rng-core.ko.xz kernel/b/virtio.ko.xz\n\
            kernel/x/other.ko:\nkernel/v/virtio_mmio.ko:\n";
        let known = relevant(text);
        assert!(!known.windows(5).any(|part| part == b"other"));
        let expected: [&[u8]; 3] = [
            b"kernel/b/virtio.ko.xz",
            b"kernel/a/rng-core.ko.xz",
            b"kernel/a/virtio-rng.ko.xz",
        ];
        assert_eq!(order(&known, "virtio_rng"), expected);
        assert_eq!(order(&known, "virtio_mmio"), [b"kernel/v/virtio_mmio.ko"]);
        assert!(order(&known, "virtio").is_empty());
        assert!(order(&known, "virtio_blk").is_empty());
    }

    #[test]
    fn every_driver_has_known_dependencies() {
        for name in ALWAYS.iter().chain(BY_DEVICE.iter().map(|(_, name)| name)) {
            assert!(!order(KNOWN.as_bytes(), name).is_empty(), "{name}");
        }
    }
}
