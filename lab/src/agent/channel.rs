//! The host's end of one agent stream: bytes that arrived, credit that is owed (E-052, E-053).

use std::collections::VecDeque;

use provium_protocol::{Error, INITIAL_CREDIT};

/// Consumed bytes are given back as credit in pieces of at least this size.
const CREDIT_STEP: u64 = INITIAL_CREDIT / 4;

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelEnd {
    /// Its source ended.
    Eof,
    /// The agent ended it with an error.
    Failed(Error),
    /// The link is gone.
    Lost(String),
}

/// What arrived on one stream and was not taken yet.
#[derive(Debug)]
pub(crate) struct Channel {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes the agent may still send.
    credit: u64,
    /// Bytes taken that have not been granted again.
    owed: u64,
    pub(crate) end: Option<ChannelEnd>,
    /// A stream object of ours reads it; until then it holds what came before the answer that names it.
    pub(crate) claimed: bool,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            chunks: VecDeque::new(),
            credit: INITIAL_CREDIT,
            owed: 0,
            end: None,
            claimed: false,
        }
    }
}

impl Channel {
    /// Takes data in; false when the agent sent more than it was granted.
    pub(super) fn push(&mut self, data: Vec<u8>) -> bool {
        let Some(left) = self.credit.checked_sub(data.len() as u64) else {
            return false;
        };
        self.credit = left;
        if !data.is_empty() {
            self.chunks.push_back(data);
        }
        true
    }

    /// The next chunk, as the agent framed it, and the credit to grant for what was taken so far.
    pub(super) fn pop(&mut self) -> Option<(Vec<u8>, Option<u64>)> {
        let chunk = self.chunks.pop_front()?;
        self.owed += chunk.len() as u64;
        if self.owed < CREDIT_STEP || self.end.is_some() {
            return Some((chunk, None));
        }
        let grant = std::mem::take(&mut self.owed);
        self.credit += grant;
        Some((chunk, Some(grant)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e053_credit_is_enforced_and_given_back_in_steps() {
        let mut channel = Channel::default();
        assert!(channel.push(vec![0; INITIAL_CREDIT as usize]));
        assert!(!channel.push(vec![0; 1]));
        let (chunk, grant) = channel.pop().unwrap();
        assert_eq!(chunk.len() as u64, INITIAL_CREDIT);
        assert_eq!(grant, Some(INITIAL_CREDIT));
        assert!(channel.push(vec![0; 100]));
        assert_eq!(channel.pop().unwrap().1, None);
        assert!(channel.pop().is_none());
    }
}
