//! Handles: numbers for open files, processes, outputs and workers (E-057).
//!
//! A number is never used twice, and its upper part is the thread that gave it out, so a handle
//! of another worker or of an agent before this one is never mistaken for one of ours.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use provium_protocol::{Error, ErrorKind};

/// An open file of a test.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fd: OwnedFd,
    /// Reading and writing never wait for anybody.
    pub(crate) regular: bool,
}

/// What a handle stands for.
#[derive(Debug)]
pub(crate) enum Handle {
    File(Arc<OpenFile>),
    /// A process; the table of processes has it under the same number.
    Process,
    /// Output that did not fit a frame.
    Output(Output),
    /// A worker; the table of processes has it if it is one.
    Worker,
    /// A stream; the table of streams has it.
    Stream,
}

/// Parts of an output, kept for `output_read`.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) buffers: Vec<u8>,
}

impl Handle {
    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "a file",
            Self::Process => "a process",
            Self::Output(_) => "an output",
            Self::Worker => "a worker",
            Self::Stream => "a stream",
        }
    }
}

/// The handles of one server.
#[derive(Debug)]
pub(crate) struct Handles {
    open: BTreeMap<u64, Handle>,
    first: u64,
    next: u64,
}

/// Bits for counting below the number of the thread.
const COUNT_BITS: u32 = 28;

impl Handles {
    /// Handles numbered by a thread.
    pub(crate) fn new(tid: i32) -> Self {
        let first = (u64::from(tid.unsigned_abs()) << COUNT_BITS) + 1;
        Self {
            open: BTreeMap::new(),
            first,
            next: first,
        }
    }

    /// A number nobody had before.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Gives out a handle.
    pub(crate) fn add(&mut self, handle: Handle) -> u64 {
        let number = self.number();
        self.open.insert(number, handle);
        number
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Handle> {
        self.open.get(&number)
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Handle> {
        self.open.remove(&number)
    }

    /// Drops all of them.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Drops those that a predicate names.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Handle) -> bool) {
        self.open.retain(|_, handle| keep(handle));
    }

    /// Why a number is not the handle that was wanted.
    pub(crate) fn wrong(&self, number: u64, wanted: &str) -> Error {
        let (kind, reason) = match self.open.get(&number) {
            Some(handle) => (ErrorKind::UnknownHandle, format!("is {}", handle.kind())),
            None if (self.first..self.next).contains(&number) => (
                ErrorKind::Stale,
                "was closed, or belonged to an earlier connection".to_owned(),
            ),
            None => (
                ErrorKind::UnknownHandle,
                "was never given out here".to_owned(),
            ),
        };
        Error::new(
            kind,
            format!("handle {number} is not {wanted}: it {reason}"),
        )
    }

    /// An open file.
    pub(crate) fn file(&self, number: u64) -> Result<Arc<OpenFile>, Error> {
        match self.open.get(&number) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            _ => Err(self.wrong(number, "an open file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E-057: closed, foreign and mistaken handles are told apart.
    #[test]
    fn wrong_handles_say_why() {
        let mut handles = Handles::new(77);
        let output = handles.add(Handle::Output(Output::default()));
        let closed = handles.add(Handle::Process);
        handles.remove(closed);
        let kinds = [output, closed, 5].map(|number| handles.file(number).unwrap_err().kind);
        assert_eq!(
            kinds,
            [
                ErrorKind::UnknownHandle,
                ErrorKind::Stale,
                ErrorKind::UnknownHandle
            ]
        );
        assert!(
            handles
                .file(output)
                .unwrap_err()
                .message
                .contains("it is an output")
        );
        assert!(
            Handles::new(78)
                .file(output)
                .unwrap_err()
                .message
                .contains("never given out")
        );
    }
}
