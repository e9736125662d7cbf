//! What the running of a file tells the world: test by test through an [`Observer`], and the
//! whole as a [`FileReport`].

use std::time::Duration;

use provium_protocol::{EventKind, Meta};

/// Listens to a file while it runs. Called from the file's thread.
pub trait Observer: Send + Sync {
    /// A test starts; also called right before the end of a test that never runs.
    fn test_started(&self, name: &str, meta: &Meta);

    /// A test ended.
    fn test_ended(&self, end: TestEnd);

    /// The file printed something.
    fn print(&self, bytes: &[u8]);

    /// Something a user should know that is no failure, for stderr.
    fn warn(&self, text: &str);

    /// A phase begins that may take long, `booting vm a`.
    fn phase(&self, text: &str);

    /// An event of the file's labs: VMs, claims, fixtures.
    fn lab(&self, event: EventKind);
}

/// The end of a test.
#[derive(Debug, Clone, PartialEq)]
pub struct TestEnd {
    /// Its name.
    pub name: String,
    /// Its meta table.
    pub meta: Meta,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took on the host's clock.
    pub duration: Duration,
    /// What it logged.
    pub log: Vec<String>,
}

/// How a test ended (lua-api L-219).
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All went well.
    Passed,
    /// It failed.
    Failed(Box<Failure>),
    /// It did not run, or stopped by its own wish; with the reason.
    Skipped(String),
}

/// A failed test, or a failed file chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// `FILE:LINE: text` (L-249).
    pub message: String,
    /// File of the author's frame.
    pub file: Option<String>,
    /// Line of the author's frame.
    pub line: Option<u32>,
    /// The text of that line.
    pub source_line: Option<String>,
    /// The two values that were compared, as literals.
    pub values: Option<(String, String)>,
    /// The author's frames, innermost first.
    pub trace: Vec<String>,
    /// The end of the console of each VM that was up (L-220).
    pub consoles: Vec<ConsoleTail>,
}

impl Failure {
    /// The ends of all consoles, each under a line naming its VM (E-018).
    #[must_use]
    pub fn console_excerpt(&self) -> String {
        let consoles = self.consoles.iter();
        let texts = consoles.map(|tail| format!("--- {} ---\n{}", tail.vm, tail.text));
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// The end of a VM's console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleTail {
    /// The VM.
    pub vm: String,
    /// The last 4 KiB, invalid UTF-8 replaced.
    pub text: String,
    /// What is worth knowing besides: the state of a VM that died, where its vCPUs stood.
    pub notes: Vec<String>,
}

/// How a file ended (events-and-protocol E-015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileStatus {
    /// No test failed and the chunk ran through.
    Passed,
    /// A test failed, or the chunk did.
    Failed,
    /// The file's deadline passed.
    TimedOut,
    /// The harness itself panicked in it.
    Crashed,
}

/// The whole of a file's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// How it ended.
    pub status: FileStatus,
    /// The error of the file's own code, outside any test.
    pub chunk_error: Option<Failure>,
}
