//! The device thread of a KVM machine: it takes up queue notifications that KVM delivers by event
//! descriptor, devices that were kicked by the host, and alarms.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::IoEventAddress;
use provium_devices::Clock;
use provium_devices::virtio::MmioTransport;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::vm::{KvmVm, failed, io_failed};
use crate::control::Go;
use crate::engine::{Engine, Parts, restart};
use crate::error::Error;

/// Offset of QueueNotify in a virtio-mmio window (virtio 1.2, 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;
const TOKEN_WAKE: u32 = 0;
const TOKEN_TIMER: u32 = 1;
const TOKEN_QUEUES: u32 = 2;

fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One queue's notification.
struct QueueEvent {
    event: EventFd,
    queue: u32,
    transport: Arc<Mutex<MmioTransport>>,
}

/// Wakes the device thread.
pub(super) struct Wake(EventFd);

impl Wake {
    pub(super) fn new() -> Result<Arc<Self>, Error> {
        let event =
            EventFd::new(EFD_NONBLOCK).map_err(io_failed("creating an event descriptor"))?;
        Ok(Arc::new(Self(event)))
    }

    pub(super) fn wake(&self) {
        // Full means that a wake-up is pending already.
        let _full = self.0.write(1);
    }
}

/// What the event loop calls.
struct Subscriber {
    parts: Parts,
    wake: Arc<Wake>,
    timer: TimerFd,
    queues: Vec<QueueEvent>,
    /// The loop is to look at the machine's wishes.
    woken: Arc<AtomicBool>,
}

impl Subscriber {
    fn new(
        parts: Parts,
        vm: &KvmVm,
        wake: Arc<Wake>,
        woken: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let timer = TimerFd::new().map_err(|e| io_failed("creating a timer")(e.into()))?;
        let mut queues = Vec::new();
        for device in parts.board.virtio() {
            for queue in 0..device.queues {
                let event = EventFd::new(EFD_NONBLOCK)
                    .map_err(io_failed("creating an event descriptor"))?;
                let address = IoEventAddress::Mmio(device.slot.mmio_base + QUEUE_NOTIFY);
                vm.fd()
                    .register_ioevent(&event, &address, queue)
                    .map_err(failed("KVM_IOEVENTFD"))?;
                queues.push(QueueEvent {
                    event,
                    queue,
                    transport: device.transport.clone(),
                });
            }
        }
        Ok(Self {
            parts,
            wake,
            timer,
            queues,
            woken,
        })
    }

    /// Sets the timer for the next alarm, or disarms it.
    fn arm(&mut self) {
        let clock = &self.parts.shared.clock;
        let armed = match clock.next_alarm_ns() {
            Some(at) if !clock.is_paused() => {
                let left = at.saturating_sub(clock.now_ns()).max(1);
                self.timer.reset(Duration::from_nanos(left), None)
            }
            _ => self.timer.clear(),
        };
        // Cannot fail: the durations are valid and the descriptor is ours.
        debug_assert!(armed.is_ok(), "timerfd: {armed:?}");
    }
}

impl MutEventSubscriber for Subscriber {
    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data() {
            TOKEN_WAKE => {
                let _spurious = self.wake.0.read();
                self.woken.store(true, Ordering::Release);
            }
            TOKEN_TIMER => {
                let _spurious = self.timer.wait();
                self.woken.store(true, Ordering::Release);
            }
            token => {
                let index = token
                    .checked_sub(TOKEN_QUEUES)
                    .and_then(|i| usize::try_from(i).ok());
                if let Some(queue) = index.and_then(|i| self.queues.get(i)) {
                    let _spurious = queue.event.read();
                    lock(&queue.transport).notify_queue(queue.queue);
                }
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let wake = Events::with_data(&self.wake.0, TOKEN_WAKE, EventSet::IN);
        let timer = Events::with_data_raw(self.timer.as_raw_fd(), TOKEN_TIMER, EventSet::IN);
        let queues = (TOKEN_QUEUES..)
            .zip(&self.queues)
            .map(|(token, queue)| Events::with_data(&queue.event, token, EventSet::IN));
        for events in [wake, timer].into_iter().chain(queues) {
            // Cannot fail: each descriptor is ours and registered once.
            let added = ops.add(events);
            debug_assert!(added.is_ok(), "epoll: {added:?}");
        }
    }
}

/// The device thread's loop.
pub(super) struct DeviceLoop {
    parts: Parts,
    manager: EventManager<Arc<Mutex<Subscriber>>>,
    subscriber: Arc<Mutex<Subscriber>>,
    woken: Arc<AtomicBool>,
}

impl DeviceLoop {
    pub(super) fn new(parts: Parts, vm: &KvmVm, wake: Arc<Wake>) -> Result<Self, Error> {
        // Looks before it waits for the first time.
        let woken = Arc::new(AtomicBool::new(true));
        let subscriber = Subscriber::new(parts.clone(), vm, wake, woken.clone())?;
        let subscriber = Arc::new(Mutex::new(subscriber));
        let mut manager = EventManager::new().map_err(|e| {
            io_failed("creating the event loop")(std::io::Error::other(e.to_string()))
        })?;
        manager.add_subscriber(subscriber.clone());
        Ok(Self {
            parts,
            manager,
            subscriber,
            woken,
        })
    }

    /// Runs until the machine stops.
    pub(super) fn run(mut self, engine: &dyn Engine) {
        let shared = self.parts.shared.clone();
        loop {
            if self.woken.swap(false, Ordering::AcqRel) {
                match shared.control.checkpoint(|| 0, 0) {
                    Go::Stop => return,
                    Go::Reset(by) => {
                        restart(&shared, &self.parts.board, &self.parts.loader, engine, by);
                        shared.control.reset_done();
                        self.woken.store(true, Ordering::Release);
                        continue;
                    }
                    Go::Run { .. } => {}
                }
                shared.control.take_activity();
                shared.clock.fire_due();
                self.parts.board.poll_kicked();
                lock(&self.subscriber).arm();
            }
            if self.manager.run().is_err() {
                let cause = "the device thread's event loop failed".to_owned();
                return shared.stop(crate::lifecycle::StopCause::VcpuError(cause));
            }
        }
    }
}
