//! What operations take and give.

use std::collections::BTreeMap;

use super::neither;
use crate::message::{Error, Outcome, RawValue};
use crate::ops::{Op, Operation};
use crate::wire::{
    Budget, DecodeError, Decoder, Encoder, Field, Kind, MapView, Wire, wire_enum, wire_struct,
};

/// Byte data that is either here or was uploaded before with `stage` (E-102).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blob {
    /// The bytes.
    Inline(Vec<u8>),
    /// The key under which they were staged.
    Staged(u64),
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Inline(bytes)
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self::Inline(bytes.to_vec())
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

wire_struct! {
    /// A reference to staged data.
    #[derive(Copy, Eq)]
    pub struct StagedKey {
        /// The key given to `stage`.
        pub staged: u64,
    }
}

impl Wire for Blob {
    fn encode(&self, out: &mut Encoder<'_>) {
        match self {
            Self::Inline(bytes) => out.bin(bytes),
            Self::Staged(key) => StagedKey { staged: *key }.encode(out),
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.peek()? {
            Kind::Bin => Wire::decode(input).map(Self::Inline),
            Kind::Map => StagedKey::decode(input).map(|key| Self::Staged(key.staged)),
            _ => Err(input.mismatch("bytes or a staged key")),
        }
    }
}

/// What a command runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A program with its arguments, the program itself being the first.
    Argv(Vec<Blob>),
    /// A script for `/bin/sh -c`.
    Shell(Blob),
}

/// A command and its surroundings (E-059, E-061). Its entries stand directly in the arguments of
/// the operation.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecSpec {
    /// What to run: `argv` or `shell`.
    pub command: Command,
    /// Variables laid over the agent's environment.
    pub env: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Whether to start from an empty environment instead.
    pub env_clear: Option<bool>,
    /// Working directory.
    pub cwd: Option<Vec<u8>>,
    /// Bytes for its standard input; absent is /dev/null for `exec`, an open pipe for `spawn`.
    pub stdin: Option<Blob>,
}

impl ExecSpec {
    /// A command in the agent's environment.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            command,
            env: None,
            env_clear: None,
            cwd: None,
            stdin: None,
        }
    }

    /// A script for the shell.
    pub fn shell(script: impl Into<Blob>) -> Self {
        Self::new(Command::Shell(script.into()))
    }

    /// A program with arguments.
    pub fn argv<B: Into<Blob>>(argv: impl IntoIterator<Item = B>) -> Self {
        Self::new(Command::Argv(argv.into_iter().map(Into::into).collect()))
    }
}

impl Field for ExecSpec {
    fn entries(&self) -> usize {
        1 + self.env.entries()
            + self.env_clear.entries()
            + self.cwd.entries()
            + self.stdin.entries()
    }

    fn put(&self, _: &str, out: &mut Encoder<'_>) {
        match &self.command {
            Command::Argv(argv) => argv.put("argv", out),
            Command::Shell(script) => script.put("shell", out),
        }
        self.env.put("env", out);
        self.env_clear.put("env_clear", out);
        self.cwd.put("cwd", out);
        self.stdin.put("stdin", out);
    }

    fn take(_: &str, map: &MapView<'_>) -> Result<Self, DecodeError> {
        let command = match (map.optional("argv")?, map.optional("shell")?) {
            (Some(argv), None) => Command::Argv(argv),
            (None, Some(script)) => Command::Shell(script),
            (Some(_), Some(_)) => return Err(DecodeError::new("`shell` is there too").at("argv")),
            (None, None) => return Err(DecodeError::new("missing, as is `shell`").at("argv")),
        };
        if matches!(&command, Command::Argv(argv) if argv.is_empty()) {
            return Err(DecodeError::new("empty").at("argv"));
        }
        Ok(Self {
            command,
            env: map.optional("env")?,
            env_clear: map.optional("env_clear")?,
            cwd: map.optional("cwd")?,
            stdin: map.optional("stdin")?,
        })
    }
}

wire_enum! {
    /// State of a process (E-059, E-062, E-064).
    pub enum ProcStatus {
        /// It has not ended.
        Running = "running",
        /// It ended by itself; `code` is its exit code.
        Exited = "exited",
        /// A signal ended it; `signal` is its number.
        Signalled = "signalled",
        /// It was killed because its time was up.
        TimedOut = "timed_out",
    }
}

wire_struct! {
    /// Output and end of a command (E-059, E-062).
    pub struct ExecResult {
        /// Its state.
        pub status: ProcStatus,
        /// Exit code, if it exited.
        pub code: Option<i32>,
        /// Signal number, if a signal ended it.
        pub signal: Option<i32>,
        /// What it wrote to standard output: all of it, or with `more` the beginning.
        pub stdout: Vec<u8>,
        /// What it wrote to standard error: all of it, or with `more` the beginning.
        pub stderr: Vec<u8>,
        /// Handle for `output_read`, when the output does not fit one frame. Reading goes on
        /// behind what is here, until it gives nothing.
        pub more: Option<u64>,
    }
}

