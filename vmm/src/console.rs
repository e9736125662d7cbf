//! The serial console as the host sees it: everything since boot, who watches, what the host types,
//! and panics.
//!
//! The log has no size limit (a guest may flood it): the newest part stays in memory, older chunks
//! go to an unlinked temporary file. Readers hold an offset and ask for bytes from there, so no
//! reader can slow the guest or another reader down. Offsets count from the machine's start and go
//! on over a reset.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const CHUNK: usize = 64 * 1024;
/// Full chunks kept in memory before the oldest is spilled.
const CHUNKS_IN_MEMORY: usize = 16;
/// What a line must contain to be a kernel panic (L-061); the kernel prints it for every panic
/// since 2.6.
const PANIC_MARK: &[u8] = b"Kernel panic - not syncing";
/// Longest line start looked at for the mark: printk prefix, mark and reason are far shorter.
const LINE_LIMIT: usize = 1024;

type LineHook = Box<dyn Fn(&str) + Send + Sync>;
type InputHook = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The console of one machine. Cheap to clone by `Arc`.
pub struct Console {
    log: Mutex<Log>,
    watchers: AtomicUsize,
    /// Output is announced by [`Console::announce`] instead of at once.
    deferred: AtomicBool,
    /// There is output to announce.
    unannounced: AtomicBool,
    /// Called with a panic line as soon as it is complete.
    on_panic: OnceLock<LineHook>,
    /// Called with bytes for the guest's serial input.
    input: OnceLock<InputHook>,
    /// Called after new output when somebody watches.
    on_output: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Log {
    /// Bytes in the spill file; the in-memory chunks follow on.
    spilled: u64,
    spill: Option<File>,
    /// Set when the spill file failed: chunks are dropped from the front then, with this many bytes
    /// lost.
    lost: u64,
    chunks: VecDeque<Vec<u8>>,
    line: Vec<u8>,
}

impl Log {
    fn len(&self) -> u64 {
        let held: usize = self.chunks.iter().map(Vec::len).sum();
        self.spilled + held as u64
    }

    fn push(&mut self, byte: u8) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(byte),
            _ => {
                let mut chunk =
                    Vec::with_capacity(if self.chunks.is_empty() { 4096 } else { CHUNK });
                chunk.push(byte);
                self.chunks.push_back(chunk);
                if self.chunks.len() > CHUNKS_IN_MEMORY {
                    self.spill_oldest();
                }
            }
        }
    }

    fn spill_oldest(&mut self) {
        let Some(chunk) = self.chunks.pop_front() else {
            return;
        };
        if self.lost > 0 || self.write_spill(&chunk).is_err() {
            // Disk full or no temporary directory: the console must go on, so the oldest output is
            // given up.
            self.lost += chunk.len() as u64;
        }
        self.spilled += chunk.len() as u64;
    }

    fn write_spill(&mut self, chunk: &[u8]) -> io::Result<()> {
        let file = match &mut self.spill {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all_at(chunk, self.spilled)
    }

    /// Appends to `out` what is held from `offset` on, at most `max` bytes; returns the offset
    /// after it.
    fn read_at(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        let mut at = offset;
        let mut left = max;
        if at < self.spilled && left > 0 {
            let n = usize::try_from(self.spilled - at)
                .unwrap_or(usize::MAX)
                .min(left);
            let start = out.len();
            out.resize(start + n, 0);
            let read = self
                .spill
                .as_ref()
                .is_some_and(|f| f.read_exact_at(&mut out[start..], at).is_ok());
            if !read {
                // Given up earlier (see spill_oldest): continue with what memory holds.
                out.truncate(start);
                at = self.spilled;
            } else {
                at += n as u64;
                left -= n;
            }
        }
        let mut base = self.spilled;
        for chunk in &self.chunks {
            let end = base + chunk.len() as u64;
            if at < end && left > 0 {
                let from = usize::try_from(at.saturating_sub(base)).unwrap_or(chunk.len());
                let n = (chunk.len() - from).min(left);
                out.extend_from_slice(&chunk[from..from + n]);
                at += n as u64;
                left -= n;
            }
            base = end;
        }
        at
    }

    /// Collects the current line; returns it when `byte` ended a line that reports a panic.
    fn track_line(&mut self, byte: u8) -> Option<String> {
        if byte != b'\n' {
            if self.line.len() < LINE_LIMIT {
                self.line.push(byte);
            }
            return None;
        }
        let found = self
            .line
            .windows(PANIC_MARK.len())
            .position(|w| w == PANIC_MARK);
        let line = found.map(|at| {
            String::from_utf8_lossy(&self.line[at..])
                .trim_end()
                .to_owned()
        });
        self.line.clear();
        line
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// An empty console without input.
    #[must_use]
    pub fn new() -> Self {
        Self {
            log: Mutex::default(),
            watchers: AtomicUsize::new(0),
            deferred: AtomicBool::new(false),
            unannounced: AtomicBool::new(false),
            on_panic: OnceLock::new(),
            input: OnceLock::new(),
            on_output: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_on_panic(&self, hook: LineHook) {
        let _first_wins = self.on_panic.set(hook);
    }

    pub(crate) fn set_input(&self, hook: InputHook) {
        let _first_wins = self.input.set(hook);
    }

    pub(crate) fn set_on_output(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _first_wins = self.on_output.set(hook);
    }

    /// Replaces everything printed so far, for a machine that goes on from a snapshot.
    pub(crate) fn replace(&self, bytes: &[u8]) {
        let mut fresh = Log::default();
        for byte in bytes {
            fresh.push(*byte);
            // Panics in there have been told when they happened.
            let _told = fresh.track_line(*byte);
        }
        *self.lock() = fresh;
    }

    /// Takes output of the guest.
    pub(crate) fn put(&self, bytes: &[u8]) {
        let mut panics = Vec::new();
        {
            let mut log = self.lock();
            for byte in bytes {
                log.push(*byte);
                panics.extend(log.track_line(*byte));
            }
        }
        if let Some(hook) = self.on_panic.get() {
            panics.iter().for_each(|line| hook(line));
        }
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.unannounced.store(true, Ordering::Release);
            if !self.deferred.load(Ordering::Acquire) {
                self.announce();
            }
        }
    }

    /// From now on output is announced only when the machine's thread says so. Serial output comes
    /// byte by byte, and on `soft` every announcement costs a hand-over to the waiting thread.
    pub(crate) fn defer_announcements(&self) {
        self.deferred.store(true, Ordering::Release);
    }

    /// Tells of output since the last time.
    pub(crate) fn announce(&self) {
        if self.unannounced.load(Ordering::Acquire)
            && self.unannounced.swap(false, Ordering::AcqRel)
            && let Some(hook) = self.on_output.get()
        {
            hook();
        }
    }

    /// Bytes printed since the machine started.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a position, not a collection")]
    pub fn len(&self) -> u64 {
        self.lock().len()
    }

    /// Up to `max` bytes from `offset` on, and the offset that follows them. Output that had to be
    /// given up (the spill file could not be written) is skipped.
    #[must_use]
    pub fn read_at(&self, offset: u64, max: usize) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let next = self.lock().read_at(offset, max, &mut out);
        (out, next)
    }

    /// Everything since the machine started.
    #[must_use]
    pub fn read_log(&self) -> Vec<u8> {
        self.read_at(0, usize::MAX).0
    }

    /// The last `max` bytes (L-242).
    #[must_use]
    pub fn tail(&self, max: usize) -> Vec<u8> {
        let log = self.lock();
        let from = log.len().saturating_sub(max as u64);
        let mut out = Vec::new();
        log.read_at(from, max, &mut out);
        out
    }

    /// The last `max` complete or begun lines, without carriage returns (L-061).
    #[must_use]
    pub fn last_lines(&self, max: usize) -> Vec<String> {
        let tail = String::from_utf8_lossy(&self.tail(16 * 1024)).replace('\r', "");
        let lines: Vec<&str> = tail.lines().collect();
        let from = lines.len().saturating_sub(max);
        lines[from..].iter().map(|l| (*l).to_owned()).collect()
    }

    /// Types `bytes` at the guest. They are delivered as the guest reads them.
    pub fn write(&self, bytes: &[u8]) {
        if let Some(hook) = self.input.get() {
            hook(bytes);
        }
    }

    /// While the watch lives, new output rings the machine's bell.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> ConsoleWatch {
        self.watchers.fetch_add(1, Ordering::AcqRel);
        ConsoleWatch(self.clone())
    }
}

