//! An operation that was started and may not have ended yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::World;
use crate::error::{Error, Reason, Result};

type Operation<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A started operation. Dropping it gives it up: what the guest still does for it is cancelled.
#[must_use = "an operation that nobody waits for is cancelled when dropped"]
pub struct Pending<T> {
    world: Arc<World>,
    call: &'static str,
    resource: String,
    progress: Progress<T>,
}

enum Progress<T> {
    Running(Operation<T>),
    Ended(Result<T>),
    Taken,
}

impl<T: Send + 'static> Pending<T> {
    /// Starts `operation`: it is polled once right away, which sends its first request.
    pub(crate) fn new(
        world: &Arc<World>,
        call: &'static str,
        resource: impl Into<String>,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        let progress = Progress::Running(Box::pin(operation));
        let mut pending = Self {
            world: world.clone(),
            call,
            resource: resource.into(),
            progress,
        };
        pending.advance();
        pending
    }

    /// An operation that has failed already: the arguments or the state forbid it.
    pub(crate) fn failed(world: &Arc<World>, error: Error) -> Self {
        Self {
            world: world.clone(),
            call: error.call,
            resource: error.resource.clone(),
            progress: Progress::Ended(Err(error)),
        }
    }

    fn advance(&mut self) {
        if let Progress::Running(operation) = &mut self.progress {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(result) = operation.as_mut().poll(&mut context) {
                self.progress = Progress::Ended(result);
            }
        }
    }

    /// Looks whether it has ended, without waiting; yields the result once. For schedulers that wait for several
    /// operations at once: poll each inside [`World::run_until`].
    pub fn poll(&mut self) -> Option<Result<T>> {
        self.advance();
        match std::mem::replace(&mut self.progress, Progress::Taken) {
            Progress::Ended(result) => Some(result),
            other => {
                self.progress = other;
                None
            }
        }
    }

    /// Lets the guests run until the operation has ended (L-247).
    pub fn wait(mut self) -> Result<T> {
        let world = self.world.clone();
        match world.run_until(|| self.poll()) {
            Ok(result) => result,
            Err(interrupted) => Err(Error::new(
                self.call,
                self.resource.clone(),
                Reason::Interrupted(interrupted.0),
            )),
        }
    }

    /// The same as a future, for operations made of operations.
    pub(crate) async fn ended(mut self) -> Result<T> {
        std::future::poll_fn(|_| self.poll().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// The world whose guests run while this is waited for.
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }
}

/// Waits for the first of two futures; the operation wins a tie.
pub(crate) async fn both<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Either<A, B> {
    let mut first = std::pin::pin!(first);
    let mut second = std::pin::pin!(second);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(value) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

/// Which of two futures ended first.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Runs all futures at once and collects their results in order.
pub(crate) async fn join_all<T>(futures: Vec<Pin<Box<dyn Future<Output = T> + Send>>>) -> Vec<T> {
    let mut slots: Vec<_> = futures
        .into_iter()
        .map(|future| (Some(future), None))
        .collect();
    std::future::poll_fn(move |cx| {
        let mut all_ended = true;
        for (running, result) in &mut slots {
            if let Some(future) = running {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => (*running, *result) = (None, Some(value)),
                    Poll::Pending => all_ended = false,
                }
            }
        }
        if !all_ended {
            return Poll::Pending;
        }
        Poll::Ready(
            slots
                .iter_mut()
                .filter_map(|(_, result)| result.take())
                .collect(),
        )
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn starting_polls_once_and_polling_yields_the_result_once() {
        let world = World::new();
        let polls = Arc::new(AtomicUsize::new(0));
        let counter = polls.clone();
        let mut pending = Pending::new(
            &world,
            "c",
            "r",
            std::future::poll_fn(move |_| match counter.fetch_add(1, Ordering::SeqCst) {
                0 => Poll::Pending,
                n => Poll::Ready(Ok(n)),
            }),
        );
        assert_eq!(polls.load(Ordering::SeqCst), 1);
        assert_eq!(pending.poll().unwrap().unwrap(), 1);
        assert!(pending.poll().is_none());
    }

    #[test]
    fn l221_an_interrupted_wait_names_call_and_resource() {
        let world = World::new();
        world.interrupt("timed out after 1s");
        let pending = Pending::<()>::new(&world, "vm:run", "vm a", std::future::pending());
        let error = pending.wait().unwrap_err();
        assert!(error.is_interrupted());
        assert_eq!(error.to_string(), "vm:run: vm a: timed out after 1s");
    }

    #[test]
    fn join_all_keeps_the_order_and_both_prefers_the_first() {
        let world = World::new();
        let pending = Pending::new(&world, "c", "r", async {
            let futures: Vec<Pin<Box<dyn Future<Output = i32> + Send>>> =
                vec![Box::pin(async { 1 }), Box::pin(async { 2 })];
            let all = join_all(futures).await;
            match both(async { 5 }, async { 6 }).await {
                Either::First(value) => Ok((all, value)),
                Either::Second(_) => Ok((all, 0)),
            }
        });
        assert_eq!(pending.wait().unwrap(), (vec![1, 2], 5));
    }
}
