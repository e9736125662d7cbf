//! A virtual machine as a test author holds it: its state, its life, its console (lua-api section 5).

mod boot;
mod cmdline;
mod connection;
mod console;
mod initrd;
mod instance;
mod options;
mod power;
mod record;
mod since;
mod slot;
mod snapshot;
mod warm;
mod watch;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use provium_vmm::{Machine, MachineState};

pub(crate) use connection::{Connection, guest_failure};
pub use console::{Console, ConsoleStream};
pub(crate) use instance::Instance;
pub use options::{BootOptions, FileContent, InjectedFile};
pub(crate) use since::Since;
pub(crate) use snapshot::{Offender, Standing, refuse_offenders, rewind};
pub use snapshot::{RestoreFrom, Snapshot};

use crate::config::Profile;
use crate::error::{Error, Reason, Result};
use crate::ops::Guest;
use crate::session::SessionCore;
use crate::state::{Need, VmState};
use crate::wait::lock;

/// A VM. Clones are the same VM. Every guest operation of [`Guest`] works on it (L-056).
#[derive(Clone)]
pub struct Vm {
    core: Arc<VmCore>,
    guest: Guest,
}

pub(crate) struct VmCore {
    id: u64,
    name: String,
    profile: Profile,
    pub(crate) session: Arc<SessionCore>,
    slot: Mutex<Slot>,
    /// Console bytes that streams have delivered (L-146).
    console_cursor: Mutex<u64>,
}

#[derive(Default)]
struct Slot {
    staged: BootOptions,
    booting: bool,
    /// Put down before it ever booted.
    closed: bool,
    /// The latest boot, also after its end.
    instance: Option<Arc<Instance>>,
}

impl Vm {
    pub(crate) fn declare(
        session: &Arc<SessionCore>,
        name: String,
        profile: Profile,
        staged: BootOptions,
    ) -> Self {
        let core = Arc::new(VmCore {
            id: session.harness().new_id(),
            name,
            profile,
            session: session.clone(),
            slot: Mutex::new(Slot {
                staged,
                ..Slot::default()
            }),
            console_cursor: Mutex::new(0),
        });
        Self {
            guest: Guest::of_vm(&core),
            core,
        }
    }

    /// Its name (L-116).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Name of its profile (L-116).
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.core.profile.name
    }

    /// Its state (L-116).
    #[must_use]
    pub fn state(&self) -> VmState {
        self.core.state()
    }

    /// Whether its latest boot went on from the state of an earlier one; none before the first boot.
    #[must_use]
    pub fn is_warm(&self) -> Option<bool> {
        let instance = self.core.instance()?;
        Some(instance.warm.load(std::sync::atomic::Ordering::Acquire))
    }

    /// A number unique in the run (L-005).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// Its vsock context id; none before the first boot (L-117).
    #[must_use]
    pub fn cid(&self) -> Option<u32> {
        self.core.instance().map(|instance| instance.cid())
    }

    /// The guest operations, for code that serves VMs and workers alike.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// No operation in flight, no open file, no live stream (L-118).
    #[must_use]
    pub fn is_quiescent(&self) -> bool {
        self.core
            .instance()
            .is_none_or(|instance| instance.is_quiescent())
    }

    /// Open File handles (L-119).
    #[must_use]
    pub fn open_file_count(&self) -> usize {
        self.core
            .instance()
            .map_or(0, |instance| instance.open_files())
    }

    /// Live streams (L-119).
    #[must_use]
    pub fn open_stream_count(&self) -> usize {
        self.core
            .instance()
            .map_or(0, |instance| instance.open_streams())
    }

    /// Reads guest-physical memory through the machine, also while paused (L-238).
    pub fn phys_read(&self, addr: u64, len: usize) -> Result<Vec<u8>> {
        let machine = self.core.up_machine("vm:phys_read")?;
        machine
            .phys_read(addr, len)
            .map_err(|error| self.core.error("vm:phys_read", Reason::Machine(error)))
    }

    /// Writes guest-physical memory through the machine, also while paused (L-238).
    pub fn phys_write(&self, addr: u64, data: &[u8]) -> Result<()> {
        let machine = self.core.up_machine("vm:phys_write")?;
        machine
            .phys_write(addr, data)
            .map_err(|error| self.core.error("vm:phys_write", Reason::Machine(error)))
    }

    /// The machine itself while it is up, for reports: where its vCPUs stand, its counters.
    #[must_use]
    pub fn machine(&self) -> Option<Arc<Machine>> {
        self.core.instance()?.machine()
    }

    pub(crate) fn is(&self, core: &Arc<VmCore>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    pub(crate) fn core(&self) -> &Arc<VmCore> {
        &self.core
    }
}

