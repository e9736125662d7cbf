//! Warm boots: a VM that nothing sets apart from one that was booted before goes on from that one's state right after
//! its boot, instead of going through the boot again.
//!
//! ```text
//! boot -> excluded? -------------------------------------------> cold
//!      -> entry in the cache? -> resume, renew ----------------> warm
//!      -> nobody else is about it? -> cold boot, keep its state
//! ```
//!
//! The state lies in the cache of fixtures, under its limit and its locks. A guest that goes on from it is made its
//! own before anybody sees it: its kernel gets fresh entropy and draws a new key from it, its clock is set, and its
//! boot id is another one. What cannot be told apart is how the kernel and the agent were laid out in memory (KASLR):
//! that is as in the boot which all of them come from.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use provium_protocol::{Amount, ops};
use provium_vmm::snapshot::{Extent, Fresh, Image, SaveTo, free_space};
use provium_vmm::{Machine, MachineConfig};
use serde::{Deserialize, Serialize};

use super::boot::{Greeting, handshake, host_clock_ns};
use super::cmdline::command_line;
use super::instance::Instance;
use super::options::BootOptions;
use super::snapshot::boot_later;
use super::{Connection, VmCore, VmState};
use crate::agent::Link;
use crate::config::Profile;
use crate::error::{Error, Reason, Result, with_causes};
use crate::events::Booted;
use crate::fixture::{Cache, FixtureKind, Inputs, Lock, boot_inputs};
use crate::wait::{Either, GuestTimer, Limit, both, lock};

/// Version of [`Kept`]; raised with every change.
const VERSION: u32 = 1;

/// How long a boot waits for another one that is about to leave its state; then it goes its own way.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// A guest that goes on and has not answered for this long (in host time) is given up.
const ANSWER: Duration = Duration::from_secs(20);

/// The guest gets this much guest time to end what its boot has begun, so that not every VM that goes on from it has
/// to. An idle one needs none of it.
const SETTLE: Duration = Duration::from_millis(20);

/// No state is kept if that left less than this on the disk, in bytes.
const RESERVE: u64 = 1 << 30;

/// Where Linux shows the boot id.
const BOOT_ID: &[u8] = b"/proc/sys/kernel/random/boot_id";

/// What the image says besides the machine.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// Where in its memory the boot id stands.
    boot_id_at: Vec<u64>,
}

/// How a boot begins.
pub(super) enum Start {
    /// From this state.
    Warm(Warm),
    /// From the reset vector.
    Cold {
        /// Why.
        why: String,
        /// Its state is to be kept.
        keep: Option<Keep>,
    },
}

/// A state to go on from.
pub(super) struct Warm {
    image: Arc<Image>,
    kept: Kept,
    entry: (Cache, String),
}

/// The right to keep the state of a boot.
pub(super) struct Keep {
    cache: Cache,
    inputs: Inputs,
    lock: Lock,
}

/// Why a VM did not come up from a state.
pub(super) enum Failed {
    /// A cold boot would not do better.
    Final(Error),
    /// A cold boot may.
    Unusable(String),
}

/// How to begin a boot with `options`.
pub(super) async fn start(core: &VmCore, options: &BootOptions) -> Start {
    let cold = |why: String| Start::Cold { why, keep: None };
    let harness = core.session.harness();
    let off = harness.is_cold().then_some("--cold");
    if let Some(why) = off.or_else(|| excluded(&core.profile, options)) {
        return cold(why.to_owned());
    }
    let inputs = command_line(&core.profile, options, harness.backend(), None)
        .map_err(|reason| reason.to_string())
        .and_then(|line| {
            let inputs = boot_inputs(harness, &core.profile, options, line);
            inputs.map_err(|error| error.to_string())
        });
    let inputs = match inputs {
        Ok(inputs) => inputs,
        // The boot itself will find out and say so.
        Err(error) => return cold(error),
    };
    let (cache, key) = (harness.fixtures(), inputs.key());
    let (world, since) = (core.session.world(), Instant::now());
    let holder = core.session.file();
    loop {
        if let Some(path) = cache.find(&key, FixtureKind::Boot)
            && let Some((image, kept)) = open(core, &cache, &key, &path)
        {
            let entry = (cache, key);
            return Start::Warm(Warm { image, kept, entry });
        }
        match cache.lock(&key, FixtureKind::Boot, holder, |_| false) {
            // Whoever had the lock may have left the entry between the two looks.
            Ok(Some(_)) if cache.path(&key, FixtureKind::Boot).exists() => {}
            Ok(Some(lock)) => {
                let why = "the first one".to_owned();
                let keep = Some(Keep {
                    cache,
                    inputs,
                    lock,
                });
                return Start::Cold { why, keep };
            }
            Ok(None) if since.elapsed() < PATIENCE => {
                let _over = Limit::host(world, LOOK).await;
            }
            Ok(None) => return cold("another boot takes too long".to_owned()),
            Err(error) => return cold(error.to_string()),
        }
    }
}

