//! The `provium-coverage` command: which specification identifiers the tests of a run name, and
//! how those tests ended (cli-and-config section 11).
//!
//! It reads event streams and nothing else, so it works on what any run has saved.

mod html;
mod report;
#[path = "../../stream.rs"]
mod stream;
mod text;

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use report::{Collector, Report};
use stream::{EventStream, StreamError};

/// Reports which specification identifiers the tests of a run name.
///
/// A test names identifiers in its meta table: test("x", {spec = {"A-1", "A-2"}}, ...).
#[derive(Debug, Parser)]
#[command(name = "provium-coverage", version, max_term_width = 100)]
struct Args {
    /// A saved event stream, or - for stdin (repeatable; results merge)
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// The socket of a run that goes on, read until the run ends (repeatable)
    #[arg(long, value_name = "PATH")]
    from_socket: Vec<PathBuf>,
    /// Form of the report; default: text on a terminal, else html
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Meta key that holds the identifiers
    #[arg(long, value_name = "KEY", default_value = "spec")]
    key: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For reading here
    Text,
    /// One self-contained page
    Html,
    /// For programs
    Json,
}

/// Exit codes of R-117.
const DAMAGED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Clap ends the process itself: 0 after help and version, 2 on wrong usage.
    let args = Args::parse();
    if args.from.is_empty() && args.from_socket.is_empty() {
        eprintln!(
            "provium-coverage: nothing to read: give --from FILE, --from - or --from-socket PATH"
        );
        return USAGE.into();
    }
    let report = match read_all(&args) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("provium-coverage: {}", chain(&error));
            return DAMAGED.into();
        }
    };
    match print(&report, args.format) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read this has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("provium-coverage: cannot write the report: {error}");
            DAMAGED.into()
        }
    }
}

/// An error with its cause.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn read_all(args: &Args) -> Result<Report, StreamError> {
    let mut collector = Collector::new(&args.key);
    for path in &args.from {
        read(path, open(path), &mut collector)?;
    }
    for path in &args.from_socket {
        let stream = UnixStream::connect(path).map(|stream| Box::new(stream) as Box<dyn Read>);
        read(path, stream, &mut collector)?;
    }
    Ok(collector.report())
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(std::fs::File::open(path)?))
}

fn read(
    path: &Path,
    input: io::Result<Box<dyn Read>>,
    collector: &mut Collector,
) -> Result<(), StreamError> {
    let name = path.display().to_string();
    let input = input.map_err(|source| StreamError::Read {
        name: name.clone(),
        source,
    })?;
    let mut stream = EventStream::new(name, input);
    collector.begin_stream();
    for event in stream.by_ref() {
        collector.note(&event?);
    }
    if !stream.unknown.is_empty() {
        let kinds = stream.unknown.join(", ");
        eprintln!(
            "provium-coverage: warning: {}: ignored events of unknown kinds: {kinds}",
            path.display()
        );
    }
    Ok(())
}

fn print(report: &Report, format: Option<Format>) -> io::Result<()> {
    let stdout = io::stdout();
    let format = format.unwrap_or(if stdout.is_terminal() {
        Format::Text
    } else {
        Format::Html
    });
    let text = match format {
        Format::Text => text::render(report),
        Format::Html => html::render(report),
        Format::Json => serde_json::to_string_pretty(report).map_err(io::Error::other)? + "\n",
    };
    let mut stdout = stdout.lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_table_of_flags_is_consistent() {
        super::Args::command().debug_assert();
    }
}
