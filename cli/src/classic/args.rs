//! The flags of `provium test` (cli-and-config section 4).

use std::path::PathBuf;

use clap::Args;

use crate::args::{CommonArgs, FileTimeout, parse_jobs, parse_size, parse_timeout};

/// The arguments of `provium test`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TestArgs {
    /// A directory, walked for *.lua except below `fixtures`, or one file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Which guests.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
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
    /// CPUs that files can claim; default: no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Running")]
    pub(crate) cpus: Option<u32>,
    /// Deadline of each file: seconds, or a number with ms, s, m or h; 0 = none
    #[arg(long, value_name = "DUR", default_value = "0", value_parser = parse_timeout, help_heading = "Running")]
    pub(crate) timeout: FileTimeout,
    /// Start no new file after the first failed one
    #[arg(long, help_heading = "Running")]
    pub(crate) fail_fast: bool,
    /// Do not check kernels and initramfs files before running
    #[arg(long, help_heading = "Running")]
    pub(crate) no_preflight: bool,
    /// Do not run the profiles' `build` commands
    #[arg(long, help_heading = "Running")]
    pub(crate) no_build: bool,
    /// Write a JUnit XML report to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) junit: Option<PathBuf>,
    /// Save the event stream (MessagePack frames) to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) save_events: Option<PathBuf>,
    /// Serve the event stream on a Unix socket at PATH, to any number of readers
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) events_socket: Option<PathBuf>,
}
