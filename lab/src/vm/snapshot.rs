//! Snapshots of one VM: taking them, going back, and forking (lua-api L-054, L-055, L-079..L-083, L-203..L-206,
//! L-250).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use provium_protocol::{Amount, ops};
use provium_vmm::snapshot::{Extent, Fresh, Image, SaveTo};
use provium_vmm::{BootFiles, Machine, MachineConfig};

use super::boot::{Booting, Greeting, Plan, handshake};
use super::instance::{Instance, Moment};
use super::record::Record;
use super::{Vm, VmCore};
use crate::error::{Error, Reason, Result};
use crate::lab::Lab;
use crate::session::Site;
use crate::state::{Need, VmState};
use crate::wait::{Pending, lock};

/// A VM at one instant (L-203). Clones are the same snapshot.
#[derive(Clone)]
pub struct Snapshot {
    image: Arc<Image>,
    path: PathBuf,
    /// Of what it was taken, where that is known in this process.
    origin: Option<Arc<Origin>>,
}

/// Ties a snapshot to the VM that it was taken of.
pub(crate) struct Origin {
    vm: u64,
    instance: Weak<Instance>,
    moment: Moment,
    console_cursor: u64,
}

impl Snapshot {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that it takes on disk; 0 if it is gone.
    #[must_use]
    pub fn size(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.path.metadata().map_or(0, |meta| meta.blocks() * 512)
    }

    /// Removes the file; again is nothing. VMs that go on from it are not concerned.
    pub fn delete(&self) {
        // It may be gone already.
        let _gone = fs::remove_file(&self.path);
    }

    /// The snapshot that this one is of use only together with.
    #[must_use]
    pub fn base(&self) -> Option<&Path> {
        self.image.base()?.path()
    }

    /// The VM's memory in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.image.memory()
    }

    /// What a VM that goes on from it takes of the pool (C-066).
    fn needs(&self) -> Amount {
        Amount {
            memory_bytes: self.image.memory(),
            cpus: self.image.cpus(),
        }
    }

    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }
}

/// What a VM goes back to.
#[derive(Clone)]
pub enum RestoreFrom {
    /// A snapshot taken by this process.
    Snapshot(Snapshot),
    /// A snapshot file.
    Path(PathBuf),
}

/// Something open that a snapshot could not hold (L-206).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offender {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    pub(crate) site: Option<Site>,
    /// The test that opened it; none for the file's own code.
    pub(crate) test: Option<Arc<str>>,
}

impl std::fmt::Display for Offender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.kind, self.detail)?;
        if let Some(site) = &self.site {
            write!(f, " at {}:{}", site.file, site.line)?;
        }
        match &self.test {
            Some(test) => write!(f, " in test {test:?}"),
            None => Ok(()),
        }
    }
}

impl Vm {
    /// Saves it: memory, vCPUs, devices, clock, console log. Without `path` into a file that vanishes with the test
    /// file, which holds no more than what changed if the VM goes on from a snapshot. Refused while streams of it are
    /// live or operations under way (L-079, L-206).
    pub fn snapshot(&self, path: Option<&Path>) -> Result<Snapshot> {
        self.start_snapshot(path, None).wait()
    }

    /// As [`Vm::snapshot`], but holding only what changed since `base`, from which the VM must go on. It is of use
    /// only together with that.
    pub fn snapshot_since(&self, path: Option<&Path>, base: RestoreFrom) -> Result<Snapshot> {
        self.start_snapshot(path, Some(base)).wait()
    }

    /// Starts [`Vm::snapshot`] or [`Vm::snapshot_since`].
    pub fn start_snapshot(
        &self,
        path: Option<&Path>,
        base: Option<RestoreFrom>,
    ) -> Pending<Snapshot> {
        let call = "vm:snapshot";
        let (core, path) = (self.core().clone(), path.map(Path::to_owned));
        let world = core.session.world().clone();
        Pending::new(&world, call, core.resource(), async move {
            core.check(call, Need::Up)?;
            refuse_offenders(call, &core.session, &[&core])?;
            let base = base
                .map(|base| core.find_snapshot(call, base))
                .transpose()?;
            core.quiesce(call).await?;
            let saved = core.save_to(call, path.as_deref(), base.as_ref());
            core.unquiesce(call).await?;
            saved
        })
    }

    /// As [`Vm::start_snapshot`], into a file without a name: it is there as long as the result or a VM that goes on
    /// from it.
    pub fn start_nameless_snapshot(&self) -> Pending<Snapshot> {
        let call = "vm:snapshot";
        let core = self.core().clone();
        let world = core.session.world().clone();
        Pending::new(&world, call, core.resource(), async move {
            core.check(call, Need::Up)?;
            refuse_offenders(call, &core.session, &[&core])?;
            core.quiesce(call).await?;
            let saved = core.save(
                call,
                SaveTo::Nameless(&std::env::temp_dir()),
                Extent::Little,
            );
            core.unquiesce(call).await?;
            saved.map(|snapshot| Snapshot {
                // Other sessions use it.
                origin: None,
                ..snapshot
            })
        })
    }

