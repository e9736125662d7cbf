//! What became of a handle since it was opened, for as long as it is true: a restore to before undoes it, as it undoes
//! everything in the guest (lua-api L-012, L-250).

use std::sync::Mutex;

use super::{Connection, Instance};
use crate::wait::lock;

/// Something that came to be in some epoch of a guest: the end of a process, the closing of a file.
pub(crate) struct Since<T>(Mutex<Option<(u64, T)>>);

impl<T> Default for Since<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Since<T> {
    /// What it is to a handle that was opened in the epoch `opened`.
    pub(super) fn get(&self, instance: &Instance, opened: u64) -> Option<T> {
        let (at, value) = lock(&self.0).clone()?;
        instance.lasts(at, opened).then_some(value)
    }

    /// Notes it; false if something is noted already.
    pub(super) fn note(&self, instance: &Instance, opened: u64, value: T) -> bool {
        let mut noted = lock(&self.0);
        if noted
            .as_ref()
            .is_some_and(|(at, _)| instance.lasts(*at, opened))
        {
            return false;
        }
        *noted = Some((instance.epoch(), value));
        true
    }

    /// Forgets what is not true any more; whether there was anything.
    fn forget(&self, instance: &Instance, opened: u64) -> bool {
        let undone = |(at, _): &mut (u64, T)| !instance.lasts(*at, opened);
        lock(&self.0).take_if(undone).is_some()
    }
}

impl Connection {
    /// What is noted about a handle that was opened over it.
    pub(crate) fn recall<T: Clone>(&self, since: &Since<T>) -> Option<T> {
        since.get(&self.instance, self.epoch)
    }

    /// Notes something about a handle that was opened over it; false if something is noted already.
    pub(crate) fn note<T: Clone>(&self, since: &Since<T>, value: T) -> bool {
        since.note(&self.instance, self.epoch, value)
    }

    /// Whether a restore has undone what was noted about a handle that was opened over it. Says so once.
    pub(crate) fn undone<T: Clone>(&self, since: &Since<T>) -> bool {
        since.forget(&self.instance, self.epoch)
    }
}
