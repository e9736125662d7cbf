//! The host's view of a guest's serial console (lua-api section 9).

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use provium_vmm::{ConsoleWatch, Machine};

use super::{Instance, Offender, Vm, VmCore};
use crate::error::{Error, Reason, Result};
use crate::ops::StreamKind;
use crate::ops::{Reader, Source, find};
use crate::session::{Class, Closable, Registration, Site};
use crate::state::Need;
use crate::wait::{Either, GuestTimer, Limit, LimitReached, Pending, both, lock};

/// Most bytes of one chunk (L-192).
const CHUNK: usize = 64 * 1024;

/// Output comes byte by byte; a reader waits this much guest time for company before it is woken.
const GATHER: Duration = Duration::from_millis(2);

/// The console of a VM.
#[derive(Clone)]
pub struct Console(Arc<VmCore>);

impl Vm {
    /// Its console; always there (L-145).
    #[must_use]
    pub fn console(&self) -> Console {
        Console(self.core.clone())
    }
}

impl Console {
    /// All bytes since boot, resets included (L-147).
    #[must_use]
    pub fn read_log(&self) -> Vec<u8> {
        self.0
            .instance()
            .map(|instance| instance.console().read_log())
            .unwrap_or_default()
    }

    /// The last `max` bytes of the log.
    #[must_use]
    pub fn tail(&self, max: usize) -> Vec<u8> {
        self.0
            .instance()
            .map(|instance| instance.console().tail(max))
            .unwrap_or_default()
    }

    /// A stream from the first byte that no earlier stream has delivered (L-146).
    #[must_use]
    pub fn read(&self) -> ConsoleStream {
        ConsoleStream::new(&self.0)
    }

    /// Waits until `text` is in the log; looks from its beginning (L-148).
    pub fn expect(&self, text: &[u8], timeout: Duration) -> Result<()> {
        self.start_expect(text, timeout).wait()
    }

    /// Starts [`Console::expect`].
    pub fn start_expect(&self, text: &[u8], timeout: Duration) -> Pending<()> {
        let call = "console:expect";
        let (core, text) = (self.0.clone(), text.to_vec());
        let world = self.0.session.world();
        Pending::new(world, call, self.0.resource(), async move {
            expect(&core, call, &text, timeout).await
        })
    }

    /// Types `data` at the guest, which reads it when it gets to it (L-149).
    pub fn write(&self, data: &[u8]) -> Result<()> {
        let call = "console:write";
        self.0.check(call, Need::Up)?;
        let machine = self.0.up_machine(call)?;
        machine.console().write(data);
        Ok(())
    }
}

async fn expect(
    core: &Arc<VmCore>,
    call: &'static str,
    text: &[u8],
    timeout: Duration,
) -> Result<()> {
    let shown = format!("{:?} on the console", String::from_utf8_lossy(text));
    let late = |after| Reason::Timeout {
        what: shown.clone(),
        after,
    };
    let gone = |instance: &Instance| {
        let cause = instance.end();
        let cause = cause.unwrap_or_else(|| "the console ended".to_owned());
        Reason::Refused(format!("{shown} did not come: {cause}"))
    };
    let Some(instance) = core.instance() else {
        return Err(core.error(call, late(Duration::ZERO)));
    };
    let world = core.session.world().clone();
    let mut limit = match instance.machine() {
        Some(machine) => Limit::new(&world, &machine, timeout),
        None => Limit::host(&world, Duration::ZERO),
    };
    let mut log = Log {
        instance: instance.clone(),
        at: 0,
        gather: None,
        watch: None,
    };
    let mut seen = Vec::new();
    loop {
        match both(std::future::poll_fn(|_| log.poll(None)), &mut limit).await {
            Either::First(Some(bytes)) => {
                seen.extend_from_slice(&bytes);
                if find(&seen, text).is_some() {
                    return Ok(());
                }
                let keep = seen.len().min(text.len().saturating_sub(1));
                seen.drain(..seen.len() - keep);
            }
            Either::First(None) => return Err(core.error(call, gone(&instance))),
            Either::Second(LimitReached::Stopped) => {
                return match find(&instance.console().read_log(), text) {
                    Some(_) => Ok(()),
                    None => Err(core.error(call, gone(&instance))),
                };
            }
            Either::Second(_) => return Err(core.error(call, late(timeout))),
        }
    }
}