    /// Goes on from a snapshot, its own or that of another VM (L-080).
    pub fn restore(&self, from: RestoreFrom) -> Result<()> {
        self.start_restore(from).wait()
    }

    /// Starts [`Vm::restore`].
    pub fn start_restore(&self, from: RestoreFrom) -> Pending<()> {
        let call = "vm:restore";
        let core = self.core().clone();
        let world = core.session.world().clone();
        Pending::new(&world, call, core.resource(), async move {
            let snapshot = core.find_snapshot(call, from)?;
            restore(&core, call, &snapshot, Fresh::default()).await
        })
    }

    /// Forks it, running, into a new VM of `lab`: memory is shared until one of both writes it. The fork's entropy
    /// device starts a stream of its own.
    pub fn fork(&self, lab: &Lab, name: Option<&str>) -> Result<Vm> {
        self.start_fork(lab, name).wait()
    }

    /// Starts [`Vm::fork`].
    pub fn start_fork(&self, lab: &Lab, name: Option<&str>) -> Pending<Vm> {
        let call = "vm:clone";
        let (core, lab, name) = (self.core().clone(), lab.clone(), name.map(str::to_owned));
        let world = core.session.world().clone();
        Pending::new(&world, call, core.resource(), async move {
            core.check(call, Need::Up)?;
            refuse_offenders(call, &core.session, &[&core])?;
            core.quiesce(call).await?;
            let dir = core.session.temp_dir();
            let saved = dir
                .map_err(|reason| core.error(call, reason))
                .and_then(|dir| core.save(call, SaveTo::Nameless(&dir), Extent::Little));
            core.unquiesce(call).await?;
            let mut snapshot = saved?;
            // Somebody else's handles are not the fork's.
            snapshot.origin = None;
            let options = core.instance().map(|instance| instance.options.clone());
            let fork = lab.declare_vm(
                name.as_deref(),
                core.profile_name(),
                options.unwrap_or_default(),
            )?;
            let fresh = Fresh {
                rng_seed: Some(super::boot::default_seed(fork.core())),
                ..Fresh::default()
            };
            restore(fork.core(), call, &snapshot, fresh).await?;
            Ok(fork)
        })
    }
}

/// Refuses a snapshot of `vms` while something is open that it could not hold (L-206).
pub(crate) fn refuse_offenders(
    call: &'static str,
    session: &crate::session::SessionCore,
    vms: &[&Arc<VmCore>],
) -> Result<()> {
    let mut offenders = session.offenders(vms);
    for vm in vms {
        let in_flight = vm.instance().map_or(0, |instance| instance.in_flight());
        if in_flight > 0 {
            offenders.push(Offender {
                kind: "operations",
                detail: format!("{in_flight} under way on {}", vm.resource()),
                site: None,
                test: None,
            });
        }
    }
    if offenders.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = offenders.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} has live streams or operations: {}; close them (or wait for them) before {call}",
        session.file(),
        list.join(", ")
    );
    let names: Vec<String> = vms.iter().map(|vm| vm.resource()).collect();
    Err(Error::new(call, names.join(", "), Reason::Refused(text)))
}

impl VmCore {
    /// Lets the agent finish what it is about; a paused guest does nothing anyway (E-087).
    pub(crate) async fn quiesce(self: &Arc<Self>, call: &'static str) -> Result<()> {
        if self.state() != VmState::Booted {
            return Ok(());
        }
        let connection = self.connection(call).await?;
        connection
            .request(call, &self.resource(), &ops::Quiesce {})
            .await
    }

    /// Ends [`VmCore::quiesce`].
    pub(crate) async fn unquiesce(self: &Arc<Self>, call: &'static str) -> Result<()> {
        if self.state() != VmState::Booted {
            return Ok(());
        }
        let connection = self.connection(call).await?;
        connection
            .request(call, &self.resource(), &ops::Unquiesce {})
            .await
    }

    /// Writes the image of a VM that is quiet to `path`, or into a file that vanishes with the session.
    fn save_to(
        self: &Arc<Self>,
        call: &'static str,
        path: Option<&Path>,
        base: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        let temporary;
        let (to, extent) = match path {
            Some(path) => {
                let passing = base.and_then(|base| self.passing(base));
                if let Some(why) = passing {
                    return Err(self.error(call, Reason::Refused(why)));
                }
                (SaveTo::Durable(path), Extent::Whole)
            }
            None => {
                let path = self.session.temp_path(&self.name, "snap");
                temporary = path.map_err(|reason| self.error(call, reason))?;
                (SaveTo::Scratch(&temporary), self.session.temp_extent())
            }
        };
        let extent = base.map_or(extent, |base| Extent::Since(&base.image));
        self.save(call, to, extent)
    }

