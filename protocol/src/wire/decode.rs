//! Reading MessagePack from a hostile peer (E-006, E-094, E-101).
//!
//! [`check`] walks a whole body once, without recursion and without allocating: afterwards every
//! length in it is known to be true. [`Decoder`] then takes typed values from the front; what it
//! allocates is charged to one budget for the whole frame, because a small encoding can stand for
//! a large value.

use std::cell::Cell;

use super::DecodeError;
use crate::{MAX_DEPTH, MAX_FRAME};

/// Why a frame body is not exactly one acceptable MessagePack value (E-093, E-094).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The body ends inside a value.
    #[error("the value is cut short at byte {0}")]
    Short(usize),
    /// Bytes follow the value.
    #[error("bytes follow the value at byte {0}")]
    Trailing(usize),
    /// The byte 0xc1, which MessagePack never uses.
    #[error("no MessagePack type at byte {0}")]
    Reserved(usize),
    /// Deeper than [`MAX_DEPTH`].
    #[error("nesting deeper than {MAX_DEPTH} at byte {0}")]
    TooDeep(usize),
    /// More elements declared than bytes remain.
    #[error("more elements declared than bytes remain at byte {0}")]
    Count(usize),
    /// The body is not a map, or has no key by which it can be routed.
    #[error("{0}")]
    Shape(&'static str),
}

/// The start of one value: its type and what its header says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Head {
    Nil,
    Bool(bool),
    Uint(u64),
    Int(i64),
    Float(f64),
    Str(usize),
    Bin(usize),
    Ext(usize),
    Array(usize),
    Map(usize),
}

impl Head {
    /// Bytes of contents that follow the header, and values that follow those.
    fn extent(self) -> (usize, u64) {
        match self {
            Head::Str(length) | Head::Bin(length) | Head::Ext(length) => (length, 0),
            Head::Array(count) => (0, count as u64),
            Head::Map(count) => (0, 2 * count as u64),
            _ => (0, 0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Head::Nil => "nil",
            Head::Bool(_) => "a boolean",
            Head::Uint(_) | Head::Int(_) => "an integer",
            Head::Float(_) => "a float",
            Head::Str(_) => "text",
            Head::Bin(_) => "bytes",
            Head::Ext(_) => "an extension",
            Head::Array(_) => "an array",
            Head::Map(_) => "a map",
        }
    }
}

/// Reads one header at `at`, giving it and the offset behind it.
fn head(bytes: &[u8], at: usize) -> Result<(Head, usize), Malformed> {
    let tag = *bytes.get(at).ok_or(Malformed::Short(at))?;
    let at = at + 1;
    let number = |width: usize| -> Result<(u64, usize), Malformed> {
        let raw = bytes
            .get(at..at + width)
            .ok_or(Malformed::Short(bytes.len()))?;
        Ok((
            raw.iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
            at + width,
        ))
    };
    let length = |width: usize| number(width).map(|(value, at)| (value as usize, at));
    // Sign extension: shift the value to the top of the word and back.
    let signed = |width: usize| {
        let shift = 64 - 8 * width as u32;
        number(width).map(|(value, at)| (Head::Int(((value << shift) as i64) >> shift), at))
    };
    let low = usize::from(tag);
    Ok(match tag {
        0x00..=0x7f => (Head::Uint(u64::from(tag)), at),
        0x80..=0x8f => (Head::Map(low & 0x0f), at),
        0x90..=0x9f => (Head::Array(low & 0x0f), at),
        0xa0..=0xbf => (Head::Str(low & 0x1f), at),
        0xc0 => (Head::Nil, at),
        0xc1 => return Err(Malformed::Reserved(at - 1)),
        0xc2 | 0xc3 => (Head::Bool(tag == 0xc3), at),
        0xc4..=0xc6 => length(1 << (low - 0xc4)).map(|(n, at)| (Head::Bin(n), at))?,
        // An extension has one byte of type in front of its contents.
        0xc7..=0xc9 => length(1 << (low - 0xc7)).map(|(n, at)| (Head::Ext(n + 1), at))?,
        0xca => {
            let (bits, at) = number(4)?;
            (Head::Float(f64::from(f32::from_bits(bits as u32))), at)
        }
        0xcb => number(8).map(|(bits, at)| (Head::Float(f64::from_bits(bits)), at))?,
        0xcc..=0xcf => number(1 << (low - 0xcc)).map(|(value, at)| (Head::Uint(value), at))?,
        0xd0..=0xd3 => signed(1 << (low - 0xd0))?,
        0xd4..=0xd8 => (Head::Ext((1 << (low - 0xd4)) + 1), at),
        0xd9..=0xdb => length(1 << (low - 0xd9)).map(|(n, at)| (Head::Str(n), at))?,
        0xdc | 0xdd => length(2 << (low - 0xdc)).map(|(n, at)| (Head::Array(n), at))?,
        0xde | 0xdf => length(2 << (low - 0xde)).map(|(n, at)| (Head::Map(n), at))?,
        0xe0..=0xff => (Head::Int(i64::from(tag as i8)), at),
    })
}

/// Checks that `body` is exactly one value, nested at most [`MAX_DEPTH`] deep, in which every
/// declared length and count fits the bytes that are there (E-093, E-094).
pub fn check(body: &[u8]) -> Result<(), Malformed> {
    match walk(body, 0)? {
        end if end == body.len() => Ok(()),
        end => Err(Malformed::Trailing(end)),
    }
}

/// Walks one value from `at` and gives the offset behind it.
fn walk(body: &[u8], at: usize) -> Result<usize, Malformed> {
    // Values still due at each open level; the first entry is the value asked for.
    let mut due = [0u64; MAX_DEPTH + 1];
    due[0] = 1;
    let mut level = 0;
    let mut at = at;
    loop {
        while due[level] == 0 {
            if level == 0 {
                return Ok(at);
            }
            level -= 1;
        }
        due[level] -= 1;
        let start = at;
        let (head, contents) = head(body, at)?;
        let (bytes, values) = head.extent();
        let left = body.len() - contents;
        if bytes > left {
            return Err(Malformed::Short(body.len()));
        }
        if values > left as u64 {
            return Err(Malformed::Count(start));
        }
        at = contents + bytes;
        if matches!(head, Head::Array(_) | Head::Map(_)) {
            level += 1;
            *due.get_mut(level).ok_or(Malformed::TooDeep(start))? = values;
        }
    }
}

/// How much memory the values of one frame may still take (E-101: the frame itself and its
/// values together stay within two frames).
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MAX_FRAME))
    }
}

