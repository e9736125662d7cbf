//! Writing MessagePack, always in its shortest form (E-005).

/// Appends MessagePack to a byte vector.
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// An encoder that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes nil.
    pub fn nil(&mut self) {
        self.out.push(0xc0);
    }

    /// Writes a boolean.
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    /// Writes a non-negative integer.
    pub fn uint(&mut self, value: u64) {
        match value {
            0..=0x7f => self.out.push(low_byte(value)),
            0x80..=0xff => self.tagged(0xcc, &[low_byte(value)]),
            0x100..=0xffff => self.tagged(0xcd, &value.to_be_bytes()[6..]),
            0x1_0000..=0xffff_ffff => self.tagged(0xce, &value.to_be_bytes()[4..]),
            _ => self.tagged(0xcf, &value.to_be_bytes()),
        }
    }

    /// Writes an integer.
    pub fn int(&mut self, value: i64) {
        let bytes = value.to_be_bytes();
        match value {
            0.. => self.uint(value.unsigned_abs()),
            -0x20..=-1 => self.out.push(bytes[7]),
            -0x80..=-0x21 => self.tagged(0xd0, &bytes[7..]),
            -0x8000..=-0x81 => self.tagged(0xd1, &bytes[6..]),
            -0x8000_0000..=-0x8001 => self.tagged(0xd2, &bytes[4..]),
            _ => self.tagged(0xd3, &bytes),
        }
    }

    /// Writes a double.
    pub fn float(&mut self, value: f64) {
        self.tagged(0xcb, &value.to_be_bytes());
    }

    /// Writes text.
    pub fn str(&mut self, value: &str) {
        match value.len() {
            length @ 0..=31 => self.out.push(0xa0 | low_byte(length as u64)),
            length => self.length(length, [Some(0xd9), Some(0xda), Some(0xdb)]),
        }
        self.out.extend_from_slice(value.as_bytes());
    }

    /// Writes byte data.
    pub fn bin(&mut self, value: &[u8]) {
        self.bin_header(value.len());
        self.out.extend_from_slice(value);
    }

    /// Writes the header of byte data; exactly `length` bytes must follow through
    /// [`raw`](Self::raw).
    pub fn bin_header(&mut self, length: usize) {
        self.length(length, [Some(0xc4), Some(0xc5), Some(0xc6)]);
    }

    /// Writes the header of an array; `count` values must follow.
    pub fn array(&mut self, count: usize) {
        match count {
            0..=15 => self.out.push(0x90 | low_byte(count as u64)),
            _ => self.length(count, [None, Some(0xdc), Some(0xdd)]),
        }
    }

    /// Writes the header of a map; `count` keys with values must follow.
    pub fn map(&mut self, count: usize) {
        match count {
            0..=15 => self.out.push(0x80 | low_byte(count as u64)),
            _ => self.length(count, [None, Some(0xde), Some(0xdf)]),
        }
    }

    /// Appends bytes that are MessagePack already, or the contents announced by
    /// [`bin_header`](Self::bin_header).
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.out.push(tag);
        self.out.extend_from_slice(bytes);
    }

    /// Writes a length of 1, 2 or 4 bytes behind the tag for that width. Anything longer than
    /// `u32::MAX` saturates: no frame can hold it, so the frame is refused for its size.
    fn length(&mut self, length: usize, tags: [Option<u8>; 3]) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let bytes = length.to_be_bytes();
        match (length, tags) {
            (0..=0xff, [Some(tag), ..]) => self.tagged(tag, &bytes[3..]),
            (0..=0xffff, [_, Some(tag), _]) => self.tagged(tag, &bytes[2..]),
            (_, [.., tag]) => self.tagged(tag.unwrap_or(0xc1), &bytes),
        }
    }
}

/// The lowest byte of a number that is known to be small.
fn low_byte(value: u64) -> u8 {
    value.to_be_bytes()[7]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Encoder::new(&mut out));
        out
    }

    /// E-005: every integer takes the form an independent encoder calls shortest.
    #[test]
    fn integers_take_the_shortest_form() {
        let edges = (0..64).flat_map(|bit| [1i64 << bit, (1i64 << bit).wrapping_sub(1)]);
        for value in edges.flat_map(|v| [v, v.wrapping_neg(), v.wrapping_neg().wrapping_sub(1)]) {
            let mut expected = Vec::new();
            rmpv::encode::write_value(&mut expected, &value.into()).unwrap();
            assert_eq!(bytes(|e| e.int(value)), expected, "{value}");
        }
        assert_eq!(
            bytes(|e| e.uint(u64::MAX)),
            [[0xcf].as_slice(), &[0xff; 8]].concat()
        );
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for length in [0usize, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            let mut expected = Vec::new();
            rmpv::encode::write_value(&mut expected, &rmpv::Value::Binary(vec![0; length]))
                .unwrap();
            assert_eq!(bytes(|e| e.bin(&vec![0; length])), expected);

            let text = "x".repeat(length);
            let mut expected = Vec::new();
            rmpv::encode::write_value(&mut expected, &text.as_str().into()).unwrap();
            assert_eq!(bytes(|e| e.str(&text)), expected);

            let nils = rmpv::Value::Array(vec![rmpv::Value::Nil; length]);
            let mut expected = Vec::new();
            rmpv::encode::write_value(&mut expected, &nils).unwrap();
            let array = bytes(|e| {
                e.array(length);
                (0..length).for_each(|_| e.nil());
            });
            assert_eq!(array, expected);
        }
    }
}