    /// Why nothing lasting can build on `base`: what it leads to is somebody's to remove.
    fn passing(&self, base: &Snapshot) -> Option<String> {
        let whole = base.image.base().unwrap_or(&base.image);
        let path = whole.path()?;
        let temporary = self.session.is_temporary(path);
        let cached = path.starts_with(&self.session.harness().config().cache_dir);
        let what = match (temporary, cached) {
            (true, _) => "ends with the file",
            (_, true) => "is an entry of the cache, which may be dropped",
            _ => return None,
        };
        Some(format!(
            "a snapshot that lasts cannot build on {}, which {what}; take a whole one with a path first and name that",
            path.display()
        ))
    }

    /// Writes the image of a VM that is quiet.
    fn save(
        self: &Arc<Self>,
        call: &'static str,
        to: SaveTo<'_>,
        extent: Extent<'_>,
    ) -> Result<Snapshot> {
        self.save_as(call, to, extent, self.state())
    }

    /// The same for one whose state is to be recorded as `state`.
    pub(crate) fn save_as(
        self: &Arc<Self>,
        call: &'static str,
        to: SaveTo<'_>,
        extent: Extent<'_>,
        state: VmState,
    ) -> Result<Snapshot> {
        let instance = self.live(call)?;
        let machine = self.up_machine(call)?;
        let agent = lock(&instance.agent).clone();
        let (name, profile) = (&self.name, self.profile_name());
        let owner = Record::encode(name, profile, state, agent, &instance.options)
            .map_err(|error| self.error(call, Reason::Refused(error.to_string())))?;
        let image = machine
            .save(to, extent, &owner)
            .map_err(|error| self.error(call, Reason::Machine(error)))?;
        let origin = Arc::new(Origin {
            vm: self.id,
            instance: Arc::downgrade(&instance),
            moment: instance.moment(),
            console_cursor: *lock(&self.console_cursor),
        });
        let path = match to {
            SaveTo::Durable(path) => {
                self.session.harness().images().add(&image);
                path.to_owned()
            }
            SaveTo::Scratch(path) => path.to_owned(),
            SaveTo::Nameless(dir) => dir.to_owned(),
        };
        let snapshot = Snapshot {
            image,
            path,
            origin: Some(origin),
        };
        if !matches!(to, SaveTo::Nameless(_)) {
            self.session.note_snapshot(&snapshot);
        }
        Ok(snapshot)
    }

    fn find_snapshot(&self, call: &'static str, from: RestoreFrom) -> Result<Snapshot> {
        match from {
            RestoreFrom::Snapshot(snapshot) => Ok(snapshot),
            RestoreFrom::Path(path) => self
                .session
                .open_snapshot(&path)
                .map_err(|reason| self.error(call, reason)),
        }
    }
}

impl crate::session::SessionCore {
    /// The snapshot at `path`; one that this session has taken is recognised, and with it the handles of then.
    pub(crate) fn open_snapshot(&self, path: &Path) -> Result<Snapshot, Reason> {
        if let Some(known) = self.known_snapshot(path) {
            return Ok(known);
        }
        let image = self
            .harness()
            .images()
            .open(path)
            .map_err(|error| Reason::Machine(error.into()))?;
        Ok(Snapshot {
            image,
            path: path.to_owned(),
            origin: None,
        })
    }
}

impl Snapshot {
    /// What it says about its VM.
    pub(crate) fn record(&self) -> Result<(Record, super::BootOptions), Reason> {
        Record::decode(self.image.owner()).ok_or_else(|| {
            Reason::Refused(format!(
                "{}: a snapshot, but not one of a VM that this Provium has taken",
                self.path.display()
            ))
        })
    }
}

/// A VM whose machine was put back to a snapshot and stands still there.
pub(crate) struct Standing {
    core: Arc<VmCore>,
    call: &'static str,
    instance: Arc<Instance>,
    /// The agent is to keep the handles of before.
    resume: bool,
    /// It was down: it counts as booting until its agent has answered.
    booting: Option<Booting>,
    /// What it takes of the pool.
    needs: Amount,
}

/// Brings `core`, which is down, up from `snapshot`.
async fn restore(
    core: &Arc<VmCore>,
    call: &'static str,
    snapshot: &Snapshot,
    fresh: Fresh,
) -> Result<()> {
    put_back(core, call, snapshot, fresh)?.wake().await
}

