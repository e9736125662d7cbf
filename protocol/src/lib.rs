//! Host-agent messages and the event stream: types, framing, version.
//!
//! This crate owns everything two programs must agree on byte by byte, and nothing else: no
//! sockets, no files, no threads. The harness, the guest agent and the coverage tool link it, and
//! a fuzzer can drive all of it from a byte slice (E-008).
//!
//! # One frame
//!
//! ```text
//! +----------------+--------------------------------------+
//! | length, 4 B BE | one MessagePack map, `length` bytes  |   1 <= length <= MAX_FRAME
//! +----------------+--------------------------------------+
//! ```
//!
//! # One connection
//!
//! ```text
//! host                                             agent
//!  | hello {protocol_version, host_version, resume} >|
//!  |< hello_ok {agent_version, pid, boot_id, ...}    |   or hello_err {message}, then close
//!  |                                                 |
//!  | {id: 1, op: "tail_open", args: {path, start}}  >|
//!  |< {id: 1, outcome: "ok", value: STREAM}          |
//!  |< {stream, data} ...                             |   at most the credit granted
//!  | {id: 2, op: "exec", args: {shell: "..."}}      >|   requests are multiplexed,
//!  | {stream, credit}                               >|   answers come in any order
//!  | {cancel: 2}                                    >|
//!  |< {id: 2, outcome: "err", value: {cancelled}}    |   exactly one answer per request
//!  |< {stream, eof: true}                            |
//!  |< {id: 0, outcome: "err", value: {protocol}}     |   malformed input: said once, then close
//! ```
//!
//! The state of a connection is therefore `hello -> serving -> closed`; only a frame that breaks
//! the rules of this crate moves it to `closed` early. Everything wrong *inside* a well-formed
//! request is answered and the connection goes on.
//!
//! # Version rule
//!
//! [`PROTOCOL_VERSION`] covers the agent protocol and the event stream. Any added, removed or
//! changed op, event, field, enum value or bit raises it (E-001); `tests/pin.rs` fails until the
//! stored bytes and the version move together (E-002). Both sides of a connection come from one
//! build, so there is no compatibility between versions to keep.
//!
//! # Why not serde
//!
//! The spec fixes how each value is spelt (shortest integers, `bin` against `str`, no nil for an
//! absent field), wants hostile counts refused before anything is allocated, and wants the name of
//! the field that was wrong. [`wire`] does exactly that in a few hundred lines, borrows from the
//! frame, and keeps the guest agent small; the tests hold it against an independent MessagePack
//! implementation.
#![forbid(unsafe_code)]

pub mod errno;
pub mod event;
pub mod frame;
pub mod message;
pub mod ops;
pub mod serial;
pub mod value;
pub mod wire;

pub use event::{Amount, Event, EventKind, FileStatus, Meta};
pub use frame::{FrameError, FrameReader};
pub use message::{
    Error, ErrorKind, Hello, HelloErr, HelloOk, RawValue, Request, Response, StreamFrame, ToAgent,
    ToHost,
};
pub use ops::{Op, Operation};
pub use value::Value;

/// The one version of events and agent protocol (E-001).
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest frame body in bytes (E-004).
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// The vsock port on which the agent listens (E-042).
pub const AGENT_PORT: u32 = 5123;

/// Bytes of stream data the agent may send before the first grant of credit (E-053).
pub const INITIAL_CREDIT: u64 = 256 * 1024;

/// Deepest nesting of maps and arrays in a frame, the body itself being level one (E-094).
pub const MAX_DEPTH: usize = 32;

/// Most bytes that `stage` may hold on one connection (E-102).
pub const MAX_STAGED: usize = 256 * 1024 * 1024;