wire_enum! {
    /// Which part of an output (E-060, E-077).
    pub enum Which {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// The out buffers of a `syscall` or `ioctl`, one behind the other.
        Buffers = "buffers",
    }
}

wire_struct! {
    /// A process that was started (E-061).
    #[derive(Copy, Eq)]
    pub struct Spawned {
        /// Its handle.
        pub h: u64,
        /// Its process id.
        pub pid: i32,
    }
}

wire_struct! {
    /// State of a process (E-064).
    #[derive(Copy, Eq)]
    pub struct ProcState {
        /// Its state.
        pub status: ProcStatus,
        /// Exit code, if it exited.
        pub code: Option<i32>,
        /// Signal number, if a signal ended it.
        pub signal: Option<i32>,
    }
}

wire_struct! {
    /// Uptime of the guest (E-058).
    #[derive(Copy, Eq)]
    pub struct Uptime {
        /// Nanoseconds since its boot.
        pub uptime_ns: u64,
    }
}

wire_struct! {
    /// Contents of a file (E-067).
    pub struct FileData {
        /// The beginning.
        pub data: Vec<u8>,
        /// Handle for reading on, when there is more.
        pub h: Option<u64>,
    }
}

wire_enum! {
    /// Type of a directory entry (L-099).
    pub enum EntryType {
        /// A regular file.
        File = "file",
        /// A directory.
        Directory = "directory",
        /// A symbolic link.
        Symlink = "symlink",
        /// A named pipe.
        Fifo = "fifo",
        /// A socket.
        Socket = "socket",
        /// A block device.
        BlockDevice = "block_device",
        /// A character device.
        CharDevice = "char_device",
        /// Something else.
        Other = "other",
    }
}

wire_struct! {
    /// What `stat` tells (E-069).
    #[derive(Copy, Eq)]
    pub struct FileStat {
        /// Bytes.
        pub size: u64,
        /// Time of the last change of contents, nanoseconds since the epoch.
        pub mtime_ns: i64,
        /// Permission bits, at most 0o7777.
        pub perm: u32,
        /// Type.
        pub entry_type: EntryType,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Inode.
        pub ino: u64,
        /// Device.
        pub dev: u64,
    }
}

wire_struct! {
    /// An entry of a directory (E-070).
    #[derive(Eq)]
    pub struct DirEntry {
        /// Its name.
        pub name: Vec<u8>,
        /// Its type.
        pub entry_type: EntryType,
    }
}

wire_struct! {
    /// An open file (E-072).
    #[derive(Copy, Eq)]
    pub struct Opened {
        /// Its handle.
        pub h: u64,
        /// The descriptor in the agent process.
        pub fd: i32,
    }
}

/// Bits of the mode of `open` (E-072).
pub mod open_mode {
    /// Reading.
    pub const READ: u32 = 1;
    /// Writing.
    pub const WRITE: u32 = 2;
    /// Create if absent.
    pub const CREATE: u32 = 4;
    /// Cut to nothing.
    pub const TRUNCATE: u32 = 8;
    /// Write at the end.
    pub const APPEND: u32 = 16;
    /// Fail if it exists.
    pub const EXCLUSIVE: u32 = 32;
    /// Every bit that has a meaning.
    pub const ALL: u32 = READ | WRITE | CREATE | TRUNCATE | APPEND | EXCLUSIVE;
}

wire_enum! {
    /// What an offset counts from (E-074).
    pub enum Whence {
        /// The start.
        Set = "set",
        /// The cursor.
        Cur = "cur",
        /// The end.
        End = "end",
    }
}

/// Where following a file begins (E-075).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailStart {
    /// At this offset; a negative one counts back from the end.
    At(i64),
    /// At the end.
    End,
}

