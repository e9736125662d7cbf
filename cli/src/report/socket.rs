//! `--events-socket`: the event stream for whoever connects (events-and-protocol E-040).
//!
//! A thread accepts clients; each client has a thread of its own that writes to it. The run only
//! appends to queues, so no client can slow it. One that is more than [`MOST_BEHIND`] behind is
//! dropped. The socket lives from before discovery to the end of the program, over all iterations
//! of `--watch`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Reporter;
use crate::news::Stamped;

/// Bytes that a client may be behind (E-040).
const MOST_BEHIND: usize = 16 << 20;

/// How long the end of the program waits for a client that does not read.
const GOODBYE: Duration = Duration::from_secs(2);

/// The listening socket; removed when dropped.
pub(crate) struct EventSocket {
    path: PathBuf,
    hub: Arc<Hub>,
    acceptor: Option<JoinHandle<()>>,
}

/// Who listens, and whether there will be more.
#[derive(Default)]
struct Hub {
    clients: Mutex<Vec<Arc<Client>>>,
    closing: Mutex<bool>,
}

/// Frames on their way to one client.
struct Client {
    stream: UnixStream,
    state: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// No more frames come.
    ended: bool,
    /// Nobody reads any more.
    gone: bool,
}

/// Why there can be no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another process listens there.
    #[error("{}: another process serves events there; choose another path", .0.display())]
    Live(PathBuf),
    /// Something else is there.
    #[error("{}: is there already and is no socket; choose another path", .0.display())]
    NoSocket(PathBuf),
    /// It cannot be made.
    #[error("{}: cannot listen there", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl EventSocket {
    /// Listens at `path`; a socket that nobody serves any more is replaced.
    pub(crate) fn listen(path: &Path) -> Result<Self, SocketError> {
        clear(path)?;
        let failed = |source| SocketError::Listen {
            path: path.to_path_buf(),
            source,
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        let hub = Arc::new(Hub::default());
        let accepting = Arc::clone(&hub);
        let acceptor = std::thread::Builder::new()
            .name("events-socket".to_owned())
            .spawn(move || accepting.accept(&listener))
            .map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            hub,
            acceptor: Some(acceptor),
        })
    }

    /// A reporter that serves one run's events here.
    #[must_use]
    pub(crate) fn reporter(&self) -> SocketReporter {
        SocketReporter {
            hub: Arc::clone(&self.hub),
        }
    }
}

/// Removes a socket that nobody serves.
fn clear(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_path_buf()));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::Live(path.to_path_buf()));
    }
    std::fs::remove_file(path).map_err(|source| SocketError::Listen {
        path: path.to_path_buf(),
        source,
    })
}

impl Drop for EventSocket {
    fn drop(&mut self) {
        *locked(&self.hub.closing) = true;
        // The acceptor is in `accept`; a connection lets it look.
        drop(UnixStream::connect(&self.path));
        if let Some(acceptor) = self.acceptor.take() {
            // It cannot panic; if it did, there is nobody left to tell.
            let _ = acceptor.join();
        }
        // Whether the file is there is of no interest any more.
        let _ = std::fs::remove_file(&self.path);
        for client in locked(&self.hub.clients).drain(..) {
            client.finish();
        }
    }
}

impl Hub {
    fn accept(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            if *locked(&self.closing) {
                return;
            }
            // A client that is gone before it was accepted is none.
            let Ok(stream) = stream else { continue };
            let client = Arc::new(Client {
                stream,
                state: Mutex::default(),
                changed: Condvar::new(),
            });
            let serving = Arc::clone(&client);
            let started = std::thread::Builder::new()
                .name("events-client".to_owned())
                .spawn(move || serving.serve());
            if started.is_ok() {
                locked(&self.clients).push(client);
            }
        }
    }

    fn send(&self, frame: &Arc<[u8]>) {
        locked(&self.clients).retain(|client| client.enqueue(frame));
    }
}