/// A position in an instance's console log.
struct Log {
    instance: Arc<Instance>,
    at: u64,
    gather: Option<GuestTimer>,
    watch: Option<ConsoleWatch>,
}

impl Log {
    /// Bytes from the position on, up to `end`; none when nothing more will come.
    fn poll(&mut self, end: Option<u64>) -> Poll<Option<Vec<u8>>> {
        let console = self.instance.console();
        let stop = end.unwrap_or(u64::MAX).min(console.len());
        let ended = end.is_some_and(|end| self.at >= end) || self.instance.end().is_some();
        if self.at >= stop {
            if ended {
                return Poll::Ready(None);
            }
            self.watch.get_or_insert_with(|| console.watch());
            // Output between the look and the watch rang nobody.
            if console.len() == self.at {
                return Poll::Pending;
            }
        }
        if !ended && !self.gathered() {
            return Poll::Pending;
        }
        let wanted = usize::try_from(stop.saturating_sub(self.at))
            .unwrap_or(CHUNK)
            .clamp(1, CHUNK);
        let (bytes, next) = console.read_at(self.at, wanted);
        self.at = next;
        self.gather = None;
        Poll::Ready(Some(bytes))
    }

    /// Whether the pause after the first byte is over; until then further bytes wake nobody.
    fn gathered(&mut self) -> bool {
        self.watch = None;
        let Some(machine) = self.instance.machine() else {
            return true;
        };
        let world = self.instance.session.world();
        let timer = self
            .gather
            .get_or_insert_with(|| GuestTimer::after(world, &machine, GATHER));
        let mut context = Context::from_waker(Waker::noop());
        std::pin::Pin::new(timer).poll(&mut context).is_ready()
    }

    fn has_ended(&self, end: Option<u64>) -> bool {
        let stop = end.unwrap_or(u64::MAX).min(self.instance.console().len());
        self.at >= stop && (end.is_some() || self.instance.end().is_some())
    }
}

/// A stream of console output. Clones are the same stream.
#[derive(Clone)]
pub struct ConsoleStream(Arc<Core>);

struct Core {
    reader: Reader<ConsoleSource>,
    registration: Registration,
    site: Option<Site>,
}

struct ConsoleSource {
    vm: Arc<VmCore>,
    log: Option<Mutex<Log>>,
    /// Restarts of the guest before this stream: it ends at the next one (L-198).
    restarts: usize,
}

impl ConsoleSource {
    fn end(&self, log: &Log) -> Option<u64> {
        log.instance.console_end(self.restarts)
    }
}

impl Source for ConsoleSource {
    fn poll_chunk(&self) -> Poll<Result<Vec<u8>, Option<Reason>>> {
        let Some(log) = &self.log else {
            return Poll::Ready(Err(None));
        };
        let mut log = lock(log);
        let end = self.end(&log);
        match log.poll(end) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(None)),
            Poll::Ready(Some(bytes)) => {
                let mut cursor = lock(&self.vm.console_cursor);
                *cursor = (*cursor).max(log.at);
                Poll::Ready(Ok(bytes))
            }
        }
    }

    fn ended(&self) -> bool {
        self.log.as_ref().is_none_or(|log| {
            let log = lock(log);
            log.has_ended(self.end(&log))
        })
    }

    fn machine(&self) -> Option<Arc<Machine>> {
        self.vm.instance()?.machine()
    }

    fn resource(&self) -> String {
        format!("console of {}", self.vm.resource())
    }

    fn closed_text(&self) -> &'static str {
        "console closed"
    }
}