/// What sets a boot apart from all others.
fn excluded(profile: &Profile, options: &BootOptions) -> Option<&'static str> {
    let given = [
        (options.cold, "cold = true"),
        (!profile.warm, "warm = false in its profile"),
        (options.rng_seed.is_some(), "rng_seed is given"),
        (options.initial_time_ns.is_some(), "initial_time is given"),
        (!options.files.is_empty(), "files are given"),
        (options.kernel_cmdline.is_some(), "kernel_cmdline is given"),
        (
            options.kernel_cmdline_append.is_some(),
            "kernel_cmdline_append is given",
        ),
        (!profile.inject_agent, "its profile brings its own agent"),
        (
            std::env::var_os("PROVIUM_OVERLAY").is_some(),
            "PROVIUM_OVERLAY is set",
        ),
        (profile.init.is_some(), "its profile has an init"),
        (profile.disk_problem().is_some(), "its profile has disks"),
    ];
    given
        .into_iter()
        .find_map(|(given, why)| given.then_some(why))
}

/// The entry, checked; one that is of no use is dropped.
fn open(core: &VmCore, cache: &Cache, key: &str, path: &Path) -> Option<(Arc<Image>, Kept)> {
    let opened = core.session.harness().images().open(path);
    let problem = match opened {
        Ok(image) => match serde_json::from_slice::<Kept>(image.owner()) {
            Ok(kept) if kept.version == VERSION => return Some((image, kept)),
            _ => "it is not what a boot leaves".to_owned(),
        },
        // Dropped by another process since it was found.
        Err(_) if !path.exists() => return None,
        Err(error) => with_causes(&error),
    };
    drop_entry(core, cache, key, &problem);
    None
}

fn drop_entry(core: &VmCore, cache: &Cache, key: &str, problem: &str) {
    let text = format!(
        "{}: the state of an earlier boot is of no use: {problem}; it is dropped, and the VM boots cold",
        core.resource()
    );
    core.session.warn(&text);
    cache.remove_content(key, FixtureKind::Boot);
}

/// Brings `core` up from a state.
pub(super) async fn resume(
    core: &Arc<VmCore>,
    call: &'static str,
    options: BootOptions,
    warm: Warm,
    timeout: Duration,
) -> Result<(), Failed> {
    let session = &core.session;
    let memory = warm.image.memory();
    let needs = Amount {
        memory_bytes: memory,
        cpus: warm.image.cpus(),
    };
    let charge = session
        .share()
        .charge(session.world(), needs, session.tell_waiting());
    let charge = charge
        .await
        .map_err(|error| Failed::Final(core.error(call, Reason::Pool(error))))?;
    let made = restored(core, &options, &warm);
    let (machine, cid, boot_id) = match made {
        Ok(made) => made,
        Err(problem) => return Err(give_up(core, &warm, problem)),
    };
    let instance = Instance::new(session, core.name(), cid, machine, options, timeout);
    instance.hold(charge);
    core.set_instance(&instance);
    let greeting = Greeting {
        renew: Some(boot_id),
        ..Greeting::default()
    };
    let woken = match instance.machine() {
        Some(machine) => machine.resume().map_err(|error| error.to_string()),
        None => Err("the machine stopped".to_owned()),
    };
    session.world().notify();
    let met = match woken {
        Ok(()) => handshake(core, &instance, &greeting, timeout.min(ANSWER)).await,
        Err(problem) => Err(problem),
    };
    match met {
        Ok(()) => {
            instance.spawned(core.profile_name(), memory);
            Ok(())
        }
        Err(cause) if timeout < ANSWER => {
            // It was given less than such a guest may need: that says nothing about the state.
            instance.die(&format!("boot failed: {cause}"));
            let console = instance.console_tail();
            let reason = Reason::BootFailed { cause, console };
            Err(Failed::Final(core.error(call, reason)))
        }
        Err(problem) => {
            instance.die(&format!("it did not go on: {problem}"));
            Err(give_up(core, &warm, problem))
        }
    }
}

