//! Open files of a guest (lua-api section 6).

use provium_lab::{File, Whence};

use crate::args::Args;
use crate::bind::guest::unit;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "File",
        call: "file:read",
        signature: "(n: integer): string",
        doc: "Up to `n` bytes at the cursor; the empty string at the end of the file.",
        run: |cx, args| {
            let file = file(args)?;
            let count = args.int("n")?;
            let count = u64::try_from(count)
                .map_err(|_| Fault(format!("file:read: n must not be negative, got {count}")))?;
            cx.later(file.start_read(count), |cx, data| {
                cx.values(cx.lua.create_string(data)?)
            })
        },
    },
    Native {
        class: "File",
        call: "file:read_all",
        signature: "(): string",
        doc: "Everything from the cursor to the end.",
        run: |cx, args| {
            let pending = file(args)?.start_read_all();
            cx.later(pending, |cx, data| cx.values(cx.lua.create_string(data)?))
        },
    },
    Native {
        class: "File",
        call: "file:write",
        signature: "(data: string): integer",
        doc: "Writes at the cursor; answers how many bytes were taken.",
        run: |cx, args| {
            let file = file(args)?;
            let data = args.bytes("data")?;
            cx.later(file.start_write(&data), |cx, count| cx.values(count))
        },
    },
    Native {
        class: "File",
        call: "file:seek",
        signature: "(offset: integer, whence?: \"set\"|\"cur\"|\"end\"): integer",
        doc: "Moves the cursor; answers the new offset.",
        run: seek,
    },
    Native {
        class: "File",
        call: "file:tell",
        signature: "(): integer",
        doc: "The cursor, asked of the guest.",
        run: |cx, args| cx.later(file(args)?.start_tell(), |cx, offset| cx.values(offset)),
    },
    Native {
        class: "File",
        call: "file:close",
        signature: "()",
        doc: "Closes the file; doing so again changes nothing.",
        run: |cx, args| cx.later(file(args)?.start_close(), unit),
    },
    Native {
        class: "File",
        call: "file:fd",
        signature: "(): integer",
        doc: "Its descriptor in the agent's process; 0 once it is closed.",
        run: |cx, args| cx.ok(file(args)?.fd()),
    },
    Native {
        class: "File",
        call: "file:tail_stream",
        signature: "(): Tail",
        doc: "Follows the file from the cursor.",
        run: |cx, args| {
            cx.later(file(args)?.start_tail_stream(), |cx, tail| {
                cx.handle(Object::Tail(tail))
            })
        },
    },
];

fn file(args: &mut Args) -> Result<File, Fault> {
    args.this("File", |object| match object {
        Object::File(file) => Some(file.clone()),
        _ => None,
    })
}

fn seek(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let file = file(args)?;
    let offset = args.int("offset")?;
    let word = args
        .text_or_nil("whence")?
        .unwrap_or_else(|| "set".to_owned());
    let whence = Whence::by_name(&word).ok_or_else(|| {
        Fault(format!(
            "file:seek: whence must be set/cur/end, got `{word}`"
        ))
    })?;
    cx.later(file.start_seek(offset, whence), |cx, offset| {
        cx.values(offset)
    })
}
