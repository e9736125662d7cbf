//! Booting: from a profile and options to a guest whose agent has answered (lua-api L-073, L-242;
//! cli-and-config R-079..R-084).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use provium_protocol::{Amount, ops};
use provium_vmm::{Backend, Machine, MachineConfig};
use sha2::{Digest, Sha256};

use super::cmdline::command_line;
use super::initrd::{self, Agent, Base};
use super::instance::Instance;
use super::options::BootOptions;
use super::warm::{self, Failed, Start};
use super::watch::gone_or_panicked;
use super::{Vm, VmCore};
use crate::agent::{OpenError, open};
use crate::config::Profile;
use crate::error::{Reason, Result};
use crate::events::Booted;
use crate::state::Need;
use crate::units::show_duration;
use crate::wait::{Either, Limit, Pending, both, lock};

/// Default boot timeouts (L-072).
const KVM_TIMEOUT: Duration = Duration::from_secs(30);
const SOFT_TIMEOUT: Duration = Duration::from_secs(300);

/// Wall clock of a guest whose seed is fixed: the kernel stirs the time of day into its random pool, so a boot that
/// is to be repeatable must not see the host's. The real time is set at the handshake.
const FIXED_WALL_CLOCK_NS: u64 = 1_750_000_000 * 1_000_000_000;

impl Vm {
    /// Boots it; returns when the agent has answered (L-073).
    pub fn boot(&self, options: BootOptions) -> Result<()> {
        self.start_boot(options).wait()
    }

    /// Starts [`Vm::boot`].
    pub fn start_boot(&self, options: BootOptions) -> Pending<()> {
        let call = "vm:boot";
        let core = self.core().clone();
        Pending::new(core.session.world(), call, core.resource(), {
            let core = core.clone();
            async move { boot(&core, call, options).await }
        })
    }
}

async fn boot(core: &Arc<VmCore>, call: &'static str, options: BootOptions) -> Result<()> {
    options.check().map_err(|reason| core.error(call, reason))?;
    let options = core.begin_boot(call)?.merged(options);
    let _booting = Booting(core.clone());
    let timeout = core.boot_timeout(&options);
    let since = Instant::now();
    let (why, keep) = match warm::start(core, &options).await {
        Start::Cold { why, keep } => (why, keep),
        Start::Warm(state) => match warm::resume(core, call, options.clone(), state, timeout).await
        {
            Ok(()) => {
                core.booted(Booted::Warm, since);
                return Ok(());
            }
            Err(Failed::Final(error)) => return Err(error),
            Err(Failed::Unusable(problem)) => (problem, None),
        },
    };
    cold(core, call, options, timeout).await?;
    let took = Instant::now();
    let kept = match keep {
        Some(keep) => Some(keep.keep(core, call).await.map(|()| took.elapsed())),
        None => None,
    };
    core.booted(Booted::Cold { why, kept }, since);
    Ok(())
}

/// Boots it from the start.
async fn cold(
    core: &Arc<VmCore>,
    call: &'static str,
    options: BootOptions,
    timeout: Duration,
) -> Result<()> {
    let fail = |reason| core.error(call, reason);
    let fail_pool = |error| core.error(call, Reason::Pool(error));
    let plan = Plan::make(core, &options).map_err(|reason| core.error(call, reason))?;
    let (cid, memory) = (plan.cid, plan.config.memory);
    let needs = Amount {
        memory_bytes: memory,
        cpus: plan.config.cpus,
    };
    let session = &core.session;
    let charge = session
        .share()
        .charge(session.world(), needs, session.tell_waiting());
    let charge = charge.await.map_err(fail_pool)?;
    let machine =
        Machine::start(plan.config).map_err(|error| core.error(call, Reason::Machine(error)))?;
    let instance = Instance::new(&core.session, core.name(), cid, machine, options, timeout);
    instance.hold(charge);
    core.set_instance(&instance);
    let greeting = Greeting {
        clock_ns: plan.clock_ns,
        ..Greeting::default()
    };
    match handshake(core, &instance, &greeting, timeout).await {
        Ok(()) => {
            instance.spawned(core.profile_name(), memory);
            Ok(())
        }
        Err(cause) => {
            instance.die(&format!("boot failed: {cause}"));
            let console = instance.console_tail();
            Err(fail(Reason::BootFailed { cause, console }))
        }
    }
}

/// What is agreed with an agent when it is met.
#[derive(Default)]
pub(super) struct Greeting {
    /// What the guest's clock is set to.
    pub(super) clock_ns: Option<i64>,
    /// The agent keeps the handles of before (E-047).
    pub(super) resume: bool,
    /// The guest goes on from the state of another: it is made its own, and has this boot id.
    pub(super) renew: Option<[u8; 16]>,
}

