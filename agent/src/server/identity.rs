//! Who this agent is: what hello tells about it.

use provium_protocol::{HelloOk, PROTOCOL_VERSION};

use crate::sys::{file, process, system};

/// What every agent of this process says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    kernel_release: String,
    boot_id: String,
    previous_exit: Option<String>,
}

/// What this build can do, for information.
const FEATURES: [&str; 4] = ["workers", "streams", "syscall_async", "mem"];

impl Identity {
    /// Looks around.
    pub(crate) fn new() -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let boot_id = file::contents(b"/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            kernel_release: text(&system::kernel_release()),
            boot_id: text(&boot_id),
            previous_exit: None,
        }
    }

    /// That of an agent which takes the place of one that ended in this way.
    pub(crate) fn after(&self, previous_exit: Option<String>) -> Self {
        Self {
            previous_exit,
            ..self.clone()
        }
    }

    /// The answer to a hello.
    pub(crate) fn hello_ok(&self, worker: bool) -> HelloOk {
        HelloOk {
            protocol_version: PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            guest_os: "Linux".to_owned(),
            agent_features: FEATURES.map(str::to_owned).to_vec(),
            pid: process::pid(),
            kernel_release: self.kernel_release.clone(),
            boot_id: self.boot_id.clone(),
            worker,
            previous_exit: self.previous_exit.clone(),
        }
    }
}
