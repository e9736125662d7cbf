//! Waiting, for the prelude's scheduler (lua-api L-009, L-247).

use std::time::Duration;

use mlua::{AnyUserData, UserDataRef, Value};

use crate::args::Args;
use crate::bind::guest::unit;
use crate::fault::Fault;
use crate::later::Waiting;
use crate::native::{Answer, Cx, Done, Native, guarded};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "_task",
        call: "wait_any",
        signature: "(...: pending): integer, any...",
        doc: "Lets the guests run until one of the operations has ended; answers its position, \
              then true and its results, or false and a message.",
        run: wait_any,
    },
    Native {
        class: "_task",
        call: "give_up",
        signature: "(...: pending)",
        doc: "Cancels the operations.",
        run: |cx, args| {
            for waiting in waitings(args)? {
                waiting.give_up();
            }
            cx.ok(())
        },
    },
    Native {
        class: "_task",
        call: "timer",
        signature: "(seconds: number)",
        doc: "An operation that ends after this much host time.",
        run: |cx, args| {
            let length: Duration = args.duration("seconds")?;
            cx.later(cx.file.world().start_timer("task:join", length), unit)
        },
    },
];

/// The userdata among the arguments.
fn waitings(args: &mut Args) -> Result<Vec<UserDataRef<Waiting>>, Fault> {
    let mut list = Vec::with_capacity(args.left());
    for value in args.rest() {
        match value {
            Value::UserData(data) => list.push(borrow(&data)?),
            other => return Err(args.wrong("pending", "a started operation", &other)),
        }
    }
    Ok(list)
}

fn borrow(data: &AnyUserData) -> Result<UserDataRef<Waiting>, Fault> {
    Ok(data.borrow::<Waiting>()?)
}

fn wait_any(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let list = waitings(args)?;
    let waited = cx.file.world().run_until(|| {
        list.iter().enumerate().find_map(|(index, waiting)| {
            let poll = || Ok(waiting.poll(cx));
            match guarded(cx.file, "wait", poll) {
                Ok(result) => result.map(|result| (index, result)),
                Err(fault) => Some((index, Err(fault))),
            }
        })
    });
    match waited {
        Ok((index, result)) => {
            let mut results = crate::native::form(cx.lua, result)?;
            results.push_front(Value::Integer(i64::try_from(index).unwrap_or(i64::MAX) + 1));
            Ok(Done::Now(results))
        }
        Err(interrupted) => {
            // What was waited for is of no more use to anybody: cancel it in the guest.
            for waiting in list {
                waiting.give_up();
            }
            Err(Fault(interrupted.to_string()))
        }
    }
}