impl Client {
    /// Queues a frame; false when the client is dropped.
    fn enqueue(&self, frame: &Arc<[u8]>) -> bool {
        let mut state = locked(&self.state);
        if state.gone {
            return false;
        }
        if state.bytes + frame.len() > MOST_BEHIND {
            state.gone = true;
            drop(state);
            self.hang_up();
            return false;
        }
        state.bytes += frame.len();
        state.frames.push_back(Arc::clone(frame));
        self.changed.notify_all();
        true
    }

    /// Writes frames until there are no more, or nobody reads them.
    fn serve(&self) {
        while let Some(frame) = self.next() {
            let written = (&self.stream).write_all(&frame);
            let mut state = locked(&self.state);
            state.bytes -= frame.len();
            state.gone |= written.is_err();
            self.changed.notify_all();
        }
        // Says goodbye to a client that has read everything.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn next(&self) -> Option<Arc<[u8]>> {
        let mut state = locked(&self.state);
        loop {
            if state.gone {
                return None;
            }
            if let Some(frame) = state.frames.pop_front() {
                return Some(frame);
            }
            if state.ended {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the client read what is queued, but not for ever.
    fn finish(&self) {
        let mut state = locked(&self.state);
        state.ended = true;
        self.changed.notify_all();
        let unread = |state: &mut Queue| state.bytes > 0 && !state.gone;
        let waited = self.changed.wait_timeout_while(state, GOODBYE, unread);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            state.gone = true;
            drop(state);
            self.hang_up();
        }
    }

    /// Also ends a write that is going on.
    fn hang_up(&self) {
        self.changed.notify_all();
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Serves one run's events.
pub(crate) struct SocketReporter {
    hub: Arc<Hub>,
}

impl Reporter for SocketReporter {
    fn name(&self) -> &str {
        "event socket"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        if let Some(frame) = stamped.frame()? {
            self.hub.send(&frame.into());
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Instant;

    use super::*;
    use crate::news::News;

    fn news(path: &str) -> Stamped {
        let (fixture_refs, declared_claim) = (Vec::new(), None);
        let path = path.to_owned();
        let news = News::Discovered {
            path,
            fixture_refs,
            declared_claim,
        };
        Stamped { ts: 1, news }
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn e040_every_client_gets_what_comes_after_it_connected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let socket = EventSocket::listen(&path).unwrap();
        let mut reporter = socket.reporter();
        reporter.hear(&news("before")).unwrap();
        let clients: Vec<UnixStream> = (0..3)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        until("clients", || locked(&socket.hub.clients).len() == 3);
        reporter.hear(&news("after")).unwrap();
        reporter.hear(&news("last")).unwrap();
        let expected = [news("after"), news("last")].map(|news| news.frame().unwrap().unwrap());
        let closing = std::thread::spawn(move || drop(socket));
        for mut client in clients {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, expected.concat());
        }
        closing.join().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn e040_a_client_that_does_not_read_is_dropped_and_stalls_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let socket = EventSocket::listen(&path).unwrap();
        let mut reporter = socket.reporter();
        let _lazy = UnixStream::connect(&path).unwrap();
        until("client", || locked(&socket.hub.clients).len() == 1);
        let large = news(&"x".repeat(1 << 20));
        let started = Instant::now();
        for _ in 0..20 {
            reporter.hear(&large).unwrap();
        }
        assert!(locked(&socket.hub.clients).is_empty());
        drop(socket);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn e040_a_stale_socket_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        drop(UnixListener::bind(&path).unwrap());
        let socket = EventSocket::listen(&path).unwrap();
        let live = EventSocket::listen(&path).map(drop).unwrap_err();
        assert!(matches!(live, SocketError::Live(_)), "{live}");
        drop(socket);
        std::fs::write(&path, "precious").unwrap();
        let file = EventSocket::listen(&path).map(drop).unwrap_err();
        assert!(matches!(file, SocketError::NoSocket(_)), "{file}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
