//! `provium run`: the arguments as meant, the run, its exit code.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_lab::Ksm;
use provium_lua::{Filter, MetaMatch, Setup};

use crate::args::{Order, RunArgs};
use crate::budget;
use crate::chain;
use crate::commands::start;
use crate::commands::watch::{Awoken, Watch, affected};
use crate::coverage::Coverage;
use crate::discover::{Kind, display_path};
use crate::environment;
use crate::exit::Exit;
use crate::plan::{fresh_seed, plan};
use crate::pressure::Pressure;
use crate::problem::Problem;
use crate::report::{
    EventSocket, EventWriter, Html, Json, Progress, Reporters, Screen, Stream, Text, Verbosity,
};
use crate::scheduler::{self, Wire, Work};
use crate::select::{select, write_rerun};
use crate::session::{Session, rerun_state};
use crate::signals;
use crate::sink::NewsSink;

/// Runs the files that the arguments mean; with `--watch` again whenever they change.
pub(crate) fn run(args: &RunArgs) -> Result<Exit, Problem> {
    environment::tell_filter(&filter(args)?);
    signals::install(Exit::Error);
    let socket = start::socket(&args.shared)?;
    if args.watch {
        watched(args, socket.as_ref())
    } else {
        once(args, socket.as_ref(), None)
    }
}

/// Runs until a signal comes; the exit code is that of the last run.
fn watched(args: &RunArgs, socket: Option<&EventSocket>) -> Result<Exit, Problem> {
    let _in_order = signals::InOrder::begin();
    let mut args = args.clone();
    args.select.rerun_failed = false;
    let mut affected = None;
    loop {
        // Watched before it is read, so that no change falls between.
        let dirs = watched_dirs(&args);
        let watch = Watch::new(&dirs)?;
        let exit = once(&args, socket, affected.take()).unwrap_or_else(|problem| {
            eprintln!("provium: {}", chain(&problem));
            Exit::Error
        });
        let waiting = if signals::received() {
            Awoken::Interrupted
        } else {
            eprintln!("provium: waiting for changes (Ctrl-C ends)");
            watch.wait()
        };
        let Awoken::Changed(changed) = waiting else {
            return Ok(exit);
        };
        affected = files_affected(&args, &changed);
        let names: Vec<String> = changed
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        eprintln!("\nprovium: changed: {}", names.join(", "));
    }
}

/// The directories given, and those of the files given; without any, the current one.
fn given_dirs(args: &RunArgs) -> impl Iterator<Item = PathBuf> + '_ {
    let paths = args.select.paths.iter().map(|path| match path.parent() {
        Some(parent) if !path.is_dir() && parent != Path::new("") => parent.to_path_buf(),
        Some(_) if !path.is_dir() => PathBuf::from("."),
        _ => path.clone(),
    });
    let none = args.select.paths.is_empty();
    paths.chain(none.then(|| PathBuf::from(".")))
}

/// Directories whose files the run depends on: the configuration's, the roots, the paths given.
fn watched_dirs(args: &RunArgs) -> Vec<PathBuf> {
    let session = Session::open(args.shared.common.config.as_deref()).ok();
    let mut dirs: Vec<PathBuf> = match &session {
        Some(session) => std::iter::once(session.config.dir.clone())
            .chain(session.config.roots.iter().cloned())
            .collect(),
        None => vec![PathBuf::from(".")],
    };
    dirs.extend(given_dirs(args));
    let mut dirs: Vec<PathBuf> = dirs
        .iter()
        .filter_map(|dir| dir.canonicalize().ok())
        .collect();
    dirs.sort();
    // What is below a watched directory is watched with it.
    dirs.dedup_by(|dir, above| dir.starts_with(above));
    dirs
}

/// The test files that a change concerns; nothing if that may be all.
fn files_affected(args: &RunArgs, changed: &BTreeSet<PathBuf>) -> Option<BTreeSet<PathBuf>> {
    let session = Session::open(args.shared.common.config.as_deref()).ok()?;
    let files = select(&session, &args.select, Kind::Test).ok()?.files;
    let tests: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
    affected(&tests, &session.config.roots, changed)
}

