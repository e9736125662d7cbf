//! Entries of structures: required, optional, or a group of entries flattened into the map.

use std::cell::Cell;

use super::{DecodeError, Decoder, Encoder, Wire};

/// One declared field of a structure.
///
/// Every [`Wire`] value is a required entry and `Option` of it an optional one, absent when
/// `None` (E-005). A type that stands for several entries implements this by hand.
pub trait Field: Sized {
    /// How many entries of the map the field takes.
    fn entries(&self) -> usize;

    /// Writes those entries.
    fn put(&self, key: &str, out: &mut Encoder<'_>);

    /// Finds the field in a map.
    fn take(key: &str, map: &MapView<'_>) -> Result<Self, DecodeError>;
}

impl<T: Wire> Field for T {
    fn entries(&self) -> usize {
        1
    }

    fn put(&self, key: &str, out: &mut Encoder<'_>) {
        out.str(key);
        self.encode(out);
    }

    fn take(key: &str, map: &MapView<'_>) -> Result<Self, DecodeError> {
        map.optional(key)?
            .ok_or_else(|| DecodeError::new("missing").at(key))
    }
}

impl<T: Wire> Field for Option<T> {
    fn entries(&self) -> usize {
        usize::from(self.is_some())
    }

    fn put(&self, key: &str, out: &mut Encoder<'_>) {
        if let Some(value) = self {
            value.put(key, out);
        }
    }

    fn take(key: &str, map: &MapView<'_>) -> Result<Self, DecodeError> {
        map.optional(key)
    }
}

/// A map whose entries are looked up by key, in any order (E-006).
///
/// Nothing is stored: a look-up goes on from where the last one ended and wraps around, which
/// meets every field at once when the peer wrote them in the declared order.
pub struct MapView<'a> {
    count: usize,
    entries: Decoder<'a>,
    cursor: Cell<Cursor<'a>>,
}

#[derive(Default)]
struct Cursor<'a> {
    index: usize,
    /// Nothing stands for the first entry.
    at: Option<Decoder<'a>>,
}

impl<'a> MapView<'a> {
    /// Takes a map from the front of `input`.
    pub fn new(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let whole = input.part(input.clone().any()?);
        input.any()?;
        let mut entries = whole;
        let count = entries.map()?;
        Ok(Self {
            count,
            entries,
            cursor: Cell::default(),
        })
    }

    /// The value of `key`, if the map has it.
    pub fn find(&self, key: &str) -> Result<Option<Decoder<'a>>, DecodeError> {
        let mut cursor = self.cursor.take();
        for _ in 0..self.count {
            if cursor.index == self.count {
                cursor = Cursor::default();
            }
            let mut at = cursor.at.take().unwrap_or_else(|| self.entries.clone());
            let found = at.key()? == Some(key.as_bytes());
            let value = at.any()?;
            cursor = Cursor {
                index: cursor.index + 1,
                at: Some(at),
            };
            if found {
                self.cursor.set(cursor);
                return Ok(Some(self.entries.part(value)));
            }
        }
        self.cursor.set(cursor);
        Ok(None)
    }

    /// The typed value of `key`, if the map has it; errors name the key.
    pub fn optional<T: Wire>(&self, key: &str) -> Result<Option<T>, DecodeError> {
        let Some(mut value) = self.find(key)? else {
            return Ok(None);
        };
        T::decode(&mut value)
            .map(Some)
            .map_err(|error| error.at(key))
    }
}
