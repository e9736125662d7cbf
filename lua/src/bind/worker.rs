//! Workers (lua-api section 8).

use provium_lab::Worker;

use crate::args::Args;
use crate::bind::guest::unit;
use crate::bind::process::signal;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "VM",
        call: "vm:spawn_worker",
        signature: "(opts?: {thread?: boolean}): Worker",
        doc: "Forks the agent; with thread = true the worker is a thread that shares its memory \
              and descriptors.",
        run: |cx, args| {
            let vm = args.vm()?;
            let thread = args.options("opts", &["thread"])?.flag("thread")?;
            cx.later(vm.start_spawn_worker(thread), |cx, worker| {
                cx.handle(Object::Worker(worker))
            })
        },
    },
    Native {
        class: "Worker",
        call: "worker:kill",
        signature: "(signal?: integer|string)",
        doc: "Sends a signal, TERM by default, to every process started under it.",
        run: |cx, args| {
            let worker = worker(args)?;
            let number = if args.peek().is_nil() {
                15
            } else {
                signal(args)?
            };
            cx.later(worker.start_signal(number), |cx, count| cx.values(count))
        },
    },
    Native {
        class: "Worker",
        call: "worker:join",
        signature: "(): table[]",
        doc: "Waits for all its processes; answers handle, pid, status, exit_code and signal of \
              each, in start order.",
        run: join,
    },
    Native {
        class: "Worker",
        call: "worker:handle",
        signature: "(): integer",
        doc: "An integer that stays the same.",
        run: |cx, args| cx.ok(worker(args)?.handle()),
    },
    Native {
        class: "Worker",
        call: "worker:pid",
        signature: "(): integer",
        doc: "Its process id in the guest.",
        run: |cx, args| cx.ok(worker(args)?.pid()),
    },
    Native {
        class: "Worker",
        call: "worker:tid",
        signature: "(): integer",
        doc: "Its thread id in the guest.",
        run: |cx, args| cx.ok(worker(args)?.tid()),
    },
    Native {
        class: "Worker",
        call: "worker:close",
        signature: "()",
        doc: "Ends its processes (TERM, 2 s, KILL) and then the worker.",
        run: |cx, args| cx.later(worker(args)?.start_close(), unit),
    },
    Native {
        class: "_worker",
        call: "worker:exit",
        signature: "(worker)",
        doc: "Ends the worker at once.",
        run: |cx, args| cx.later(worker(args)?.start_exit(), unit),
    },
];

fn worker(args: &mut Args) -> Result<Worker, Fault> {
    args.this("Worker", |object| match object {
        Object::Worker(worker) => Some(worker.clone()),
        _ => None,
    })
}

fn join(cx: &Cx<'_>, args: &mut Args) -> Answer {
    cx.later(worker(args)?.start_join(), |cx, joined| {
        let list = cx.lua.create_table_with_capacity(joined.len(), 0)?;
        for process in joined {
            let table = cx.lua.create_table()?;
            table.raw_set("handle", process.handle)?;
            table.raw_set("pid", process.pid)?;
            table.raw_set("status", process.status.name())?;
            table.raw_set("exit_code", process.exit_code)?;
            table.raw_set("signal", process.signal)?;
            list.raw_push(table)?;
        }
        cx.values(list)
    })
}
