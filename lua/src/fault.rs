//! What a binding answers when it cannot do as asked.
//!
//! A native never raises by itself: it hands a [`Fault`] to the prelude, which raises it at the
//! author's line (lua-api L-232). The text is all an author sees, so the whole cause chain of
//! the library's errors is already in it.

use std::error::Error as _;

/// The message of a failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl From<provium_lab::Error> for Fault {
    fn from(error: provium_lab::Error) -> Self {
        Self(provium_lab::with_causes(&error))
    }
}

impl From<mlua::Error> for Fault {
    /// Only conversions of values reach here, so the innermost cause says it best.
    fn from(error: mlua::Error) -> Self {
        let mut innermost = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            innermost = cause.to_string();
            next = cause.source();
        }
        Self(innermost)
    }
}
