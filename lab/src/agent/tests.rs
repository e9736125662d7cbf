//! Tests of the link over an in-memory stream, the test playing the agent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use provium_devices::{ByteStream, Progress, Signal, StreamError};
use provium_protocol::message::{data_frame, eof_frame, err_frame, ok_frame};
use provium_protocol::ops::{Ping, ReadFile, Uptime};
use provium_protocol::{
    Error, ErrorKind, FrameReader, Hello, INITIAL_CREDIT, MAX_FRAME, Op, ToAgent,
};

use super::stage::CALL_LIMIT;
use super::*;

/// A pipe with the test at its far end.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    to_host: VecDeque<u8>,
    to_agent: Vec<u8>,
    closed: bool,
    /// Bytes the pipe takes before it is full.
    room: Option<usize>,
}

impl ByteStream for Wire {
    fn try_read(&self, buffer: &mut [u8]) -> Result<Progress, StreamError> {
        let mut ends = self.0.lock().unwrap();
        let count = buffer.len().min(ends.to_host.len());
        for (slot, byte) in buffer.iter_mut().zip(ends.to_host.drain(..count)) {
            *slot = byte;
        }
        match (count, ends.closed) {
            (0, true) => Ok(Progress::Eof),
            (0, false) => Ok(Progress::Pending),
            _ => Ok(Progress::Bytes(count)),
        }
    }

    fn try_write(&self, data: &[u8]) -> Result<Progress, StreamError> {
        let mut ends = self.0.lock().unwrap();
        let count = ends.room.map_or(data.len(), |room| room.min(data.len()));
        ends.to_agent.extend_from_slice(&data[..count]);
        if let Some(room) = &mut ends.room {
            *room -= count;
        }
        Ok(if count == 0 {
            Progress::Pending
        } else {
            Progress::Bytes(count)
        })
    }

    fn is_open(&self) -> bool {
        !self.0.lock().unwrap().closed
    }

    fn shutdown_write(&self) {}

    fn subscribe(&self, _: &Arc<Signal>) {}
}

impl Wire {
    fn say(&self, bytes: &[u8]) {
        self.0.lock().unwrap().to_host.extend(bytes);
    }

    /// Everything the host said since the last look.
    fn heard(&self) -> Vec<ToAgent> {
        let bytes = std::mem::take(&mut self.0.lock().unwrap().to_agent);
        let mut reader = FrameReader::new();
        reader.push(&bytes);
        let mut messages = Vec::new();
        while let Some(body) = reader.next_frame().unwrap() {
            messages.push(ToAgent::from_body(body).unwrap());
        }
        messages
    }
}

fn link() -> (Wire, Arc<Link>) {
    let wire = Wire::default();
    let link = Link::new(Box::new(wire.clone()), FrameReader::new(), Arc::new(|| 7));
    (wire, link)
}

fn poll<T: Unpin + Future>(future: &mut T) -> Poll<T::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<T: std::fmt::Debug>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("still pending"),
    }
}

