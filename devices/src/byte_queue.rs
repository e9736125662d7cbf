//! A queue of bytes that moves whole slices.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue(VecDeque<u8>);

impl ByteQueue {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Copies the first bytes, as many as there are and fit, without taking them.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.0.len());
        let (front, back) = self.0.as_slices();
        let split = count.min(front.len());
        buffer[..split].copy_from_slice(&front[..split]);
        buffer[split..count].copy_from_slice(&back[..count - split]);
        count
    }

    /// Drops the first bytes.
    pub(crate) fn skip(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    /// Takes the first bytes, as many as there are and fit.
    pub(crate) fn pop(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.peek(buffer);
        self.skip(count);
        count
    }

    /// Drops the last bytes beyond `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops everything, memory included.
    pub(crate) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }

    /// A copy of everything.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }
}

impl From<&[u8]> for ByteQueue {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), 0..60usize), 0..50)
        ) {
            let mut queue = ByteQueue::default();
            let (mut all, mut got) = (Vec::new(), Vec::new());
            for (bytes, take) in steps {
                all.extend(&bytes);
                queue.push(&bytes);
                let mut buffer = vec![0; take];
                let count = queue.pop(&mut buffer);
                got.extend(&buffer[..count]);
            }
            prop_assert_eq!(queue.len(), all.len() - got.len());
            got.extend(queue.to_vec());
            prop_assert_eq!(got, all);
        }
    }
}