/// Waits for the agent, within `timeout` of host time (L-248); the error says what happened instead.
pub(super) async fn handshake(
    core: &Arc<VmCore>,
    instance: &Arc<Instance>,
    greeting: &Greeting,
    timeout: Duration,
) -> Result<(), String> {
    let world = core.session.world();
    let machine = instance.machine().ok_or("the machine stopped")?;
    let attempt = async {
        let (link, hello) = open(world, &machine, greeting.resume)
            .await
            .map_err(|error| match error {
                OpenError::MachineGone => None,
                error => Some(error.to_string()),
            })?;
        if greeting.renew.is_some() {
            let renewed = warm::renew(&link, greeting.renew).await;
            renewed.map_err(Some)?;
        }
        instance.adopt(&link, hello);
        if greeting.resume {
            instance.meet_workers(&machine).await;
        }
        if let Some(ns) = greeting.clock_ns {
            let set = link.request(&ops::ClockSet { ns }).await;
            set.map_err(|error| Some(format!("initial_time: {error}")))?;
        }
        Ok::<(), Option<String>>(())
    };
    let ended = both(attempt, gone_or_panicked(instance, &machine));
    let gone = || {
        instance
            .end()
            .unwrap_or_else(|| "the machine stopped".to_owned())
    };
    match both(ended, Limit::host(world, timeout)).await {
        Either::First(Either::First(Ok(()))) => Ok(()),
        Either::First(Either::First(Err(Some(cause)))) => Err(cause),
        Either::First(Either::First(Err(None))) => Err(gone()),
        Either::First(Either::Second(cause)) => Err(cause),
        Either::Second(_) => {
            let places = machine.places().map(|places| {
                places
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ")
            });
            let places =
                places.map_or(String::new(), |places| format!("; vCPUs stood at {places}"));
            Err(format!(
                "the agent did not answer within {}{places}",
                show_duration(timeout)
            ))
        }
    }
}

/// Marks a VM as booting for as long as it lives.
pub(super) struct Booting(pub(super) Arc<VmCore>);

impl Drop for Booting {
    fn drop(&mut self) {
        let abandoned = {
            let mut slot = lock(&self.0.slot);
            slot.booting = false;
            slot.instance
                .clone()
                .filter(|instance| !instance.is_spawned())
        };
        // Nobody waits for the boot any more: a half-booted machine is of no use.
        if let Some(instance) = abandoned {
            instance.die("the boot was broken off");
        }
    }
}

impl VmCore {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn profile_name(&self) -> &str {
        &self.profile.name
    }

    pub(super) fn begin_boot(&self, call: &'static str) -> Result<BootOptions> {
        self.check(call, Need::Bootable)?;
        let mut slot = lock(&self.slot);
        if std::mem::replace(&mut slot.booting, true) {
            let text = "it is being booted already".to_owned();
            return Err(self.error(call, Reason::Refused(text)));
        }
        Ok(slot.staged.clone())
    }

    pub(super) fn set_instance(&self, instance: &Arc<Instance>) {
        *lock(&self.console_cursor) = 0;
        let mut slot = lock(&self.slot);
        slot.closed = false;
        slot.instance = Some(instance.clone());
    }

    pub(super) fn boot_timeout(&self, options: &BootOptions) -> Duration {
        let default = match self.session.harness().backend() {
            Backend::Kvm => KVM_TIMEOUT,
            Backend::Soft => SOFT_TIMEOUT,
        };
        options
            .boot_timeout
            .or(self.profile.agent_boot_timeout)
            .unwrap_or(default)
    }
}

/// A machine about to be started.
pub(super) struct Plan {
    pub(super) config: MachineConfig,
    cid: u32,
    /// What the guest's clock is set to at the handshake.
    clock_ns: Option<i64>,
}