impl Wire for TailStart {
    fn encode(&self, out: &mut Encoder<'_>) {
        match self {
            Self::At(offset) => out.int(*offset),
            Self::End => out.str("end"),
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.peek()? {
            Kind::Int => input.int().map(Self::At),
            Kind::Str if input.str()? == "end" => Ok(Self::End),
            _ => Err(neither("an offset or `end`")),
        }
    }
}

wire_struct! {
    /// An argument of a system call that is the address of a buffer (E-079).
    #[derive(Copy, Eq)]
    pub struct Slot {
        /// Index of the argument.
        pub arg: u32,
        /// Index of the buffer.
        pub buf: u32,
    }
}

wire_struct! {
    /// An address of one buffer stored in another (E-079).
    #[derive(Copy, Eq)]
    pub struct Nested {
        /// Index of the buffer that holds the address.
        pub parent: u32,
        /// Index of the buffer it points to.
        pub child: u32,
        /// Offset of the address in the parent.
        pub offset: u64,
    }
}

wire_struct! {
    /// What a system call gave (E-079).
    pub struct SyscallResult {
        /// Its value, or -1.
        pub ret: i64,
        /// The error number, or 0.
        pub errno: i32,
        /// The buffers after the call; absent when there were none, or with `more`.
        pub out_bufs: Option<Vec<Vec<u8>>>,
        /// Handle for `output_read` of the buffers, when they do not fit one frame.
        pub more: Option<u64>,
    }
}

/// Third argument of an ioctl (E-080).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoctlData {
    /// The address of a copy of these bytes.
    Bytes(Blob),
    /// The number itself.
    Int(i64),
}

impl Wire for IoctlData {
    fn encode(&self, out: &mut Encoder<'_>) {
        match self {
            Self::Bytes(bytes) => bytes.encode(out),
            Self::Int(value) => out.int(*value),
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.peek()? {
            Kind::Int => input.int().map(Self::Int),
            _ => Blob::decode(input).map(Self::Bytes),
        }
    }
}

wire_struct! {
    /// What an ioctl gave (E-080).
    pub struct IoctlResult {
        /// Its value, or -1.
        pub ret: i64,
        /// The error number, or 0.
        pub errno: i32,
        /// The data after the call; absent when it was no buffer, or with `more`.
        pub out_data: Option<Vec<u8>>,
        /// The further buffers after the call; absent when there were none, or with `more`.
        pub out_bufs: Option<Vec<Vec<u8>>>,
        /// Handle for `output_read` of data and buffers, when they do not fit one frame.
        pub more: Option<u64>,
    }
}

wire_struct! {
    /// A route through a network interface (E-083).
    #[derive(Eq)]
    pub struct Route {
        /// Destination network.
        pub address: String,
        /// Length of its prefix.
        pub prefix: u32,
        /// Gateway.
        pub via: String,
    }
}

wire_struct! {
    /// How to set up one network interface (E-083).
    #[derive(Eq)]
    pub struct NicConfig {
        /// Its hardware address, `02:00:00:00:00:01`.
        pub mac: String,
        /// Its IPv4 address.
        pub address: String,
        /// Length of the prefix of its network.
        pub prefix: u32,
        /// Routes through it.
        pub routes: Vec<Route>,
        /// Default gateway.
        pub default: Option<String>,
        /// Name servers.
        pub dns: Option<Vec<String>>,
    }
}

wire_struct! {
    /// A line of the hosts file (E-083).
    #[derive(Eq)]
    pub struct HostEntry {
        /// The address.
        pub address: String,
        /// The names it has.
        pub names: Vec<String>,
    }
}

wire_struct! {
    /// Which interface a configuration went to (E-083).
    #[derive(Eq)]
    pub struct NicName {
        /// Hardware address as configured.
        pub mac: String,
        /// Name of the interface.
        pub ifname: String,
    }
}

wire_struct! {
    /// A worker that was started (E-085).
    #[derive(Copy, Eq)]
    pub struct WorkerSpawned {
        /// Its handle.
        pub h: u64,
        /// The port on which it listens.
        pub port: u32,
        /// Its process.
        pub pid: i32,
        /// Its thread.
        pub tid: i32,
    }
}

wire_struct! {
    /// How a process of a worker ended (E-086).
    #[derive(Copy, Eq)]
    pub struct JoinedProc {
        /// Its handle.
        pub h: u64,
        /// Its process id.
        pub pid: i32,
        /// Its state.
        pub status: ProcStatus,
        /// Exit code, if it exited.
        pub code: Option<i32>,
        /// Signal number, if a signal ended it.
        pub signal: Option<i32>,
    }
}

wire_struct! {
    /// One operation of a batch (E-089), decoded only when its turn comes, so that a bad one is
    /// an error of its own entry.
    pub struct BatchItem {
        /// Name of the operation.
        pub op: String,
        /// Its arguments.
        pub args: RawValue,
    }
}

impl BatchItem {
    /// An entry for `op`.
    pub fn new<O: Operation>(op: &O) -> Self {
        Self {
            op: O::NAME.to_owned(),
            args: RawValue::of(op),
        }
    }

    /// The operation, or the error that answers it.
    pub fn decode_op(&self) -> Result<Op, Error> {
        let args = crate::wire::to_vec(&self.args);
        Op::decode(&self.op, &mut Decoder::new(&args, &Budget::default()))
    }
}

wire_struct! {
    /// What came of one operation of a batch (E-089).
    pub struct BatchEntry {
        /// `outcome` and `value`.
        pub outcome: Outcome,
    }
}