/// A state that does not work once is not tried again by this process.
fn give_up(core: &VmCore, warm: &Warm, problem: String) -> Failed {
    core.session.harness().stay_cold();
    drop_entry(core, &warm.entry.0, &warm.entry.1, &problem);
    Failed::Unusable(problem)
}

/// A machine that stands at the state, with a boot id of its own.
fn restored(
    core: &Arc<VmCore>,
    options: &BootOptions,
    warm: &Warm,
) -> Result<(Machine, u32, [u8; 16]), String> {
    let told = |error: provium_vmm::Error| error.to_string();
    let harness = core.session.harness();
    let mut config = MachineConfig::new(core.name(), harness.backend(), "");
    let cid = harness.new_cid();
    config.cid = cid.into();
    config.bell = Some(core.session.world().bell().clone());
    config.boot_later = Some(boot_later(core, options.clone()));
    config.mergeable = harness.merges_memory();
    let fresh = Fresh {
        rng_seed: Some(u64::from_le_bytes(random()?)),
        wall_ns: Some(host_clock_ns()),
    };
    let machine = Machine::restore(config, &warm.image, fresh).map_err(told)?;
    let boot_id = uuid(random()?);
    for at in &warm.kept.boot_id_at {
        machine.phys_write(*at, &boot_id).map_err(told)?;
    }
    Ok((machine, cid, boot_id))
}

/// Bytes that nobody knows.
fn random<const N: usize>() -> Result<[u8; N], String> {
    use std::io::Read;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("read /dev/urandom: {error}"))?;
    Ok(bytes)
}

/// Random bytes as a random UUID (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// The bytes of a UUID as the kernel prints it.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

/// Makes a guest its own: fresh entropy from which its kernel draws a new key, and the time of day. With a boot id,
/// the guest must have it.
pub(super) async fn renew(link: &Arc<Link>, boot_id: Option<[u8; 16]>) -> Result<(), String> {
    let fd = open_in(link, b"/dev/urandom\0").await?;
    let entropy = entropy(random()?);
    let added = ioctl(fd, ADD_ENTROPY, Some(entropy));
    let added = link.request(&added).await.map_err(|e| e.to_string())?;
    accepted("adding entropy", added.ret, added.errno)?;
    let drawn = link.request(&ioctl(fd, RESEED, None)).await;
    let drawn = drawn.map_err(|e| e.to_string())?;
    accepted("reseeding its generator", drawn.ret, drawn.errno)?;
    close_in(link, fd).await?;
    drain_device(link).await?;
    let ns = i64::try_from(host_clock_ns()).map_err(|_| "a strange time".to_owned())?;
    let set = link.request(&ops::ClockSet { ns }).await;
    set.map_err(|error| format!("setting its clock: {error}"))?;
    let Some(wanted) = boot_id else { return Ok(()) };
    let read = ops::ReadFile {
        path: BOOT_ID.to_vec(),
        max: 64,
    };
    let shown = link.request(&read).await.map_err(|e| e.to_string())?;
    match parse_uuid(&String::from_utf8_lossy(&shown.data)) {
        Some(found) if found == wanted => Ok(()),
        _ => Err("its boot id did not change".to_owned()),
    }
}

// Linux, include/uapi/linux/random.h.
const ADD_ENTROPY: u32 = 0x4008_5203;
const RESEED: u32 = 0x5207;

// System calls of x86-64.
const READ: u32 = 0;
const CLOSE: u32 = 3;
const OPENAT: u32 = 257;
const AT_FDCWD: i64 = -100;

