//! The flags of `provium test` (cli-and-config section 4).

use std::path::PathBuf;

use clap::Args;

use super::SharedArgs;
use super::values::{parse_jobs, parse_size};

/// The arguments of `provium test`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TestArgs {
    /// A directory, walked for *.lua except below `fixtures`, or one file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// What it shares with `provium run`.
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
    /// Only files whose base name contains PATTERN (repeatable)
    #[arg(short = 'f', value_name = "PATTERN", help_heading = "Selection")]
    pub(crate) filters: Vec<String>,
    /// Only files whose logs the newest run directory has retained
    #[arg(long, help_heading = "Selection")]
    pub(crate) rerun_failed: bool,
    /// Files in parallel; default: half the CPUs, at least 2; with --mem or --cpus all files
    #[arg(short = 'p', value_name = "N", value_parser = parse_jobs, help_heading = "Running")]
    pub(crate) parallel: Option<usize>,
    /// Memory that VMs share; default: what is available, less 1.5 GiB for the host
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Running")]
    pub(crate) mem: Option<u64>,
    /// CPUs that VMs share; default: no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Running")]
    pub(crate) cpus: Option<u32>,
}
