//! A system call that runs beside the test (lua-api L-235).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use provium_protocol::ops;

use super::Guest;
use super::syscall::{SyscallResult, finish};
use crate::agent::{LinkError, Request};
use crate::error::{Error, Reason, Result};
use crate::units::show_duration;
use crate::vm::Connection;
use crate::wait::{Either, Limit, LimitReached, Pending, both, lock};

/// A system call under way on a thread of its own (L-235). Dropping the last handle cancels it.
#[derive(Clone)]
pub struct SyscallHandle(Arc<Core>);

struct Core {
    guest: Guest,
    connection: Connection,
    resource: String,
    sizes: Vec<usize>,
    state: Mutex<State>,
}

enum State {
    Running(Request<ops::SyscallResult>),
    Ended(Result<ops::SyscallResult, LinkError>),
    /// Its buffers are collected.
    Finished(SyscallResult),
}

/// What a wait finds: an answer whose buffers are to be collected, or what another wait made of it.
enum Answer {
    Raw(ops::SyscallResult),
    Collected(SyscallResult),
}

impl SyscallHandle {
    /// Follows a call whose request has been sent; `sizes` are those of its buffers.
    pub(super) fn new(
        guest: Guest,
        connection: Connection,
        resource: String,
        sizes: Vec<usize>,
        request: Request<ops::SyscallResult>,
    ) -> Self {
        let state = Mutex::new(State::Running(request));
        Self(Arc::new(Core {
            guest,
            connection,
            resource,
            sizes,
            state,
        }))
    }

    /// Moves `Running` to `Ended` when the answer is there.
    fn advance(&self) -> bool {
        let mut state = lock(&self.0.state);
        if let State::Running(request) = &mut *state {
            let mut context = Context::from_waker(Waker::noop());
            match Pin::new(request).poll(&mut context) {
                Poll::Ready(answer) => *state = State::Ended(answer),
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Whether the call has returned (L-235).
    #[must_use]
    pub fn done(&self) -> bool {
        self.advance()
    }

    /// Interrupts the call; a later await returns -1/EINTR if it was cut short (L-235).
    pub fn cancel(&self) {
        if let State::Running(request) = &*lock(&self.0.state) {
            request.cancel();
        }
    }

    /// Waits for its result; at the timeout it raises and the call goes on.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<SyscallResult> {
        self.start_wait(timeout).wait()
    }

    /// Starts [`SyscallHandle::wait`].
    pub fn start_wait(&self, timeout: Option<Duration>) -> Pending<SyscallResult> {
        let call = "handle:await";
        let handle = self.clone();
        Pending::new(
            self.0.guest.world(),
            call,
            self.0.resource.clone(),
            async move {
                let core = &handle.0;
                let result = handle.result(call);
                let Some(limit) = timeout else {
                    return result.await;
                };
                let timer = Limit::new(core.guest.world(), &core.connection.machine(), limit);
                match both(result, timer).await {
                    Either::First(result) => result,
                    Either::Second(LimitReached::Stopped) => {
                        let gone = LinkError::Down("the VM has stopped".to_owned());
                        Err(core.connection.error(call, &core.resource, gone))
                    }
                    Either::Second(_) => {
                        let what = format!("the system call ({} given)", show_duration(limit));
                        let reason = Reason::Timeout { what, after: limit };
                        Err(Error::new(call, &*core.resource, reason))
                    }
                }
            },
        )
    }

    async fn result(&self, call: &'static str) -> Result<SyscallResult> {
        let core = &self.0;
        let answer = poll_fn(|_| {
            self.advance();
            match &*lock(&core.state) {
                State::Running(_) => Poll::Pending,
                State::Ended(answer) => Poll::Ready(answer.clone().map(Answer::Raw)),
                State::Finished(result) => Poll::Ready(Ok(Answer::Collected(result.clone()))),
            }
        });
        let link = core.connection.link();
        let answered = core.connection.answered(call, &core.resource, link, answer);
        match answered.await? {
            Answer::Collected(result) => Ok(result),
            Answer::Raw(raw) => {
                let finished = finish(&core.connection, call, &core.resource, raw, &core.sizes);
                let result = finished.await?;
                *lock(&core.state) = State::Finished(result.clone());
                Ok(result)
            }
        }
    }
}
