//! The command line as said: what each flag is called, takes and means (cli-and-config
//! sections 1 and 2). What it amounts to is worked out in `plan`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use provium_lab::units;

use crate::classic::TestArgs;

/// Boots real Linux kernels in microVMs inside this process and runs Lua tests against them.
#[derive(Debug, Parser)]
#[command(
    name = "provium",
    version,
    args_conflicts_with_subcommands = true,
    after_help = HELP_EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What to do; without it, PATHS are run.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The flags of a run.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

const HELP_EXAMPLES: &str = "\
Examples:
  provium examples               run every *.test.lua under examples/
  provium run -v a.test.lua      run one file and show every test
  provium --filter net --json    run files whose path contains `net`, results as JSON lines
  provium doctor                 say which CPU backend is used and whether profiles are usable
  provium console minimal        boot the default guest and talk to its console

A first test, hello.test.lua:
  local vm = provium:vm(\"a\", \"minimal\"):boot()
  test(\"the kernel says its name\", function(t)
    t:assert_eq(vm:run(\"uname -s\").stdout, \"Linux\\n\")
  end)

Exit codes: 0 all passed or skipped; 1 something failed; 2 usage, configuration or internal error.";

/// The subcommands (R-001..R-010).
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run test files (*.test.lua); the same as `provium [PATHS]`
    Run(Box<RunArgs>),
    /// Run classic test files: every *.lua below PATH, top to bottom
    Test(Box<TestArgs>),
    /// Print the test files that a run would take, one per line; boots nothing
    List(ListArgs),
    /// Check the machine and the profiles, and say which CPU backend would be used
    #[command(visible_alias = "preflight")]
    Doctor(CommonArgs),
    /// Boot a profile and tie this terminal to its serial console; Ctrl-A X quits
    Console(ConsoleArgs),
    /// Boot a profile and read Lua from a prompt, with `vm` being the machine
    Repl(ReplArgs),
    /// Look after the cache of fixtures: VMs and labs prepared once and then resumed
    Fixture(FixtureArgs),
    /// Run the `build` command of a profile, or of all profiles that have one
    Prepare(PrepareArgs),
    /// Write a commented provium.toml and a first test
    Init(InitArgs),
    /// Print an event stream for people: a file of --save-events, a socket, or - for stdin
    Events(EventsArgs),
    /// Put the event files, or the JUnit reports, of several shards together
    Merge(MergeArgs),
    /// Print the manual of the Lua API, or of one thing in it: vm:run, VM, run
    Reference(ReferenceArgs),
    /// Write editor stubs of the whole Lua API, and a .luarc.json that points to them
    LspSetup(LspArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the man page, or write all pages into a directory
    Man(ManArgs),
    /// Print the version
    Version,
}

/// Which CPU runs the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    /// KVM where it really executes guest code (at least 50 million instructions a second in a
    /// short probe), the software CPU elsewhere
    Auto,
    /// Hardware virtualisation through /dev/kvm
    Kvm,
    /// Provium's own x86-64 CPU; works everywhere
    Soft,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Configuration file; without it provium.toml is searched upward from here
    #[arg(long, value_name = "PATH", help_heading = "Guests")]
    pub(crate) config: Option<PathBuf>,
    /// CPU that runs the guests
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        env = "PROVIUM_VMM",
        help_heading = "Guests"
    )]
    pub(crate) vmm: Vmm,
    /// Kernel image of the profile `minimal` (or of --profile); `host` takes this machine's
    #[arg(
        long,
        value_name = "PATH|host",
        env = "PROVIUM_KERNEL",
        help_heading = "Guests"
    )]
    pub(crate) kernel: Option<PathBuf>,
    /// Initramfs of the profile `minimal` (or of --profile)
    #[arg(
        long,
        value_name = "PATH",
        env = "PROVIUM_INITRD",
        help_heading = "Guests"
    )]
    pub(crate) initrd: Option<PathBuf>,
    /// Profile whose kernel and initramfs --kernel and --initrd replace
    #[arg(
        long,
        value_name = "NAME",
        default_value = "minimal",
        help_heading = "Guests"
    )]
    pub(crate) profile: String,
}

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
    /// Which guests.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
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
    /// Deadline of each file: seconds, or a number with ms, s, m or h; 0 = none
    #[arg(long, value_name = "DUR", default_value = "300s", value_parser = parse_timeout, help_heading = "Running")]
    pub(crate) timeout: FileTimeout,
    /// Run, wait for changes of the suite, run what they concern, until Ctrl-C
    #[arg(long, help_heading = "Running")]
    pub(crate) watch: bool,
    /// Start no new file after the first failed one
    #[arg(long, help_heading = "Running")]
    pub(crate) fail_fast: bool,
    /// Do not check kernels and initramfs files before running
    #[arg(long, help_heading = "Running")]
    pub(crate) no_preflight: bool,
    /// Do not run the profiles' `build` commands
    #[arg(long, help_heading = "Running")]
    pub(crate) no_build: bool,
    /// Show every test, its log, and the CPU backend
    #[arg(short, long, conflicts_with = "quiet", help_heading = "Output")]
    pub(crate) verbose: bool,
    /// Show only failures and the summary
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// One JSON object per file on stdout; everything else goes to stderr
    #[arg(long, conflicts_with = "events_stdout", help_heading = "Output")]
    pub(crate) json: bool,
    /// Save the event stream (MessagePack frames) to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) save_events: Option<PathBuf>,
    /// Write the event stream to stdout; everything else goes to stderr
    #[arg(long, help_heading = "Output")]
    pub(crate) events_stdout: bool,
    /// Serve the event stream on a Unix socket at PATH, to any number of readers
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) events_socket: Option<PathBuf>,
    /// Write a JUnit XML report to PATH
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) junit: Option<PathBuf>,
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

