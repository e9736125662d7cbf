//! `--watch`: runs, waits for a change of the suite, and runs again (cli-and-config ).
//!
//! The kernel tells of changes (inotify). A change of one file reruns the test files that depend
//! on it, found by what they `require`, `dofile` and name as fixtures; a change of the
//! configuration, or of something whose users are not known, reruns all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecursiveMode, Watcher};
use provium_lab::config::FILE_NAME;
use provium_lua::scan::scan;

use crate::problem::Problem;
use crate::signals;

/// How long nothing must change before a run starts; editors write several files at once.
const QUIET: Duration = Duration::from_millis(100);

/// The longest that changes hold up a run (R-105 allows 500 ms).
const LATEST: Duration = Duration::from_millis(400);

/// How often signals are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Watches directories until dropped.
pub(crate) struct Watch {
    changes: Receiver<notify::Result<Event>>,
    // Stops watching when dropped.
    _watcher: notify::RecommendedWatcher,
}

/// Why watching ended or went on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Awoken {
    /// These files changed.
    Changed(BTreeSet<PathBuf>),
    /// A signal came.
    Interrupted,
}

impl Watch {
    /// Watches all that is below `dirs`; whatever changes from now on is noticed.
    pub(crate) fn new(dirs: &[PathBuf]) -> Result<Self, Problem> {
        let (tell, changes) = channel();
        let failed =
            |error: notify::Error| Problem::Usage(format!("cannot watch for changes: {error}"));
        let mut watcher = notify::recommended_watcher(move |event| {
            // Nobody listens any more only when the watch is being dropped.
            let _ = tell.send(event);
        })
        .map_err(failed)?;
        for dir in dirs {
            watcher
                .watch(dir, RecursiveMode::Recursive)
                .map_err(failed)?;
        }
        Ok(Self {
            changes,
            _watcher: watcher,
        })
    }

    /// Waits until something of a suite has changed and it is quiet again.
    pub(crate) fn wait(&self) -> Awoken {
        let mut changed = BTreeSet::new();
        let mut first = None;
        loop {
            if signals::received() {
                return Awoken::Interrupted;
            }
            let patience = if changed.is_empty() { LOOK } else { QUIET };
            match self.changes.recv_timeout(patience) {
                Ok(Ok(event)) => changed.extend(relevant(event)),
                // An error is an overflow: what changed is not known, so everything may have.
                Ok(Err(_)) => {
                    changed.insert(PathBuf::from(FILE_NAME));
                }
                Err(RecvTimeoutError::Timeout) if changed.is_empty() => {}
                Err(RecvTimeoutError::Timeout) => return Awoken::Changed(changed),
                Err(RecvTimeoutError::Disconnected) => return Awoken::Interrupted,
            }
            if !changed.is_empty() {
                let since = *first.get_or_insert_with(Instant::now);
                if since.elapsed() >= LATEST {
                    return Awoken::Changed(changed);
                }
            }
        }
    }
}

/// The files of an event that belong to a suite.
fn relevant(event: Event) -> Vec<PathBuf> {
    if matches!(event.kind, EventKind::Access(_)) {
        return Vec::new();
    }
    let of_suite = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".lua") || name.ends_with(FILE_NAME)
    };
    // A directory that came or was moved brings what is in it.
    let brings = matches!(
        event.kind,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_))
    );
    let mut files = Vec::new();
    let mut open = event.paths;
    while let Some(path) = open.pop() {
        if brings && path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        } else if of_suite(&path) {
            files.push(path);
        }
    }
    files
}

/// The test files that a change concerns; nothing when that is not known, which means all.
pub(crate) fn affected(
    tests: &[PathBuf],
    roots: &[PathBuf],
    changed: &BTreeSet<PathBuf>,
) -> Option<BTreeSet<PathBuf>> {
    let mut graph = Graph::new(roots);
    let mut explained = BTreeSet::new();
    let mut hit = BTreeSet::new();
    for test in tests {
        let used = graph.closure(test);
        let touched: Vec<&PathBuf> = changed.iter().filter(|path| used.contains(*path)).collect();
        if !touched.is_empty() {
            hit.insert(test.clone());
            explained.extend(touched);
        }
    }
    (explained.len() == changed.len()).then_some(hit)
}

