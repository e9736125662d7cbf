//! Making requests of a guest's agent: over a link that is there, found again after a loss, or given up
//! (events-and-protocol E-047, E-048; lua-api L-061..L-063, L-243).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use provium_protocol::{ErrorKind, HelloOk, Operation};
use provium_vmm::{Machine, MachineState};

use super::Instance;
use super::slot::{Attempt, WorkerPlace};
use super::watch::{Verdict, watch};
use crate::agent::{Link, LinkError, OpenError, open};
use crate::error::{Error, GuestFailure, Reason, Result};
use crate::state::{Need, VmState};
use crate::wait::{Either, Limit, both, join_all, lock};

/// How long a lost link may take to come back (E-048).
const RECONNECT: Duration = Duration::from_secs(5);

/// A way to make requests of one agent process, as long as it lives. Handles keep the one they were made on.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(super) instance: Arc<Instance>,
    machine: Arc<Machine>,
    link: Arc<Link>,
    pub(super) epoch: u64,
    /// The worker it leads to; none for the main agent.
    worker: Option<Arc<WorkerPlace>>,
}

/// Why there is no link to the agent.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    /// The guest has suspended to RAM; it may be woken.
    Suspended,
    /// The guest is gone, or counts as gone.
    Gone(String),
    /// The guest is there, the worker is not.
    Worker(String),
}

impl Lost {
    /// The same, with what was known before.
    fn after(self, cause: &str) -> Self {
        match self {
            Self::Suspended => Self::Suspended,
            Self::Gone(last) => Self::Gone(format!("{cause}; {last}")),
            Self::Worker(last) => Self::Worker(format!("{cause}; {last}")),
        }
    }
}

/// An agent's error as this crate's (E-051).
pub(crate) fn guest_failure(error: provium_protocol::Error) -> GuestFailure {
    let message = match &error.path {
        Some(path) if !error.message.contains(path.as_str()) => {
            format!("{path}: {}", error.message)
        }
        _ => error.message,
    };
    GuestFailure {
        kind: error.kind.as_str().to_owned(),
        message,
        errno: error.errno,
        errno_name: error.errno_name,
        path: error.path,
    }
}

impl Connection {
    /// To the main agent; reconnects first if the link was lost.
    pub(super) async fn main(
        instance: &Arc<Instance>,
        call: &'static str,
        resource: &str,
    ) -> Result<Self> {
        let dead = || instance.dead(call, resource, "the VM has stopped");
        let machine = instance.machine().ok_or_else(dead)?;
        let link = instance.live_link(&machine).await;
        let link = link.map_err(|lost| instance.lost(call, resource, &lost))?;
        let epoch = instance.epoch();
        Ok(Self {
            instance: instance.clone(),
            machine,
            link,
            epoch,
            worker: None,
        })
    }

    /// To a worker that was started over this one, and that listens on `port`.
    pub(crate) async fn open_worker(
        &self,
        call: &'static str,
        resource: &str,
        port: u32,
        pid: i32,
    ) -> Result<Self> {
        let worker = WorkerPlace::new(port, pid, self.epoch);
        self.instance.add_worker(&worker);
        let world = self.instance.session.world();
        let met = worker.meet(world, &self.machine(), false).await;
        let link = met.map_err(|cause| self.instance.dead(call, resource, &cause))?;
        Ok(Self {
            link,
            worker: Some(worker),
            ..self.clone()
        })
    }

    /// To the same agent as it is now: on the link that took over what was opened over this one, and opening what
    /// belongs to the present (L-250).
    pub(crate) async fn renewed(&self, call: &'static str, resource: &str) -> Result<Self> {
        let link = self.usable(call, resource).await?;
        Ok(Self {
            link,
            machine: self.machine(),
            epoch: self.instance.epoch(),
            ..self.clone()
        })
    }

    /// Ends the worker it leads to (E-091).
    pub(crate) fn end_worker(&self) {
        if let Some(worker) = &self.worker {
            worker.end(&self.instance);
        }
    }