/// Gives `core`, which is down, a machine that stands at `snapshot`.
fn put_back(
    core: &Arc<VmCore>,
    call: &'static str,
    snapshot: &Snapshot,
    fresh: Fresh,
) -> Result<Standing> {
    let (record, options) = snapshot
        .record()
        .map_err(|reason| core.error(call, reason))?;
    core.begin_boot(call)?;
    let booting = Booting(core.clone());
    let timeout = core.boot_timeout(&options);
    let harness = core.session.harness();
    let mut config = MachineConfig::new(&core.name, harness.backend(), PathBuf::new());
    let cid = harness.new_cid();
    config.cid = cid.into();
    config.bell = Some(core.session.world().bell().clone());
    config.mergeable = harness.merges_memory();
    config.boot_later = Some(boot_later(core, options.clone()));
    let machine = Machine::restore(config, &snapshot.image, fresh)
        .map_err(|error| core.error(call, Reason::Machine(error)))?;
    let origin = snapshot.origin.as_ref().filter(|o| o.vm == core.id);
    let known = origin.and_then(|o| Some((o.instance.upgrade()?, o)));
    let (instance, resume, cursor) = match known {
        Some((instance, origin)) => {
            instance.revive(machine, cid, &origin.moment);
            (instance, true, origin.console_cursor)
        }
        None => {
            let name = &core.name;
            let instance = Instance::new(&core.session, name, cid, machine, options, timeout);
            lock(&instance.agent).clone_from(&record.agent);
            (instance, false, 0)
        }
    };
    core.set_instance(&instance);
    *lock(&core.console_cursor) = cursor;
    Ok(Standing {
        core: core.clone(),
        call,
        instance,
        resume,
        booting: Some(booting),
        needs: snapshot.needs(),
    })
}

/// Puts `core` back to `snapshot` whatever it is doing: in place if its machine comes from there.
pub(crate) fn rewind(
    core: &Arc<VmCore>,
    call: &'static str,
    snapshot: &Snapshot,
) -> Result<Standing> {
    let own = snapshot.origin.as_ref().filter(|o| o.vm == core.id);
    let there = core
        .instance()
        .filter(|_| matches!(core.state(), VmState::Booted | VmState::Paused))
        .and_then(|instance| Some((instance.machine()?, instance)));
    if let (Some(origin), Some((machine, instance))) = (own, there)
        && std::ptr::eq(origin.instance.as_ptr(), Arc::as_ptr(&instance))
    {
        instance.back_to(&origin.moment);
        let rewound = machine.rewind(&snapshot.image, Fresh::default());
        rewound.map_err(|error| core.error(call, Reason::Machine(error)))?;
        *lock(&core.console_cursor) = origin.console_cursor;
        return Ok(Standing {
            core: core.clone(),
            call,
            instance,
            resume: true,
            booting: None,
            needs: snapshot.needs(),
        });
    }
    core.put_down();
    core.make_bootable();
    put_back(core, call, snapshot, Fresh::default())
}

impl Standing {
    /// Lets it run, and finds its agent again.
    pub(crate) async fn wake(self) -> Result<()> {
        let (core, call, instance) = (&self.core, self.call, &self.instance);
        let machine = core.up_machine_of(call, instance)?;
        if !instance.is_charged() {
            let session = &core.session;
            let charge =
                session
                    .share()
                    .charge(session.world(), self.needs, session.tell_waiting());
            match charge.await {
                Ok(charge) => instance.hold(charge),
                Err(error) => {
                    core.put_down();
                    return Err(core.error(call, Reason::Pool(error)));
                }
            }
        }
        machine
            .resume()
            .map_err(|error| core.error(call, Reason::Machine(error)))?;
        core.session.world().notify();
        let timeout = instance.boot_timeout;
        let greeting = Greeting {
            resume: self.resume,
            ..Greeting::default()
        };
        match handshake(core, instance, &greeting, timeout).await {
            Ok(()) => {
                if self.booting.is_some() {
                    instance.spawned(core.profile_name(), self.needs.memory_bytes);
                }
                Ok(())
            }
            Err(cause) => {
                instance.die(&format!("restore failed: {cause}"));
                let console = instance.console_tail();
                Err(core.error(call, Reason::BootFailed { cause, console }))
            }
        }
    }
}

/// How to boot it anew, should it be reset: its profile as it is then, with the options of its first boot.
pub(super) fn boot_later(
    core: &Arc<VmCore>,
    options: super::BootOptions,
) -> provium_vmm::BootLater {
    let core = Arc::downgrade(core);
    Arc::new(move || {
        let core = core.upgrade().ok_or("its VM is gone")?;
        let plan = Plan::make(&core, &options).map_err(|reason| reason.to_string())?;
        Ok(BootFiles {
            kernel: plan.config.kernel,
            initrd: plan.config.initrd,
            cmdline: plan.config.cmdline,
        })
    })
}
