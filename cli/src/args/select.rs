//! Which files.

use std::path::PathBuf;

use clap::Args;

use super::values::parse_shard;

/// Flags that select files (R-013..R-016).
#[derive(Debug, Clone, Args)]
pub(crate) struct SelectArgs {
    /// Files and directories; default: the configured roots, else the current directory
    #[arg(value_name = "PATHS")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only files whose path (relative to its root) contains STR
    #[arg(long, value_name = "STR", help_heading = "Selection")]
    pub(crate) filter: Option<String>,
    /// Only files newer than PATH
    #[arg(long, value_name = "PATH", help_heading = "Selection")]
    pub(crate) since: Option<PathBuf>,
    /// Only files that failed in the last failing run
    #[arg(long, help_heading = "Selection")]
    pub(crate) rerun_failed: bool,
    /// Only slice I of N of the files
    #[arg(long, value_name = "I/N", value_parser = parse_shard, help_heading = "Selection")]
    pub(crate) shard: Option<(usize, usize)>,
    /// Balance --shard by the durations in an earlier run's event file or JUnit report (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    pub(crate) timings: Vec<PathBuf>,
}
