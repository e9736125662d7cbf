//! Runs files on worker threads, one Lua state per file, and hands their news to the desk.
//!
//! Files are dispatched in discovery order. A worker takes a file, runs it to its end
//! and takes the next; everything it tells travels through one channel to the thread that
//! called [`run`], so all reporters hear one sequence.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use provium_lua::{
    Failure, FileJob, FileReport, FileStatus, Filter, Interrupt, Observer, Setup, TestEnd, run_file,
};
use provium_protocol::{Amount, EventKind, Meta};

use crate::discover::TestFile;
use crate::news::{FileResult, News, Stamped};
use crate::report::Reporters;
use crate::signals;

/// How long the desk waits for news before it looks at signals and lets the clock tick.
const TICK: Duration = Duration::from_millis(25);

/// Memory reserved for a file that claims nothing.
const FILE_OVERHEAD: u64 = 50 << 20;

/// What to run, and how.
pub(crate) struct Work {
    /// The files in order.
    pub(crate) files: Vec<TestFile>,
    /// Most files in flight.
    pub(crate) jobs: usize,
    /// Which tests run.
    pub(crate) filter: Filter,
    /// Deadline of each file.
    pub(crate) timeout: Option<Duration>,
    /// No new file after a failed one.
    pub(crate) fail_fast: bool,
    /// What all files share.
    pub(crate) setup: Arc<Setup>,
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

/// Runs everything; returns when the last file has ended.
pub(crate) fn run(work: Work, reporters: &mut Reporters) -> Ending {
    let Work {
        files,
        jobs,
        filter,
        timeout,
        fail_fast,
        setup,
        wire,
    } = work;
    let mut desk = Desk { reporters, last: 0 };
    for file in &files {
        desk.tell(News::Discovered {
            path: file.display.clone(),
        });
    }
    let workers = jobs.clamp(1, files.len().max(1));
    let shop = Shop {
        queue: Mutex::new(files.into()),
        filter,
        timeout,
        fail_fast,
        setup,
        interrupt: Interrupt::default(),
        stop: AtomicBool::new(false),
        failed: Mutex::default(),
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|_| {
                let tell = wire.sender.clone();
                scope.spawn(|| shop.work(tell))
            })
            .collect();
        desk.listen(&wire.receiver, &shop, || {
            running.iter().all(|worker| worker.is_finished())
        });
    });
    desk.tell(News::Ended {
        elapsed: started.elapsed(),
    });
    let failed = shop
        .failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ending {
        failed,
        interrupted: shop.interrupt.is_set(),
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

    fn listen(&mut self, news: &Receiver<News>, shop: &Shop, done: impl Fn() -> bool) {
        loop {
            match news.recv_timeout(TICK) {
                Ok(news) => self.tell(news),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.reporters.tick();
                    if done() {
                        break;
                    }
                }
            }
            if signals::received() && !shop.interrupt.is_set() {
                self.tell(News::Note {
                    text: "provium: interrupted, ending the run".to_owned(),
                });
                shop.interrupt.set();
            }
        }
        for left in news.try_iter() {
            self.tell(left);
        }
    }
}

/// What workers share.
struct Shop {
    queue: Mutex<VecDeque<TestFile>>,
    filter: Filter,
    timeout: Option<Duration>,
    fail_fast: bool,
    setup: Arc<Setup>,
    interrupt: Interrupt,
    /// No new files.
    stop: AtomicBool,
    failed: Mutex<Vec<PathBuf>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shop {
    fn work(&self, tell: Sender<News>) {
        while !self.stop.load(Ordering::Acquire) && !self.interrupt.is_set() {
            let Some(file) = locked(&self.queue).pop_front() else {
                break;
            };
            self.run(&file, &tell);
        }
    }

    fn run(&self, file: &TestFile, tell: &Sender<News>) {
        let path = file.display.clone();
        let reservation = Amount {
            memory_bytes: FILE_OVERHEAD,
            cpus: 0,
        };
        // The desk outlives the workers, so telling cannot fail.
        let _ = tell.send(News::Dispatched {
            path: path.clone(),
            reservation,
        });
        let reporter = Arc::new(FileReporter::new(path.clone(), tell.clone()));
        let started = Instant::now();
        let job = FileJob {
            path: file.path.clone(),
            filter: self.filter.clone(),
            timeout: self.timeout,
            interrupt: self.interrupt.clone(),
            setup: Arc::clone(&self.setup),
        };
        let observer = Arc::clone(&reporter) as Arc<dyn Observer>;
        let report = catch_unwind(AssertUnwindSafe(|| run_file(job, observer)))
            .unwrap_or_else(|panic| crashed(&*panic));
        if report.status != FileStatus::Passed {
            locked(&self.failed).push(file.path.clone());
            self.stop.fetch_or(self.fail_fast, Ordering::AcqRel);
        }
        let tests = std::mem::take(&mut *locked(&reporter.tests));
        let again = file.again.clone();
        let result = FileResult {
            path,
            again,
            report,
            tests,
            duration: started.elapsed(),
        };
        let _ = tell.send(News::Completed(result));
    }
}

/// The report of a file in which the harness itself failed.
fn crashed(panic: &(dyn std::any::Any + Send)) -> FileReport {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let message = format!("the harness panicked while running this file: {text}");
    let failure = Failure {
        message,
        ..Failure::default()
    };
    FileReport {
        status: FileStatus::Crashed,
        chunk_error: Some(failure),
    }
}

/// Passes on what one file tells.
struct FileReporter {
    path: String,
    tell: Mutex<Sender<News>>,
    tests: Mutex<Vec<TestEnd>>,
}

impl FileReporter {
    fn new(path: String, tell: Sender<News>) -> Self {
        Self {
            path,
            tell: Mutex::new(tell),
            tests: Mutex::default(),
        }
    }

    fn tell(&self, news: News) {
        let _ = locked(&self.tell).send(news);
    }
}

impl Observer for FileReporter {
    fn test_started(&self, name: &str, meta: &Meta) {
        let (path, name, meta) = (self.path.clone(), name.to_owned(), meta.clone());
        self.tell(News::TestStarted { path, name, meta });
    }

    fn test_ended(&self, end: TestEnd) {
        locked(&self.tests).push(end.clone());
        self.tell(News::TestEnded {
            path: self.path.clone(),
            end,
        });
    }

    fn print(&self, bytes: &[u8]) {
        self.tell(News::Printed {
            bytes: bytes.to_vec(),
        });
    }

    fn warn(&self, text: &str) {
        self.tell(News::Note {
            text: format!("{}: {text}", self.path),
        });
    }

    fn phase(&self, text: &str) {
        self.tell(News::Phase {
            path: Some(self.path.clone()),
            text: text.to_owned(),
        });
    }

    fn lab(&self, event: EventKind) {
        self.tell(News::Lab(event));
    }
}
