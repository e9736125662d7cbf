//! Operations inside a guest, the same on a VM and on a worker (lua-api L-084..L-106, L-139).

use std::time::Duration;

use mlua::Value;
use provium_lab::{OpenMode, TailStart};

use crate::args::{Args, integral};
use crate::bind::convert;
use crate::command;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

/// Declares natives that exist on both kinds of guest.
macro_rules! on_guests {
    ($(#[$meta:meta])* $table:ident { $($name:literal, $signature:literal, $doc:literal, $run:expr;)* }) => {
        $(#[$meta])*
        pub(crate) const $table: &[$crate::native::Native] = &[$(
            $crate::native::Native {
                class: "VM",
                call: concat!("vm:", $name),
                signature: $signature,
                doc: $doc,
                run: $run,
            },
            $crate::native::Native {
                class: "Worker",
                call: concat!("worker:", $name),
                signature: $signature,
                doc: $doc,
                run: $run,
            },
        )*];
    };
}
pub(crate) use on_guests;

on_guests! {
    /// Commands and files.
    TABLE {
        "run", "(cmd: string|string[], opts?: string[]|table): RunResult",
        "Runs a command to its end: a string in the guest's shell, or a program with a list of \
         arguments. Options: args, env (a table) and env_clear, cwd, stdin, timeout (its process \
         group is killed then), timeout_ms.",
        run;
        "run_async", "(cmd: string|string[], opts?: string[]|table): Process",
        "Starts a command that runs beside the test.",
        run_async;
        "read_file", "(path: string): string",
        "The whole content of a file.",
        |cx, args| {
            let guest = args.guest()?;
            let path = args.bytes("path")?;
            cx.later(guest.start_read_file(path), |cx, data| cx.values(cx.lua.create_string(data)?))
        };
        "write_file", "(path: string, data: string)",
        "Creates a file (mode 0644) or replaces its content.",
        |cx, args| {
            let guest = args.guest()?;
            let path = args.bytes("path")?;
            let data = args.bytes("data")?;
            cx.later(guest.start_write_file(path, data), unit)
        };
        "push_file", "(host: string, guest: string, opts?: {perm?: integer, auto_dep?: boolean})",
        "Copies a file of the host into the guest.",
        push_file;
        "stat", "(path: string, opts?: {follow?: boolean}): table",
        "What a path is: size, mtime (seconds) and mtime_ns, perm, entry_type, uid, gid, ino, dev. A \
         symlink at its end is followed only on request.",
        |cx, args| {
            let guest = args.guest()?;
            let path = args.bytes("path")?;
            let follow = args.options("opts", &["follow"])?.flag("follow")?;
            cx.later(guest.start_stat(path, follow), |cx, stat| {
                cx.values(convert::stat(cx.lua, &stat)?)
            })
        };
        "listdir", "(path: string): {name: string, entry_type: string}[]",
        "What a directory holds, sorted by name.",
        |cx, args| {
            let guest = args.guest()?;
            let path = args.bytes("path")?;
            cx.later(guest.start_listdir(path), |cx, entries| {
                cx.values(convert::entries(cx.lua, &entries)?)
            })
        };
        "mkdir", "(path: string, opts?: {parents?: boolean, perm?: integer})",
        "Makes a directory.",
        |cx, args| {
            let guest = args.guest()?;
            let path = args.bytes("path")?;
            let options = args.options("opts", &["parents", "perm"])?;
            let (parents, perm) = (options.flag("parents")?, options.perm("perm")?);
            cx.later(guest.start_mkdir(path, parents, perm), unit)
        };
        "unlink", "(path: string)",
        "Removes a file, a symlink or an empty directory.",
        |cx, args| {
            let guest = args.guest()?;
            let path = args.bytes("path")?;
            cx.later(guest.start_unlink(path), unit)
        };
        "rename", "(from: string, to: string)",
        "Renames atomically.",
        |cx, args| {
            let guest = args.guest()?;
            let (from, to) = (args.bytes("from")?, args.bytes("to")?);
            cx.later(guest.start_rename(from, to), unit)
        };
        "open_file", "(path: string, mode: table): File",
        "Opens a file. Mode keys: read, write, create, truncate, append, exclusive, perm.",
        open_file;
        "tail_file", "(path: string, opts?: {start?: string|integer}): Tail",
        "Follows a file from its end, its beginning, or an offset.",
        tail_file;
        "fd_stream", "(fd: integer|File): Tail",
        "Reads a descriptor of the agent as a stream.",
        fd_stream;
        "mount_vfs", "()",
        "Mounts proc, sysfs, securityfs and devtmpfs where they are not mounted yet.",
        |cx, args| {
            let guest = args.guest()?;
            cx.later(guest.start_mount_vfs(), unit)
        };
    }
}

/// Natives only the prelude calls.
pub(crate) const HIDDEN: &[Native] = &[Native {
    class: "_guest",
    call: "vm:dmesg",
    signature: "(guest): string",
    doc: "The whole kernel log.",
    run: |cx, args| {
        let guest = args.guest()?;
        cx.later(guest.start_dmesg(), |cx, text| {
            cx.values(cx.lua.create_string(text)?)
        })
    },
}];

/// No results.
pub(crate) fn unit(cx: &Cx<'_>, (): ()) -> Result<mlua::MultiValue, Fault> {
    cx.values(())
}

fn run(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let command = command::read(args, true)?;
    cx.later(guest.start_run(command), |cx, result| {
        cx.values(convert::run_result(cx.lua, &result)?)
    })
}

fn run_async(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let command = command::read(args, false)?;
    cx.later(guest.start_run_async(command), |cx, process| {
        cx.handle(Object::Process(process))
    })
}

fn push_file(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let host = args.path("host")?;
    let path = args.bytes("guest")?;
    let options = args.options("opts", &["perm", "auto_dep"])?;
    let perm = options.perm("perm")?;
    options.flag("auto_dep")?;
    // Relative to the file that contains the call (L-007).
    let host = cx.calling_dir().join(host);
    cx.later(guest.start_push_file(&host, path, perm), unit)
}

const MODE_KEYS: &[&str] = &[
    "read",
    "write",
    "create",
    "truncate",
    "append",
    "exclusive",
    "perm",
];

fn open_file(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let path = args.bytes("path")?;
    let mode = args.options("mode", MODE_KEYS)?;
    let mode = OpenMode {
        read: mode.flag("read")?,
        write: mode.flag("write")?,
        create: mode.flag("create")?,
        truncate: mode.flag("truncate")?,
        append: mode.flag("append")?,
        exclusive: mode.flag("exclusive")?,
        perm: mode.perm("perm")?,
    };
    cx.later(guest.start_open_file(path, mode), |cx, file| {
        cx.handle(Object::File(file))
    })
}

fn tail_file(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let path = args.bytes("path")?;
    let options = args.options("opts", &["start"])?;
    let start = match options.get("start")? {
        Value::Nil => TailStart::End,
        Value::String(word) if word == "end" => TailStart::End,
        Value::String(word) if word == "beginning" || word == "start" => TailStart::At(0),
        Value::Integer(offset) => TailStart::At(offset),
        // Finite floats are truncated toward zero (L-105).
        Value::Number(float) if float.is_finite() => {
            match integral(&Value::Number(float.trunc())) {
                Some(offset) => TailStart::At(offset),
                None => return Err(options.problem("start", format_args!("{float} is no offset"))),
            }
        }
        Value::Number(_) => {
            return Err(options.problem("start", "must be a finite number (got NaN/inf)"));
        }
        other => {
            let wanted = "\"end\", \"beginning\", \"start\" or an offset";
            return Err(match other.as_string() {
                Some(text) => {
                    let text = text.to_string_lossy();
                    options.problem("start", format_args!("must be {wanted}, got \"{text}\""))
                }
                None => options.wrong("start", wanted, &other),
            });
        }
    };
    cx.later(guest.start_tail_file(path, start), |cx, tail| {
        cx.handle(Object::Tail(tail))
    })
}

fn fd_stream(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    if let Some(Object::File(file)) = args.peek_object() {
        return cx.later(file.start_fd_stream(), |cx, tail| {
            cx.handle(Object::Tail(tail))
        });
    }
    let fd = args.int("fd")?;
    let fd = i32::try_from(fd)
        .map_err(|_| Fault(format!("{}: fd: {fd} is no descriptor", args.call())))?;
    cx.later(guest.start_fd_stream(fd), |cx, tail| {
        cx.handle(Object::Tail(tail))
    })
}

/// A timeout argument with its default.
pub(crate) fn timeout_or(args: &mut Args, seconds: f64) -> Result<Duration, Fault> {
    Ok(args
        .duration_or_nil("timeout")?
        .unwrap_or(Duration::from_secs_f64(seconds)))
}