/// More than drivers of an entropy device read ahead.
const READ_AHEAD: usize = 512;

/// Takes what the driver of the entropy device has read before: the next bytes come from the device, which begins a
/// stream of its own. A guest without one has nothing to take.
async fn drain_device(link: &Arc<Link>) -> Result<(), String> {
    let Ok(fd) = open_in(link, b"/dev/hwrng\0").await else {
        return Ok(());
    };
    let mut left = READ_AHEAD;
    while left > 0 {
        let length = i64::try_from(left).unwrap_or(0);
        let read = syscall(READ, vec![fd.into(), 0, length], Some(vec![0; left]));
        let read = link.request(&read).await.map_err(|e| e.to_string())?;
        match usize::try_from(read.ret) {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            // There is a driver, but no device.
            _ => break,
        }
    }
    close_in(link, fd).await
}

async fn open_in(link: &Arc<Link>, path: &[u8]) -> Result<i32, String> {
    let open = syscall(OPENAT, vec![AT_FDCWD, 0, 0], Some(path.to_vec()));
    let opened = link.request(&open).await.map_err(|e| e.to_string())?;
    let fd = accepted("opening its entropy device", opened.ret, opened.errno)?;
    i32::try_from(fd).map_err(|_| "a strange descriptor".to_owned())
}

async fn close_in(link: &Arc<Link>, fd: i32) -> Result<(), String> {
    let close = syscall(CLOSE, vec![fd.into()], None);
    let closed = link.request(&close).await;
    closed.map(drop).map_err(|error| error.to_string())
}

/// A system call whose second argument is the address of `buf`.
fn syscall(nr: u32, args: Vec<i64>, buf: Option<Vec<u8>>) -> ops::Syscall {
    let slots = buf.iter().map(|_| ops::Slot { arg: 1, buf: 0 }).collect();
    ops::Syscall {
        nr,
        args,
        slots,
        bufs: buf.into_iter().map(Into::into).collect(),
        nested: Vec::new(),
    }
}

fn ioctl(fd: i32, cmd: u32, data: Option<Vec<u8>>) -> ops::Ioctl {
    ops::Ioctl {
        fd,
        cmd,
        data: data.map(|data| ops::IoctlData::Bytes(data.into())),
        bufs: Vec::new(),
        offsets: Vec::new(),
    }
}

/// `struct rand_pool_info`: all bits are counted.
fn entropy(bytes: [u8; 64]) -> Vec<u8> {
    let (bits, size) = (8 * 64i32, 64i32);
    let header = [bits.to_ne_bytes(), size.to_ne_bytes()].concat();
    [header, bytes.to_vec()].concat()
}

fn accepted(what: &str, ret: i64, errno: i32) -> Result<i64, String> {
    if ret < 0 {
        let error = provium_protocol::errno::describe(errno);
        return Err(format!("{what}: {error}"));
    }
    Ok(ret)
}

