//! Durations and pauses for the prelude (lua-api L-003, L-247..L-249).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mlua::{UserData, Value};
use provium_lab::Stopwatch;

use crate::args::{self, Args};
use crate::bind::guest::unit;
use crate::fault::Fault;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "_time",
        call: "seconds",
        signature: "(value: number|string, what: string): number",
        doc: "A duration in seconds.",
        run: |cx, args| {
            let value = args.next();
            let what = args.text("what")?;
            let wrong = || {
                let got = args::kind(&value);
                Fault(format!(
                    "must be a duration (seconds or a string), got {got}"
                ))
            };
            match args::duration(&value, wrong) {
                Ok(duration) => cx.ok(duration.as_secs_f64()),
                Err(fault) => Err(Fault(format!("{what}: {}", fault.0))),
            }
        },
    },
    Native {
        class: "_time",
        call: "show",
        signature: "(seconds: number): string",
        doc: "A duration as messages show it.",
        run: |cx, args| cx.ok(provium_lab::units::show_duration(args.duration("seconds")?)),
    },
    Native {
        class: "_time",
        call: "stopwatch",
        signature: "(): stopwatch",
        doc: "A clock that runs from now on as time passes for the guests of the file.",
        run: |cx, _| {
            let watch = Stopwatch::start(cx.file.world());
            cx.ok(cx.lua.create_userdata(Running(Mutex::new(watch)))?)
        },
    },
    Native {
        class: "_time",
        call: "passed",
        signature: "(stopwatch, seconds: number): boolean, number",
        doc: "Whether so much time has passed on it, and how much is left.",
        run: passed,
    },
    Native {
        class: "_time",
        call: "pause",
        signature: "(seconds: number)",
        doc: "Lets the guests of the file run for this long.",
        run: |cx, args| {
            let length: Duration = args.duration("seconds")?;
            cx.later(cx.file.world().start_pause("wait_until", length), unit)
        },
    },
];

/// A stopwatch in the prelude's hands.
struct Running(Mutex<Stopwatch>);

impl UserData for Running {}

fn passed(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let value = args.next();
    let limit = args.duration("seconds")?;
    let Value::UserData(data) = &value else {
        return Err(args.wrong("stopwatch", "a stopwatch", &value));
    };
    let running = data.borrow::<Running>()?;
    let mut watch = running.0.lock().unwrap_or_else(PoisonError::into_inner);
    let left = limit.saturating_sub(watch.elapsed());
    cx.ok((watch.passed(limit), left.as_secs_f64()))
}
