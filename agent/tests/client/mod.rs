//! A small harness for the agent's tests: it starts the program on a socket of this host and
//! speaks the protocol to it.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use provium_protocol::message::{StreamFrame, cancel_frame, credit_frame, request_frame};
use provium_protocol::ops::*;
use provium_protocol::{
    Error, ErrorKind, FrameReader, Hello, HelloErr, HelloOk, Operation, Response, ToHost,
};

/// No answer takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent; it dies with this value.
pub(crate) struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix:{}", dir.path().join("agent").display());
        Self::listen(dir, &address, change)
    }

    /// An agent on a serial line.
    pub(crate) fn start_on(line: &Path) -> Self {
        let address = format!("serial:{}", line.display());
        Self::listen(tempfile::tempdir().unwrap(), &address, |_| ())
    }

    fn listen(dir: tempfile::TempDir, address: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provium-agent"));
        command.arg("--listen").arg(address);
        command.stdin(Stdio::null());
        change(&mut command);
        let child = command.spawn().unwrap();
        Self { child, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> Vec<u8> {
        self.dir
            .path()
            .join(name)
            .into_os_string()
            .into_encoded_bytes()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// A connection without hello.
    pub(crate) fn link(&self) -> Client {
        Client::connect(&self.socket())
    }

    pub(crate) fn connect(&self) -> Client {
        self.resume(false)
    }

    pub(crate) fn resume(&self, resume: bool) -> Client {
        let mut client = self.link();
        client.hello(resume).unwrap();
        client
    }

    /// The first connection to a worker.
    pub(crate) fn worker(&self, port: u32) -> Client {
        self.worker_again(port, false)
    }

    /// A connection to a worker.
    pub(crate) fn worker_again(&self, port: u32, resume: bool) -> Client {
        let mut client = Client::connect(&self.dir.path().join(format!("agent.{port}")));
        let hello = client.hello(resume).unwrap();
        assert!(hello.worker);
        client
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two ends of a connection that a test needs.
pub(crate) trait Stream: Read + Write {
    fn set_patience(&self, time: Duration);
}

impl Stream for UnixStream {
    fn set_patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

/// The host's end of a serial line.
pub(crate) struct Line {
    file: File,
    patience: Cell<Duration>,
}

impl Stream for Line {
    fn set_patience(&self, time: Duration) {
        self.patience.set(time);
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut fd = libc::pollfd {
            fd: self.file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = i32::try_from(self.patience.get().as_millis()).unwrap();
        #[expect(
            unsafe_code,
            reason = "the standard library cannot wait for a terminal"
        )]
        // SAFETY: one entry, valid during the call.
        let ready = unsafe { libc::poll(&raw mut fd, 1, timeout) };
        match ready {
            0 => Err(IoErrorKind::TimedOut.into()),
            _ => self.file.read(buffer),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A serial line: the host's end and the path of the guest's.
pub(crate) fn serial_line() -> (Line, PathBuf) {
    // SAFETY: plain calls on a descriptor that is ours; the name is read before it can change.
    #[expect(unsafe_code, reason = "the standard library has no pseudo terminals")]
    let (file, name) = unsafe {
        let fd = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(fd >= 0);
        let file = File::from_raw_fd(fd);
        assert_eq!(libc::grantpt(file.as_raw_fd()), 0);
        assert_eq!(libc::unlockpt(file.as_raw_fd()), 0);
        let name = std::ffi::CStr::from_ptr(libc::ptsname(file.as_raw_fd()));
        (file, PathBuf::from(name.to_str().unwrap()))
    };
    let patience = Cell::new(PATIENCE);
    (Line { file, patience }, name)
}

/// A connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    reader: FrameReader,
    next: u64,
    /// What came while something else was awaited.
    early: VecDeque<ToHost>,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "connect: {error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_patience(PATIENCE);
        Self::over(Box::new(stream), FrameReader::new())
    }

    pub(crate) fn over(stream: Box<dyn Stream>, reader: FrameReader) -> Self {
        Self {
            stream,
            reader,
            next: 1,
            early: VecDeque::new(),
        }
    }

    /// Reads on with another reader, behind another call on a serial line.
    pub(crate) fn restart(&mut self, reader: FrameReader) {
        self.reader = reader;
    }

    pub(crate) fn hello(&mut self, resume: bool) -> Result<HelloOk, HelloErr> {
        self.send_raw(&Hello::new("test", resume).to_frame().unwrap());
        match self.receive() {
            Some(ToHost::HelloOk(hello)) => Ok(hello),
            Some(ToHost::HelloErr(error)) => Err(error),
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Cuts the connection: what is left unread of an answer makes its end a reset, as a restore
    /// of the guest does.
    pub(crate) fn cut(mut self) {
        self.start(&Ping {});
        // One byte is there, so the rest is.
        self.stream.read_exact(&mut [0]).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        // The agent may have closed already: what it said before is what counts.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<ToHost> {
        loop {
            if let Some(body) = self.reader.next_frame().unwrap() {
                return Some(ToHost::from_body(body).unwrap());
            }
            match self.stream.read(self.reader.space()) {
                Ok(0) => return None,
                Ok(count) => self.reader.filled(count),
                Err(error) if error.kind() == IoErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        if !self.early.is_empty() {
            return false;
        }
        self.stream.set_patience(time);
        let result = self.stream.read(self.reader.space());
        self.stream.set_patience(PATIENCE);
        match result {
            Ok(count) => {
                self.reader.filled(count);
                false
            }
            Err(_) => true,
        }
    }

    /// Whether what has come so far holds an answer to hello.
    pub(crate) fn is_answered(&mut self) -> bool {
        let frame = self.reader.next_frame().unwrap();
        frame.is_some_and(|body| matches!(ToHost::from_body(body), Ok(ToHost::HelloOk(_))))
    }

    /// Sends a request and gives its id.
    pub(crate) fn start<O: Operation>(&mut self, op: &O) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send_raw(&request_frame(id, op).unwrap());
        id
    }

    /// The answer to a request.
    pub(crate) fn finish<O: Operation>(&mut self, id: u64) -> Result<O::Reply, Error> {
        let is_it = |message: &ToHost| matches!(message, ToHost::Response(r) if r.id == id);
        let ToHost::Response(Response { outcome, .. }) = self.wait_for(is_it) else {
            panic!()
        };
        outcome.map(|value| value.get().unwrap())
    }

    pub(crate) fn call<O: Operation>(&mut self, op: &O) -> Result<O::Reply, Error> {
        let id = self.start(op);
        self.finish::<O>(id)
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        self.send_raw(&cancel_frame(id).unwrap());
    }

    pub(crate) fn grant(&mut self, stream: u64, credit: u64) {
        self.send_raw(&credit_frame(stream, credit).unwrap());
    }

    /// The next frame of a stream.
    pub(crate) fn stream(&mut self, s: u64) -> StreamFrame {
        let is_it =
            |message: &ToHost| matches!(message, ToHost::Stream { stream, .. } if *stream == s);
        let ToHost::Stream { frame, .. } = self.wait_for(is_it) else {
            panic!()
        };
        frame
    }

    /// The next `count` bytes of a stream.
    pub(crate) fn stream_bytes(&mut self, s: u64, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.stream(s) {
                StreamFrame::Data(data) => bytes.extend(data),
                StreamFrame::Eof(error) => panic!("ended after {bytes:?}: {error:?}"),
            }
        }
        bytes
    }

    /// The whole rest of a stream, with credit granted as it comes.
    pub(crate) fn stream_rest(&mut self, s: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match self.stream(s) {
                StreamFrame::Data(data) => {
                    self.grant(s, data.len() as u64);
                    bytes.extend(data);
                }
                StreamFrame::Eof(None) => return bytes,
                StreamFrame::Eof(Some(error)) => panic!("{error}"),
            }
        }
    }

    fn wait_for(&mut self, is_it: impl Fn(&ToHost) -> bool) -> ToHost {
        if let Some(index) = self.early.iter().position(&is_it) {
            return self.early.remove(index).unwrap();
        }
        loop {
            let message = self.receive().expect("the connection ended");
            if is_it(&message) {
                return message;
            }
            self.early.push_back(message);
        }
    }

    // Shorthands.

    pub(crate) fn sh(&mut self, script: &str) -> ExecResult {
        self.call(&Exec {
            spec: ExecSpec::shell(script),
            timeout_ms: None,
        })
        .unwrap()
    }

    pub(crate) fn spawn(&mut self, script: &str) -> Spawned {
        self.call(&Spawn {
            spec: ExecSpec::shell(script),
        })
        .unwrap()
    }

    pub(crate) fn wait(&mut self, h: u64) -> ExecResult {
        self.call(&ProcWait {
            h,
            timeout_ms: None,
            kill: false,
        })
        .unwrap()
    }

    pub(crate) fn syscall(&mut self, nr: u32, args: &[i64]) -> SyscallResult {
        self.call(&call(nr, args)).unwrap()
    }

    pub(crate) fn kind<O: Operation>(&mut self, op: &O) -> ErrorKind
    where
        O::Reply: std::fmt::Debug,
    {
        self.call(op).unwrap_err().kind
    }
}

/// A system call without buffers.
pub(crate) fn call(nr: u32, args: &[i64]) -> Syscall {
    Syscall {
        nr,
        args: args.to_vec(),
        bufs: vec![],
        slots: vec![],
        nested: vec![],
    }
}

/// A system call with buffers, each the argument named.
pub(crate) fn call_with(nr: u32, args: &[i64], bufs: &[(u32, &[u8])]) -> Syscall {
    let slots = bufs
        .iter()
        .zip(0..)
        .map(|((arg, _), buf)| Slot { arg: *arg, buf });
    Syscall {
        slots: slots.collect(),
        bufs: bufs.iter().map(|(_, bytes)| (*bytes).into()).collect(),
        ..call(nr, args)
    }
}
