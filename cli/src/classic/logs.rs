//! The directory of a classic run, where failed files leave their consoles (classic-api C-073).

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use provium_lua::ConsoleLog;

/// Ends the name of every log.
const SUFFIX: &str = ".log";

/// Where one run's logs go. It is made when the first file fails.
#[derive(Debug, Clone)]
pub(crate) struct RunDirectory(PathBuf);

impl RunDirectory {
    /// A directory for a run that starts now.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = now.unwrap_or_default().as_millis();
        Self(base().join(format!("run-{millis}-{}", std::process::id())))
    }

    /// Names, relative to the run's PATH, of the files whose logs the newest run has retained.
    pub(crate) fn newest_failures() -> Option<Vec<String>> {
        let runs = std::fs::read_dir(base()).ok()?.flatten();
        let newest = runs
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"))
            .max_by_key(|entry| started(&entry.file_name().to_string_lossy()))?;
        let mut names = Vec::new();
        collect(&newest.path(), &newest.path(), &mut names);
        names.sort();
        Some(names)
    }

    /// Keeps what a failed file's VMs wrote; answers where.
    pub(crate) fn keep(&self, name: &str, consoles: &[ConsoleLog]) -> io::Result<PathBuf> {
        let path = self.0.join(format!("{name}{SUFFIX}"));
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut text = Vec::new();
        for console in consoles {
            if consoles.len() > 1 {
                text.extend_from_slice(
                    format!("--- console of vm {} ---\n", console.vm).as_bytes(),
                );
            }
            text.extend_from_slice(&console.bytes);
        }
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// When the run of that directory name started, and which of several at once it was.
fn started(name: &str) -> (u128, u32) {
    let mut parts = name.trim_start_matches("run-").split('-');
    let mut next = || parts.next().unwrap_or_default();
    (next().parse().unwrap_or(0), next().parse().unwrap_or(0))
}

fn base() -> PathBuf {
    let given = std::env::var_os("PROVIUM_RUNS_DIR").filter(|dir| !dir.is_empty());
    given.map_or_else(|| PathBuf::from("/tmp/provium-runs"), PathBuf::from)
}

fn collect(root: &Path, dir: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, names);
        } else if let Ok(relative) = path.strip_prefix(root) {
            let name = relative.to_string_lossy();
            names.extend(name.strip_suffix(SUFFIX).map(str::to_owned));
        }
    }
}