/// See [`Console::watch`].
pub struct ConsoleWatch(Arc<Console>);

impl Drop for ConsoleWatch {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_everything_in_order_across_the_spill() {
        let console = Console::new();
        let total = CHUNK * (CHUNKS_IN_MEMORY + 3) + 77;
        let bytes: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
        for part in bytes.chunks(10_007) {
            console.put(part);
        }
        assert_eq!(console.len(), total as u64);
        assert!(
            console.lock().spilled > 0,
            "the test must reach the spill file"
        );
        assert_eq!(console.read_log(), bytes);
        let (part, next) = console.read_at(CHUNK as u64 - 5, CHUNK * 20);
        assert_eq!(part, bytes[CHUNK - 5..]);
        assert_eq!(next, total as u64);
        assert_eq!(console.tail(100), bytes[total - 100..]);
        assert_eq!(
            console.read_at(total as u64 + 9, 10),
            (vec![], total as u64 + 9)
        );
    }

    #[test]
    fn a_panic_line_is_recognised_once_complete() {
        // L-061
        let console = Console::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        console.set_on_panic(Box::new(move |l| sink.lock().unwrap().push(l.to_owned())));
        console.put(b"[    1.0] Kernel panic - not sync");
        console.put(b"ing: Attempted to kill init!\r");
        assert!(seen.lock().unwrap().is_empty());
        console.put(b"\nmore\n");
        assert_eq!(
            *seen.lock().unwrap(),
            ["Kernel panic - not syncing: Attempted to kill init!"]
        );
    }

    #[test]
    fn an_endless_line_is_harmless() {
        let console = Console::new();
        console.put(&vec![b'x'; 3 * LINE_LIMIT]);
        console.put(b"\nKernel panic - not syncing: y\n");
        assert!(console.lock().line.is_empty());
    }

    #[test]
    fn output_is_announced_only_while_watched() {
        let console = Arc::new(Console::new());
        let rings = Arc::new(AtomicUsize::new(0));
        let count = rings.clone();
        console.set_on_output(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        console.put(b"a");
        let watch = console.watch();
        console.put(b"b");
        drop(watch);
        console.put(b"c");
        assert_eq!(rings.load(Ordering::SeqCst), 1);
        console.defer_announcements();
        let _watch = console.watch();
        console.put(b"d");
        console.put(b"e");
        assert_eq!(rings.load(Ordering::SeqCst), 1);
        console.announce();
        console.announce();
        assert_eq!(rings.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn last_lines_are_clean() {
        let console = Console::new();
        console.put(b"one\r\ntwo\r\nthree");
        assert_eq!(console.last_lines(2), ["two", "three"]);
    }
}
