//! `json.encode`, `json.decode`.

use crate::json;
use crate::native::Native;

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "json",
        call: "json.encode",
        signature: "(v: any): string",
        doc: "The value as compact JSON; keys are sorted, a table with only positive integer keys \
              is an array.",
        run: |cx, args| {
            let value = args.next();
            cx.ok(json::encode(&value)?)
        },
    },
    Native {
        class: "json",
        call: "json.decode",
        signature: "(s: string): any",
        doc: "The value of a JSON text; null becomes nil.",
        run: |cx, args| {
            let text = args.bytes("s")?;
            cx.ok(json::decode(cx.lua, &text)?)
        },
    },
];