/// The flags of `provium list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Which files.
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// List fixture files (*.fixture.lua) instead
    #[arg(long)]
    pub(crate) fixtures: bool,
    /// Configuration file; without it provium.toml is searched upward from here
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

/// `provium fixture`.
#[derive(Debug, Args)]
pub(crate) struct FixtureArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: FixtureCommand,
}

/// What can be done with fixtures.
#[derive(Debug, Subcommand)]
pub(crate) enum FixtureCommand {
    /// List the entries of the cache with their sizes
    List(CommonArgs),
    /// Build a fixture unless it is in the cache
    Build(OneFixtureArgs),
    /// Build a fixture anew
    Rebuild(OneFixtureArgs),
    /// Remove all entries that nobody is building
    Clean(CommonArgs),
    /// List the fixtures that would have to be built
    Stale(CommonArgs),
    /// Print what a fixture depends on, and what changed since it was last built
    Why(OneFixtureArgs),
}

/// A fixture, and the flags of all commands.
#[derive(Debug, Args)]
pub(crate) struct OneFixtureArgs {
    /// Its path below a root, without .fixture.lua
    #[arg(value_name = "PATH")]
    pub(crate) name: String,
    /// Flags of all commands.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// The flags of `provium console`.
#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// The profile to boot
    #[arg(value_name = "PROFILE")]
    pub(crate) target: String,
    /// Memory of the machine
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) mem: Option<u64>,
    /// Number of CPUs
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Kernel command line, replacing the profile's
    #[arg(long, value_name = "TEXT")]
    pub(crate) cmdline: Option<String>,
    /// Put the guest agent in
    #[arg(long)]
    pub(crate) agent: bool,
    /// Which guests.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// The flags of `provium repl`.
