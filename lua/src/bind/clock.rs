//! The guest's clock (lua-api section 10).

use mlua::Value;
use provium_lab::{Clock, units};

use crate::args::{Args, integral};
use crate::bind::guest::unit;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "Clock",
        call: "clock:get",
        signature: "(): number",
        doc: "The guest's wall clock in seconds since the epoch.",
        run: |cx, args| cx.later(clock(args)?.start_get(), |cx, seconds| cx.values(seconds)),
    },
    Native {
        class: "Clock",
        call: "clock:get_ns",
        signature: "(): integer",
        doc: "The guest's wall clock in nanoseconds since the epoch.",
        run: |cx, args| cx.later(clock(args)?.start_get_ns(), |cx, ns| cx.values(ns)),
    },
    Native {
        class: "Clock",
        call: "clock:set",
        signature: "(seconds: number)",
        doc: "Sets the guest's wall clock.",
        run: set,
    },
    Native {
        class: "Clock",
        call: "clock:set_ns",
        signature: "(ns: integer)",
        doc: "Sets the guest's wall clock to the nanosecond.",
        run: |cx, args| {
            let clock = clock(args)?;
            let ns = args.int("ns")?;
            cx.later(clock.start_set_ns(ns), unit)
        },
    },
    Native {
        class: "Clock",
        call: "clock:advance",
        signature: "(duration)",
        doc: "Jumps the guest's wall clock forward, or back by a negative duration.",
        run: advance,
    },
    Native {
        class: "Clock",
        call: "clock:sleep",
        signature: "(duration)",
        doc: "Returns when the guest's monotonic time has advanced by the duration.",
        run: |cx, args| {
            let clock = clock(args)?;
            let duration = args.duration("duration")?;
            cx.later(clock.start_sleep(duration), unit)
        },
    },
];

fn clock(args: &mut Args) -> Result<Clock, Fault> {
    args.this("Clock", |object| match object {
        Object::Clock(clock) => Some(clock.clone()),
        _ => None,
    })
}

fn set(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let clock = clock(args)?;
    match args.next() {
        // Whole seconds stay exact, also beyond what a float holds.
        Value::Integer(seconds) => match seconds.checked_mul(1_000_000_000) {
            Some(ns) => cx.later(clock.start_set_ns(ns), unit),
            None => Err(Fault(format!("clock:set: {seconds} s is out of range"))),
        },
        Value::Number(seconds) if seconds.is_finite() => cx.later(clock.start_set(seconds), unit),
        Value::Number(_) => Err(Fault(
            "clock:set: seconds must be a finite number (got NaN/inf)".to_owned(),
        )),
        other => Err(args.wrong("seconds", "a number", &other)),
    }
}

fn advance(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let clock = clock(args)?;
    let value = args.next();
    let ns = match &value {
        Value::Integer(seconds) => seconds.checked_mul(1_000_000_000),
        Value::Number(seconds) if !seconds.is_finite() => {
            let text = "clock:advance: duration must be a finite number (got NaN/inf)";
            return Err(Fault(text.to_owned()));
        }
        Value::Number(seconds) => integral(&Value::Number((seconds * 1e9).round())),
        Value::String(text) => signed_duration(&text.to_string_lossy())?,
        other => return Err(args.wrong("duration", "a duration (seconds or a string)", other)),
    };
    let ns = ns.ok_or_else(|| Fault("clock:advance: the duration is out of range".to_owned()))?;
    cx.later(clock.start_advance_ns(ns), unit)
}

/// A duration with an optional sign, which this call alone takes (L-003).
fn signed_duration(text: &str) -> Result<Option<i64>, Fault> {
    let (negative, plain) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let duration =
        units::parse_duration(plain).map_err(|error| Fault(format!("clock:advance: {error}")))?;
    let ns = i64::try_from(duration.as_nanos()).ok();
    Ok(ns.map(|ns| if negative { -ns } else { ns }))
}
