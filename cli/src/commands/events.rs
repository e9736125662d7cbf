//! `provium events`: a saved or live event stream for people, one line per event.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use provium_protocol::event::{BlockReason, FileStatus};
use provium_protocol::{Amount, Event, EventKind};

use crate::args::EventsArgs;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::stream::{EventStream, StreamError};

/// Prints a stream; a damaged one is printed as far as it goes.
pub(crate) fn events(args: &EventsArgs) -> Result<Exit, Problem> {
    let input = open(&args.stream)?;
    let mut stream = EventStream::new(args.stream.display().to_string(), input);
    let mut out = io::stdout().lock();
    let mut start = None;
    for event in stream.by_ref() {
        let event = event?;
        let start = *start.get_or_insert(event.ts);
        let printed = writeln!(out, "{}", line(&event, start)).and_then(|()| out.flush());
        match printed {
            // Whoever read this has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Success),
            printed => printed.map_err(|source| Problem::Io {
                action: "write to stdout",
                source,
            })?,
        }
    }
    for kind in &stream.unknown {
        eprintln!("provium: warning: events of kind {kind} are unknown to this version");
    }
    Ok(Exit::Success)
}

/// A file, a socket of `--events-socket`, or stdin.
fn open(path: &Path) -> Result<Box<dyn Read>, StreamError> {
    use std::os::unix::fs::FileTypeExt;
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let is_socket = path
        .metadata()
        .is_ok_and(|data| data.file_type().is_socket());
    let opened: io::Result<Box<dyn Read>> = if is_socket {
        UnixStream::connect(path).map(|stream| Box::new(stream) as Box<dyn Read>)
    } else {
        std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    opened.map_err(|source| StreamError::Read {
        name: path.display().to_string(),
        source,
    })
}

/// One event as a line: seconds since the first, kind, what it says.
fn line(event: &Event, start: i64) -> String {
    let since = Duration::from_nanos(u64::try_from(event.ts - start).unwrap_or(0));
    let text = describe(&event.kind);
    let name = event.kind.name();
    let line = format!("{:>9.3}  {name:<21}  {text}", since.as_secs_f64());
    line.trim_end().to_owned()
}

fn describe(kind: &EventKind) -> String {
    match kind {
        EventKind::FileDiscovered(file) => {
            let claim = file
                .declared_claim
                .map(|claim| format!("claims {}", amount(claim)));
            let fixtures = (!file.fixture_refs.is_empty())
                .then(|| format!("fixtures {}", file.fixture_refs.join(", ")));
            with(&file.path, claim.into_iter().chain(fixtures))
        }
        EventKind::FileBlocked(file) => {
            let why = match file.reason {
                BlockReason::PoolFull => "the pool is full",
                BlockReason::PsiPressure => "the host's CPUs are under pressure",
            };
            with(
                &file.path,
                [format!("waits for {}: {why}", amount(file.waiting_for))],
            )
        }
        EventKind::FileDispatched(file) => with(
            &file.path,
            [format!("reserved {}", amount(file.reservation))],
        ),
        EventKind::FileCompleted(file) => {
            let status = match file.status {
                FileStatus::Passed => "passed",
                FileStatus::Failed => "failed",
                FileStatus::TimedOut => "timed out",
                FileStatus::Crashed => "crashed",
            };
            with(
                &file.path,
                [format!("{status} after {}", seconds(file.duration_ns))],
            )
        }
        EventKind::TestStarted(test) => named(&test.path, &test.name, []),
        EventKind::TestPassed(test) => named(&test.path, &test.name, [seconds(test.duration_ns)]),
        EventKind::TestFailed(test) => named(
            &test.path,
            &test.name,
            [seconds(test.duration_ns), first_line(&test.reason)],
        ),
        EventKind::TestSkipped(test) => named(&test.path, &test.name, [first_line(&test.reason)]),
        EventKind::VmSpawned(vm) => with(
            &vm.file,
            [format!(
                "vm {} ({}, {}, cid {})",
                vm.vm_name,
                vm.profile,
                mebibytes(vm.memory_bytes),
                vm.cid
            )],
        ),
        EventKind::VmShutdown(vm) => with(
            &vm.file,
            [format!(
                "vm {} after {}",
                vm.vm_name,
                seconds(vm.duration_ns)
            )],
        ),
        EventKind::PoolState(pool) => {
            format!(
                "{} used, {} left",
                amount(pool.used),
                amount(pool.available)
            )
        }
        EventKind::ClaimAcquired(claim) => with(&claim.path, [amount(claim.amount)]),
        EventKind::ClaimReleased(claim) => with(&claim.path, [amount(claim.amount)]),
        EventKind::FixtureBuildStarted(fixture) => fixture.path.clone(),
        EventKind::FixtureBuildDone(fixture) => {
            let end = match &fixture.error {
                Some(error) => format!("failed: {}", first_line(error)),
                None => mebibytes(fixture.snapshot_bytes),
            };
            with(&fixture.path, [seconds(fixture.duration_ns), end])
        }
        EventKind::FixtureBuildWaiting(fixture) => with(
            &fixture.path,
            [format!("built by {}", fixture.held_by_file)],
        ),
        EventKind::FixtureCacheHit(fixture) => fixture.path.clone(),
    }
}

fn with(subject: &str, facts: impl IntoIterator<Item = String>) -> String {
    let facts: Vec<String> = facts.into_iter().collect();
    if facts.is_empty() {
        return subject.to_owned();
    }
    format!("{subject}  {}", facts.join(", "))
}

fn named(path: &str, name: &str, facts: impl IntoIterator<Item = String>) -> String {
    with(&format!("{path}: {}", name.replace('\n', "\\n")), facts)
}

fn amount(amount: Amount) -> String {
    format!(
        "{} and {} CPUs",
        mebibytes(amount.memory_bytes),
        amount.cpus
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn seconds(nanos: u64) -> String {
    format!("{:.3}s", Duration::from_nanos(nanos).as_secs_f64())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use provium_protocol::event;

    use super::*;

    #[test]
    fn a_line_says_when_what_and_whom() {
        let kind = event::TestFailed {
            path: "a.test.lua".into(),
            name: "x".into(),
            duration_ns: 1_500_000_000,
            reason: "a.test.lua:3: no\nmore".into(),
            console_excerpt: String::new(),
            meta: provium_protocol::Meta::new(),
            log: None,
        };
        let event = Event {
            ts: 2_000_000_000,
            kind: kind.into(),
        };
        assert_eq!(
            line(&event, 500_000_000),
            "    1.500  test_failed            a.test.lua: x  1.500s, a.test.lua:3: no"
        );
    }
}
