//! Where the link to one agent process is kept, and made again when it is lost.
//!
//! The main agent has such a place in its [`Instance`], and each worker one of its own
//! ([`WorkerPlace`]). A restore takes the links of all of them away and meets the agents of then again (L-012, E-047).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use provium_vmm::Machine;

use super::{Instance, Since};
use crate::agent::{Link, open_worker};
use crate::wait::{World, lock};

/// A reconnection under way, driven by whoever waits for it.
pub(super) type Attempt = Pin<Box<dyn Future<Output = Result<Arc<Link>, String>> + Send>>;

/// The link to one agent process; see the module documentation.
#[derive(Default)]
pub(super) struct LinkSlot {
    link: Mutex<Option<Arc<Link>>>,
    attempt: Mutex<Option<Attempt>>,
}

impl LinkSlot {
    /// Takes a link into use that was made elsewhere.
    pub(super) fn put(&self, link: &Arc<Link>) {
        *lock(&self.link) = Some(link.clone());
        self.stop_trying();
    }

    /// The link, unless it is down.
    pub(super) fn up(&self) -> Option<Arc<Link>> {
        let link = lock(&self.link).clone();
        link.filter(|link| link.down().is_none())
    }

    /// How the last link ended, if there was one.
    fn last_words(&self) -> Option<String> {
        lock(&self.link).as_ref().and_then(|link| link.down())
    }

    /// Gives the link up, and what was under way to make another.
    pub(super) fn hang_up(&self, cause: &str) {
        if let Some(link) = lock(&self.link).take() {
            link.fail(cause);
        }
        self.stop_trying();
    }

    /// Lets go of a reconnection. It may hold what holds this, and is dropped outside the lock.
    pub(super) fn stop_trying(&self) {
        let attempt = lock(&self.attempt).take();
        drop(attempt);
    }

    /// Requests without an answer yet.
    pub(super) fn in_flight(&self) -> usize {
        lock(&self.link).as_ref().map_or(0, |link| link.in_flight())
    }

    /// Goes on with the attempt to make the link again, beginning one if there is none. All who need the link at once
    /// share one attempt.
    pub(super) fn poll_again(
        &self,
        cx: &mut Context<'_>,
        begin: impl FnOnce() -> Attempt,
    ) -> Poll<Result<Arc<Link>, String>> {
        if let Some(link) = self.up() {
            return Poll::Ready(Ok(link));
        }
        let mut slot = lock(&self.attempt);
        let result = match slot.get_or_insert_with(begin).as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result,
        };
        let ended = slot.take();
        drop(slot);
        drop(ended);
        if let Ok(link) = &result {
            *lock(&self.link) = Some(link.clone());
        }
        Poll::Ready(result)
    }
}

/// A worker as its VM knows it: where it answers, and the link to it.
pub(super) struct WorkerPlace {
    port: u32,
    pid: i32,
    /// In which it was started (L-250).
    pub(super) epoch: u64,
    pub(super) slot: LinkSlot,
    /// Whoever held it has ended it.
    ended: Since<()>,
}

impl WorkerPlace {
    /// The place of a worker that was started in `epoch`, on whose port nobody has called yet.
    pub(super) fn new(port: u32, pid: i32, epoch: u64) -> Arc<Self> {
        Arc::new(Self {
            port,
            pid,
            epoch,
            slot: LinkSlot::default(),
            ended: Since::default(),
        })
    }

    pub(super) fn is_ended(&self, instance: &Instance) -> bool {
        self.ended.get(instance, self.epoch).is_some()
    }

    /// Ends it: the end of its connection is its own (E-091).
    pub(super) fn end(&self, instance: &Instance) {
        self.ended.note(instance, self.epoch, ());
        self.slot.hang_up("the worker was ended");
    }

    /// Its link, made if there is none or it was lost. A worker listens for as long as it lives, so nobody on its port
    /// means that it has ended. `resume`: it keeps what is open in it (E-047).
    pub(super) async fn meet(
        &self,
        world: &Arc<World>,
        machine: &Arc<Machine>,
        resume: bool,
    ) -> Result<Arc<Link>, String> {
        let last_words = self.slot.last_words();
        let begin = || -> Attempt {
            let (world, machine) = (world.clone(), machine.clone());
            let (port, pid) = (self.port, self.pid);
            Box::pin(async move {
                let opened = open_worker(&world, &machine, port, pid, resume).await;
                opened.map_err(|error| error.to_string())
            })
        };
        let met = poll_fn(|cx| self.slot.poll_again(cx, begin));
        // How its link ended says more than that it does not answer.
        met.await.map_err(|error| last_words.unwrap_or(error))
    }
}
