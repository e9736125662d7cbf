//! MessagePack as this protocol spells it (E-005, E-006).
//!
//! [`Wire`] is a value, [`Field`] an entry of a structure. Structures are maps with string keys,
//! declared once through `wire_struct!`, enumerations are snake_case strings, declared through
//! `wire_enum!`. Writing always uses the shortest form; reading takes any integer width, any key
//! order and unknown keys, and keeps `bin` and `str` apart.

mod decode;
mod encode;
mod field;
mod macros;
mod types;

pub use decode::{Decoder, Kind, Malformed, check};
pub use encode::Encoder;
pub use field::{Field, MapView};
pub(crate) use macros::{wire_enum, wire_struct};

/// A value that can be written to and read from a frame.
pub trait Wire: Sized {
    /// Appends the value.
    fn encode(&self, out: &mut Encoder<'_>);

    /// Takes the value from the front of `input`.
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError>;
}

/// Why a well-formed MessagePack value is not the value that was expected, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", Self::prefix(.field))]
pub struct DecodeError {
    /// Path of the field that was wrong, such as `nested[2].offset`; empty for the value itself.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl DecodeError {
    /// An error about the value itself; callers add the path with [`at`](Self::at).
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            field: String::new(),
            reason: reason.into(),
        }
    }

    /// The same error one level further out.
    #[must_use]
    pub fn at(mut self, key: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') {
            ""
        } else {
            "."
        };
        self.field = format!("{key}{separator}{}", self.field);
        self
    }

    /// The same error, seen from the array around it.
    #[must_use]
    pub fn at_index(self, index: usize) -> Self {
        self.at(&format!("[{index}]"))
    }

    fn prefix(field: &str) -> String {
        if field.is_empty() {
            String::new()
        } else {
            format!("field `{field}`: ")
        }
    }
}

/// Encodes one value on its own.
pub fn to_vec(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut Encoder::new(&mut out));
    out
}

/// Decodes one value that fills `bytes` exactly.
pub fn from_slice<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    check(bytes).map_err(|error| DecodeError::new(error.to_string()))?;
    let budget = decode::Budget::default();
    T::decode(&mut Decoder::new(bytes, &budget))
}

pub(crate) use decode::Budget;