    /// The link it was made on: what streams and uploads belong to.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The machine it leads to: that of the VM now, where a restore has given it another.
    pub(crate) fn machine(&self) -> Arc<Machine> {
        self.instance
            .machine()
            .unwrap_or_else(|| self.machine.clone())
    }

    /// Whether what was opened over it is gone (L-063).
    pub(crate) fn is_stale(&self) -> bool {
        let ended = |worker: &Arc<WorkerPlace>| worker.is_ended(&self.instance);
        self.worker.as_ref().is_some_and(ended) || !self.instance.is_good(self.epoch)
    }

    pub(crate) fn file_opened(&self) {
        self.instance.count_file(true);
    }

    pub(crate) fn file_closed(&self) {
        self.instance.count_file(false);
    }

    pub(crate) fn stream_opened(&self) {
        self.instance.count_stream(true);
    }

    pub(crate) fn stream_closed(&self) {
        self.instance.count_stream(false);
    }

    /// The link to use now: its own, or the one that took over its handles (E-047).
    async fn usable(&self, call: &'static str, resource: &str) -> Result<Arc<Link>> {
        self.check_good(call, resource)?;
        let machine = self.machine();
        if machine.state() == MachineState::Paused {
            // It would wait for an answer until somebody resumes the guest (L-056).
            let refused = VmState::Paused.check(Need::Booted);
            refused.map_err(|reason| Error::new(call, resource, reason))?;
        }
        if machine.is_suspended() {
            return Err(Error::new(call, resource, Reason::Suspended));
        }
        match self.live_link().await {
            Ok(link) => Ok(link),
            Err(lost) => {
                // A restart of the guest may have shown only now.
                self.check_good(call, resource)?;
                Err(self.instance.lost(call, resource, &lost))
            }
        }
    }

    /// The error for what does not exist in the guest as it is now (L-063).
    fn check_good(&self, call: &'static str, resource: &str) -> Result<()> {
        if self.instance.is_good(self.epoch) {
            return Ok(());
        }
        let reason = self.instance.stale_reason();
        Err(Error::new(call, resource, Reason::Stale(reason)))
    }

    /// The link to its agent, up; made again if it was lost.
    async fn live_link(&self) -> Result<Arc<Link>, Lost> {
        let machine = self.machine();
        let Some(worker) = &self.worker else {
            return self.instance.live_link(&machine).await;
        };
        if worker.is_ended(&self.instance) {
            return Err(Lost::Worker("it was closed".to_owned()));
        }
        if let Some(link) = worker.slot.up() {
            return Ok(link);
        }
        // A worker's link also goes down with its guest. Whether the guest lives on shows on the main link.
        self.instance.live_link(&machine).await?;
        let mut meeting = pin!(worker.meet(self.instance.session.world(), &machine, true));
        poll_fn(|cx| {
            if let Some(cause) = self.instance.end() {
                return Poll::Ready(Err(Lost::Gone(cause)));
            }
            if machine.is_suspended() {
                worker.slot.stop_trying();
                return Poll::Ready(Err(Lost::Suspended));
            }
            meeting.as_mut().poll(cx).map_err(Lost::Worker)
        })
        .await
    }

    /// One request and its answer. Never hangs on a guest that is gone: see [`watch`].
    pub(crate) async fn request<O: Operation + Sync>(
        &self,
        call: &'static str,
        resource: &str,
        op: &O,
    ) -> Result<O::Reply> {
        let link = self.usable(call, resource).await?;
        let request = link.request(op);
        self.answered(call, resource, &link, request).await
    }