/// One run, of `only` these files if they are given.
fn once(
    args: &RunArgs,
    socket: Option<&EventSocket>,
    only: Option<BTreeSet<PathBuf>>,
) -> Result<Exit, Problem> {
    let session = Session::with_guests(&args.shared.common)?;
    let filter = filter(args)?;
    let pressure = Pressure::from_env()?;
    let pool = budget::pool(&args.pool)?;
    let mut selection = select(&session, &args.select, Kind::Test)?;
    if let Some(only) = only {
        selection.files.retain(|file| only.contains(&file.path));
    }
    if let Some(notice) = &selection.notice {
        eprintln!("provium: {notice}");
    }
    if selection.files.is_empty() {
        return nothing_to_run(&session, args, selection.discovered);
    }
    let coverage = match args.coverage {
        true => Some(Coverage::begin(args.shared.save_events.as_deref())?),
        false => None,
    };
    let mut reporters = reporters(args, socket, coverage.as_ref())?;
    let choice = start::make_ready(&args.shared, &session, &selection.files, args.verbose)?;
    let wire = Wire::new();
    let sink = Arc::new(NewsSink::new(wire.sender()));
    let (cache, limit) = (&session.config.cache_dir, session.config.cache_max_size);
    provium_lab::fixture::Cache::new(cache).trim(limit);
    let bases = session.bases.clone();
    let state = rerun_state(&session.places);
    let files = plan(selection.files, &args.order, seed(args));
    let jobs = args.jobs.unwrap_or_else(|| budget::default_jobs(&pool));
    let mut harness = session.harness(&choice, pool, Arc::clone(&sink) as _, sink);
    if !args.no_ksm {
        harness = harness.with_ksm(Ksm::of_host());
    }
    let setup = Setup::new(
        Arc::new(harness),
        Box::new(move |path: &Path| display_path(path, &bases)),
        args.json || args.events_stdout,
    );
    let tops = given_dirs(args).filter_map(|dir| dir.canonicalize().ok());
    let setup = Arc::new(setup.with_tops(tops.collect()));
    let work = Work {
        files,
        jobs,
        filter,
        timeout: args.deadline(),
        fail_fast: args.shared.fail_fast,
        retries: args.retries,
        classic: false,
        setup,
        pressure,
        wire,
    };
    let in_order = (!args.watch).then(signals::InOrder::begin);
    let ending = scheduler::run(work, &mut reporters);
    drop(in_order);
    write_rerun(&state, &ending.failed)?;
    drop(reporters);
    let exit = match () {
        () if ending.interrupted => Exit::Error,
        () if ending.failed.is_empty() => Exit::Success,
        () => Exit::Failed,
    };
    Ok(match coverage {
        Some(coverage) if !ending.interrupted => coverage.report(exit),
        _ => exit,
    })
}

/// The seed of `--order random`; one that was not given is told, so that the order can be had
/// again.
fn seed(args: &RunArgs) -> u64 {
    if args.order.order == Order::Sorted {
        return 0;
    }
    args.order.seed.unwrap_or_else(|| {
        let seed = fresh_seed();
        eprintln!("provium: random order; again with --order random --seed {seed}");
        seed
    })
}

/// Nothing found is a mistake, nothing left is a choice.
fn nothing_to_run(session: &Session, args: &RunArgs, discovered: usize) -> Result<Exit, Problem> {
    if discovered > 0 {
        eprintln!("provium: none of the {discovered} file(s) found is selected");
        return Ok(Exit::Success);
    }
    let shown = |paths: &[std::path::PathBuf]| {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        paths.join(", ")
    };
    if args.watch {
        eprintln!("provium: there is no test file yet");
        return Ok(Exit::Success);
    }
    let places = match (
        args.select.paths.is_empty(),
        session.config.roots.is_empty(),
    ) {
        (false, _) => shown(&args.select.paths),
        (true, false) => shown(&session.config.roots),
        (true, true) => "the current directory".to_owned(),
    };
    Err(Problem::Usage(format!("no *.test.lua file in {places}")))
}

/// The flags that select tests.
fn filter(args: &RunArgs) -> Result<Filter, Problem> {
    let rules = |flag: &str, texts: &[String]| {
        let parse = |text: &String| {
            MetaMatch::parse(text)
                .ok_or_else(|| Problem::Usage(format!("{flag}: expected KEY=VALUE, got `{text}`")))
        };
        texts.iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    Ok(Filter {
        include_slow: args.include_slow,
        tags: args.tag.clone(),
        no_tags: args.no_tag.clone(),
        tag_meta: rules("--tag-meta", &args.tag_meta)?,
        no_tag_meta: rules("--no-tag-meta", &args.no_tag_meta)?,
    })
}

/// Who hears the news, by the flags of section 2.
fn reporters(
    args: &RunArgs,
    socket: Option<&EventSocket>,
    coverage: Option<&Coverage>,
) -> Result<Reporters, Problem> {
    let events = args.shared.save_events.as_deref();
    let events = events.or(coverage.map(Coverage::events));
    let mut reporters = start::reporters(&args.shared, events, socket)?;
    let data = args.json || args.events_stdout;
    let screen = Screen::new(if data { Stream::Stderr } else { Stream::Stdout });
    let verbosity = match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    if args.events_stdout {
        reporters.add(EventWriter::new("event stream on stdout", io::stdout()));
    }
    if let Some(path) = &args.report {
        let page = Html::new(path.clone()).map_err(Problem::file("write", path))?;
        reporters.add(page);
    }
    if args.json {
        reporters.add(Json::new(io::stdout()));
    }
    if screen.is_live() {
        reporters.add(Progress::new(screen.clone()));
    }
    reporters.add(Text::new(screen, verbosity, args.slowest));
    Ok(reporters)
}
