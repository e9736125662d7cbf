//! The serial console as the host sees it (lua-api section 9).

use provium_lab::Console;

use crate::args::Args;
use crate::bind::guest::timeout_or;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "Console",
        call: "console:read_log",
        signature: "(): string",
        doc: "Everything the guest has written since it was booted.",
        run: |cx, args| cx.ok(cx.lua.create_string(console(args)?.read_log())?),
    },
    Native {
        class: "Console",
        call: "console:read",
        signature: "(): ConsoleStream",
        doc: "A stream that starts where no earlier stream has read.",
        run: |cx, args| {
            let stream = console(args)?.read();
            cx.ok_handle(Object::ConsoleStream(stream))
        },
    },
    Native {
        class: "Console",
        call: "console:expect",
        signature: "(text: string, timeout?): string",
        doc: "Waits until the log holds the text (30 s) and returns it.",
        run: expect,
    },
    Native {
        class: "Console",
        call: "console:write",
        signature: "(data: string, opts?: {timeout?})",
        doc: "Types into the guest's console.",
        run: write,
    },
    Native {
        class: "Console",
        call: "console:close",
        signature: "()",
        doc: "Does nothing: the console is always there.",
        run: |cx, args| {
            console(args)?;
            cx.ok(())
        },
    },
];

fn console(args: &mut Args) -> Result<Console, Fault> {
    args.this("Console", |object| match object {
        Object::Console(vm) => Some(vm.console()),
        _ => None,
    })
}

fn expect(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let console = console(args)?;
    let text = args.bytes("text")?;
    let timeout = timeout_or(args, 30.0)?;
    let pending = console.start_expect(&text, timeout);
    cx.later(pending, move |cx, ()| {
        cx.values(cx.lua.create_string(text)?)
    })
}

fn write(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let console = console(args)?;
    let data = args.bytes("data")?;
    let options = args.options("opts", &["timeout", "timeout_ms"])?;
    if options.int("timeout_ms")?.is_some() {
        let text = "console:write: opts.timeout_ms is not supported, use opts.timeout";
        return Err(Fault(text.to_owned()));
    }
    options.duration("timeout")?;
    // The host keeps what the guest has not read yet, so writing never blocks.
    console.write(&data)?;
    cx.ok(())
}
