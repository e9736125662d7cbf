//! The messages of an agent connection (E-044 to E-054).

use crate::errno;
use crate::frame;
use crate::ops::{Op, Operation};
use crate::wire::{
    Budget, DecodeError, Decoder, Encoder, Field, Malformed, MapView, Wire, check, wire_enum,
    wire_struct,
};
use crate::{MAX_FRAME, PROTOCOL_VERSION};

wire_struct! {
    /// First frame of a connection, from the host (E-044).
    pub struct Hello {
        /// [`PROTOCOL_VERSION`] of the host.
        pub protocol_version: u32,
        /// Version of the host program.
        pub host_version: String,
        /// Whether the agent keeps the handles of the connection before (E-047).
        pub resume: bool,
    }
}

wire_struct! {
    /// The agent accepts (E-045).
    pub struct HelloOk {
        /// [`PROTOCOL_VERSION`] of the agent.
        pub protocol_version: u32,
        /// Version of the agent program.
        pub agent_version: String,
        /// Operating system of the guest.
        pub guest_os: String,
        /// Names of what this agent can do, for information.
        pub agent_features: Vec<String>,
        /// Process id of the agent in the guest.
        pub pid: i32,
        /// Release of the kernel.
        pub kernel_release: String,
        /// Random id of this boot.
        pub boot_id: String,
        /// Whether this is a worker's connection.
        pub worker: bool,
        /// How the agent before this one ended, when it did not survive what it was asked to do.
        pub previous_exit: Option<String>,
    }
}

wire_struct! {
    /// The agent refuses and closes (E-045, E-046).
    pub struct HelloErr {
        /// [`PROTOCOL_VERSION`] of the agent.
        pub protocol_version: u32,
        /// Why it refuses.
        pub message: String,
    }
}

wire_enum! {
    /// What kind of failure an [`Error`] is (E-051).
    pub enum ErrorKind {
        /// The guest kernel refused; `errno` says why.
        Os = "os",
        /// An argument is missing, mistyped or out of range; nothing was executed.
        BadArgs = "bad_args",
        /// No such operation here.
        UnknownOp = "unknown_op",
        /// No such handle, or one of another type.
        UnknownHandle = "unknown_handle",
        /// The handle existed and is gone.
        Stale = "stale",
        /// The operation was cancelled.
        Cancelled = "cancelled",
        /// A time limit passed.
        Timeout = "timeout",
        /// The answer does not fit one frame.
        TooLarge = "too_large",
        /// The peer broke the protocol.
        Protocol = "protocol",
    }
}

wire_struct! {
    /// A failure as a value (E-051).
    #[derive(Eq)]
    pub struct Error {
        /// What kind of failure.
        pub kind: ErrorKind,
        /// What failed, for people.
        pub message: String,
        /// Error number of the kernel.
        pub errno: Option<i32>,
        /// Its name.
        pub errno_name: Option<String>,
        /// The path or program it was about.
        pub path: Option<String>,
    }
}

impl Error {
    /// An error without errno or path.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            errno: None,
            errno_name: None,
            path: None,
        }
    }

    /// The kernel refused `what` with `errno`.
    #[must_use]
    pub fn os(what: &str, errno: i32) -> Self {
        Self {
            errno: Some(errno),
            errno_name: errno::name(errno).map(str::to_owned),
            ..Self::new(ErrorKind::Os, format!("{what}: {}", errno::describe(errno)))
        }
    }

    /// The same error about a path.
    #[must_use]
    pub fn about(mut self, path: &[u8]) -> Self {
        self.path = Some(String::from_utf8_lossy(path).into_owned());
        self
    }
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::new(ErrorKind::BadArgs, error.to_string())
    }
}

/// One encoded value of a type that the receiver of a response knows (E-050).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue(Vec<u8>);

impl RawValue {
    /// Encodes a value.
    #[must_use]
    pub fn of(value: &impl Wire) -> Self {
        Self(crate::wire::to_vec(value))
    }

    /// The value as a `T`.
    pub fn get<T: Wire>(&self) -> Result<T, DecodeError> {
        crate::wire::from_slice(&self.0)
    }

    /// Size of the encoded value.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

impl Wire for RawValue {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.raw(&self.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let bytes = input.any()?;
        input.charge(bytes.len())?;
        Ok(Self(bytes.to_vec()))
    }
}

/// What came of an operation: `outcome` and `value` of a map (E-050, also an entry of a batch).
pub type Outcome = Result<RawValue, Error>;

impl Field for Outcome {
    fn entries(&self) -> usize {
        2
    }

    fn put(&self, _: &str, out: &mut Encoder<'_>) {
        out.str("outcome");
        out.str(if self.is_ok() { "ok" } else { "err" });
        out.str("value");
        match self {
            Ok(value) => value.encode(out),
            Err(error) => error.encode(out),
        }
    }

