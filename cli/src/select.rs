//! Which of the discovered files run, in the order of R-040: filter, shard, rerun, since.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::args::SelectArgs;
use crate::atomic;
use crate::discover::{Kind, TestFile, discover};
use crate::problem::Problem;
use crate::session::{Session, rerun_state};
use crate::timings;

/// The files of a run, and how many there were before anything was deselected.
pub(crate) struct Selection {
    /// What is left.
    pub(crate) files: Vec<TestFile>,
    /// How many were discovered.
    pub(crate) discovered: usize,
    /// Something to tell the user.
    pub(crate) notice: Option<String>,
}

/// Finds and selects files.
pub(crate) fn select(
    session: &Session,
    args: &SelectArgs,
    kind: Kind,
) -> Result<Selection, Problem> {
    let mut files = discover(&args.paths, &session.config.roots, &session.bases, kind)?;
    let discovered = files.len();
    let mut notice = None;
    if let Some(part) = &args.filter {
        files.retain(|file| file.relative.contains(part.as_str()));
    }
    let shard = match args.shard {
        Some(shard) => Some(shard),
        None => shard_of_engine(|name| std::env::var(name).ok())?,
    };
    if let Some((index, total)) = shard {
        let shards = if args.timings.is_empty() {
            (0..files.len()).map(|position| position % total).collect()
        } else {
            let names: Vec<&str> = files.iter().map(|file| &*file.display).collect();
            timings::shards(&names, total, &timings::read(&args.timings)?)
        };
        let mut shards = shards.into_iter();
        files.retain(|_| shards.next() == Some(index - 1));
    }
    if args.rerun_failed {
        match read_rerun(&rerun_state(&session.places)) {
            Some(failed) => files.retain(|file| failed.contains(&file.path)),
            None => {
                notice = Some("no failed run is remembered".to_owned());
                files.clear();
            }
        }
    }
    if let Some(since) = &args.since {
        let limit = modified(since).map_err(Problem::file("read the time of", since))?;
        files.retain(|file| modified(&file.path).is_ok_and(|time| time > limit));
    }
    Ok(Selection {
        files,
        discovered,
        notice,
    })
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    path.metadata()?.modified()
}

/// Variables of known engines: index, whether it is 0-based, total (R-014).
const ENGINES: &[(&str, usize, &str)] = &[
    ("JOB_COMPLETION_INDEX", 0, "PROVIUM_SHARDS"),
    ("CI_NODE_INDEX", 1, "CI_NODE_TOTAL"),
    ("BUILDKITE_PARALLEL_JOB", 0, "BUILDKITE_PARALLEL_JOB_COUNT"),
    ("TEST_SHARD_INDEX", 0, "TEST_TOTAL_SHARDS"),
];

/// The slice that the engine around this process asks for, 1-based.
fn shard_of_engine(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(usize, usize)>, Problem> {
    for &(index_name, first, total_name) in ENGINES {
        let (Some(index), Some(total)) = (variable(index_name), variable(total_name)) else {
            continue;
        };
        let slice = index
            .parse::<usize>()
            .ok()
            .zip(total.parse::<usize>().ok())
            .and_then(|(index, total)| Some(((index + 1).checked_sub(first)?, total)))
            .filter(|&(index, total)| (1..=total).contains(&index));
        return match slice {
            Some(slice) => Ok(Some(slice)),
            None => Err(Problem::Usage(format!(
                "{index_name}={index} with {total_name}={total} is no slice of the files"
            ))),
        };
    }
    Ok(None)
}

#[derive(Serialize, Deserialize)]
struct Rerun {
    failed: BTreeSet<PathBuf>,
}

/// What failed last time; nothing without state. A damaged state is as good as none, with a
/// warning (R-044).
fn read_rerun(path: &Path) -> Option<BTreeSet<PathBuf>> {
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice::<Rerun>(&text) {
        Ok(rerun) => Some(rerun.failed),
        Err(error) => {
            eprintln!(
                "provium: warning: {} is damaged ({error}), ignoring it",
                path.display()
            );
            None
        }
    }
}

/// Remembers what failed; a clean run leaves the state as it is.
pub(crate) fn write_rerun(path: &Path, failed: &[PathBuf]) -> Result<(), Problem> {
    if failed.is_empty() {
        return Ok(());
    }
    let write = || {
        atomic::make_parent(path)?;
        let failed = failed.iter().cloned().collect();
        atomic::write(path, &serde_json::to_vec(&Rerun { failed })?)
    };
    write().map_err(Problem::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r014_engines_count_from_zero_or_one() {
        let of = |pairs: &[(&str, &str)]| {
            shard_of_engine(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let kubernetes = [("JOB_COMPLETION_INDEX", "0"), ("PROVIUM_SHARDS", "3")];
        assert_eq!(of(&kubernetes).unwrap(), Some((1, 3)));
        let gitlab = [("CI_NODE_INDEX", "3"), ("CI_NODE_TOTAL", "3")];
        assert_eq!(of(&gitlab).unwrap(), Some((3, 3)));
        assert_eq!(of(&[("CI_NODE_INDEX", "1")]).unwrap(), None);
        let bad = [("CI_NODE_INDEX", "0"), ("CI_NODE_TOTAL", "3")];
        assert!(
            of(&bad)
                .unwrap_err()
                .to_string()
                .contains("CI_NODE_INDEX=0")
        );
    }

    #[test]
    fn r044_a_damaged_rerun_state_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rerun.json");
        assert!(read_rerun(&path).is_none());
        std::fs::write(&path, "{").unwrap();
        assert!(read_rerun(&path).is_none());
        std::fs::write(&path, r#"{"failed":["/a"]}"#).unwrap();
        assert!(read_rerun(&path).unwrap().contains(Path::new("/a")));
    }
}