#[derive(Debug, Args)]
pub(crate) struct ReplArgs {
    /// The profile to boot
    #[arg(value_name = "PROFILE")]
    pub(crate) target: String,
    /// Name of the machine
    #[arg(long, value_name = "N", default_value = "repl")]
    pub(crate) name: String,
    /// Which guests.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// The flags of `provium prepare`.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The profile to build; default: all that have a `build` command
    #[arg(value_name = "PROFILE")]
    pub(crate) target: Option<String>,
    /// Configuration file; without it provium.toml is searched upward from here
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

/// The flags of `provium init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where; default: here
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// The flags of `provium events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// A saved stream, a socket of a run that goes on, or - for stdin
    #[arg(value_name = "STREAM")]
    pub(crate) stream: PathBuf,
}

/// The flags of `provium merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The file to write
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Event files, or JUnit reports
    #[arg(value_name = "FILE", required = true)]
    pub(crate) inputs: Vec<PathBuf>,
}

/// The flags of `provium reference`.
#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    /// A call, a class or a function; default: everything
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// The flags of `provium lsp-setup`.
#[derive(Debug, Args)]
pub(crate) struct LspArgs {
    /// The project; default: here
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Replace a .luarc.json that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// The flags of `provium completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// The flags of `provium man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all subcommands into this directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// The deadline of a file, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileTimeout(pub(crate) Option<Duration>);

pub(crate) fn parse_timeout(text: &str) -> Result<FileTimeout, units::UnitError> {
    let limit = units::parse_duration(text)?;
    Ok(FileTimeout((!limit.is_zero()).then_some(limit)))
}

pub(crate) fn parse_size(text: &str) -> Result<u64, units::UnitError> {
    units::parse_size(text)
}

pub(crate) fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!(
            "expected a number of files, at least 1, got `{text}`"
        )),
        Ok(jobs) => Ok(jobs),
    }
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let factor: Option<f64> = text.parse().ok().filter(|factor: &f64| factor.is_finite());
    factor.ok_or_else(|| format!("expected a number from 0.5 to 8, got `{text}`"))
}

/// `I/N`, 1-based.
fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let malformed = || format!("expected I/N with I from 1 to N, got `{text}`");
    let (index, total) = text.split_once('/').ok_or_else(malformed)?;
    let index: usize = index.parse().map_err(|_| malformed())?;
    let total: usize = total.parse().map_err(|_| malformed())?;
    if index == 0 || index > total {
        return Err(malformed());
    }
    Ok((index, total))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("provium").chain(line.split_whitespace()))
    }

    #[test]
    fn the_table_of_flags_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn r001_bare_paths_are_a_run() {
        let cli = parse("examples -v --filter net").unwrap();
        assert!(cli.command.is_none() && cli.run.verbose);
        assert_eq!(cli.run.select.paths, [PathBuf::from("examples")]);
        let cli = parse("run list").unwrap();
        let Some(Command::Run(run)) = cli.command else {
            panic!("not a run")
        };
        assert_eq!(run.select.paths, [PathBuf::from("list")]);
    }

    #[test]
    fn r029_the_timeout_is_a_duration_and_zero_means_none() {
        assert_eq!(
            parse("").unwrap().run.timeout.0,
            Some(Duration::from_secs(300))
        );
        assert_eq!(
            parse("--timeout 5").unwrap().run.timeout.0,
            Some(Duration::from_secs(5))
        );
        assert_eq!(parse("--timeout 0").unwrap().run.timeout.0, None);
        let error = parse("--timeout 5x").unwrap_err().to_string();
        assert!(error.contains("bad timeout string \"5x\""), "{error}");
    }

    #[test]
    fn r031_r032_exclusive_flags_are_refused() {
        assert!(parse("-v -q").is_err());
        assert!(parse("--json --events-stdout").is_err());
    }

    #[test]
    fn r014_shards_are_one_based() {
        assert_eq!(parse("--shard 2/3").unwrap().run.select.shard, Some((2, 3)));
        for bad in ["0/3", "4/3", "x", "1/0"] {
            assert!(parse(&format!("--shard {bad}")).is_err(), "{bad}");
        }
    }
}
