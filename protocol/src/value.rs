//! Values of any shape, for the metadata of tests (E-029, E-030).

use std::collections::BTreeMap;

use crate::wire::{DecodeError, Decoder, Encoder, Kind, Wire};

/// A value whose type travels with it (E-030).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text, that is valid UTF-8.
    Str(String),
    /// Bytes that are not text.
    Bin(Vec<u8>),
    /// A list.
    Array(Vec<Value>),
    /// Names with values, sorted by name.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// A byte string as E-030 wants it: text where it is valid UTF-8, else bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Str(text.to_owned()),
            Err(_) => Self::Bin(bytes.to_vec()),
        }
    }
}

impl Wire for Value {
    fn encode(&self, out: &mut Encoder<'_>) {
        match self {
            Self::Nil => out.nil(),
            Self::Bool(value) => out.bool(*value),
            Self::Int(value) => out.int(*value),
            Self::Float(value) => out.float(*value),
            Self::Str(value) => out.str(value),
            Self::Bin(value) => out.bin(value),
            Self::Array(values) => values.encode(out),
            Self::Map(entries) => entries.encode(out),
        }
    }

    /// Recursion is bounded: no frame nests deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match input.peek()? {
            Kind::Nil => Self::Nil.after(input.nil()?),
            Kind::Bool => Self::Bool(input.bool()?),
            Kind::Int => Self::Int(input.int()?),
            Kind::Float => Self::Float(input.float()?),
            Kind::Str => Self::Str(Wire::decode(input)?),
            Kind::Bin => Self::Bin(Wire::decode(input)?),
            Kind::Array => Self::Array(Wire::decode(input)?),
            Kind::Map => Self::Map(Wire::decode(input)?),
            Kind::Ext => return Err(input.mismatch("a value")),
        })
    }
}

impl Value {
    fn after(self, (): ()) -> Self {
        self
    }
}
