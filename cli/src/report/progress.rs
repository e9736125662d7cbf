//! The live line on a terminal: how far the run is, what runs, which VMs are up, what waits.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use provium_protocol::EventKind;

use super::{Reporter, Screen};
use crate::news::{News, Stamped};
use crate::scheduler::why;

/// Keeps the status line of a screen.
pub(crate) struct Progress {
    screen: Screen,
    started: Instant,
    discovered: usize,
    completed: usize,
    failed: usize,
    vms: usize,
    /// What each running file is doing.
    running: BTreeMap<String, Doing>,
    /// Why the next file does not start.
    blocked: Option<String>,
    /// What concerns the whole run.
    phase: String,
}

#[derive(Default)]
struct Doing {
    test: String,
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
            failed: 0,
            vms: 0,
            running: BTreeMap::new(),
            blocked: None,
            phase: String::new(),
        }
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        let mut parts = vec![format!(
            "[{}/{}] {seconds}s",
            self.completed, self.discovered
        )];
        if self.failed > 0 {
            parts.push(format!("{} failed", self.failed));
        }
        if self.vms > 0 {
            parts.push(format!("{} VMs", self.vms));
        }
        if !self.phase.is_empty() {
            parts.push(self.phase.clone());
        }
        let started = self.completed + self.running.len();
        let waiting = self.discovered.saturating_sub(started);
        if let Some(why) = &self.blocked {
            parts.push(format!("{waiting} waiting: {why}"));
        }
        for (path, doing) in &self.running {
            let said: Vec<&str> = [&*doing.test, &*doing.phase]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect();
            let colon = if said.is_empty() { "" } else { ": " };
            parts.push(format!("{path}{colon}{}", said.join(", ")));
        }
        parts.join("  ")
    }

    fn note(&mut self, news: &News) {
        match news {
            News::Discovered { .. } => self.discovered += 1,
            News::Blocked { reason, .. } => self.blocked = Some(why(*reason).to_owned()),
            News::Dispatched { path, .. } => {
                self.blocked = None;
                self.running.insert(path.clone(), Doing::default());
            }
            News::TestStarted { path, name, .. } => {
                if let Some(doing) = self.running.get_mut(path) {
                    doing.test = name.replace('\n', " ");
                }
            }
            News::Phase {
                path: Some(path),
                text,
            } => {
                if let Some(doing) = self.running.get_mut(path) {
                    doing.phase.clone_from(text);
                }
            }
            News::Phase { path: None, text } => self.phase.clone_from(text),
            News::Lab(EventKind::VmSpawned(_)) => self.vms += 1,
            News::Lab(EventKind::VmShutdown(_)) => self.vms = self.vms.saturating_sub(1),
            News::Completed(result) => {
                self.completed += 1;
                self.failed += usize::from(!result.passed());
                self.running.remove(&result.path);
            }
            _ => {}
        }
    }
}

impl Reporter for Progress {
    fn name(&self) -> &str {
        "progress line"
    }

    fn hear(&mut self, stamped: &Stamped) -> io::Result<()> {
        self.note(&stamped.news);
        match &stamped.news {
            News::Ended { .. } => self.screen.status(String::new()),
            _ => self.tick(),
        }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.screen.status(self.line())
    }
}

#[cfg(test)]
mod tests {
    use provium_protocol::Amount;
    use provium_protocol::event::BlockReason;

    use super::super::{Screen, Stream};
    use super::*;

    #[test]
    fn the_line_says_what_runs_and_what_waits() {
        let mut progress = Progress::new(Screen::new(Stream::Stdout));
        for path in ["a", "b", "c"] {
            progress.note(&News::Discovered {
                path: path.into(),
                fixture_refs: Vec::new(),
                declared_claim: None,
            });
        }
        let reservation = Amount::default();
        let path = String::from("a");
        progress.note(&News::Dispatched {
            path: path.clone(),
            reservation,
        });
        let meta = provium_protocol::Meta::new();
        let name = "first".into();
        progress.note(&News::TestStarted {
            path: path.clone(),
            name,
            meta,
        });
        let text = "booting vm x".into();
        progress.note(&News::Phase {
            path: Some(path),
            text,
        });
        let reason = BlockReason::PoolFull;
        progress.note(&News::Blocked {
            path: "b".into(),
            waiting_for: reservation,
            reason,
        });
        let line = progress.line();
        assert_eq!(
            line,
            "[0/3] 0s  2 waiting: the pool is full  a: first, booting vm x"
        );
    }
}