    /// The answer to a request made on `link`, waited for as long as it can still come.
    pub(crate) async fn answered<T>(
        &self,
        call: &'static str,
        resource: &str,
        link: &Link,
        answer: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T> {
        match both(answer, watch(&self.instance, &self.machine(), link)).await {
            Either::First(Ok(reply)) => Ok(reply),
            Either::First(Err(LinkError::Down(cause))) => {
                Err(self.lost(call, resource, link, &cause).await)
            }
            Either::First(Err(error)) => Err(self.error(call, resource, error)),
            Either::Second(Verdict::Ended) => {
                Err(self.instance.dead(call, resource, "the VM has stopped"))
            }
            Either::Second(Verdict::Suspended) => {
                Err(Error::new(call, resource, Reason::Suspended))
            }
            Either::Second(Verdict::Silent) => {
                let cause = "the agent is silent";
                link.fail(cause);
                Err(self.lost(call, resource, link, cause).await)
            }
        }
    }

    /// A link error as this crate's error.
    pub(crate) fn error(&self, call: &'static str, resource: &str, error: LinkError) -> Error {
        match error {
            LinkError::Agent(error) if error.kind == ErrorKind::Stale => {
                Error::new(call, resource, Reason::Stale(error.message))
            }
            LinkError::Agent(error) => Error::new(call, resource, guest_failure(error)),
            LinkError::Down(cause) => self.instance.dead(call, resource, &cause),
            answer @ LinkError::Answer { .. } => {
                Error::new(call, resource, Reason::Protocol(answer.to_string()))
            }
        }
    }

    /// The error for an operation that was pending when the link went down; by then it is known whether the guest
    /// lives on (E-048).
    async fn lost(&self, call: &'static str, resource: &str, link: &Link, cause: &str) -> Error {
        if let Some(error) = self.broken(call, resource) {
            return error;
        }
        debug_assert!(link.down().is_some());
        match (self.live_link().await, &self.worker) {
            (Ok(_), worker) => {
                let exit = self.instance.previous_exit();
                let note = match exit.filter(|_| worker.is_none()) {
                    Some(exit) => {
                        format!("the agent ended during the call ({exit}) and was started again")
                    }
                    None => {
                        let whose = if worker.is_some() { "worker" } else { "agent" };
                        format!("the {whose} link was lost during the call ({cause}) and is back")
                    }
                };
                Error::new(call, resource, Reason::Protocol(note))
            }
            (Err(Lost::Worker(_)), _) => {
                let text = format!("the worker ended during the call: {cause}");
                let ended = Error::new(call, resource, Reason::Stale(text));
                self.broken(call, resource).unwrap_or(ended)
            }
            (Err(last), _) => self.instance.lost(call, resource, &last.after(cause)),
        }
    }

    /// The error for an operation during which the guest started again, if it did.
    fn broken(&self, call: &'static str, resource: &str) -> Option<Error> {
        let again = !self.instance.is_good(self.epoch) && self.instance.end().is_none();
        again.then(|| {
            let reason = Reason::Dead {
                cause: format!("{} during the call", self.instance.latest_break()),
                console: self.instance.console_tail(),
            };
            Error::new(call, resource, reason)
        })
    }

    /// Bounds a request that the guest itself ends after `limit` of its time: by ten times that plus a minute of
    /// host time (L-248).
    pub(crate) async fn within_backstop<T>(
        &self,
        call: &'static str,
        resource: &str,
        limit: Duration,
        what: &str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let world = self.instance.session.world();
        let backstop = provium_vmm::host_backstop(limit);
        match both(request, Limit::host(world, backstop)).await {
            Either::First(result) => result,
            Either::Second(_) => {
                let reason = Reason::Timeout {
                    what: what.to_owned(),
                    after: backstop,
                };
                Err(Error::new(call, resource, reason))
            }
        }
    }
}

impl Instance {
    /// The error for an operation on a guest that is gone.
    pub(super) fn dead(&self, call: &'static str, resource: &str, cause: &str) -> Error {
        let cause = self.end().unwrap_or_else(|| cause.to_owned());
        Error::new(
            call,
            resource,
            Reason::Dead {
                cause,
                console: self.console_tail(),
            },
        )
    }

    /// The error for an operation that has no link.
    fn lost(&self, call: &'static str, resource: &str, lost: &Lost) -> Error {
        match lost {
            Lost::Suspended => Error::new(call, resource, Reason::Suspended),
            Lost::Gone(cause) => self.dead(call, resource, cause),
            Lost::Worker(cause) => {
                let text = format!("the worker has ended: {cause}");
                Error::new(call, resource, Reason::Stale(text))
            }
        }
    }

