//! The flags of `provium run` (cli-and-config section 2).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{FileTimeout, parse_factor, parse_jobs, parse_size};
use super::{SelectArgs, SharedArgs};

/// What a run may use of the host (R-022..R-025).
#[derive(Debug, Clone, Args)]
pub(crate) struct PoolArgs {
    /// Memory that files and VMs share; default: 80 % of the host's, or of its cgroup's
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Running")]
    pub(crate) mem: Option<u64>,
    /// CPUs that files can claim; default: all that are online
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Running")]
    pub(crate) cpus: Option<u32>,
    /// Multiplies --cpus; from 0.5 to 8
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = parse_factor, help_heading = "Running")]
    pub(crate) cpu_overcommit: f64,
}

/// In which order files run, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct OrderArgs {
    /// Order of the files
    #[arg(long, value_enum, default_value = "sorted", help_heading = "Running")]
    pub(crate) order: Order,
    /// Seed of --order random; without it one is chosen and printed
    #[arg(long, value_name = "N", help_heading = "Running")]
    pub(crate) seed: Option<u64>,
    /// Run every file N times; the second run of a file is called FILE#2
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Running")]
    pub(crate) repeat: u32,
}

impl OrderArgs {
    /// Every file once, by path.
    pub(crate) fn plain() -> Self {
        Self {
            order: Order::Sorted,
            seed: None,
            repeat: 1,
        }
    }
}

/// The order of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// By path
    Sorted,
    /// Shuffled by --seed
    Random,
}

/// The flags of `provium run` (section 2).
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Which files.
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// What it shares with a classic run.
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
    /// Also run tests marked slow
    #[arg(long, help_heading = "Selection")]
    pub(crate) include_slow: bool,
    /// Only tests with tag T (repeatable)
    #[arg(long, value_name = "T", help_heading = "Selection")]
    pub(crate) tag: Vec<String>,
    /// No tests with tag T (repeatable; wins over --tag)
    #[arg(long, value_name = "T", help_heading = "Selection")]
    pub(crate) no_tag: Vec<String>,
    /// Only tests whose meta K is, or holds, the string V (repeatable)
    #[arg(long, value_name = "K=V", help_heading = "Selection")]
    pub(crate) tag_meta: Vec<String>,
    /// No tests whose meta K is, or holds, the string V (repeatable; wins over --tag-meta)
    #[arg(long, value_name = "K=V", help_heading = "Selection")]
    pub(crate) no_tag_meta: Vec<String>,
    /// What of the host it may use.
    #[command(flatten)]
    pub(crate) pool: PoolArgs,
    /// In which order, and how often.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
    /// Most files in flight; default: the CPUs of the pool, at least 2
    #[arg(short, long, value_name = "N", value_parser = parse_jobs, help_heading = "Running")]
    pub(crate) jobs: Option<usize>,
    /// Try a failed file again up to N times, with the tests that have not passed yet; tests that
    /// pass then are reported as flaky
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Running")]
    pub(crate) retries: u32,
    /// Do not let the host merge equal pages of guests, and leave its settings for that alone
    #[arg(long, help_heading = "Running")]
    pub(crate) no_ksm: bool,
    /// Run, wait for changes of the suite, run what they concern, until Ctrl-C
    #[arg(long, help_heading = "Running")]
    pub(crate) watch: bool,
    /// Show every test, its log, and the CPU backend
    #[arg(short, long, conflicts_with = "quiet", help_heading = "Output")]
    pub(crate) verbose: bool,
    /// Show only failures and the summary
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// One JSON object per file on stdout; everything else goes to stderr
    #[arg(long, conflicts_with = "events_stdout", help_heading = "Output")]
    pub(crate) json: bool,
    /// Write the event stream to stdout; everything else goes to stderr
    #[arg(long, help_heading = "Output")]
    pub(crate) events_stdout: bool,
    /// Report which specification identifiers the tests name, by provium-coverage
    #[arg(long, conflicts_with_all = ["json", "events_stdout"], help_heading = "Output")]
    pub(crate) coverage: bool,
    /// Write one self-contained HTML page about the run to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) report: Option<PathBuf>,
    /// List the N slowest tests after the summary
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    pub(crate) slowest: usize,
}

impl RunArgs {
    /// The deadline of each file.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let default = FileTimeout(Some(Duration::from_secs(300)));
        self.shared.timeout.unwrap_or(default).0
    }
}
