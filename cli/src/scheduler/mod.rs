//! Runs files, one thread and one Lua state per file, and hands their news to the desk.
//!
//! ```text
//! desk (the caller)   reads all news out to the reporters, in one order
//! dispatcher          admits files to the pool in order, starts a thread for each
//! file threads        run a file, its retries included
//! clock               looks at signals, tells the state of the pool once a second
//! ```
//!
//! They share nothing but one channel of [`News`], so all reporters hear one sequence, and a slow
//! reporter holds up nobody.

mod attempt;
mod classic;
mod dispatch;
mod teller;
#[cfg(test)]
mod tests;

pub(crate) use dispatch::{LONG_WAIT, why};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use provium_lua::scan::Scan;
use provium_lua::{Filter, Interrupt, Setup};
use provium_protocol::event;

use crate::discover::TestFile;
use crate::news::{News, Stamped};
use crate::pressure::Pressure;
use crate::report::Reporters;
use crate::signals;
use dispatch::Dispatcher;

/// How long the desk waits for news before it lets the clock of the reporters tick.
const TICK: Duration = Duration::from_millis(25);

/// How often the state of the pool is told (E-022).
const POOL_PERIOD: Duration = Duration::from_secs(1);

/// A file to run, once.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// The file.
    pub(crate) file: TestFile,
    /// Its name in all outputs: the display path, with `#2` behind it when it runs again.
    pub(crate) name: String,
    /// What is known of it before it runs.
    pub(crate) scan: Scan,
}

/// What to run, and how.
pub(crate) struct Work {
    /// The files in order.
    pub(crate) files: Vec<Planned>,
    /// Most files in flight.
    pub(crate) jobs: usize,
    /// Which tests run.
    pub(crate) filter: Filter,
    /// Deadline of each file.
    pub(crate) timeout: Option<Duration>,
    /// No new file after a failed one.
    pub(crate) fail_fast: bool,
    /// How often a failed file is tried again.
    pub(crate) retries: u32,
    /// The files are those of a classic run.
    pub(crate) classic: bool,
    /// What all files share.
    pub(crate) setup: Arc<Setup>,
    /// When the host is too busy for another file.
    pub(crate) pressure: Pressure,
    /// Where news may also come from: preparation of guests, labs.
    pub(crate) wire: Wire,
}

/// The channel on which news travel to the desk.
pub(crate) struct Wire {
    sender: Sender<News>,
    receiver: Receiver<News>,
}

impl Wire {
    /// A new channel.
    #[must_use]
    pub(crate) fn new() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }

    /// Another end to tell news at.
    #[must_use]
    pub(crate) fn sender(&self) -> Sender<News> {
        self.sender.clone()
    }
}

/// What became of a run.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// Canonical paths of the files that did not pass.
    pub(crate) failed: Vec<PathBuf>,
    /// A signal ended it.
    pub(crate) interrupted: bool,
}

/// What the threads of a run share.
struct Shop {
    filter: Filter,
    timeout: Option<Duration>,
    fail_fast: bool,
    retries: u32,
    classic: bool,
    setup: Arc<Setup>,
    interrupt: Interrupt,
    /// No new files.
    stop: AtomicBool,
    failed: Mutex<Vec<PathBuf>>,
}

/// Runs everything; returns when the last file has ended.
pub(crate) fn run(work: Work, reporters: &mut Reporters) -> Ending {
    let Wire { sender, receiver } = work.wire;
    let mut desk = Desk { reporters, last: 0 };
    for planned in &work.files {
        desk.tell(News::Discovered {
            path: planned.name.clone(),
            fixture_refs: planned.scan.fixtures.clone(),
            declared_claim: planned.scan.claim,
        });
    }
    let shop = Shop {
        filter: work.filter,
        timeout: work.timeout,
        fail_fast: work.fail_fast,
        retries: work.retries,
        classic: work.classic,
        setup: work.setup,
        interrupt: Interrupt::default(),
        stop: AtomicBool::new(false),
        failed: Mutex::default(),
    };
    let started = Instant::now();
    let done = AtomicBool::new(false);
    let dispatcher = Dispatcher::new(&shop, work.files, work.jobs, work.pressure);
    std::thread::scope(|scope| {
        let clock = scope.spawn(|| shop.keep_time(&sender, &done));
        scope.spawn(|| dispatcher.run(&sender));
        // Labs hold ends of the channel, too, so it is not its closing that ends the run.
        desk.listen(&receiver);
        done.store(true, Ordering::Release);
        clock.thread().unpark();
    });
    desk.drain(&receiver);
    desk.tell(News::Ended {
        elapsed: started.elapsed(),
    });
    Ending {
        failed: std::mem::take(&mut *locked(&shop.failed)),
        interrupted: shop.interrupt.is_set(),
    }
}

impl Shop {
    fn no_more_files(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.interrupt.is_set()
    }

    /// Looks at signals, and tells the pool's state, until the run is `done`.
    fn keep_time(&self, tell: &Sender<News>, done: &AtomicBool) {
        let mut next = Instant::now() + POOL_PERIOD;
        while !done.load(Ordering::Acquire) {
            std::thread::park_timeout(TICK);
            if signals::received() && !self.interrupt.is_set() {
                let text = "provium: interrupted, ending the run (again to end it at once)";
                let _ = tell.send(News::Note {
                    text: text.to_owned(),
                });
                self.interrupt.set();
            }
            if Instant::now() >= next {
                next += POOL_PERIOD;
                let pool = self.setup.harness.pool();
                let (used, available) = (pool.used(), pool.available());
                let _ = tell.send(News::Lab(event::PoolState { used, available }.into()));
            }
        }
    }
}

/// The one who reads the news out.
struct Desk<'a> {
    reporters: &'a mut Reporters,
    last: i64,
}

impl Desk<'_> {
    fn tell(&mut self, news: News) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        self.last = self.last.max(i64::try_from(now).unwrap_or(i64::MAX));
        self.reporters.tell(&Stamped {
            ts: self.last,
            news,
        });
    }

    fn listen(&mut self, news: &Receiver<News>) {
        loop {
            match news.recv_timeout(TICK) {
                Ok(News::Finished) => break,
                Ok(news) => self.tell(news),
                Err(RecvTimeoutError::Timeout) => self.reporters.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Reads out what is left when nobody writes any more.
    fn drain(&mut self, news: &Receiver<News>) {
        for left in news.try_iter() {
            self.tell(left);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