impl Budget {
    fn charge(&self, bytes: usize) -> Result<(), DecodeError> {
        let left = self.0.get().checked_sub(bytes);
        self.0
            .set(left.ok_or_else(|| DecodeError::new("needs more memory than a frame may"))?);
        Ok(())
    }
}

/// Takes typed values from the front of checked MessagePack.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    budget: &'a Budget,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8], budget: &'a Budget) -> Self {
        Self {
            bytes,
            at: 0,
            budget,
        }
    }

    /// The bytes not yet taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// A decoder for a part of the same frame.
    pub(crate) fn part(&self, bytes: &'a [u8]) -> Self {
        Self::new(bytes, self.budget)
    }

    /// Charges memory for a value to the frame's budget.
    pub fn charge(&self, bytes: usize) -> Result<(), DecodeError> {
        self.budget.charge(bytes)
    }

    /// Takes nil.
    pub fn nil(&mut self) -> Result<(), DecodeError> {
        self.take("nil", |head| matches!(head, Head::Nil).then_some(()))
    }

    /// Takes a boolean.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        self.take("a boolean", |head| {
            if let Head::Bool(value) = head {
                Some(value)
            } else {
                None
            }
        })
    }

    /// Takes an integer of any width that is not negative.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        self.take("a non-negative integer", |head| match head {
            Head::Uint(value) => Some(value),
            Head::Int(value) => u64::try_from(value).ok(),
            _ => None,
        })
    }

    /// Takes an integer of any width that fits 64 bits with sign.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        self.take("an integer of 64 bits", |head| match head {
            Head::Uint(value) => i64::try_from(value).ok(),
            Head::Int(value) => Some(value),
            _ => None,
        })
    }

    /// Takes a float of either width.
    pub fn float(&mut self) -> Result<f64, DecodeError> {
        self.take("a float", |head| {
            if let Head::Float(value) = head {
                Some(value)
            } else {
                None
            }
        })
    }

    /// Takes text.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.take("text", |head| {
            if let Head::Str(n) = head {
                Some(n)
            } else {
                None
            }
        })?;
        std::str::from_utf8(self.contents(length)?)
            .map_err(|_| DecodeError::new("text that is not UTF-8"))
    }

    /// Takes byte data.
    pub fn bin(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.take("bytes", |head| {
            if let Head::Bin(n) = head {
                Some(n)
            } else {
                None
            }
        })?;
        self.contents(length)
    }

    /// Takes the header of an array and gives its count.
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        self.take("an array", |head| {
            if let Head::Array(n) = head {
                Some(n)
            } else {
                None
            }
        })
    }

    /// Takes the header of a map and gives its count.
    pub fn map(&mut self) -> Result<usize, DecodeError> {
        self.take("a map", |head| {
            if let Head::Map(n) = head {
                Some(n)
            } else {
                None
            }
        })
    }

    /// Takes one value whatever it is and gives its bytes.
    pub fn any(&mut self) -> Result<&'a [u8], DecodeError> {
        let end = walk(self.bytes, self.at).map_err(broken)?;
        let value = &self.bytes[self.at..end];
        self.at = end;
        Ok(value)
    }

    /// Takes a map key if it is text, else skips it: no structure has such a key.
    pub(crate) fn key(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match head(self.bytes, self.at).map_err(broken)? {
            (Head::Str(length), at) => {
                self.at = at;
                self.contents(length).map(Some)
            }
            _ => self.any().map(|_| None),
        }
    }

    /// What kind of value comes next.
    pub fn peek(&self) -> Result<Kind, DecodeError> {
        Ok(match head(self.bytes, self.at).map_err(broken)?.0 {
            Head::Nil => Kind::Nil,
            Head::Bool(_) => Kind::Bool,
            Head::Uint(_) | Head::Int(_) => Kind::Int,
            Head::Float(_) => Kind::Float,
            Head::Str(_) => Kind::Str,
            Head::Bin(_) => Kind::Bin,
            Head::Ext(_) => Kind::Ext,
            Head::Array(_) => Kind::Array,
            Head::Map(_) => Kind::Map,
        })
    }

    /// The error for a value of the wrong type at the front.
    #[must_use]
    pub fn mismatch(&self, wanted: &str) -> DecodeError {
        let got = head(self.bytes, self.at).map_or("nothing", |(head, _)| head.name());
        DecodeError::new(format!("expected {wanted}, got {got}"))
    }

    fn take<T>(&mut self, wanted: &str, pick: fn(Head) -> Option<T>) -> Result<T, DecodeError> {
        let (head, at) = head(self.bytes, self.at).map_err(broken)?;
        let value = pick(head).ok_or_else(|| self.mismatch(wanted))?;
        self.at = at;
        Ok(value)
    }

    fn contents(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| broken(Malformed::Short(self.bytes.len())))?;
        let contents = &self.bytes[self.at..end];
        self.at = end;
        Ok(contents)
    }
}

