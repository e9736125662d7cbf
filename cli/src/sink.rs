//! Where the library's events and the progress of guest preparation become news.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use provium_lab::guest::{GuestStep, Progress};
use provium_lab::{Booted, EventKind, EventSink};

use crate::news::News;
use crate::scheduler::LONG_WAIT;

/// Tells the desk what labs and guest preparation tell.
pub(crate) struct NewsSink {
    tell: Mutex<Sender<News>>,
    /// The last preparation line, so that repeated percentages do not become repeated lines.
    last: Mutex<String>,
    /// Since when files wait for the pool, and whether that was told.
    waits: Mutex<BTreeMap<String, (Instant, bool)>>,
}

impl NewsSink {
    /// A sink that tells the desk at the other end of `tell`.
    #[must_use]
    pub(crate) fn new(tell: Sender<News>) -> Self {
        Self {
            tell: Mutex::new(tell),
            last: Mutex::default(),
            waits: Mutex::default(),
        }
    }

    /// A call that waits for long deserves a line.
    fn note_long_wait(&self, file: &str, text: &str) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() {
            waits.remove(file);
            return;
        }
        let (since, told) = waits
            .entry(file.to_owned())
            .or_insert_with(|| (Instant::now(), false));
        if since.elapsed() >= LONG_WAIT && !*told {
            *told = true;
            let text = format!("{file} {text}");
            self.tell(News::Note { text });
        }
    }

    fn tell(&self, news: News) {
        let sender = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a desk nobody wants to know.
        let _ = sender.send(news);
    }
}

impl EventSink for NewsSink {
    fn emit(&self, event: EventKind) {
        self.tell(News::Lab(event));
    }

    fn waiting(&self, file: &str, text: &str) {
        self.note_long_wait(file, text);
        self.tell(News::Phase {
            path: Some(file.to_owned()),
            text: text.to_owned(),
        });
    }

    fn booted(&self, file: &str, vm: &str, how: &Booted, took: Duration) {
        let text = format!("vm {vm}: {how}, {:.2}s", took.as_secs_f64());
        let path = file.to_owned();
        self.tell(News::Booted { path, text });
    }

    fn note(&self, text: &str) {
        let text = format!("provium: {text}");
        self.tell(News::Note { text });
    }
}

impl Progress for NewsSink {
    fn step(&self, guest: &str, step: &GuestStep) {
        let (text, lasting) = describe(step);
        let phase = if matches!(step, GuestStep::Ready { .. }) {
            String::new()
        } else {
            format!("guest {guest}: {}", percent(&text, step))
        };
        self.tell(News::Phase {
            path: None,
            text: phase,
        });
        let line = format!("guest {guest}: {text}");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if lasting && *last != line {
            self.tell(News::Note { text: line.clone() });
            *last = line;
        }
    }
}

/// The text of a step, and whether it deserves a line that stays.
fn describe(step: &GuestStep) -> (String, bool) {
    match step {
        GuestStep::Waiting => (
            "waiting for another process that prepares it".to_owned(),
            true,
        ),
        GuestStep::Lists { .. } => ("fetching Debian package lists".to_owned(), true),
        GuestStep::Download {
            packages, bytes, ..
        } => (
            format!("downloading {packages} packages, {}", mebibytes(*bytes)),
            true,
        ),
        GuestStep::Kernel { package } => (format!("unpacking {package}"), true),
        GuestStep::Initramfs => ("building the initramfs".to_owned(), true),
        GuestStep::Ready {
            kernel_bytes,
            initrd_bytes,
            path,
        } => {
            let (kernel, initrd) = (mebibytes(*kernel_bytes), mebibytes(*initrd_bytes));
            (
                format!(
                    "ready: kernel {kernel}, initramfs {initrd}, in {}",
                    path.display()
                ),
                true,
            )
        }
    }
}

/// The text with how far a download is.
fn percent(text: &str, step: &GuestStep) -> String {
    match step {
        GuestStep::Lists { percent } | GuestStep::Download { percent, .. } => {
            format!("{text} {percent:.0} %")
        }
        _ => text.to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
