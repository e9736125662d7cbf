//! The devices of one machine and the buses they sit on: the same board for both backends.
//!
//! A backend hands in its interrupt lines and gets accesses answered ([`Board::answer`]) and host
//! activity taken up ([`Board::poll_kicked`]); everything else about devices is here.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use provium_devices::bus::SharedDevice;
use provium_devices::power::{self, PowerButton, PowerDevice, PowerEvent, PowerSink};
use provium_devices::pvpanic::{self, PanicPort};
use provium_devices::serial::{self, ConsoleSink, Serial, SerialHost};
use provium_devices::virtio::rng::Rng;
use provium_devices::virtio::vsock::{Vsock, VsockHost};
use provium_devices::virtio::{MmioTransport, VirtioDevice};
use provium_devices::{Bus, Interrupt, Kick};

use crate::console::Console;
use crate::error::Error;
use crate::layout::{self, Slot};
use crate::lifecycle::StopCause;
use crate::shared::Shared;
use crate::snapshot::BoardState;
use crate::vcpu::Exit;

/// Number of virtio devices on every board; they take the first slots.
pub(crate) const VIRTIO_DEVICES: u32 = 2;

/// Where a backend's interrupts come from.
pub(crate) trait Lines {
    /// The line to global system interrupt `gsi`.
    fn line(&self, gsi: u32) -> Result<Arc<dyn Interrupt>, Error>;
}

/// A virtio device in its slot.
pub(crate) struct VirtioSlot {
    pub(crate) slot: Slot,
    pub(crate) queues: u32,
    pub(crate) transport: Arc<Mutex<MmioTransport>>,
}

pub(crate) struct Board {
    pio: Bus,
    mmio: Bus,
    polled: Vec<(Arc<AtomicBool>, SharedDevice)>,
    virtio: Vec<VirtioSlot>,
    com1: Arc<Mutex<Serial>>,
    com2: Arc<Mutex<Serial>>,
    power: Arc<Mutex<PowerDevice>>,
    pub(crate) vsock: VsockHost,
    pub(crate) agent_serial: SerialHost,
    pub(crate) button: PowerButton,
}

fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for one device to be polled by the thread that owns the devices.
struct DeviceKick {
    wanted: Arc<AtomicBool>,
    shared: Weak<Shared>,
}

impl Kick for DeviceKick {
    fn kick(&self) {
        // Once is enough until the poll has begun.
        if !self.wanted.swap(true, Ordering::AcqRel)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.control.note_activity();
        }
    }
}

/// The console's output side.
struct ConsoleOutput(Arc<Console>);

impl ConsoleSink for ConsoleOutput {
    fn output(&mut self, bytes: &[u8]) {
        self.0.put(bytes);
    }
}

/// Turns what the guest does with its power registers into the machine's fate.
struct Fate(Weak<Shared>);

impl PowerSink for Fate {
    fn power_event(&self, event: PowerEvent) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        match event {
            PowerEvent::PowerOff => shared.stop(StopCause::PowerOff),
            PowerEvent::Reset => shared.guest_reset(),
            PowerEvent::Panicked => shared.panic_port(),
            // Whoever waits for the guest looks at it again.
            PowerEvent::Suspend => shared.bell.ring(),
            // The crash kernel will say itself what it has to say.
            PowerEvent::CrashLoaded => {}
        }
    }
}

/// Collects the parts of a board.
struct Builder<'a> {
    shared: &'a Arc<Shared>,
    lines: &'a dyn Lines,
    pio: Bus,
    mmio: Bus,
    polled: Vec<(Arc<AtomicBool>, SharedDevice)>,
    virtio: Vec<VirtioSlot>,
}