    fn take(_: &str, map: &MapView<'_>) -> Result<Self, DecodeError> {
        match String::take("outcome", map)?.as_str() {
            "ok" => RawValue::take("value", map).map(Ok),
            "err" => Error::take("value", map).map(Err),
            other => Err(DecodeError::new(format!("`{}`", other.escape_debug())).at("outcome")),
        }
    }
}

/// A request (E-049). Arguments that do not decode come as the error that answers them (E-095,
/// E-096).
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Unique on the connection, from 1.
    pub id: u64,
    /// What to do.
    pub op: Result<Op, Error>,
}

/// The answer to a request (E-050).
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Id of the request; 0 when the agent reports that the peer broke the protocol (E-093).
    pub id: u64,
    /// The value of the operation, or why there is none.
    pub outcome: Outcome,
}

/// A frame of stream data from the agent (E-052).
#[derive(Clone, Debug, PartialEq)]
pub enum StreamFrame {
    /// More bytes.
    Data(Vec<u8>),
    /// The end, with the error that caused it, if one did.
    Eof(Option<Error>),
}

/// What the host sends to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum ToAgent {
    /// Opens the connection.
    Hello(Hello),
    /// Asks for an operation.
    Request(Request),
    /// Grants a stream more bytes (E-053).
    Credit {
        /// The stream.
        stream: u64,
        /// Bytes granted on top of what is left.
        credit: u64,
    },
    /// Interrupts a pending operation (E-054).
    Cancel {
        /// Id of the request.
        id: u64,
    },
}

/// What the agent sends to the host.
#[derive(Clone, Debug, PartialEq)]
pub enum ToHost {
    /// Accepts the connection.
    HelloOk(HelloOk),
    /// Refuses it.
    HelloErr(HelloErr),
    /// Answers a request.
    Response(Response),
    /// Carries a stream.
    Stream {
        /// The stream.
        stream: u64,
        /// Its data or end.
        frame: StreamFrame,
    },
}

impl Hello {
    /// The greeting of a host of this build.
    #[must_use]
    pub fn new(host_version: &str, resume: bool) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            host_version: host_version.to_owned(),
            resume,
        }
    }

    /// The greeting as a frame.
    pub fn to_frame(&self) -> Result<Vec<u8>, Error> {
        framed(|out| tagged("hello", self, out))
    }
}

impl HelloOk {
    /// The answer as a frame.
    pub fn to_frame(&self) -> Result<Vec<u8>, Error> {
        framed(|out| tagged("hello_ok", self, out))
    }
}

impl HelloErr {
    /// The answer as a frame.
    pub fn to_frame(&self) -> Result<Vec<u8>, Error> {
        framed(|out| tagged("hello_err", self, out))
    }
}

/// Encodes a request for `op` as a frame; fails with `too_large` if it does not fit one.
pub fn request_frame<O: Operation>(id: u64, op: &O) -> Result<Vec<u8>, Error> {
    framed(|out| {
        out.map(3);
        id.put("id", out);
        out.str("op");
        out.str(O::NAME);
        out.str("args");
        op.encode(out);
    })
}

/// Encodes a grant of credit as a frame.
pub fn credit_frame(stream: u64, credit: u64) -> Result<Vec<u8>, Error> {
    framed(|out| {
        out.map(2);
        stream.put("stream", out);
        credit.put("credit", out);
    })
}

/// Encodes the cancelling of a request as a frame.
pub fn cancel_frame(id: u64) -> Result<Vec<u8>, Error> {
    framed(|out| {
        out.map(1);
        id.put("cancel", out);
    })
}

/// Encodes a successful answer as a frame, or, should it not fit one, the `too_large` error in
/// its place (E-099).
pub fn ok_frame(id: u64, value: &impl Wire) -> Vec<u8> {
    let frame = framed(|out| {
        out.map(3);
        id.put("id", out);
        out.str("outcome");
        out.str("ok");
        out.str("value");
        value.encode(out);
    });
    frame.unwrap_or_else(|error| err_frame(id, &error))
}

/// Encodes a failed answer as a frame.
pub fn err_frame(id: u64, error: &Error) -> Vec<u8> {
    let encode = |error: &Error| {
        framed(|out| {
            out.map(3);
            id.put("id", out);
            out.str("outcome");
            out.str("err");
            out.str("value");
            error.encode(out);
        })
    };
    // An error too large for a frame can only be one that quotes something huge; the error that
    // says so is a few bytes.
    encode(error)
        .or_else(|large| encode(&large))
        .unwrap_or_default()
}

/// Encodes stream data as a frame. `data` must be well below [`MAX_FRAME`].
pub fn data_frame(stream: u64, data: &[u8]) -> Result<Vec<u8>, Error> {
    framed(|out| {
        out.map(2);
        stream.put("stream", out);
        out.str("data");
        out.bin(data);
    })
}

/// Encodes the end of a stream as a frame.
pub fn eof_frame(stream: u64, error: Option<&Error>) -> Result<Vec<u8>, Error> {
    framed(|out| {
        out.map(2 + usize::from(error.is_some()));
        stream.put("stream", out);
        true.put("eof", out);
        if let Some(error) = error {
            error.put("error", out);
        }
    })
}

