//! One boot of a VM: its machine, the link to its agent, and what has become of both.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use provium_protocol::event::{VmShutdown, VmSpawned};
use provium_vmm::{Console, Machine, MachineEvent, MachineState, StopCause, Subscription};

use super::options::BootOptions;
use super::slot::{LinkSlot, WorkerPlace};
use crate::pool::Charge;
use crate::session::SessionCore;
use crate::state::VmState;
use crate::wait::lock;

/// Bytes of console that a death or failed boot keeps (L-242).
const KEPT_CONSOLE: usize = 16 * 1024;

/// One boot; see the module documentation. Outlives its machine: the console stays readable. A restore of a snapshot
/// of it gives it another machine: it is the same boot that goes on, and handles of then are good again (L-250).
pub(crate) struct Instance {
    pub(super) session: Arc<SessionCore>,
    pub(super) vm_name: String,
    cid: AtomicU32,
    machine: Mutex<Option<Arc<Machine>>>,
    console: Mutex<Arc<Console>>,
    facts: Arc<Facts>,
    /// The link to the main agent.
    pub(super) slot: LinkSlot,
    /// Those of workers that somebody holds a handle of, or of something in it.
    workers: Mutex<Vec<Weak<WorkerPlace>>>,
    /// Identity of the agent that holds our handles: boot id and pid.
    pub(super) agent: Mutex<Option<(String, i32)>>,
    /// How the agent before the present one ended.
    pub(super) agent_exit: Mutex<Option<String>>,
    /// Restarts of the guest after which a link was made again.
    restarts_served: AtomicUsize,
    pub(super) boot_timeout: std::time::Duration,
    open_files: AtomicUsize,
    open_streams: AtomicUsize,
    /// What it was booted with.
    pub(super) options: BootOptions,
    /// It went on from the state of an earlier boot.
    pub(super) warm: AtomicBool,
    subscription: Mutex<Option<Subscription>>,
    /// Its memory's part of the pool, held for as long as there is the machine.
    charge: Mutex<Option<Charge>>,
}

/// What the machine's own threads tell; holds nothing of the machine, so that they never own it.
pub(super) struct Facts {
    session: Arc<SessionCore>,
    vm_name: String,
    /// Raised when handles of the guest become stale (L-063), and with every snapshot.
    epoch: AtomicU64,
    state: Mutex<FactState>,
}

#[derive(Default)]
struct FactState {
    stopped: Option<StopCause>,
    /// Why it is dead although its machine was stopped by us.
    death: Option<String>,
    /// Put down by the owner: `shutdown`, whatever it was before.
    put_down: bool,
    spawned: Option<Instant>,
    was_spawned: bool,
    /// Why handles of the epoch before are stale.
    stale: String,
    /// Length of the console at each restart: streams opened before end there (L-198).
    restarts: Vec<u64>,
    /// Epochs of which handles are good: the present one, and those before it up to the snapshots in between.
    good: Vec<u64>,
}

/// What must be known of an instance to go back to the moment of a snapshot of it.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    good: Vec<u64>,
    agent: Option<(String, i32)>,
    restarts: Vec<u64>,
}

impl Instance {
    pub(super) fn new(
        session: &Arc<SessionCore>,
        vm_name: &str,
        cid: u32,
        machine: Machine,
        options: BootOptions,
        boot_timeout: std::time::Duration,
    ) -> Arc<Self> {
        let machine = Arc::new(machine);
        let console = machine.console().clone();
        let facts = Arc::new(Facts {
            session: session.clone(),
            vm_name: vm_name.to_owned(),
            epoch: AtomicU64::new(0),
            state: Mutex::new(FactState {
                good: vec![0],
                ..FactState::default()
            }),
        });
        let subscription = subscribe(&facts, &machine);
        session.world().add_machine(&machine);
        Arc::new(Self {
            session: session.clone(),
            vm_name: vm_name.to_owned(),
            cid: AtomicU32::new(cid),
            machine: Mutex::new(Some(machine)),
            console: Mutex::new(console),
            facts,
            slot: LinkSlot::default(),
            workers: Mutex::default(),
            agent: Mutex::default(),
            agent_exit: Mutex::default(),
            restarts_served: AtomicUsize::new(0),
            boot_timeout,
            open_files: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
            options,
            warm: AtomicBool::new(false),
            subscription: Mutex::new(Some(subscription)),
            charge: Mutex::default(),
        })
    }

    /// Whether its memory has its part of the pool.
    pub(super) fn is_charged(&self) -> bool {
        lock(&self.charge).is_some()
    }

    /// Gives back `charge` when the machine's memory is freed.
    pub(super) fn hold(&self, charge: Charge) {
        *lock(&self.charge) = Some(charge);
    }

    /// The moment that is now, to come back to; handles opened later will not be good there.
    pub(super) fn moment(&self) -> Moment {
        let mut facts = lock(&self.facts.state);
        let moment = Moment {
            good: facts.good.clone(),
            agent: lock(&self.agent).clone(),
            restarts: facts.restarts.clone(),
        };
        let next = self.facts.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        facts.good.push(next);
        moment
    }