impl Builder<'_> {
    fn kick(&self) -> (Arc<AtomicBool>, Arc<DeviceKick>) {
        let wanted = Arc::new(AtomicBool::new(false));
        let shared = Arc::downgrade(self.shared);
        (wanted.clone(), Arc::new(DeviceKick { wanted, shared }))
    }

    fn place(
        &mut self,
        name: &'static str,
        ports: bool,
        range: Range<u64>,
        device: SharedDevice,
    ) -> Result<(), Error> {
        let bus = if ports { &mut self.pio } else { &mut self.mmio };
        bus.register(range, device).map_err(|e| Error::Device {
            name: self.shared.name().to_owned(),
            device: name,
            source: Box::new(e),
        })
    }

    fn ports(
        &mut self,
        name: &'static str,
        base: u16,
        size: u64,
        device: SharedDevice,
    ) -> Result<(), Error> {
        let base = u64::from(base);
        self.place(name, true, base..base + size, device)
    }

    /// Puts a virtio device into the next free slot.
    fn virtio(
        &mut self,
        name: &'static str,
        build: impl FnOnce(Arc<dyn Kick>) -> Box<dyn VirtioDevice>,
    ) -> Result<(), Error> {
        let index = u32::try_from(self.virtio.len()).unwrap_or(u32::MAX);
        let slot = layout::virtio_slot(index).ok_or_else(|| Error::Config {
            name: self.shared.name().to_owned(),
            reason: format!(
                "no slot is left for {name}: at most {} virtio devices",
                layout::VIRTIO_SLOTS
            ),
        })?;
        let (wanted, kick) = self.kick();
        let device = build(kick.clone());
        let queues = u32::try_from(device.queue_sizes().len()).unwrap_or(u32::MAX);
        let line = self.lines.line(slot.gsi)?;
        let transport = MmioTransport::new(device, self.shared.memory.clone(), line, kick);
        let transport = Arc::new(Mutex::new(transport));
        let end = slot.mmio_base + layout::VIRTIO_MMIO_SIZE;
        self.place(name, false, slot.mmio_base..end, transport.clone())?;
        self.polled.push((wanted, transport.clone()));
        self.virtio.push(VirtioSlot {
            slot,
            queues,
            transport,
        });
        Ok(())
    }
}

impl Board {
    /// Builds every device of the machine.
    pub(crate) fn build(shared: &Arc<Shared>, lines: &dyn Lines) -> Result<Self, Error> {
        let mut b = Builder {
            shared,
            lines,
            pio: Bus::new(),
            mmio: Bus::new(),
            polled: Vec::new(),
            virtio: Vec::new(),
        };
        let fate = Arc::new(Fate(Arc::downgrade(shared)));

        let (wanted, kick) = b.kick();
        let sink = Box::new(ConsoleOutput(shared.console.clone()));
        let (com1, input) = Serial::new(sink, lines.line(layout::COM1_GSI)?, kick);
        let com1 = Arc::new(Mutex::new(com1));
        b.ports("console", layout::COM1_PORT, serial::SIZE, com1.clone())?;
        b.polled.push((wanted, com1.clone()));
        shared
            .console
            .set_input(Box::new(move |bytes| input.write(bytes)));

        let (wanted, kick) = b.kick();
        let (com2, agent_serial) = Serial::with_stream(lines.line(layout::COM2_GSI)?, kick);
        let com2 = Arc::new(Mutex::new(com2));
        b.ports(
            "second serial port",
            layout::COM2_PORT,
            serial::SIZE,
            com2.clone(),
        )?;
        b.polled.push((wanted, com2.clone()));

        let (wanted, kick) = b.kick();
        let (power, button) = PowerDevice::new(fate.clone(), lines.line(layout::POWER_GSI)?, kick);
        let power = Arc::new(Mutex::new(power));
        b.ports(
            "power registers",
            layout::POWER_PORT,
            power::SIZE,
            power.clone(),
        )?;
        b.polled.push((wanted, power.clone()));

        let panic_port = Arc::new(Mutex::new(PanicPort::new(fate)));
        b.place(
            "panic port",
            true,
            pvpanic::PORT..pvpanic::PORT + pvpanic::SIZE,
            panic_port,
        )?;

        let seed = shared.config.rng_seed;
        b.virtio("virtio-rng", |_kick| Box::new(Rng::new(seed)))?;
        let mut host = None;
        let cid = shared.config.cid;
        b.virtio("virtio-vsock", |kick| {
            let (device, handle) = Vsock::new(cid, kick);
            host = Some(handle);
            Box::new(device)
        })?;
        let vsock = host.ok_or_else(|| Error::Config {
            name: shared.name().to_owned(),
            reason: "virtio-vsock was not built".to_owned(),
        })?;
        let Builder {
            pio,
            mmio,
            polled,
            virtio,
            ..
        } = b;
        Ok(Self {
            pio,
            mmio,
            polled,
            virtio,
            com1,
            com2,
            power,
            vsock,
            agent_serial,
            button,
        })
    }