impl Plan {
    pub(super) fn make(core: &VmCore, options: &BootOptions) -> Result<Self, Reason> {
        let (profile, harness) = (&core.profile, core.session.harness());
        let guests = harness.guests();
        if let Some(problem) = profile.disk_problem() {
            return Err(Reason::Refused(problem));
        }
        let kernel = guests.kernel(&profile.kernel)?;
        require(&profile.name, "kernel", &kernel)?;
        let base = match &profile.initrd {
            Some(file) => {
                let path = guests.initrd(file)?;
                require(&profile.name, "initrd", &path)?;
                Base::open(&path)?
            }
            None => Arc::default(),
        };
        check_init(profile, &base)?;
        let initrd = initrd::parts(&base, &agent(profile), options)?;
        let mut config = MachineConfig::new(&core.name, harness.backend(), kernel);
        config.memory = options.memory.unwrap_or(profile.memory);
        config.cpus = options.cpus.unwrap_or(profile.cpus);
        config.initrd = initrd;
        config.cmdline = command_line(
            profile,
            options,
            harness.backend(),
            default_init(profile, &base),
        )?;
        let cid = harness.new_cid();
        config.cid = cid.into();
        config.bell = Some(core.session.world().bell().clone());
        config.mergeable = harness.merges_memory();
        config.rng_seed = options.rng_seed.unwrap_or_else(|| default_seed(core));
        let (wall_clock_ns, clock_ns) = clocks(options);
        config.wall_clock_ns = wall_clock_ns;
        Ok(Self {
            config,
            cid,
            clock_ns,
        })
    }
}

/// The host's wall clock, nanoseconds since the epoch.
pub(super) fn host_clock_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A host clock before 1970 or after 2262 is no time to give to a guest.
    since
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(FIXED_WALL_CLOCK_NS)
}

/// Wall clock at the machine's start, and what to set the guest's clock to at the handshake (L-068, L-069).
fn clocks(options: &BootOptions) -> (u64, Option<i64>) {
    let host_ns = host_clock_ns();
    match (options.rng_seed, options.initial_time_ns) {
        (None, None) => (host_ns, None),
        (Some(_), None) => (FIXED_WALL_CLOCK_NS, i64::try_from(host_ns).ok()),
        (_, Some(ns)) => (u64::try_from(ns).unwrap_or(FIXED_WALL_CLOCK_NS), Some(ns)),
    }
}

/// A seed for VMs without one: the same for the same VM of the same file, different between VMs.
pub(super) fn default_seed(core: &VmCore) -> u64 {
    let mut hash = Sha256::new();
    hash.update(core.session.file());
    hash.update([0]);
    hash.update(&core.name);
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// A file that a profile names must be there (L-073).
fn require(profile: &str, field: &str, path: &Path) -> Result<(), Reason> {
    match path.metadata() {
        Ok(_) => Ok(()),
        Err(error) => {
            let path = path.display();
            Err(Reason::Refused(format!(
                "profile {profile}: {field} {path}: {error}"
            )))
        }
    }
}

/// The profile's own agent, PROVIUM_OVERLAY, or the built-in one.
fn agent(profile: &Profile) -> Agent {
    let from_env = || std::env::var_os("PROVIUM_OVERLAY").map(PathBuf::from);
    if !profile.inject_agent {
        return Agent::Without;
    }
    match profile.agent_overlay_path.clone().or_else(from_env) {
        Some(path) => Agent::Archive(path),
        None => Agent::BuiltIn,
    }
}

/// An init that the profile names must be there, where that can be known before the boot.
fn check_init(profile: &Profile, base: &Base) -> Result<(), Reason> {
    match &profile.init {
        Some(init) if profile.initrd.is_some() && !base.contains(init) => {
            let text = format!("profile {}: init {init} is not in the initrd", profile.name);
            Err(Reason::Refused(text))
        }
        _ => Ok(()),
    }
}

/// What becomes PID 1 when nobody says: classic profiles look for /sbin/init first, others leave it to the agent,
/// which looks for /init first.
fn default_init(profile: &Profile, base: &Base) -> Option<&'static str> {
    (profile.classic && base.contains("/sbin/init")).then_some("/sbin/init")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l068_a_fixed_seed_fixes_the_boot_clock_and_the_handshake_sets_the_real_one() {
        let seeded = BootOptions {
            rng_seed: Some(1),
            ..BootOptions::default()
        };
        let (wall, set) = clocks(&seeded);
        assert_eq!(wall, FIXED_WALL_CLOCK_NS);
        assert!(set.is_some());
        assert_eq!(clocks(&BootOptions::default()).1, None);
    }

    #[test]
    fn l069_the_initial_time_is_set_at_the_handshake() {
        let timed = BootOptions {
            initial_time_ns: Some(5),
            ..BootOptions::default()
        };
        assert_eq!(clocks(&timed), (5, Some(5)));
        let early = BootOptions {
            initial_time_ns: Some(-5),
            ..BootOptions::default()
        };
        assert_eq!(clocks(&early), (FIXED_WALL_CLOCK_NS, Some(-5)));
    }

    #[test]
    fn l073_missing_files_name_profile_field_and_path() {
        let text = require("p", "kernel", Path::new("/nonexistent/k"))
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("profile p: kernel /nonexistent/k: "),
            "{text}"
        );
    }
}