impl ConsoleStream {
    fn new(vm: &Arc<VmCore>) -> Self {
        let instance = vm.instance();
        let at = *lock(&vm.console_cursor);
        let restarts = instance.as_ref().map_or(0, |instance| instance.restarts());
        if let Some(instance) = &instance {
            instance.count_stream(true);
        }
        let log = instance.map(|instance| {
            Mutex::new(Log {
                instance,
                at,
                gather: None,
                watch: None,
            })
        });
        let source = ConsoleSource {
            vm: vm.clone(),
            log,
            restarts,
        };
        let stream = Self(Arc::new(Core {
            reader: Reader::new(vm.session.world(), source),
            registration: vm.session.register(Class::Stream),
            site: vm.session.site(),
        }));
        stream.0.registration.set(&stream);
        stream
    }

    fn start<T: Send + 'static>(
        &self,
        call: &'static str,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let vm = &self.0.reader.source.vm;
        Pending::new(
            vm.session.world(),
            call,
            self.0.reader.source.resource(),
            operation,
        )
    }

    /// Pending bytes, else what comes next; none on timeout or at the end (L-192).
    pub fn next(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.start_next(timeout).wait()
    }

    /// Starts [`ConsoleStream::next`].
    pub fn start_next(&self, timeout: Duration) -> Pending<Option<Vec<u8>>> {
        let stream = self.clone();
        self.start("console:next", async move {
            stream.0.reader.next("console:next", timeout).await
        })
    }

    /// Bytes up to and including the first `pattern` (L-193).
    pub fn read_until(&self, pattern: &[u8], timeout: Duration) -> Result<Vec<u8>> {
        self.start_read_until("console:read_until", pattern, timeout)
            .wait()
    }

    /// The same without the bytes (L-194).
    pub fn expect(&self, pattern: &[u8], timeout: Duration) -> Result<()> {
        self.start_read_until("console:expect", pattern, timeout)
            .wait()
            .map(drop)
    }

    /// Starts [`ConsoleStream::read_until`]; `call` is its name in errors.
    pub fn start_read_until(
        &self,
        call: &'static str,
        pattern: &[u8],
        timeout: Duration,
    ) -> Pending<Vec<u8>> {
        let (stream, pattern) = (self.clone(), pattern.to_vec());
        self.start(call, async move {
            stream.0.reader.read_until(call, &pattern, timeout).await
        })
    }

    /// The chunks that arrive until `timeout` has passed or the console ends (L-195).
    pub fn drain(&self, timeout: Duration) -> Result<Vec<Vec<u8>>> {
        self.start_drain(timeout).wait()
    }

    /// Starts [`ConsoleStream::drain`].
    pub fn start_drain(&self, timeout: Duration) -> Pending<Vec<Vec<u8>>> {
        let stream = self.clone();
        self.start("console:drain", async move {
            stream.0.reader.drain("console:drain", timeout).await
        })
    }

    /// True when the console has ended (or the stream is closed) and nothing is pending (L-197).
    #[must_use]
    pub fn eof(&self) -> bool {
        self.0.reader.eof()
    }

    /// Closes it; doing so again changes nothing (L-196).
    pub fn close(&self) {
        self.0.registration.done();
        if self.0.reader.close()
            && let Some(log) = &self.0.reader.source.log
        {
            lock(log).instance.count_stream(false);
        }
    }

    /// What it is (L-200).
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        StreamKind::Console
    }

    /// Where the test opened it (L-199).
    #[must_use]
    pub fn creation_site(&self) -> Option<Site> {
        self.0.site.clone()
    }
}

impl PartialEq for ConsoleStream {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Closable for ConsoleStream {
    fn describe(&self) -> String {
        self.0.reader.source.resource()
    }

    fn vm(&self) -> &Arc<VmCore> {
        &self.0.reader.source.vm
    }

    fn start_close(&self) -> Pending<()> {
        self.close();
        self.start("console:close", async { Ok(()) })
    }

    fn abandon(&self) {
        self.close();
    }

    fn offence(&self) -> Option<Offender> {
        Some(Offender {
            kind: StreamKind::Console.name(),
            detail: self.vm().resource(),
            site: self.creation_site(),
            test: None,
        })
    }
}

impl Console {
    /// An error of this console.
    #[must_use]
    pub fn error(&self, call: &'static str, reason: Reason) -> Error {
        self.0.error(call, reason)
    }
}