    /// Puts a backend's own device on the memory bus.
    pub(crate) fn add_mmio(
        &mut self,
        name: &str,
        range: Range<u64>,
        device: SharedDevice,
    ) -> Result<(), Error> {
        self.mmio
            .register(range, device)
            .map_err(|e| Error::Device {
                name: name.to_owned(),
                device: "interrupt controller",
                source: Box::new(e),
            })
    }

    /// The virtio devices in slot order.
    pub(crate) fn virtio(&self) -> &[VirtioSlot] {
        &self.virtio
    }

    /// Lets the devices answer an exit. True if it was an access.
    pub(crate) fn answer(&self, exit: Exit<'_>) -> bool {
        match exit {
            Exit::PioRead { port, size, data } => {
                for element in data.chunks_mut(size) {
                    self.pio.read(u64::from(port), element);
                }
            }
            Exit::PioWrite { port, size, data } => {
                for element in data.chunks(size) {
                    self.pio.write(u64::from(port), element);
                }
            }
            Exit::MmioRead { address, data } => {
                self.mmio.read(address, data);
            }
            Exit::MmioWrite { address, data } => {
                self.mmio.write(address, data);
            }
            Exit::Hlt | Exit::Shutdown | Exit::Interrupted => return false,
        }
        true
    }

    /// Polls every device that was kicked since the last call.
    pub(crate) fn poll_kicked(&self) {
        for (wanted, device) in &self.polled {
            if wanted.swap(false, Ordering::AcqRel) {
                lock(device).poll();
            }
        }
    }

    /// The devices' state for a snapshot.
    pub(crate) fn save(&self) -> BoardState {
        BoardState {
            com1: lock(&self.com1).save(),
            com2: lock(&self.com2).save(),
            power: lock(&self.power).save(),
            virtio: self
                .virtio
                .iter()
                .map(|slot| lock(&slot.transport).save())
                .collect(),
        }
    }

    /// Takes over a saved state. The host's connections end.
    pub(crate) fn restore(
        &self,
        state: &BoardState,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if state.virtio.len() != self.virtio.len() {
            return Err(format!(
                "{} virtio devices instead of {}",
                state.virtio.len(),
                self.virtio.len()
            )
            .into());
        }
        self.agent_serial.machine_reset();
        lock(&self.com1).restore(&state.com1)?;
        lock(&self.com2).restore(&state.com2)?;
        {
            let mut power = lock(&self.power);
            power.reset();
            power.restore(&state.power);
        }
        for (slot, saved) in self.virtio.iter().zip(&state.virtio) {
            lock(&slot.transport).restore(saved)?;
        }
        Ok(())
    }

    /// Brings all devices to power-on state, for a restart of the machine.
    pub(crate) fn reset(&self) {
        lock(&self.com1).reset();
        lock(&self.com2).reset();
        self.agent_serial.machine_reset();
        lock(&self.power).reset();
        for slot in &self.virtio {
            lock(&slot.transport).reset();
        }
    }
}
