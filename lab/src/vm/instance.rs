//! One boot of a VM: its machine, the link to its agent, and what has become of both.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use provium_protocol::event::{VmShutdown, VmSpawned};
use provium_vmm::{Console, Machine, MachineEvent, MachineState, StopCause, Subscription};

use super::connection::Reconnect;
use crate::agent::Link;
use crate::pool::Charge;
use crate::session::SessionCore;
use crate::state::VmState;
use crate::wait::lock;

/// Bytes of console that a death or failed boot keeps (L-242).
const KEPT_CONSOLE: usize = 16 * 1024;

/// One boot; see the module documentation. Outlives its machine: the console stays readable.
pub(crate) struct Instance {
    pub(super) session: Arc<SessionCore>,
    pub(super) vm_name: String,
    cid: u32,
    machine: Mutex<Option<Arc<Machine>>>,
    console: Arc<Console>,
    facts: Arc<Facts>,
    pub(super) link: Mutex<Option<Arc<Link>>>,
    pub(super) reconnect: Mutex<Option<Reconnect>>,
    /// Identity of the agent that holds our handles: boot id and pid.
    pub(super) agent: Mutex<Option<(String, i32)>>,
    /// How the agent before the present one ended.
    pub(super) agent_exit: Mutex<Option<String>>,
    /// Restarts of the guest after which a link was made again.
    restarts_served: AtomicUsize,
    pub(super) boot_timeout: std::time::Duration,
    open_files: AtomicUsize,
    open_streams: AtomicUsize,
    subscription: Mutex<Option<Subscription>>,
    /// Its memory's part of the pool, held for as long as there is the machine.
    charge: Mutex<Option<Charge>>,
}

/// What the machine's own threads tell; holds nothing of the machine, so that they never own it.
pub(super) struct Facts {
    session: Arc<SessionCore>,
    vm_name: String,
    /// Raised when handles of the guest become stale (L-063).
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
}

impl Instance {
    pub(super) fn new(
        session: &Arc<SessionCore>,
        vm_name: &str,
        cid: u32,
        machine: Machine,
        boot_timeout: std::time::Duration,
    ) -> Arc<Self> {
        let machine = Arc::new(machine);
        let console = machine.console().clone();
        let facts = Arc::new(Facts {
            session: session.clone(),
            vm_name: vm_name.to_owned(),
            epoch: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let (told, log) = (facts.clone(), console.clone());
        let hook = move |event: &MachineEvent| told.note(event, log.len());
        let subscription = machine.subscribe(Box::new(hook));
        session.world().add_machine(&machine);
        Arc::new(Self {
            session: session.clone(),
            vm_name: vm_name.to_owned(),
            cid,
            machine: Mutex::new(Some(machine)),
            console,
            facts,
            link: Mutex::default(),
            reconnect: Mutex::default(),
            agent: Mutex::default(),
            agent_exit: Mutex::default(),
            restarts_served: AtomicUsize::new(0),
            boot_timeout,
            open_files: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
            subscription: Mutex::new(Some(subscription)),
            charge: Mutex::default(),
        })
    }

    /// Gives back `charge` when the machine's memory is freed.
    pub(super) fn hold(&self, charge: Charge) {
        *lock(&self.charge) = Some(charge);
    }

    pub(super) fn cid(&self) -> u32 {
        self.cid
    }

    pub(crate) fn machine(&self) -> Option<Arc<Machine>> {
        lock(&self.machine).clone()
    }

    pub(crate) fn console(&self) -> &Arc<Console> {
        &self.console
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
        let reason = lock(&self.facts.state).stale.clone();
        if reason.is_empty() {
            "the VM was stopped since it was opened".to_owned()
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
        self.console.tail(KEPT_CONSOLE)
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
        let event = VmSpawned {
            file: self.session.file().to_owned(),
            vm_name: self.vm_name.clone(),
            profile: profile.to_owned(),
            memory_bytes,
            cid: self.cid,
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
        if let Some(link) = lock(&self.link).take() {
            link.fail("the VM has stopped");
        }
        // Either holds this instance alive.
        drop(lock(&self.reconnect).take());
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

    pub(super) fn is_quiescent(&self) -> bool {
        let in_flight = lock(&self.link).as_ref().map_or(0, |link| link.in_flight());
        in_flight == 0 && self.open_files() == 0 && self.open_streams() == 0
    }
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
                self.new_epoch(&format!("{who} since it was opened"));
            }
            MachineEvent::State(_) | MachineEvent::PanicSeen(_) => {}
        }
    }

    fn new_epoch(&self, why: &str) {
        lock(&self.state).stale = why.to_owned();
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn stopped(&self, cause: &StopCause) {
        let spawned = {
            let mut state = lock(&self.state);
            state.stopped.get_or_insert_with(|| cause.clone());
            state.stale = "the VM was stopped since it was opened".to_owned();
            state.spawned.take()
        };
        self.epoch.fetch_add(1, Ordering::AcqRel);
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
