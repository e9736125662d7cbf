//! The serial fallback: a byte link without connections (E-042).
//!
//! A host that wants to talk sends a *call* and its hello; the agent answers with a *reply* and
//! hello_ok, and from there both send frames as on any other link. A call starts a new
//! conversation whatever the agent was doing, because its first four bytes are no frame length.
//! A host that gets no answer calls again with the next number. The reply carries the number of
//! its call, so a host that called several times before the guest opened its port reads on behind
//! the reply to its last call; everything before that (echoes of a terminal that was not set up
//! yet, replies to earlier calls) is noise.

use crate::frame::FrameReader;

const CALL: [u8; 7] = *b"\xffPROVIU";
const REPLY: [u8; 7] = *b"\xfePROVIU";

/// What begins a conversation, from the host.
#[must_use]
pub fn call(number: u8) -> [u8; 8] {
    marked(CALL, number)
}

/// What answers a call, from the agent.
#[must_use]
pub fn reply(number: u8) -> [u8; 8] {
    marked(REPLY, number)
}

/// The agent's reader: it starts behind the next call, whose number it then knows
/// ([`FrameReader::call_number`]).
#[must_use]
pub fn agent_reader() -> FrameReader {
    FrameReader::behind(CALL, None)
}

/// The host's reader: it starts behind the reply to the call with this number.
#[must_use]
pub fn host_reader(number: u8) -> FrameReader {
    FrameReader::behind(REPLY, Some(number))
}

/// Whether bytes that are no frame are the start of a call.
#[must_use]
pub fn starts_call(bytes: &[u8]) -> bool {
    bytes.starts_with(&CALL[..4])
}

fn marked(mark: [u8; 7], number: u8) -> [u8; 8] {
    let [a, b, c, d, e, f, g] = mark;
    [a, b, c, d, e, f, g, number]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode_with;

    fn frame(body: &[u8]) -> Vec<u8> {
        encode_with(|out| out.extend_from_slice(body)).unwrap()
    }

    /// Noise before a call is no part of the conversation, however it arrives.
    #[test]
    fn a_conversation_starts_behind_the_call() {
        let noise = b"login: \xff\xffPROV\xff";
        let stream = [noise.as_slice(), &call(0xff), &frame(b"one")].concat();
        for step in [1, 2, 7, stream.len()] {
            let mut reader = agent_reader();
            stream.chunks(step).for_each(|chunk| reader.push(chunk));
            assert_eq!(reader.call_number(), Some(0xff));
            assert_eq!(reader.next_frame().unwrap(), Some(&b"one"[..]));
            assert_eq!(reader.next_frame(), Ok(None));
            assert_eq!(reader.offset(), 7);
        }
        let mut reader = agent_reader();
        reader.push(&frame(b"one"));
        assert_eq!(reader.next_frame(), Ok(None));
        assert_eq!(reader.finish(), Ok(()));
    }

    /// The host reads on behind the reply to its last call.
    #[test]
    fn replies_to_earlier_calls_are_noise() {
        let stream = [
            call(1).as_slice(),
            &reply(1),
            &frame(b"first"),
            &reply(2),
            &frame(b"second"),
        ]
        .concat();
        let mut reader = host_reader(2);
        reader.push(&stream);
        assert_eq!(reader.next_frame().unwrap(), Some(&b"second"[..]));
        assert_eq!(host_reader(3).next_frame(), Ok(None));
    }

    /// A call where a frame should start is no legal length.
    #[test]
    fn a_call_is_no_frame() {
        let mut reader = FrameReader::new();
        reader.push(&call(7));
        assert!(reader.next_frame().is_err());
        assert!(starts_call(reader.pending()));
        assert!(!starts_call(b"\xff\xff\xff\xff"));
    }
}
