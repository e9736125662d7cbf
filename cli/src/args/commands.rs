//! The flags of everything but runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::parse_size;
use super::{CommonArgs, SelectArgs};

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
    #[arg(value_name = "PROFILE", required_unless_present = "fixture")]
    pub(crate) target: Option<String>,
    /// Go on from this fixture (the PATH of provium:vm_fixture) instead of booting
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    pub(crate) fixture: Option<String>,
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
