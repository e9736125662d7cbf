//! Processes started with `run_async` (lua-api section 7).

use std::time::Duration;

use mlua::Value;
use provium_lab::{Process, signal_by_name};

use crate::args::Args;
use crate::bind::convert;
use crate::bind::guest::unit;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "Process",
        call: "proc:wait",
        signature: "(timeout?): RunResult",
        doc: "Waits for its end; when the timeout passes, its process group is killed.",
        run: |cx, args| {
            let process = process(args)?;
            let timeout = args.duration_or_nil("timeout")?;
            cx.later(process.start_wait(timeout), |cx, result| {
                cx.values(convert::run_result(cx.lua, &result)?)
            })
        },
    },
    Native {
        class: "Process",
        call: "proc:kill",
        signature: "(signal?: integer|string)",
        doc: "Sends a signal, TERM by default, to its process group.",
        run: |cx, args| {
            let process = process(args)?;
            let number = if args.peek().is_nil() {
                15
            } else {
                signal(args)?
            };
            cx.later(process.start_signal(number), unit)
        },
    },
    Native {
        class: "Process",
        call: "proc:signal",
        signature: "(signal: integer|string)",
        doc: "Sends a signal to its process group.",
        run: |cx, args| {
            let process = process(args)?;
            let number = signal(args)?;
            cx.later(process.start_signal(number), unit)
        },
    },
    Native {
        class: "Process",
        call: "proc:pid",
        signature: "(): integer",
        doc: "Its pid, asked of the guest.",
        run: |cx, args| cx.later(process(args)?.start_pid(), |cx, pid| cx.values(pid)),
    },
    Native {
        class: "Process",
        call: "proc:handle",
        signature: "(): integer",
        doc: "An integer that stays the same.",
        run: |cx, args| cx.ok(process(args)?.handle()),
    },
    Native {
        class: "Process",
        call: "proc:status",
        signature: "(): string",
        doc: "\"running\", \"exited\" or \"signalled\", without waiting.",
        run: |cx, args| {
            cx.later(process(args)?.start_status(), |cx, status| {
                cx.values(status.name())
            })
        },
    },
    Native {
        class: "Process",
        call: "proc:stdin_write",
        signature: "(data: string): integer",
        doc: "Writes all of the data to its standard input.",
        run: |cx, args| {
            let process = process(args)?;
            let data = args.bytes("data")?;
            cx.later(process.start_stdin_write(&data), |cx, count| {
                cx.values(count)
            })
        },
    },
    Native {
        class: "Process",
        call: "proc:close_stdin",
        signature: "()",
        doc: "Closes its standard input.",
        run: |cx, args| cx.later(process(args)?.start_close_stdin(), unit),
    },
    Native {
        class: "Process",
        call: "proc:stdout_stream",
        signature: "(): Tail",
        doc: "Its standard output from the first byte.",
        run: |cx, args| {
            cx.later(process(args)?.start_stdout_stream(), |cx, tail| {
                cx.handle(Object::Tail(tail))
            })
        },
    },
    Native {
        class: "Process",
        call: "proc:stderr_stream",
        signature: "(): Tail",
        doc: "Its standard error from the first byte.",
        run: |cx, args| {
            cx.later(process(args)?.start_stderr_stream(), |cx, tail| {
                cx.handle(Object::Tail(tail))
            })
        },
    },
    Native {
        class: "Process",
        call: "proc:close",
        signature: "()",
        doc: "Ends it: TERM, up to 2 s, then KILL.",
        run: |cx, args| cx.later(process(args)?.start_close(), unit),
    },
    Native {
        class: "_process",
        call: "vm:job_wait",
        signature: "(process, timeout): RunResult?, string, string",
        doc: "Waits without killing: its result if it has ended, and its output so far.",
        run: job_wait,
    },
];

fn process(args: &mut Args) -> Result<Process, Fault> {
    args.this("Process", |object| match object {
        Object::Process(process) => Some(process.clone()),
        _ => None,
    })
}

/// A signal by number, name or decimal string (L-130).
pub(crate) fn signal(args: &mut Args) -> Result<i32, Fault> {
    let value = args.next();
    match &value {
        Value::Integer(number) => i32::try_from(*number)
            .map_err(|_| Fault(format!("{}: {number} is no signal", args.call()))),
        Value::String(text) => {
            let text = text.to_string_lossy();
            signal_by_name(&text)
                .ok_or_else(|| Fault(format!("{}: unknown signal name `{text}`", args.call())))
        }
        other => Err(args.wrong("signal", "a signal number or name", other)),
    }
}

fn job_wait(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let process = process(args)?;
    let timeout = args.duration_or_nil("timeout")?.unwrap_or(Duration::ZERO);
    cx.later(
        process.start_wait_gently(timeout),
        |cx, (result, stdout, stderr)| {
            let result = result
                .map(|result| convert::run_result(cx.lua, &result))
                .transpose()?;
            let (stdout, stderr) = (cx.lua.create_string(stdout)?, cx.lua.create_string(stderr)?);
            cx.values((result, stdout, stderr))
        },
    )
}