    /// Goes on from `moment` on a machine that was put back to it.
    pub(super) fn revive(&self, machine: Machine, cid: u32, moment: &Moment) {
        self.stop_machine(StopCause::Killed);
        let machine = Arc::new(machine);
        *lock(&self.console) = machine.console().clone();
        self.cid.store(cid, Ordering::Release);
        self.back_to(moment);
        *lock(&self.subscription) = Some(subscribe(&self.facts, &machine));
        *lock(&self.machine) = Some(machine.clone());
        self.session.world().add_machine(&machine);
    }

    /// Takes over what was known at `moment`; links of later are over.
    pub(super) fn back_to(&self, moment: &Moment) {
        self.hang_up("the VM was restored");
        (*lock(&self.agent)).clone_from(&moment.agent);
        *lock(&self.agent_exit) = None;
        self.restarts_served
            .store(moment.restarts.len(), Ordering::Release);
        let epoch = self.facts.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        let mut facts = lock(&self.facts.state);
        let was_spawned = facts.was_spawned && facts.spawned.is_some();
        let spawned = facts.spawned.take();
        *facts = FactState {
            spawned,
            was_spawned,
            stale: "the VM was restored to an earlier snapshot".to_owned(),
            restarts: moment.restarts.clone(),
            good: moment.good.iter().copied().chain([epoch]).collect(),
            ..FactState::default()
        };
    }

    /// Whether what was opened in `epoch` exists in the guest as it is now (L-063, L-250).
    pub(super) fn is_good(&self, epoch: u64) -> bool {
        lock(&self.facts.state).good.contains(&epoch)
    }

    /// Whether what came to be in the epoch `at` of something opened in `opened` is still so: unless the guest was put
    /// back to in between. What does not exist in the guest stays what it last was.
    pub(super) fn lasts(&self, at: u64, opened: u64) -> bool {
        let good = &lock(&self.facts.state).good;
        good.contains(&at) || !good.contains(&opened)
    }

    pub(super) fn cid(&self) -> u32 {
        self.cid.load(Ordering::Acquire)
    }

    pub(crate) fn machine(&self) -> Option<Arc<Machine>> {
        lock(&self.machine).clone()
    }

    pub(crate) fn console(&self) -> Arc<Console> {
        lock(&self.console).clone()
    }

