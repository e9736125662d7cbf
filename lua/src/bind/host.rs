//! What the prelude needs of the process it runs in.

use std::path::Path;

use mlua::Value;

use crate::args::{Args, duration, kind};
use crate::bind::convert::RUN_RESULT;
use crate::fault::Fault;
use crate::handle::{Handle, Object};
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "_host",
        call: "print",
        signature: "(bytes: string)",
        doc: "Writes where print writes.",
        run: |cx, args| {
            let bytes = args.bytes("text")?;
            cx.file.observer.print(&bytes);
            cx.ok(())
        },
    },
    Native {
        class: "_host",
        call: "display_path",
        signature: "(path: string): string",
        doc: "The path as outputs show it.",
        run: |cx, args| {
            let path = args.text("path")?;
            cx.ok(cx.file.display_path(Path::new(&path)))
        },
    },
    Native {
        class: "_host",
        call: "class_of",
        signature: "(value): string?",
        doc: "The class of a handle.",
        run: |cx, args| match args.next() {
            Value::UserData(data) => {
                cx.ok(data.borrow::<Handle>().ok().map(|handle| handle.class()))
            }
            _ => cx.ok(Value::Nil),
        },
    },
    Native {
        class: "_host",
        call: "grep",
        signature: "(text, pattern, call): string",
        doc: "The lines that match a POSIX basic regular expression.",
        run: |cx, args| {
            let (text, pattern) = (args.bytes("text")?, args.text("pattern")?);
            let call = args.text("call")?;
            let lines = crate::grep::grep(&text, &pattern)
                .map_err(|why| Fault(format!("{call}: bad pattern `{pattern}`: {why}")))?;
            cx.ok(cx.lua.create_string(lines)?)
        },
    },
    Native {
        class: "_host",
        call: "root",
        signature: "(): Lab",
        doc: "The file's root lab.",
        run: |cx, _| cx.ok_handle(Object::Lab(cx.file.session.root().clone())),
    },
    Native {
        class: "_host",
        call: "set_result_class",
        signature: "(metatable)",
        doc: "Sets the metatable of run results.",
        run: |cx, args| {
            let metatable = args.table("metatable")?;
            cx.lua.set_named_registry_value(RUN_RESULT, metatable)?;
            cx.ok(())
        },
    },
    Native {
        class: "_host",
        call: "provium.timeout",
        signature: "(timeout)",
        doc: "Sets the default deadline of tests.",
        run: set_test_timeout,
    },
    Native {
        class: "_host",
        call: "provium.reset_between_tests",
        signature: "(on)",
        doc: "Whether the file's lab goes back to its state before the first test after each test.",
        run: |cx, args| match args.next() {
            Value::Boolean(on) => {
                cx.file.set_reset_between_tests(on);
                cx.ok(())
            }
            other => Err(Fault(format!(
                "provium.reset_between_tests: must be true or false, got {}",
                kind(&other)
            ))),
        },
    },
];

/// `provium.timeout = DURATION`, nil for none (L-013).
fn set_test_timeout(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let value = args.next();
    let limit = match &value {
        Value::Nil => None,
        value => {
            let wrong = || Fault(format!("must be a duration, got {}", kind(value)));
            let limit = duration(value, wrong);
            Some(limit.map_err(|fault| Fault(format!("provium.timeout: {}", fault.0)))?)
        }
    };
    cx.file.set_test_timeout(limit);
    cx.ok(())
}