/// Type of a value, for those that may be one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nil.
    Nil,
    /// A boolean.
    Bool,
    /// An integer.
    Int,
    /// A float.
    Float,
    /// Text.
    Str,
    /// Byte data.
    Bin,
    /// An extension, which this protocol never uses.
    Ext,
    /// An array.
    Array,
    /// A map.
    Map,
}

/// [`check`] has seen the frame already, so this only speaks of slices nobody checked.
fn broken(error: Malformed) -> DecodeError {
    DecodeError::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_value_passes() {
        for body in [
            &[0xc0][..],
            &[0x81, 0xa1, b'k', 0x93, 1, 2, 3],
            &[0xd9, 0],
            &[0xc7, 0, 5],
        ] {
            assert_eq!(check(body), Ok(()), "{body:02x?}");
        }
    }

    /// E-093: incomplete values, trailing bytes and the reserved type.
    #[test]
    fn incomplete_and_trailing_bytes_fail() {
        assert_eq!(check(&[]), Err(Malformed::Short(0)));
        assert_eq!(check(&[0x81, 0xa1, b'k']), Err(Malformed::Short(3)));
        assert_eq!(check(&[0xc4, 2, 0]), Err(Malformed::Short(3)));
        assert_eq!(check(&[0xce, 0]), Err(Malformed::Short(2)));
        assert_eq!(check(&[0xc0, 0xc0]), Err(Malformed::Trailing(1)));
        assert_eq!(check(&[0xc1]), Err(Malformed::Reserved(0)));
    }

    /// E-094: depth and counts are refused from their headers.
    #[test]
    fn depth_and_counts_are_bounded() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(
            check(&nested(MAX_DEPTH + 1)),
            Err(Malformed::TooDeep(MAX_DEPTH))
        );
        assert_eq!(
            check(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0]),
            Err(Malformed::Count(0))
        );
        assert_eq!(check(&[0xdf, 0, 0, 0, 1, 0xc0]), Err(Malformed::Count(0)));
    }

    /// E-006: every width of a number is the same number.
    #[test]
    fn integers_of_any_width_are_read() {
        let budget = Budget::default();
        for body in [
            &[5][..],
            &[0xcc, 5],
            &[0xcd, 0, 5],
            &[0xce, 0, 0, 0, 5],
            &[0xcf, 0, 0, 0, 0, 0, 0, 0, 5],
            &[0xd0, 5],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 5],
        ] {
            assert_eq!(Decoder::new(body, &budget).uint(), Ok(5));
            assert_eq!(Decoder::new(body, &budget).int(), Ok(5));
        }
        for body in [
            &[0xff][..],
            &[0xd0, 0xff],
            &[0xd1, 0xff, 0xff],
            &[0xd2, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(Decoder::new(body, &budget).int(), Ok(-1));
            assert!(Decoder::new(body, &budget).uint().is_err());
        }
        assert!(
            Decoder::new(&[0xcb, 0x40, 0x14, 0, 0, 0, 0, 0, 0], &budget)
                .int()
                .is_err()
        );
    }
}
