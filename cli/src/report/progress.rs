//! The live line on a terminal: how far the run is, which file, which test, which phase.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::{Reporter, Screen};
use crate::news::{News, Stamped};

/// Keeps the status line of a screen.
pub(crate) struct Progress {
    screen: Screen,
    started: Instant,
    discovered: usize,
    completed: usize,
    /// What each running file is doing.
    running: BTreeMap<String, String>,
    /// What concerns the whole run.
    phase: String,
}

impl Progress {
    /// A status line on `screen`.
    #[must_use]
    pub(crate) fn new(screen: Screen) -> Self {
        Self {
            screen,
            started: Instant::now(),
            discovered: 0,
            completed: 0,
            running: BTreeMap::new(),
            phase: String::new(),
        }
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        let mut line = format!("[{}/{}] {seconds}s", self.completed, self.discovered);
        if !self.phase.is_empty() {
            line.push_str("  ");
            line.push_str(&self.phase);
        }
        for (path, doing) in &self.running {
            line.push_str("  ");
            line.push_str(path);
            if !doing.is_empty() {
                line.push_str(": ");
                line.push_str(doing);
            }
        }
        line
    }
}

impl Reporter for Progress {
    fn name(&self) -> &str {
        "progress line"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        match &stamped.news {
            News::Discovered { .. } => self.discovered += 1,
            News::Dispatched { path, .. } => {
                self.running.insert(path.clone(), String::new());
            }
            News::TestStarted { path, name, .. } => {
                self.running.insert(path.clone(), name.replace('\n', " "));
            }
            News::Phase {
                path: Some(path),
                text,
            } => {
                self.running.insert(path.clone(), text.clone());
            }
            News::Phase { path: None, text } => self.phase.clone_from(text),
            News::Completed(result) => {
                self.completed += 1;
                self.running.remove(&result.path);
            }
            News::Ended { .. } => return self.screen.status(String::new()),
            _ => return Ok(()),
        }
        self.tick()
    }

    fn tick(&mut self) -> io::Result<()> {
        self.screen.status(self.line())
    }
}
