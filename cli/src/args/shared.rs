//! What `provium run` and `provium test` have in common.

use std::path::PathBuf;

use clap::Args;

use super::CommonArgs;
use super::values::{FileTimeout, parse_timeout};

/// Flags of both kinds of runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct SharedArgs {
    /// Which guests.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Deadline of each file: seconds, or a number with ms, s, m or h; 0 = none. Default: 300s for
    /// `provium run`, none for `provium test`
    #[arg(long, value_name = "DUR", value_parser = parse_timeout, help_heading = "Running")]
    pub(crate) timeout: Option<FileTimeout>,
    /// Start no new file after the first failed one
    #[arg(long, help_heading = "Running")]
    pub(crate) fail_fast: bool,
    /// Do not check kernels and initramfs files before running
    #[arg(long, help_heading = "Running")]
    pub(crate) no_preflight: bool,
    /// Do not run the profiles' `build` commands
    #[arg(long, help_heading = "Running")]
    pub(crate) no_build: bool,
    /// Save the event stream (MessagePack frames) to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) save_events: Option<PathBuf>,
    /// Serve the event stream on a Unix socket at PATH, to any number of readers
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) events_socket: Option<PathBuf>,
    /// Write a JUnit XML report to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) junit: Option<PathBuf>,
}