impl Keep {
    /// Keeps the state of `core`, which has just been booted; otherwise why not. The boot is not concerned.
    pub(super) async fn keep(self, core: &Arc<VmCore>, call: &'static str) -> Result<(), String> {
        let told = |error: Error| error.to_string();
        let instance = core.instance().ok_or("it is gone")?;
        let machine = instance.machine().ok_or("it is gone")?;
        // The boot is not over for others yet.
        match instance.state() {
            VmState::Booted => {}
            state => return Err(format!("it is {state}")),
        }
        let path = self.cache.path(&self.inputs.key(), FixtureKind::Boot);
        let dir = path.parent().unwrap_or(Path::new("/"));
        let memory = machine.memory_len();
        let free = free_space(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        if free < memory.saturating_add(RESERVE) {
            return Err(format!("the disk of {} is nearly full", dir.display()));
        }
        let connection = Connection::main(&instance, call, &core.resource()).await;
        let connection = connection.map_err(told)?;
        GuestTimer::after(core.session.world(), &machine, SETTLE).await;
        let link = connection.link();
        // A guest that cannot be renewed is not kept.
        let limit = Limit::host(core.session.world(), ANSWER);
        match both(renew(link, None), limit).await {
            Either::First(renewed) => renewed?,
            Either::Second(_) => return Err("it takes too long to be renewed".to_owned()),
        }
        let boot_id = lock(&instance.agent)
            .as_ref()
            .and_then(|(id, _)| parse_uuid(id));
        let boot_id = boot_id.ok_or("its kernel shows no boot id")?;
        let quiet = link.request(&ops::Quiesce {}).await;
        quiet.map_err(|error| error.to_string())?;
        let saved = save(&machine, &boot_id, &path);
        let awake = link.request(&ops::Unquiesce {}).await;
        awake.map_err(|error| error.to_string())?;
        core.session.harness().images().add(&saved?);
        let described = self.cache.describe(&self.lock, &self.inputs);
        described.map_err(|error| error.to_string())?;
        let limit = core.session.harness().config().cache_max_size;
        self.cache.trim(limit);
        Ok(())
    }
}

/// Writes the state of a machine whose guest is quiet. It is not waited for until it is on the disk: after a crash of
/// the host the checks of an image find out.
fn save(machine: &Machine, boot_id: &[u8; 16], path: &Path) -> Result<Arc<Image>, String> {
    let found = machine.phys_find(boot_id);
    let boot_id_at = found.map_err(|error| error.to_string())?;
    if boot_id_at.is_empty() {
        return Err("its boot id is not in its memory".to_owned());
    }
    let kept = Kept {
        version: VERSION,
        boot_id_at,
    };
    let owner = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
    let saved = machine.save(SaveTo::Scratch(path), Extent::Whole, &owner);
    saved.map_err(|error| with_causes(&error))
}

impl VmCore {
    /// Tells and notes how it came up.
    pub(super) fn booted(&self, how: Booted, since: Instant) {
        if let Some(instance) = self.instance() {
            let warm = matches!(how, Booted::Warm);
            instance.warm.store(warm, Ordering::Release);
        }
        let events = self.session.harness().events();
        events.booted(self.session.file(), &self.name, &how, since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Places};

    #[test]
    fn a_boot_is_warm_only_when_nothing_sets_it_apart() {
        let places = Places {
            home: None,
            cache: "/c".into(),
            build_dir: None,
        };
        let config = Config::builtin(Path::new("/"), &places);
        let profile = config.profile("minimal").unwrap();
        let plain = BootOptions {
            memory: Some(1 << 30),
            cpus: Some(2),
            boot_timeout: Some(Duration::from_secs(9)),
            ..BootOptions::default()
        };
        assert_eq!(excluded(profile, &plain), None);
        let seeded = BootOptions {
            rng_seed: Some(0),
            ..plain.clone()
        };
        let timed = BootOptions {
            initial_time_ns: Some(0),
            ..plain.clone()
        };
        let appended = BootOptions {
            kernel_cmdline_append: Some("quiet".into()),
            ..plain.clone()
        };
        let replaced = BootOptions {
            kernel_cmdline: Some("quiet".into()),
            ..plain.clone()
        };
        let asked = BootOptions {
            cold: true,
            ..plain.clone()
        };
        for options in [seeded, timed, appended, replaced, asked] {
            assert!(excluded(profile, &options).is_some(), "{options:?}");
        }
        let off = Profile {
            warm: false,
            ..profile.clone()
        };
        let with_init = Profile {
            init: Some("/init".into()),
            ..profile.clone()
        };
        for profile in [off, with_init] {
            assert!(excluded(&profile, &plain).is_some(), "{profile:?}");
        }
    }

    #[test]
    fn boot_ids_are_uuids_as_the_kernel_prints_them() {
        let bytes = parse_uuid("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!((bytes[0], bytes[6], bytes[15]), (0x00, 0x66, 0xff));
        assert_eq!(parse_uuid("00112233"), None);
        assert_eq!(parse_uuid(""), None);
        let id = uuid([0xff; 16]);
        assert_eq!((id[6], id[8], id[15]), (0x4f, 0xbf, 0xff));
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }

    #[test]
    fn all_bits_of_given_entropy_count() {
        let bytes = entropy([7; 64]);
        assert_eq!(
            bytes[..8],
            [512i32.to_ne_bytes(), 64i32.to_ne_bytes()].concat()
        );
        assert_eq!(bytes[8..], [7; 64]);
    }
}
