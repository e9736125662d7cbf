//! Streams: tails of files, descriptors and processes, and the console's (lua-api section 14).

use std::time::Duration;

use mlua::Value;
use provium_lab::{ConsoleStream, Tail};

use crate::args::Args;
use crate::bind::convert;
use crate::bind::guest::{timeout_or, unit};
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Cx, Native};

/// Declares the calls that all streams share, for one class and its getter.
macro_rules! stream_natives {
    ($(#[$meta:meta])* $table:ident, $class:literal, $get:ident, $close:expr) => {
        $(#[$meta])*
        pub(crate) const $table: &[Native] = &[
            Native {
                class: $class,
                call: "stream:next",
                signature: "(timeout?): string?",
                doc: "The next bytes, or nil at the timeout (10 s) or the end.",
                run: |cx, args| {
                    let stream = $get(args)?;
                    let timeout = timeout_or(args, 10.0)?;
                    cx.later(stream.start_next(timeout), |cx, chunk| {
                        cx.values(chunk.map(|chunk| cx.lua.create_string(chunk)).transpose()?)
                    })
                },
            },
            Native {
                class: $class,
                call: "stream:read_until",
                signature: "(pattern: string, timeout?): string",
                doc: "Everything up to and including the pattern (plain bytes); raises at the \
                      timeout (10 s) or the end.",
                run: |cx, args| {
                    let stream = $get(args)?;
                    let (pattern, timeout) = awaited(args)?;
                    let pending = stream.start_read_until("stream:read_until", &pattern, timeout);
                    cx.later(pending, |cx, text| cx.values(cx.lua.create_string(text)?))
                },
            },
            Native {
                class: $class,
                call: "stream:expect",
                signature: "(pattern: string, timeout?)",
                doc: "As read_until, but returns nothing.",
                run: |cx, args| {
                    let stream = $get(args)?;
                    let (pattern, timeout) = awaited(args)?;
                    let pending = stream.start_read_until("stream:expect", &pattern, timeout);
                    cx.later(pending, |cx, _| cx.values(()))
                },
            },
            Native {
                class: $class,
                call: "stream:drain",
                signature: "(timeout?): string[]",
                doc: "What arrives within the timeout (0.5 s), in pieces.",
                run: |cx, args| {
                    let stream = $get(args)?;
                    let timeout = timeout_or(args, 0.5)?;
                    cx.later(stream.start_drain(timeout), |cx, chunks| {
                        cx.values(convert::strings(cx.lua, &chunks)?)
                    })
                },
            },
            Native {
                class: $class,
                call: "stream:eof",
                signature: "(): boolean",
                doc: "True when the source has ended and everything was read.",
                run: |cx, args| cx.ok($get(args)?.eof()),
            },
            Native {
                class: $class,
                call: "stream:close",
                signature: "()",
                doc: "Closes the stream; doing so again changes nothing.",
                run: $close,
            },
            Native {
                class: $class,
                call: "stream:creation_site",
                signature: "(): {file: string, line: integer}?",
                doc: "Where the test opened it.",
                run: |cx, args| {
                    let site = $get(args)?.creation_site();
                    cx.ok(site.map(|site| site_table(cx, &site)).transpose()?)
                },
            },
        ];
    };
}

stream_natives!(
    /// Streams of the agent.
    TAIL, "Tail", tail, |cx, args| cx.later(tail(args)?.start_close(), unit)
);
stream_natives!(
    /// Streams of the console.
    CONSOLE, "ConsoleStream", console_stream, |cx, args| {
        console_stream(args)?.close();
        cx.ok(())
    }
);

fn tail(args: &mut Args) -> Result<Tail, Fault> {
    args.this("Tail", |object| match object {
        Object::Tail(tail) => Some(tail.clone()),
        _ => None,
    })
}

fn console_stream(args: &mut Args) -> Result<ConsoleStream, Fault> {
    args.this("ConsoleStream", |object| match object {
        Object::ConsoleStream(stream) => Some(stream.clone()),
        _ => None,
    })
}

/// Pattern and timeout of the calls that wait for one.
fn awaited(args: &mut Args) -> Result<(Vec<u8>, Duration), Fault> {
    let pattern = args.bytes("pattern")?;
    let timeout = timeout_or(args, 10.0)?;
    Ok((pattern, timeout))
}

fn site_table(cx: &Cx<'_>, site: &provium_lab::Site) -> Result<Value, Fault> {
    let table = cx.lua.create_table()?;
    table.raw_set("file", site.file.as_str())?;
    table.raw_set("line", site.line)?;
    Ok(Value::Table(table))
}