impl Deref for Vm {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl PartialEq for Vm {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl Eq for Vm {}

impl VmCore {
    pub(crate) fn resource(&self) -> String {
        format!("vm {}", self.name)
    }

    pub(crate) fn error(&self, call: &'static str, reason: impl Into<Reason>) -> Error {
        Error::new(call, self.resource(), reason)
    }

    pub(crate) fn state(&self) -> VmState {
        let slot = lock(&self.slot);
        match &slot.instance {
            // A boot that has not finished yet still counts as the state before it.
            Some(_) if slot.booting => VmState::Shutdown,
            None if slot.closed => VmState::Shutdown,
            None => VmState::Created,
            Some(instance) => instance.state(),
        }
    }

    pub(crate) fn check(&self, call: &'static str, need: Need) -> Result<()> {
        self.state()
            .check(need)
            .map_err(|reason| self.error(call, reason))
    }

    pub(crate) fn instance(&self) -> Option<Arc<Instance>> {
        lock(&self.slot).instance.clone()
    }

    /// The instance that is up now.
    fn live(&self, call: &'static str) -> Result<Arc<Instance>> {
        self.instance().ok_or_else(|| {
            let refused = VmState::Created.check(Need::Booted);
            self.error(
                call,
                refused
                    .err()
                    .unwrap_or_else(|| Reason::Refused("it is not up".into())),
            )
        })
    }

    fn up_machine(&self, call: &'static str) -> Result<Arc<Machine>> {
        self.check(call, Need::Up)?;
        let machine = self.live(call)?.machine();
        machine.ok_or_else(|| self.error(call, Reason::Refused("the machine is gone".into())))
    }

    fn up_machine_of(&self, call: &'static str, instance: &Instance) -> Result<Arc<Machine>> {
        let machine = instance.machine();
        machine.ok_or_else(|| self.error(call, Reason::Refused("the machine is gone".into())))
    }

    /// Back to `created`, as at the snapshot of its lab (L-012, L-042).
    pub(crate) fn forget(&self) {
        self.put_down();
        let mut slot = lock(&self.slot);
        slot.instance = None;
        slot.closed = false;
    }

    /// Lets a VM that was put down in whatever state be brought up again, by a restore of its lab (L-042).
    pub(crate) fn make_bootable(&self) {
        if self.state() == VmState::Dead {
            let mut slot = lock(&self.slot);
            slot.instance = None;
            slot.closed = true;
        }
    }

    /// Its machine, if the guest can run.
    pub(crate) fn running_machine(&self) -> Option<Arc<Machine>> {
        let machine = self.instance()?.machine()?;
        (machine.state() == MachineState::Running).then_some(machine)
    }

    /// A connection to its main agent (L-056).
    pub(crate) async fn connection(self: &Arc<Self>, call: &'static str) -> Result<Connection> {
        let instance = self.live(call)?;
        Connection::main(&instance, call, &self.resource()).await
    }

    /// Declares it dead: `cause` is what pending operations tell (L-061).
    pub(crate) fn die(&self, cause: &str) {
        if let Some(instance) = self.instance() {
            instance.die(cause);
        }
    }
}

/// Directory in which relative paths of boot options start (L-007).
pub(crate) fn host_path(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
