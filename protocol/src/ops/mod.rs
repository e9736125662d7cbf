//! The operations of the agent: arguments and results (E-058 to E-089, E-102).
//!
//! [`table`] lists every operation once; from it come one type per operation, the [`Op`] that the
//! agent receives, and [`Operation`], by which the host knows the type of each answer.

mod table;
mod types;

pub use table::*;
pub use types::*;

use crate::message::Error;
use crate::wire::{DecodeError, Wire};

/// An operation with its name on the wire and the type of its answer.
pub trait Operation: Wire {
    /// Name on the wire.
    const NAME: &'static str;
    /// What a successful answer holds.
    type Reply: Wire;
}

/// Declares the operations: name on the wire, arguments, answer.
macro_rules! operations {
    ($($(#[$meta:meta])* $Name:ident = $text:literal {
        $($(#[$field_meta:meta])* $field:ident: $Type:ty,)*
    } -> $Reply:ty;)*) => {
        $(
            crate::wire::wire_struct! {
                $(#[$meta])*
                pub struct $Name {
                    $($(#[$field_meta])* pub $field: $Type,)*
                }
            }

            impl crate::ops::Operation for $Name {
                const NAME: &'static str = $text;
                type Reply = $Reply;
            }

            impl From<$Name> for Op {
                fn from(op: $Name) -> Self {
                    Self::$Name(op)
                }
            }
        )*

        /// Any operation, as the agent receives it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($(#[$meta])* $Name($Name),)*
        }

        impl Op {
            /// The names of all operations.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The name on the wire.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$Name(_) => $text,)*
                }
            }

            /// Decodes the arguments of the operation called `name`. The error is the answer to
            /// the request (E-095, E-096).
            pub fn decode(
                name: &str,
                args: &mut crate::wire::Decoder<'_>,
            ) -> Result<Self, crate::message::Error> {
                match name {
                    $($text => Ok(Self::$Name(crate::wire::Wire::decode(args)?)),)*
                    _ => Err(crate::ops::unknown(name)),
                }
            }

            /// Encodes a request for this operation as a frame.
            pub fn request_frame(&self, id: u64) -> Result<Vec<u8>, crate::message::Error> {
                match self {
                    $(Self::$Name(op) => crate::message::request_frame(id, op),)*
                }
            }
        }
    };
}

use operations;

/// The error for an operation that does not exist (E-095).
#[must_use]
pub fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(64).collect();
    let message = format!("unknown operation `{}`", shown.escape_debug());
    Error::new(crate::message::ErrorKind::UnknownOp, message)
}

/// The error for an entry that is of none of the accepted types.
fn neither(wanted: &str) -> DecodeError {
    DecodeError::new(format!("expected {wanted}"))
}
