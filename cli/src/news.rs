//! What a run tells: the one kind of event between those who run files and those who report.
//!
//! Runners send [`News`], reporters hear it, and neither knows the other. News is richer than
//! the event stream of the specification: [`Stamped::wire`] gives the part of it that goes into
//! event files and sockets (events-and-protocol section 2).

use std::path::PathBuf;
use std::time::Duration;

use provium_lua::{ConsoleLog, FileReport, FileStatus, Outcome, TestEnd};
use provium_protocol::event::{self, BlockReason};
use provium_protocol::{Amount, Event, EventKind, Meta};

/// Something that happened in a run.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A file was selected.
    Discovered {
        /// Its display path.
        path: String,
        /// Fixtures that it names literally.
        fixture_refs: Vec<String>,
        /// The claim that it makes literally.
        declared_claim: Option<Amount>,
    },
    /// The next file has to wait.
    Blocked {
        /// Its display path.
        path: String,
        /// What it reserves.
        waiting_for: Amount,
        /// Why there is no room for it now.
        reason: BlockReason,
    },
    /// A file starts.
    Dispatched {
        /// Its display path.
        path: String,
        /// What is reserved for it.
        reservation: Amount,
    },
    /// A test starts.
    TestStarted {
        /// Display path of its file.
        path: String,
        /// Its name.
        name: String,
        /// Its meta table.
        meta: Meta,
    },
    /// A test ended.
    TestEnded {
        /// Display path of its file.
        path: String,
        /// How.
        end: TestEnd,
    },
    /// A file ended; all it has to say is in here.
    Completed(FileResult),
    /// Something of a lab: VMs, claims, fixtures.
    Lab(EventKind),
    /// A file is in a phase that takes long: what it is.
    Phase {
        /// Display path, or nothing when it concerns the whole run.
        path: Option<String>,
        /// What is going on, `booting vm a`.
        text: String,
    },
    /// A VM of a file has come up.
    Booted {
        /// Display path of the file.
        path: String,
        /// Which, how, and how fast.
        text: String,
    },
    /// A file printed something.
    Printed {
        /// What.
        bytes: Vec<u8>,
    },
    /// Something a user should know, for stderr.
    Note {
        /// What.
        text: String,
    },
    /// The last file has ended; nothing else is told after this by files.
    Finished,
    /// No more files will start and none is running.
    Ended {
        /// How long the run took.
        elapsed: Duration,
    },
}

/// The whole result of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileResult {
    /// Display path.
    pub(crate) path: String,
    /// The path as it works from the current directory, for the command that runs it again.
    pub(crate) again: PathBuf,
    /// Status and chunk error.
    pub(crate) report: FileReport,
    /// All its tests in order.
    pub(crate) tests: Vec<TestEnd>,
    /// Tests that passed after failing in an earlier attempt.
    pub(crate) flaky: Vec<Flaky>,
    /// How long it took.
    pub(crate) duration: Duration,
    /// What only a file of a classic run has.
    pub(crate) classic: Option<Box<ClassicEnd>>,
}

/// The end of a file of a classic run.
#[derive(Debug, Clone)]
pub(crate) struct ClassicEnd {
    /// Its path relative to the run's PATH.
    pub(crate) name: String,
    /// It ended itself as something yet to be done, with the reason.
    pub(crate) todo: Option<String>,
    /// It is a test, and not a library of others.
    pub(crate) counted: bool,
    /// As what it is told where every file has tests, if it has none (E-041).
    pub(crate) whole: Option<TestEnd>,
    /// What its VMs wrote, if it failed.
    pub(crate) consoles: Vec<ConsoleLog>,
}

/// A test that failed and passed when it was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaky {
    /// Its name.
    pub(crate) name: String,
    /// How many attempts it took.
    pub(crate) attempts: u32,
    /// How the attempts before failed.
    pub(crate) failures: Vec<String>,
}

/// How many tests ended which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Passed tests.
    pub(crate) passed: usize,
    /// Failed tests.
    pub(crate) failed: usize,
    /// Skipped tests.
    pub(crate) skipped: usize,
}

