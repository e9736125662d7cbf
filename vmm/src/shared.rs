//! What all threads of one machine share: its parts that are neither devices nor vCPUs.

use std::sync::{Arc, Mutex};

use provium_devices::GuestMemory;

use crate::bell::Bell;
use crate::clock::MachineClock;
use crate::config::{Backend, MachineConfig};
use crate::console::Console;
use crate::control::{Control, ResetBy};
use crate::lifecycle::{Lifecycle, StopCause};
use crate::snapshot::Image;
use crate::stats::ExitCounters;

pub(crate) struct Shared {
    pub(crate) config: MachineConfig,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) console: Arc<Console>,
    pub(crate) control: Control,
    pub(crate) life: Lifecycle,
    pub(crate) exits: ExitCounters,
    /// The snapshot that lies under memory.
    pub(crate) under: Mutex<Option<Arc<Image>>>,
}

impl Shared {
    pub(crate) fn new(config: MachineConfig, memory: GuestMemory) -> Arc<Self> {
        let soft = config.backend == Backend::Soft;
        let clock = if soft {
            MachineClock::new_virtual(config.wall_clock_ns)
        } else {
            MachineClock::new_host(config.wall_clock_ns)
        };
        let bell = config.bell.clone().unwrap_or_else(Bell::new);
        let shared = Arc::new(Self {
            config,
            memory: Arc::new(memory),
            clock: Arc::new(clock),
            bell,
            console: Arc::new(Console::new()),
            control: Control::new(soft),
            life: Lifecycle::new(),
            exits: ExitCounters::default(),
            under: Mutex::default(),
        });
        if soft {
            shared.console.defer_announcements();
        }
        shared.connect();
        shared
    }

    /// Lets the parts tell each other what they need to know.
    fn connect(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.clock.set_on_earlier(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.control.note_activity();
            }
        }));
        let weak = Arc::downgrade(self);
        self.console.set_on_panic(Box::new(move |line| {
            if let Some(shared) = weak.upgrade() {
                shared.panic_seen(line);
            }
        }));
        let bell = self.bell.clone();
        self.console.set_on_output(Box::new(move || bell.ring()));
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Ends the machine for `cause`; the first cause wins. Its threads leave by themselves.
    pub(crate) fn stop(&self, cause: StopCause) {
        self.life.stop(cause);
        self.control.request_stop();
        self.bell.interrupt();
        self.bell.ring();
    }

    /// Notes a panic of the guest's kernel; the machine runs on, so that the rest of the report
    /// reaches the console.
    pub(crate) fn panic_seen(&self, line: &str) {
        self.life.panic_seen(line);
        self.bell.ring();
    }

    /// The guest asked for a reset: honoured in place (L-062), unless its kernel panicked before
    /// (L-251).
    pub(crate) fn guest_reset(&self) {
        match self.life.panic_line() {
            Some(line) => self.stop(StopCause::Panic(line)),
            None => self.control.request_reset(ResetBy::Guest),
        }
    }

    /// The guest wrote the panic port: the kernel has said on the console what it had to say.
    pub(crate) fn panic_port(&self) {
        let line = self
            .life
            .panic_line()
            .unwrap_or_else(|| "reported through the panic port".into());
        self.panic_seen(&line);
        self.stop(StopCause::Panic(line));
    }

    /// A vCPU reached the shutdown state.
    pub(crate) fn triple_fault(&self) {
        self.stop(
            self.life
                .panic_line()
                .map_or(StopCause::TripleFault, StopCause::Panic),
        );
    }
}