    pub(super) fn state(&self) -> VmState {
        let facts = lock(&self.facts.state);
        if facts.put_down {
            return VmState::Shutdown;
        }
        match (&facts.death, &facts.stopped) {
            (Some(_), _) => VmState::Dead,
            (None, Some(cause)) if cause.is_abnormal() => VmState::Dead,
            (None, Some(_)) => VmState::Shutdown,
            (None, None) => match self.machine().map(|machine| machine.state()) {
                Some(MachineState::Running) => VmState::Booted,
                Some(MachineState::Paused) => VmState::Paused,
                Some(MachineState::Stopped(_)) | None => VmState::Shutdown,
            },
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.facts.epoch.load(Ordering::Acquire)
    }

    /// Makes handles of this epoch stale.
    pub(super) fn new_epoch(&self, why: &str) {
        self.facts.new_epoch(why);
    }

    pub(super) fn stale_reason(&self) -> String {
        format!("{} since it was opened", self.latest_break())
    }

    /// What made the handles stale: `the VM was reset`.
    pub(super) fn latest_break(&self) -> String {
        let reason = lock(&self.facts.state).stale.clone();
        if reason.is_empty() {
            "the VM was stopped".to_owned()
        } else {
            reason
        }
    }

    /// Why operations can no longer be answered, if they cannot: what ended the guest.
    pub(crate) fn end(&self) -> Option<String> {
        let facts = lock(&self.facts.state);
        match (&facts.death, &facts.stopped, facts.put_down) {
            (Some(cause), ..) => Some(cause.clone()),
            (None, Some(cause), _) => Some(cause.to_string()),
            (None, None, true) => Some("the VM was shut down".to_owned()),
            (None, None, false) => None,
        }
    }

    /// The end of the console, for errors (L-061, L-242).
    pub(crate) fn console_tail(&self) -> Vec<u8> {
        self.console().tail(KEPT_CONSOLE)
    }

    /// Console length at which a stream opened in `epoch` ends, if its boot is over (L-198).
    pub(super) fn console_end(&self, restarts_seen: usize) -> Option<u64> {
        lock(&self.facts.state).restarts.get(restarts_seen).copied()
    }

    pub(super) fn restarts(&self) -> usize {
        lock(&self.facts.state).restarts.len()
    }

    pub(super) fn restarts_served(&self) -> usize {
        self.restarts_served.load(Ordering::Acquire)
    }

    pub(super) fn serve_restarts(&self, count: usize) {
        self.restarts_served.store(count, Ordering::Release);
    }

    /// Emits `vm_spawned` (E-020).
    pub(super) fn spawned(&self, profile: &str, memory_bytes: u64) {
        {
            let mut facts = lock(&self.facts.state);
            facts.spawned = Some(Instant::now());
            facts.was_spawned = true;
        }
        if let Some(charge) = lock(&self.charge).as_mut() {
            charge.settle();
        }
        let event = VmSpawned {
            file: self.session.file().to_owned(),
            vm_name: self.vm_name.clone(),
            profile: profile.to_owned(),
            memory_bytes,
            cid: self.cid(),
        };
        self.session.harness().events().emit(event.into());
    }

    /// Whether its boot was completed.
    pub(super) fn is_spawned(&self) -> bool {
        lock(&self.facts.state).was_spawned
    }

    /// Stops the machine at once and frees it; the VM is `shutdown` then, whatever it was (L-051).
    pub(super) fn put_down(&self) {
        lock(&self.facts.state).put_down = true;
        self.stop_machine(StopCause::Killed);
    }

    /// Declares the VM dead for `cause` (L-061).
    pub(crate) fn die(&self, cause: &str) {
        {
            let mut facts = lock(&self.facts.state);
            if facts.stopped.is_none() && !facts.put_down {
                facts.death.get_or_insert_with(|| cause.to_owned());
            }
        }
        self.stop_machine(StopCause::Killed);
    }

    /// The machine has stopped by itself, or is to stop now: waits for its threads and frees its memory.
    pub(super) fn stop_machine(&self, cause: StopCause) {
        let machine = lock(&self.machine).take();
        if let Some(machine) = machine {
            machine.stop_for(cause);
        }
        drop(lock(&self.charge).take());
        // What is under way there holds this instance alive, and so does the subscription.
        self.hang_up("the VM has stopped");
        drop(lock(&self.subscription).take());
        self.session.world().notify();
    }

    pub(super) fn count_file(&self, opened: bool) {
        count(&self.open_files, opened);
    }

    pub(super) fn count_stream(&self, opened: bool) {
        count(&self.open_streams, opened);
    }

    pub(super) fn open_files(&self) -> usize {
        self.open_files.load(Ordering::Relaxed)
    }

    pub(super) fn open_streams(&self) -> usize {
        self.open_streams.load(Ordering::Relaxed)
    }

    /// Requests that the agent or a worker has not answered yet.
    pub(super) fn in_flight(&self) -> usize {
        let workers = self.workers();
        let workers = workers.iter().map(|worker| worker.slot.in_flight());
        self.slot.in_flight() + workers.sum::<usize>()
    }

    /// Notes a worker that has been started.
    pub(super) fn add_worker(&self, worker: &Arc<WorkerPlace>) {
        let mut workers = lock(&self.workers);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
    }

    fn workers(&self) -> Vec<Arc<WorkerPlace>> {
        lock(&self.workers)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Workers of which there are handles that are good (L-063).
    pub(super) fn good_workers(&self) -> Vec<Arc<WorkerPlace>> {
        let mut workers = self.workers();
        workers.retain(|worker| self.is_good(worker.epoch) && !worker.is_ended(self));
        workers
    }

    /// Gives up all links into the guest.
    fn hang_up(&self, cause: &str) {
        self.slot.hang_up(cause);
        for worker in self.workers() {
            worker.slot.hang_up(cause);
        }
    }

    pub(super) fn is_quiescent(&self) -> bool {
        self.in_flight() == 0 && self.open_files() == 0 && self.open_streams() == 0
    }
}

/// Notes what happens to `machine`.
fn subscribe(facts: &Arc<Facts>, machine: &Arc<Machine>) -> Subscription {
    let (told, log) = (facts.clone(), machine.console().clone());
    machine.subscribe(Box::new(move |event: &MachineEvent| {
        told.note(event, log.len());
    }))
}

fn count(counter: &AtomicUsize, up: bool) {
    if up {
        counter.fetch_add(1, Ordering::Relaxed);
    } else {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Facts {
    /// Called on the machine's threads: notes, and tells at most an event sink.
    fn note(&self, event: &MachineEvent, console_len: u64) {
        match event {
            MachineEvent::State(MachineState::Stopped(cause)) => self.stopped(cause),
            MachineEvent::Restarted { by_guest } => {
                lock(&self.state).restarts.push(console_len);
                let who = if *by_guest {
                    "the guest rebooted"
                } else {
                    "the VM was reset"
                };
                self.new_epoch(who);
            }
            MachineEvent::State(_) | MachineEvent::PanicSeen(_) => {}
        }
    }

    fn new_epoch(&self, why: &str) {
        let mut state = lock(&self.state);
        state.stale = why.to_owned();
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        state.good = vec![epoch];
    }

    fn stopped(&self, cause: &StopCause) {
        let spawned = {
            let mut state = lock(&self.state);
            state.stopped.get_or_insert_with(|| cause.clone());
            state.stale = "the VM was stopped".to_owned();
            let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
            state.good = vec![epoch];
            state.spawned.take()
        };
        // Exactly one for each vm_spawned, also when the VM died (E-021).
        if let Some(since) = spawned {
            let duration_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let (file, vm_name) = (self.session.file().to_owned(), self.vm_name.clone());
            let event = VmShutdown {
                file,
                vm_name,
                duration_ns,
            };
            self.session.harness().events().emit(event.into());
        }
    }
}
