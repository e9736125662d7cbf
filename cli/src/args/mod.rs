//! The command line as said: what each flag is called, takes and means (cli-and-config
//! sections 1 and 2). What it amounts to is worked out in `plan`.

mod commands;
mod guests;
mod run;
mod select;
mod shared;
mod test;
mod values;

pub(crate) use commands::{
    CompletionsArgs, ConsoleArgs, EventsArgs, FixtureArgs, FixtureCommand, InitArgs, ListArgs,
    LspArgs, ManArgs, MergeArgs, PrepareArgs, ReferenceArgs, ReplArgs,
};
pub(crate) use guests::{CommonArgs, Vmm};
pub(crate) use run::{Order, OrderArgs, PoolArgs, RunArgs};
pub(crate) use select::SelectArgs;
pub(crate) use shared::SharedArgs;
pub(crate) use test::TestArgs;

use clap::{Parser, Subcommand};

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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

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
    fn r012_every_command_takes_a_config() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            // Below it the names of all commands stand once more.
            if name == "help" {
                return;
            }
            let mut arguments = command.get_arguments();
            assert!(
                arguments.any(|argument| argument.get_id() == "config"),
                "{name} does not"
            );
            command.get_subcommands().for_each(check);
        }
        let mut cli = Cli::command();
        cli.build();
        check(&cli);
        let cli = parse("run --config x.toml a.test.lua").unwrap();
        let Some(Command::Run(run)) = cli.command else {
            panic!("not a run")
        };
        assert_eq!(run.shared.common.config, Some("x.toml".into()));
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
        let deadline = |line: &str| parse(line).unwrap().run.deadline();
        assert_eq!(deadline(""), Some(Duration::from_secs(300)));
        assert_eq!(deadline("--timeout 5"), Some(Duration::from_secs(5)));
        assert_eq!(deadline("--timeout 0"), None);
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
