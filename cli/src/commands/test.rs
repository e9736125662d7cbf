//! `provium test`: a classic run (classic-api sections 8 and 10, cli-and-config section 4).

use std::io;
use std::path::Path;
use std::sync::Arc;

use provium_lab::Pool;
use provium_lua::{Filter, Setup};

use crate::args::{OrderArgs, TestArgs};
use crate::budget;
use crate::classic::{self, ClassicFiles, RunDirectory};
use crate::commands::start;
use crate::discover::display_path;
use crate::environment;
use crate::exit::Exit;
use crate::plan::plan;
use crate::pressure::Pressure;
use crate::problem::Problem;
use crate::report::{Classic, EventSocket, Reporters};
use crate::scheduler::{self, Wire, Work};
use crate::session::Session;
use crate::signals;
use crate::sink::NewsSink;

/// Runs the files below a path; whatever goes wrong, the answer is no other than failure (C-074).
pub(crate) fn test(args: &TestArgs) -> Exit {
    run(args).unwrap_or_else(|problem| {
        eprintln!("provium: {}", crate::chain(&problem));
        Exit::Failed
    })
}

fn run(args: &TestArgs) -> Result<Exit, Problem> {
    environment::tell_filter(&Filter::default());
    signals::install(Exit::Failed);
    let socket = start::socket(&args.shared)?;
    let mut session = Session::with_guests(&args.shared.common)?;
    let found = classic::find(&args.path, &session.bases)?;
    // `require` finds what lies below PATH (C-056).
    session.config.roots.insert(0, found.root.clone());
    let Some(files) = selected(args, found)? else {
        return Ok(Exit::Success);
    };
    let (pool, pool_line) = pool(args);
    let reporters = reporters(args, socket.as_ref(), pool_line.as_deref())?;
    let choice = start::make_ready(&args.shared, &session, &files.files, false)?;
    let wire = Wire::new();
    let sink = Arc::new(NewsSink::new(wire.sender()));
    let bases = session.bases.clone();
    let harness = session.harness(&choice, pool, Arc::clone(&sink) as _, sink);
    let files = plan(files.files, &OrderArgs::plain(), 0);
    let jobs = args
        .parallel
        .unwrap_or_else(|| default_jobs(args, files.len()));
    let work = Work {
        files,
        jobs,
        filter: Filter::default(),
        timeout: args.shared.timeout.and_then(|timeout| timeout.0),
        fail_fast: args.shared.fail_fast,
        retries: 0,
        classic: true,
        setup: Arc::new(Setup::new(
            Arc::new(harness),
            Box::new(move |path: &Path| display_path(path, &bases)),
            false,
        )),
        pressure: Pressure::from_env()?,
        wire,
    };
    let mut reporters = reporters;
    let in_order = signals::InOrder::begin();
    let ending = scheduler::run(work, &mut reporters);
    drop(in_order);
    Ok(if ending.failed.is_empty() && !ending.interrupted {
        Exit::Success
    } else {
        Exit::Failed
    })
}

/// The files that `-f` and `--rerun-failed` leave; nothing if there is nothing to rerun.
fn selected(args: &TestArgs, mut found: ClassicFiles) -> Result<Option<ClassicFiles>, Problem> {
    if found.files.is_empty() {
        let text = format!("no *.lua file in {}", args.path.display());
        return Err(Problem::Usage(text));
    }
    let discovered = found.files.len();
    if !args.filters.is_empty() {
        found.files.retain(|file| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            args.filters.iter().any(|pattern| name.contains(pattern))
        });
        if found.files.is_empty() {
            eprintln!("provium: none of the {discovered} file(s) found is selected");
            return Ok(None);
        }
    }
    if args.rerun_failed {
        let failed = RunDirectory::newest_failures().unwrap_or_default();
        if failed.is_empty() {
            eprintln!("provium: no failed files of an earlier run are recorded");
            return Ok(None);
        }
        found.files.retain(|file| failed.contains(&file.relative));
    }
    Ok(Some(found))
}

/// What VMs may use, and how a fixed budget is shown (R-048, R-049, C-067).
fn pool(args: &TestArgs) -> (Pool, Option<String>) {
    let memory = args.mem.map(|bytes| format!("{}M memory", bytes >> 20));
    let cpus = args.cpus.map(|cpus| format!("{cpus} CPUs"));
    let line = match (memory, cpus) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one),
        (Some(memory), Some(cpus)) => Some(format!("{memory}, {cpus}")),
    };
    let pool = match line {
        Some(_) => Pool::budget(args.mem, args.cpus),
        None => Pool::of_host(budget::spare_memory),
    };
    (pool, line)
}

/// `-p`.
fn default_jobs(args: &TestArgs, files: usize) -> usize {
    if args.mem.is_some() || args.cpus.is_some() {
        return files.max(1);
    }
    std::thread::available_parallelism().map_or(2, |cpus| (cpus.get() / 2).max(2))
}

fn reporters(
    args: &TestArgs,
    socket: Option<&EventSocket>,
    pool: Option<&str>,
) -> Result<Reporters, Problem> {
    let events = args.shared.save_events.as_deref();
    let mut reporters = start::reporters(&args.shared, events, socket)?;
    let out = Classic::new(io::stdout(), RunDirectory::new(), pool)
        .map_err(Problem::file("write", Path::new("stdout")))?;
    reporters.add(out);
    Ok(reporters)
}
