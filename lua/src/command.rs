//! The shapes in which a command may be given (lua-api L-084, L-085, L-090).

use std::time::Duration;

use mlua::{Table, Value};
use provium_lab::{Command, Program};

use crate::args::{Args, Options, kind, show_key};
use crate::fault::Fault;

const KEYS: &[&str] = &[
    "args",
    "env",
    "env_clear",
    "cwd",
    "stdin",
    "timeout",
    "timeout_ms",
];

/// Reads `cmd` and what follows it. `timed` says whether the call takes timeouts.
pub(crate) fn read(args: &mut Args, timed: bool) -> Result<Command, Fault> {
    let call = args.call();
    let first = args.next();
    let second = args.peek().clone();
    let mut command = match &first {
        Value::String(text) => shell_or_exec(args, &text.as_bytes(), &second)?,
        Value::Table(argv) => {
            let argv = strings(call, "cmd", argv)?;
            if argv.is_empty() {
                return Err(Fault(format!(
                    "{call}: cmd: an empty list names no program"
                )));
            }
            Command {
                program: Program::Exec(argv),
                ..Command::shell("")
            }
        }
        other => return Err(args.wrong("cmd", "a string or a list of strings", other)),
    };
    let argv_given = matches!(first, Value::Table(_));
    if let Value::Table(table) = args.next() {
        if !is_array(&table)? {
            let options = Options::new(call, "opts", table, KEYS)?;
            apply(call, &options, &mut command, argv_given, timed)?;
        } else if argv_given && table.raw_len() > 0 {
            let text = "the program's arguments are in the first list already";
            return Err(Fault(format!("{call}: argument 2 (opts): {text}")));
        }
    }
    args.end()?;
    Ok(command)
}

/// A single string is a script; with a list of arguments it is a program.
fn shell_or_exec(args: &Args, text: &[u8], second: &Value) -> Result<Command, Fault> {
    match second {
        Value::Nil => Ok(Command::shell(text)),
        Value::Table(table) if is_array(table)? => {
            let rest = strings(args.call(), "args", table)?;
            Ok(Command::exec(std::iter::once(text.to_vec()).chain(rest)))
        }
        Value::Table(_) => Ok(Command::shell(text)),
        other => Err(Fault(format!(
            "{}: argument 2 must be a list of arguments or a table of options, got {}",
            args.call(),
            kind(other)
        ))),
    }
}

/// Puts the options into the command.
fn apply(
    call: &str,
    options: &Options,
    command: &mut Command,
    argv_given: bool,
    timed: bool,
) -> Result<(), Fault> {
    if let Some(rest) = options.byte_list("args")? {
        if argv_given {
            return Err(options.problem("args", "the first list holds the arguments already"));
        }
        if let Program::Shell(program) = &command.program {
            let argv = std::iter::once(program.clone()).chain(rest);
            command.program = Program::Exec(argv.collect());
        }
    }
    if let Some(env) = options.table("env")? {
        command.env = environment(options, &env)?;
    }
    command.env_clear = options.flag("env_clear")?;
    command.cwd = options.bytes("cwd")?;
    command.stdin = options.bytes("stdin")?;
    command.timeout = timeout(call, options, timed)?;
    Ok(())
}

fn environment(
    options: &Options,
    table: &Table,
) -> Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
    table
        .pairs::<Value, Value>()
        .map(|pair| match pair? {
            (Value::String(name), Value::String(value)) => {
                Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            }
            (Value::String(name), other) => {
                let key = format!("env.{}", name.to_string_lossy());
                Err(options.wrong(&key, "a string", &other))
            }
            (key, _) => Err(options.problem("env", format_args!("bad name {}", show_key(&key)))),
        })
        .collect()
}

/// One of the two spellings of the time limit.
fn timeout(call: &str, options: &Options, timed: bool) -> Result<Option<Duration>, Fault> {
    let limit = options.duration("timeout")?;
    let millis = options.int("timeout_ms")?;
    if !timed && (limit.is_some() || millis.is_some()) {
        let key = if limit.is_some() {
            "timeout"
        } else {
            "timeout_ms"
        };
        return Err(Fault(format!(
            "{call}: opts.{key} is not supported, give it to proc:wait"
        )));
    }
    if limit.is_some() && millis.is_some() {
        return Err(Fault(format!(
            "{call}: opts.timeout and opts.timeout_ms exclude each other"
        )));
    }
    let millis = millis.map(|millis| match u64::try_from(millis) {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => Err(options.problem("timeout_ms", "must not be negative")),
    });
    let limit = limit.map_or(millis.transpose()?, Some);
    if limit == Some(Duration::ZERO) {
        return Err(options.problem("timeout", "must be more than zero"));
    }
    Ok(limit)
}

/// True for a table with nothing but the keys 1 to n, n may be 0. Both kinds of keys at once
/// is an error that shows itself when the keys are checked as options.
fn is_array(table: &Table) -> Result<bool, Fault> {
    let mut count = 0;
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(_) => count += 1,
            _ => return Ok(false),
        }
    }
    Ok(count == table.raw_len())
}

/// A list of byte strings.
fn strings(call: &str, name: &str, table: &Table) -> Result<Vec<Vec<u8>>, Fault> {
    let mut list = Vec::with_capacity(table.raw_len());
    for item in table.sequence_values::<Value>() {
        match item? {
            Value::String(text) => list.push(text.as_bytes().to_vec()),
            other => {
                let position = list.len() + 1;
                let got = kind(&other);
                return Err(Fault(format!(
                    "{call}: {name}[{position}] must be a string, got {got}"
                )));
            }
        }
    }
    Ok(list)
}
