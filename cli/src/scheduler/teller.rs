//! Tells the desk what happens in one file. What kinds of runs make of its tests differs; all else
//! that a file tells is passed on as it is.

use std::sync::Mutex;
use std::sync::mpsc::Sender;

use provium_lua::{Observer, TestEnd};
use provium_protocol::{EventKind, Meta};

use super::locked;
use crate::news::News;

/// What a kind of run makes of the tests of a file.
pub(super) trait Tests: Send + Sync {
    /// A test starts.
    fn started(&self, voice: &Voice, name: &str, meta: &Meta);

    /// The test that started last, of those that have not ended, ends.
    fn ended(&self, voice: &Voice, end: TestEnd);
}

/// Speaks for one file.
pub(super) struct Voice {
    path: String,
    tell: Mutex<Sender<News>>,
}

impl Voice {
    /// The desk outlives the files, so telling cannot fail.
    fn tell(&self, news: News) {
        let _ = locked(&self.tell).send(news);
    }

    pub(super) fn test_started(&self, name: &str, meta: &Meta) {
        self.tell(News::TestStarted {
            path: self.path.clone(),
            name: name.to_owned(),
            meta: meta.clone(),
        });
    }

    pub(super) fn test_ended(&self, end: TestEnd) {
        self.tell(News::TestEnded {
            path: self.path.clone(),
            end,
        });
    }

    /// A line for people, that begins with the file's name.
    pub(super) fn note(&self, text: &str) {
        self.tell(News::Note {
            text: format!("{}: {text}", self.path),
        });
    }
}

/// Hears what one file does.
pub(super) struct Teller<T> {
    pub(super) voice: Voice,
    pub(super) tests: T,
}

impl<T: Tests> Teller<T> {
    pub(super) fn new(path: &str, tell: &Sender<News>, tests: T) -> Self {
        let voice = Voice {
            path: path.to_owned(),
            tell: Mutex::new(tell.clone()),
        };
        Self { voice, tests }
    }
}

impl<T: Tests> Observer for Teller<T> {
    fn test_started(&self, name: &str, meta: &Meta) {
        self.tests.started(&self.voice, name, meta);
    }

    fn test_ended(&self, end: TestEnd) {
        self.tests.ended(&self.voice, end);
    }

    fn print(&self, bytes: &[u8]) {
        self.voice.tell(News::Printed {
            bytes: bytes.to_vec(),
        });
    }

    fn warn(&self, text: &str) {
        self.voice.note(text);
    }

    fn phase(&self, text: &str) {
        self.voice.tell(News::Phase {
            path: Some(self.voice.path.clone()),
            text: text.to_owned(),
        });
    }

    fn lab(&self, event: EventKind) {
        self.voice.tell(News::Lab(event));
    }
}
