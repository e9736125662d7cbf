//! Operations that were started and not yet waited for, as the prelude holds them.
//!
//! The prelude waits for one, or for the first of several (`prelude/tasks.lua`); while it does,
//! the guests of the file run (lua-api L-247). An operation that is given up is dropped, which
//! cancels it in the guest.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mlua::{MultiValue, UserData};
use provium_lab::Pending;

use crate::fault::Fault;
use crate::native::Cx;

/// A started operation whose results are Lua values.
pub(crate) trait Later: Send {
    /// Its results, once; nothing while it runs.
    fn poll(&mut self, cx: &Cx<'_>) -> Option<Result<MultiValue, Fault>>;
}

/// A pending operation of the library and what its result becomes in Lua.
pub(crate) struct Then<T, F> {
    pending: Pending<T>,
    convert: Option<F>,
}

impl<T, F> Then<T, F> {
    pub(crate) fn new(pending: Pending<T>, convert: F) -> Self {
        Self {
            pending,
            convert: Some(convert),
        }
    }
}

impl<T, F> Later for Then<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Cx<'_>, T) -> Result<MultiValue, Fault> + Send,
{
    fn poll(&mut self, cx: &Cx<'_>) -> Option<Result<MultiValue, Fault>> {
        let result = self.pending.poll()?;
        let convert = self.convert.take()?;
        Some(
            result
                .map_err(Fault::from)
                .and_then(|value| convert(cx, value)),
        )
    }
}

/// A [`Later`] in the hands of the prelude.
pub(crate) struct Waiting(Mutex<Option<Box<dyn Later>>>);

impl UserData for Waiting {}

impl Waiting {
    pub(crate) fn new(later: Box<dyn Later>) -> Self {
        Self(Mutex::new(Some(later)))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Box<dyn Later>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its results if it has ended; then there is nothing left to wait for.
    pub(crate) fn poll(&self, cx: &Cx<'_>) -> Option<Result<MultiValue, Fault>> {
        let mut slot = self.slot();
        let Some(later) = slot.as_mut() else {
            return Some(Err(Fault("the operation was given up".to_owned())));
        };
        let result = later.poll(cx)?;
        *slot = None;
        Some(result)
    }

    /// Gives the operation up.
    pub(crate) fn give_up(&self) {
        let later = self.slot().take();
        drop(later);
    }
}