/// Which source names which.
struct Graph<'a> {
    roots: &'a [PathBuf],
    edges: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl<'a> Graph<'a> {
    fn new(roots: &'a [PathBuf]) -> Self {
        Self {
            roots,
            edges: BTreeMap::new(),
        }
    }

    /// A file and all that it uses, directly or not.
    fn closure(&mut self, start: &Path) -> BTreeSet<PathBuf> {
        let mut known = BTreeSet::from([start.to_path_buf()]);
        let mut open = vec![start.to_path_buf()];
        while let Some(path) = open.pop() {
            for used in self.uses(&path) {
                if known.insert(used.clone()) {
                    open.push(used);
                }
            }
        }
        known
    }

    fn uses(&mut self, path: &Path) -> Vec<PathBuf> {
        if let Some(known) = self.edges.get(path) {
            return known.clone();
        }
        let scan = scan(&std::fs::read(path).unwrap_or_default());
        let own = path.parent().unwrap_or(Path::new("/"));
        let places: Vec<&Path> = self
            .roots
            .iter()
            .map(PathBuf::as_path)
            .chain([own])
            .collect();
        let mut used = Vec::new();
        for module in &scan.modules {
            let name = module.replace('.', "/");
            for place in &places {
                used.push(place.join(format!("{name}.lua")));
                used.push(place.join(&name).join("init.lua"));
            }
        }
        for fixture in &scan.fixtures {
            used.extend(
                places
                    .iter()
                    .map(|place| place.join(format!("{fixture}.fixture.lua"))),
            );
        }
        for file in &scan.files {
            used.extend(std::path::absolute(file));
            used.push(own.join(file));
        }
        self.edges.insert(path.to_path_buf(), used.clone());
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for (name, text) in [
            ("a.test.lua", "require('lib.one')"),
            ("sub/b.test.lua", "provium:vm_fixture('db')"),
            ("sub/c.test.lua", "local near = require 'near'"),
            ("lib/one.lua", "return require('lib.two')"),
            ("lib/two.lua", "return 2"),
            ("db.fixture.lua", "require('lib.two')"),
            ("sub/near.lua", "return 1"),
        ] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (dir, root)
    }

    fn hit(root: &Path, changed: &[&str]) -> Option<Vec<String>> {
        let tests = ["a.test.lua", "sub/b.test.lua", "sub/c.test.lua"].map(|name| root.join(name));
        let changed = changed.iter().map(|name| root.join(name)).collect();
        let hit = affected(&tests, &[root.to_path_buf()], &changed)?;
        let names = hit
            .iter()
            .map(|path| path.strip_prefix(root).unwrap().display().to_string());
        Some(names.collect())
    }

    #[test]
    fn r105_a_change_concerns_those_who_use_the_file() {
        let (_dir, root) = suite();
        assert_eq!(hit(&root, &["a.test.lua"]).unwrap(), ["a.test.lua"]);
        assert_eq!(
            hit(&root, &["lib/two.lua"]).unwrap(),
            ["a.test.lua", "sub/b.test.lua"]
        );
        assert_eq!(hit(&root, &["db.fixture.lua"]).unwrap(), ["sub/b.test.lua"]);
        assert_eq!(hit(&root, &["sub/near.lua"]).unwrap(), ["sub/c.test.lua"]);
    }

    #[test]
    fn r105_a_change_that_nobody_explains_concerns_all() {
        let (_dir, root) = suite();
        assert_eq!(hit(&root, &["provium.toml"]), None);
        assert_eq!(hit(&root, &["lib/two.lua", "unknown.lua"]), None);
    }

    #[test]
    fn r105_changes_are_noticed_and_gathered() {
        let (_dir, root) = suite();
        let watch = Watch::new(std::slice::from_ref(&root)).unwrap();
        std::fs::write(root.join("lib/two.lua"), "return 3").unwrap();
        std::fs::write(root.join("notes.txt"), "no matter").unwrap();
        std::fs::create_dir(root.join("new")).unwrap();
        let changed = BTreeSet::from([root.join("lib/two.lua")]);
        assert_eq!(watch.wait(), Awoken::Changed(changed));
        let (ready, place) = (root.join("ready"), root.join("moved"));
        std::fs::create_dir(&ready).unwrap();
        std::fs::write(ready.join("d.test.lua"), "").unwrap();
        std::fs::rename(&ready, &place).unwrap();
        let Awoken::Changed(changed) = watch.wait() else {
            panic!("interrupted")
        };
        assert!(
            changed.iter().any(|path| path.ends_with("d.test.lua")),
            "{changed:?}"
        );
    }
}
