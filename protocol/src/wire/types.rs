//! The plain types of the wire: integers, booleans, text, bytes, lists and maps.

use std::collections::BTreeMap;

use super::{DecodeError, Decoder, Encoder, Wire};

impl Wire for () {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.nil();
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        input.nil()
    }
}

impl Wire for bool {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.bool(*self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        input.bool()
    }
}

/// Integers: one encoding, checked against the range of the type.
macro_rules! integers {
    ($($Type:ty, $as:ty, $method:ident;)*) => {$(
        impl Wire for $Type {
            fn encode(&self, out: &mut Encoder<'_>) {
                out.$method(<$as>::from(*self));
            }

            fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let value = input.$method()?;
                Self::try_from(value).map_err(|_| {
                    DecodeError::new(format!(
                        "{value} is outside {} to {}", Self::MIN, Self::MAX,
                    ))
                })
            }
        }
    )*};
}

integers! {
    u32, u64, uint;
    u64, u64, uint;
    i32, i64, int;
    i64, i64, int;
}

impl Wire for String {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.str(self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let text = input.str()?;
        input.charge(text.len())?;
        Ok(text.to_owned())
    }
}

/// Byte data is `bin`, never an array (E-005); `u8` itself is no wire type.
impl Wire for Vec<u8> {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.bin(self);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let bytes = input.bin()?;
        input.charge(bytes.len())?;
        Ok(bytes.to_vec())
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.array(self.len());
        self.iter().for_each(|value| value.encode(out));
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = input.array()?;
        input.charge(count.saturating_mul(size_of::<T>()))?;
        let mut values = Vec::with_capacity(count);
        for index in 0..count {
            values.push(T::decode(input).map_err(|error| error.at_index(index))?);
        }
        Ok(values)
    }
}

/// A map with keys of one type, written in their order.
impl<K: Wire + Ord, T: Wire> Wire for BTreeMap<K, T> {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.map(self.len());
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = input.map()?;
        // The nodes of the tree may be half empty.
        input.charge(count.saturating_mul(2 * size_of::<(K, T)>()))?;
        let mut map = BTreeMap::new();
        for index in 0..count {
            let mut entry = || Ok((K::decode(input)?, T::decode(input)?));
            let (key, value) = entry().map_err(|error: DecodeError| error.at_index(index))?;
            map.insert(key, value);
        }
        Ok(map)
    }
}