#[test]
fn e049_e055_requests_are_multiplexed_and_answered_in_any_order() {
    let (wire, link) = link();
    let mut first = link.request(&Ping {});
    let mut second = link.request(&Ping {});
    assert_eq!(link.in_flight(), 2);
    let ids: Vec<u64> = wire
        .heard()
        .iter()
        .map(|message| match message {
            ToAgent::Request(request) => request.id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [1, 2]);
    assert!(poll(&mut first).is_pending());
    wire.say(&ok_frame(2, &Uptime { uptime_ns: 22 }));
    assert!(poll(&mut first).is_pending());
    assert_eq!(ready(poll(&mut second)).unwrap().uptime_ns, 22);
    wire.say(&ok_frame(1, &Uptime { uptime_ns: 11 }));
    assert_eq!(ready(poll(&mut first)).unwrap().uptime_ns, 11);
    assert_eq!(link.last_frame_ns(), 7);
    assert_eq!(link.in_flight(), 0);
}

#[test]
fn e051_an_error_answer_is_the_requests_error() {
    let (wire, link) = link();
    let mut request = link.request(&ReadFile {
        path: b"/x".to_vec(),
        max: 1,
    });
    wire.say(&err_frame(1, &Error::os("open", 2).about(b"/x")));
    match ready(poll(&mut request)) {
        Err(LinkError::Agent(error)) => {
            assert_eq!((error.kind, error.errno), (ErrorKind::Os, Some(2)))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn e054_dropping_a_request_cancels_it_and_its_late_answer_is_ignored() {
    let (wire, link) = link();
    drop(link.request(&Ping {}));
    link.request(&Ping {}).detach();
    assert!(matches!(wire.heard()[1], ToAgent::Cancel { id: 1 }));
    wire.say(&ok_frame(1, &Uptime { uptime_ns: 0 }));
    wire.say(&ok_frame(2, &Uptime { uptime_ns: 0 }));
    wire.say(&ok_frame(9, &Uptime { uptime_ns: 0 }));
    assert_eq!(link.down(), None);
    assert_eq!(link.in_flight(), 0);
}

#[test]
fn e093_broken_frames_end_the_link_naming_direction_and_offset() {
    let (wire, link) = link();
    let mut request = link.request(&Ping {});
    wire.say(&ok_frame(5, &()));
    wire.say(&(MAX_FRAME as u32 + 1).to_be_bytes());
    match ready(poll(&mut request)) {
        Err(LinkError::Down(cause)) => {
            assert!(
                cause.starts_with("from the agent: frame at byte "),
                "{cause}"
            );
        }
        other => panic!("{other:?}"),
    }
    let (wire, link) = self::link();
    wire.say(&[0, 0, 0, 1, 0xc0]);
    assert!(link.down().unwrap().contains("frame at byte 0: "));
}

#[test]
fn e093_the_agents_complaint_ends_the_link() {
    let (wire, link) = link();
    wire.say(&err_frame(
        0,
        &Error::new(ErrorKind::Protocol, "frame at byte 3 is odd"),
    ));
    assert_eq!(link.down().unwrap(), "to the agent: frame at byte 3 is odd");
}

#[test]
fn e007_an_end_inside_a_frame_is_truncation() {
    let (wire, link) = link();
    wire.say(&[0, 0, 0, 9, 1]);
    wire.0.lock().unwrap().closed = true;
    assert!(
        link.down()
            .unwrap()
            .contains("inside the frame that starts at byte 0")
    );
    let (wire, link) = self::link();
    let mut request = link.request(&Ping {});
    wire.0.lock().unwrap().closed = true;
    let cause = LinkError::Down("the agent closed the connection".into());
    assert_eq!(ready(poll(&mut request)), Err(cause));
}

#[test]
fn e052_stream_data_may_come_before_the_answer_that_names_it() {
    let (wire, link) = link();
    wire.say(&data_frame(4, b"early").unwrap());
    wire.say(&data_frame(4, b"more").unwrap());
    wire.say(&eof_frame(4, None).unwrap());
    link.claim(4);
    assert_eq!(ready(link.read_stream(4)).unwrap(), b"early");
    assert!(!link.stream_ended(4, false));
    assert_eq!(ready(link.read_stream(4)).unwrap(), b"more");
    assert!(link.stream_ended(4, false));
    assert_eq!(ready(link.read_stream(4)), Err(ChannelEnd::Eof));
    link.forget_stream(4);
}

#[test]
fn e053_a_stream_that_exceeds_its_credit_ends_the_link() {
    let (wire, link) = link();
    link.claim(4);
    let piece = vec![1; INITIAL_CREDIT as usize / 2];
    for _ in 0..2 {
        wire.say(&data_frame(4, &piece).unwrap());
    }
    assert_eq!(ready(link.read_stream(4)).unwrap().len(), piece.len());
    assert!(
        wire.heard()
            .iter()
            .any(|message| matches!(message, ToAgent::Credit { stream: 4, .. }))
    );
    for _ in 0..2 {
        wire.say(&data_frame(4, &piece).unwrap());
    }
    assert!(link.down().unwrap().contains("stream 4 exceeds its credit"));
}

#[test]
fn a_full_pipe_keeps_the_rest_for_later() {
    let (wire, link) = link();
    wire.0.lock().unwrap().room = Some(3);
    let mut request = link.request(&Ping {});
    assert!(poll(&mut request).is_pending());
    wire.0.lock().unwrap().room = None;
    assert!(poll(&mut request).is_pending());
    match &wire.heard()[..] {
        [ToAgent::Request(request)] => assert!(matches!(request.op, Ok(Op::Ping(_)))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn e044_the_greeting_and_both_answers() {
    let (wire, link) = link();
    assert!(link.hello().is_pending());
    link.send_raw(&Hello::new("1.2.3", true).to_frame().unwrap());
    assert!(matches!(&wire.heard()[0], ToAgent::Hello(hello) if hello.resume));
    let refusal = provium_protocol::HelloErr {
        protocol_version: 9,
        message: "no".into(),
    };
    wire.say(&refusal.to_frame().unwrap());
    assert_eq!(ready(link.hello()).unwrap(), Err(refusal));
}

#[test]
fn e102_large_arguments_are_staged_in_pieces_and_small_ones_stay_inline() {
    let (wire, link) = link();
    let stager = Stager::new(&link, 9 << 20).unwrap();
    assert!(matches!(
        stager.blob(vec![0; 10]),
        provium_protocol::ops::Blob::Inline(_)
    ));
    let blob = stager.blob(vec![7; 9 << 20]);
    let provium_protocol::ops::Blob::Staged(key) = blob else {
        panic!("inline")
    };
    let pieces: Vec<(usize, bool)> = wire
        .heard()
        .into_iter()
        .map(|message| match message {
            ToAgent::Request(provium_protocol::Request {
                op: Ok(Op::Stage(stage)),
                ..
            }) => {
                assert_eq!(stage.key, key);
                (stage.data.len(), stage.last)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        pieces,
        [(4 << 20, false), (4 << 20, false), (1 << 20, true)]
    );
    assert!(Stager::new(&link, CALL_LIMIT + 1).is_err());
}

#[test]
fn e100_one_ping_at_a_time() {
    let (wire, link) = link();
    link.ping();
    link.ping();
    assert_eq!(wire.heard().len(), 1);
    wire.say(&ok_frame(1, &Uptime { uptime_ns: 1 }));
    link.ping();
    link.down();
    link.ping();
    assert_eq!(wire.heard().len(), 1);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// E-101: whatever the guest sends, the link neither panics nor keeps a request pending after its end.
        #[test]
        fn any_bytes_are_survived(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let (wire, link) = link();
            let mut request = link.request(&Ping {});
            for chunk in chunks {
                wire.say(&chunk);
                let _any = poll(&mut request);
            }
            wire.0.lock().unwrap().closed = true;
            prop_assert!(link.down().is_some());
        }

        /// Well-formed frames in any order, with any ids.
        #[test]
        fn any_frames_are_survived(frames in prop::collection::vec((0u64..5, 0u8..4, 0usize..300_000), 0..12)) {
            let (wire, link) = link();
            let mut request = link.request(&Ping {});
            for (id, kind, size) in frames {
                wire.say(&match kind {
                    0 => ok_frame(id, &vec![0u8; size]),
                    1 => err_frame(id, &Error::new(ErrorKind::Os, "x")),
                    2 => data_frame(id, &vec![0; size]).unwrap(),
                    _ => eof_frame(id, None).unwrap(),
                });
                let _any = link.read_stream(id);
            }
            let _any = poll(&mut request);
        }
    }
}