impl ToAgent {
    /// Reads the body of a frame from the host.
    pub fn from_body(body: &[u8]) -> Result<Self, Malformed> {
        check(body)?;
        let budget = Budget::default();
        let map = route(body, &budget)?;
        if let Some(id) = key::<u64>(&map, "id", "no usable `id`")? {
            return Ok(Self::Request(Request {
                id,
                op: operation(&map),
            }));
        }
        if let Some(stream) = key::<u64>(&map, "stream", "no usable `stream`")? {
            let credit = key::<u64>(&map, "credit", "no usable `credit`")?;
            let credit = credit.ok_or(Malformed::Shape("a stream frame without `credit`"))?;
            return Ok(Self::Credit { stream, credit });
        }
        if let Some(id) = key::<u64>(&map, "cancel", "no usable `cancel`")? {
            return Ok(Self::Cancel { id });
        }
        match key::<String>(&map, "type", "no usable `type`")?.as_deref() {
            Some("hello") => whole(body)
                .map(Self::Hello)
                .ok_or(Malformed::Shape("no usable hello")),
            _ => Err(Malformed::Shape(
                "none of `id`, `stream`, `cancel` and hello",
            )),
        }
    }
}

impl ToHost {
    /// Reads the body of a frame from the agent.
    pub fn from_body(body: &[u8]) -> Result<Self, Malformed> {
        check(body)?;
        let budget = Budget::default();
        let map = route(body, &budget)?;
        if let Some(id) = key::<u64>(&map, "id", "no usable `id`")? {
            let outcome = Outcome::take("", &map);
            let outcome = outcome.map_err(|_| Malformed::Shape("a response without outcome"))?;
            return Ok(Self::Response(Response { id, outcome }));
        }
        if let Some(stream) = key::<u64>(&map, "stream", "no usable `stream`")? {
            return Ok(Self::Stream {
                stream,
                frame: stream_frame(&map)?,
            });
        }
        let unusable = Malformed::Shape("no usable hello answer");
        match key::<String>(&map, "type", "no usable `type`")?.as_deref() {
            Some("hello_ok") => whole(body).map(Self::HelloOk).ok_or(unusable),
            Some("hello_err") => whole(body).map(Self::HelloErr).ok_or(unusable),
            _ => Err(Malformed::Shape("none of `id`, `stream` and hello answer")),
        }
    }
}

/// The map in which the keys that route a frame are looked up.
fn route<'a>(body: &'a [u8], budget: &'a Budget) -> Result<MapView<'a>, Malformed> {
    MapView::new(&mut Decoder::new(body, budget)).map_err(|_| Malformed::Shape("not a map"))
}

fn key<T: Wire>(
    map: &MapView<'_>,
    key: &str,
    unusable: &'static str,
) -> Result<Option<T>, Malformed> {
    map.optional(key).map_err(|_| Malformed::Shape(unusable))
}

fn whole<T: Wire>(body: &[u8]) -> Option<T> {
    T::decode(&mut Decoder::new(body, &Budget::default())).ok()
}

fn operation(map: &MapView<'_>) -> Result<Op, Error> {
    let missing = |key| Error::from(DecodeError::new("missing").at(key));
    let name = map.find("op")?.ok_or_else(|| missing("op"))?.str();
    let name = name.map_err(|error| error.at("op"))?;
    let mut args = map.find("args")?.ok_or_else(|| missing("args"))?;
    Op::decode(name, &mut args)
}

fn stream_frame(map: &MapView<'_>) -> Result<StreamFrame, Malformed> {
    let data = key::<Vec<u8>>(map, "data", "no usable `data`")?;
    let eof = key::<bool>(map, "eof", "no usable `eof`")?;
    match (data, eof) {
        (Some(data), None) => Ok(StreamFrame::Data(data)),
        (None, Some(true)) => Ok(StreamFrame::Eof(key(map, "error", "no usable `error`")?)),
        _ => Err(Malformed::Shape(
            "a stream frame that is neither data nor end",
        )),
    }
}

fn framed(fill: impl FnOnce(&mut Encoder<'_>)) -> Result<Vec<u8>, Error> {
    frame::encode_with(|out| fill(&mut Encoder::new(out))).map_err(|size| {
        let message = format!("needs a frame of {size} bytes, the limit is {MAX_FRAME}");
        Error::new(ErrorKind::TooLarge, message)
    })
}

/// Writes a structure with a `type` in front; the structure's own map header is replaced.
fn tagged(kind: &str, value: &impl Wire, out: &mut Encoder<'_>) {
    let body = crate::wire::to_vec(value);
    let budget = Budget::default();
    let mut entries = Decoder::new(&body, &budget);
    let count = entries.map().unwrap_or_default();
    out.map(count + 1);
    out.str("type");
    out.str(kind);
    out.raw(entries.rest());
}
