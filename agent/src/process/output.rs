//! What a process writes: read as it comes and kept for whoever asks.

use crate::server::state::State;
use crate::server::token::Kind;
use crate::sys::fd::Fd;

use super::Proc;

/// First read of a pipe, enough for most commands; later ones take a full pipe.
const FIRST_READ: usize = 4 * 1024;
const NEXT_READ: usize = 64 * 1024;

/// One output of a process.
pub(crate) struct Pipe {
    /// The reading end, until its end.
    fd: Option<Fd>,
    data: Vec<u8>,
    /// Whether what comes still belongs to the output.
    keeping: bool,
}

impl Pipe {
    pub(super) fn new(fd: Fd) -> Self {
        Self {
            fd: Some(fd),
            data: Vec::new(),
            keeping: true,
        }
    }

    /// Whether somebody may still write.
    pub(super) fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    /// Whether the output is all there.
    pub(crate) fn is_complete(&self) -> bool {
        !self.keeping || self.fd.is_none()
    }

    /// What has come so far.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.data)
    }

    /// The output is complete as it is; the rest is read and dropped.
    pub(super) fn stop_keeping(&mut self) {
        self.keeping = false;
    }

    /// Reads what is there; all of it up to the end if the writers are gone.
    fn read(&mut self, hangup: bool) {
        let Some(fd) = &self.fd else { return };
        loop {
            let size = if self.data.len() < FIRST_READ {
                FIRST_READ
            } else {
                NEXT_READ
            };
            let old = self.data.len();
            let result = fd.read_append(&mut self.data, size);
            if !self.keeping {
                self.data.truncate(old);
            }
            match result {
                Ok(0) => break,
                Err(libc::EINTR) => {}
                Err(_) => break,
                Ok(_) if hangup => {}
                Ok(_) => return,
            }
        }
        self.fd = None;
    }
}

impl Proc {
    /// Nobody will ask for the output.
    pub(super) fn drop_output(&mut self) {
        for pipe in [&mut self.stdout, &mut self.stderr] {
            pipe.keeping = false;
            pipe.data = Vec::new();
        }
    }
}

impl State {
    /// An output has something to read.
    pub(crate) fn output_ready(&mut self, id: u64, kind: Kind, hangup: bool) {
        let Some(proc) = self.procs.get_mut(id) else {
            return;
        };
        match kind {
            Kind::Stdout => proc.stdout.read(hangup),
            _ => proc.stderr.read(hangup),
        }
        self.pump_process_streams(id);
        self.check_done(id);
    }
}