    /// How the agent before the present one ended, if it did not survive what it was asked to do.
    fn previous_exit(&self) -> Option<String> {
        lock(&self.agent_exit).clone()
    }

    /// The main link, up; made again if it was lost. All who need it at once share one attempt.
    pub(super) async fn live_link(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
    ) -> Result<Arc<Link>, Lost> {
        poll_fn(|cx| {
            if let Some(link) = self.slot.up() {
                return Poll::Ready(Ok(link));
            }
            if let Some(cause) = self.end() {
                return Poll::Ready(Err(Lost::Gone(cause)));
            }
            if machine.is_suspended() {
                // Attempts begin anew once it is awake; the time of one would run out meanwhile.
                self.slot.stop_trying();
                return Poll::Ready(Err(Lost::Suspended));
            }
            let begin = || -> Attempt { Box::pin(reconnect(self.clone(), machine.clone())) };
            self.slot.poll_again(cx, begin).map_err(|cause| {
                self.die(&cause);
                Lost::Gone(cause)
            })
        })
        .await
    }

    /// Meets the workers again whose connections went with the main agent's: those wait for that for a limited time.
    /// One that has ended meanwhile says so to whoever uses it.
    pub(super) async fn meet_workers(&self, machine: &Arc<Machine>) {
        type Meeting = Pin<Box<dyn Future<Output = ()> + Send>>;
        let meetings = self.good_workers().into_iter().map(|worker| -> Meeting {
            let (world, machine) = (self.session.world().clone(), machine.clone());
            Box::pin(async move { drop(worker.meet(&world, &machine, true).await) })
        });
        join_all(meetings.collect()).await;
    }

    /// Takes a link into use, and notes which agent answers.
    pub(super) fn adopt(&self, link: &Arc<Link>, hello: HelloOk) {
        self.recognise(hello);
        self.slot.put(link);
    }

    /// Notes which agent answers, and makes older handles stale if it is another one.
    fn recognise(&self, hello: HelloOk) {
        let identity = (hello.boot_id, hello.pid);
        let before = lock(&self.agent).replace(identity.clone());
        if before.is_some_and(|before| before != identity) {
            self.new_epoch("the agent was started again");
        }
        *lock(&self.agent_exit) = hello.previous_exit;
    }
}

/// One series of attempts: short for a link that broke, as long as a boot after a restart of the guest.
async fn reconnect(instance: Arc<Instance>, machine: Arc<Machine>) -> Result<Arc<Link>, String> {
    let world = instance.session.world().clone();
    let restarted = instance.restarts() != instance.restarts_served();
    let limit = match restarted {
        true => Limit::host(&world, instance.boot_timeout),
        false => Limit::new(&world, &machine, RECONNECT),
    };
    let restarts = instance.restarts();
    match both(open(&world, &machine, !restarted), limit).await {
        Either::First(Ok((link, hello))) => {
            if restarted {
                // The restart itself has made older handles stale, and said so.
                *lock(&instance.agent) = None;
            }
            instance.serve_restarts(restarts);
            instance.recognise(hello);
            // Whoever waits for the link waits for the workers, too: it is in use when it is given back.
            if !restarted {
                instance.meet_workers(&machine).await;
            }
            Ok(link)
        }
        Either::First(Err(OpenError::MachineGone)) => Err(instance
            .end()
            .unwrap_or_else(|| "the machine stopped".to_owned())),
        Either::First(Err(error)) => Err(error.to_string()),
        Either::Second(_) if matches!(machine.state(), MachineState::Stopped(_)) => Err(instance
            .end()
            .unwrap_or_else(|| "the machine stopped".to_owned())),
        Either::Second(_) if restarted => {
            Err("the guest restarted and its agent did not come back".to_owned())
        }
        Either::Second(_) => Err("the agent link was lost and not back within 5s".to_owned()),
    }
}