impl Counts {
    /// Adds another count.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl FileResult {
    /// Counts the tests.
    #[must_use]
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for test in &self.tests {
            match test.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }

    /// True unless the file failed, timed out or crashed.
    #[must_use]
    pub(crate) fn passed(&self) -> bool {
        self.report.status == FileStatus::Passed
    }
}

/// News with the time at which it happened.
#[derive(Debug, Clone)]
pub(crate) struct Stamped {
    /// Nanoseconds since the epoch, never decreasing within a run.
    pub(crate) ts: i64,
    /// What happened.
    pub(crate) news: News,
}

impl Stamped {
    /// The event of the specification, for news that has one.
    #[must_use]
    pub(crate) fn wire(&self) -> Option<Event> {
        let kind: EventKind = match &self.news {
            News::Discovered {
                path,
                fixture_refs,
                declared_claim,
            } => event::FileDiscovered {
                path: path.clone(),
                fixture_refs: fixture_refs.clone(),
                declared_claim: *declared_claim,
            }
            .into(),
            News::Blocked {
                path,
                waiting_for,
                reason,
            } => event::FileBlocked {
                path: path.clone(),
                waiting_for: *waiting_for,
                reason: *reason,
            }
            .into(),
            News::Dispatched { path, reservation } => event::FileDispatched {
                path: path.clone(),
                reservation: *reservation,
            }
            .into(),
            News::TestStarted { path, name, meta } => event::TestStarted {
                path: path.clone(),
                name: name.clone(),
                meta: meta.clone(),
            }
            .into(),
            News::TestEnded { path, end } => test_event(path.clone(), end),
            News::Completed(result) => event::FileCompleted {
                path: result.path.clone(),
                status: status(result.report.status),
                duration_ns: nanos(result.duration),
            }
            .into(),
            News::Lab(kind) => kind.clone(),
            News::Phase { .. }
            | News::Booted { .. }
            | News::Printed { .. }
            | News::Note { .. }
            | News::Finished
            | News::Ended { .. } => return None,
        };
        Some(Event { ts: self.ts, kind })
    }
}

impl Stamped {
    /// The frame of its event, for news that has one. A test that logged more than a frame holds
    /// is told without its log.
    pub(crate) fn frame(&self) -> std::io::Result<Option<Vec<u8>>> {
        let Some(mut event) = self.wire() else {
            return Ok(None);
        };
        if let Ok(frame) = event.to_frame() {
            return Ok(Some(frame));
        }
        match &mut event.kind {
            EventKind::TestPassed(test) => test.log = None,
            EventKind::TestFailed(test) => test.log = None,
            EventKind::TestSkipped(test) => test.log = None,
            _ => {}
        }
        event.to_frame().map(Some).map_err(|size| {
            let text = format!("an event of {size} bytes does not fit a frame");
            std::io::Error::new(std::io::ErrorKind::InvalidData, text)
        })
    }
}

fn test_event(path: String, end: &TestEnd) -> EventKind {
    let (name, meta) = (end.name.clone(), end.meta.clone());
    let duration_ns = nanos(end.duration);
    let log = (!end.log.is_empty()).then(|| end.log.clone());
    match &end.outcome {
        Outcome::Passed => event::TestPassed {
            path,
            name,
            duration_ns,
            meta,
            log,
        }
        .into(),
        Outcome::Failed(failure) => event::TestFailed {
            path,
            name,
            duration_ns,
            reason: failure.message.clone(),
            console_excerpt: failure.console_excerpt(),
            meta,
            log,
        }
        .into(),
        Outcome::Skipped(reason) => event::TestSkipped {
            path,
            name,
            reason: reason.clone(),
            meta,
            log,
        }
        .into(),
    }
}

fn status(status: FileStatus) -> event::FileStatus {
    match status {
        FileStatus::Passed => event::FileStatus::Passed,
        FileStatus::Failed => event::FileStatus::Failed,
        FileStatus::TimedOut => event::FileStatus::TimedOut,
        FileStatus::Crashed => event::FileStatus::Crashed,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
