//! Virtual machines: boot options, life, accessors (lua-api section 5).

use mlua::{Table, Value};
use provium_lab::{BootOptions, FileContent, InjectedFile};

use crate::args::{Args, Options, integral, kind};
use crate::bind::guest::unit;
use crate::bind::syscall::length;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "VM",
        call: "vm:boot",
        signature: "(opts?: table): VM",
        doc: "Boots it and waits until its agent answers. Options: memory, cpus, kernel_cmdline, \
              kernel_cmdline_append, rng_seed, initial_time, files, boot_timeout, agent_timeout, \
              cold.",
        run: boot,
    },
    Native {
        class: "VM",
        call: "vm:pause",
        signature: "()",
        doc: "Stops its CPUs and its time.",
        run: |cx, args| {
            args.vm()?.pause()?;
            cx.ok(())
        },
    },
    Native {
        class: "VM",
        call: "vm:resume",
        signature: "()",
        doc: "Lets it go on.",
        run: |cx, args| {
            args.vm()?.resume()?;
            cx.ok(())
        },
    },
    Native {
        class: "VM",
        call: "vm:shutdown",
        signature: "()",
        doc: "Asks the guest to sync and power off, then stops the machine.",
        run: |cx, args| cx.later(args.vm()?.start_shutdown(), unit),
    },
    Native {
        class: "VM",
        call: "vm:close",
        signature: "()",
        doc: "Stops the machine at once; never raises.",
        run: |cx, args| {
            args.vm()?.close();
            cx.ok(())
        },
    },
    Native {
        class: "VM",
        call: "vm:kill",
        signature: "()",
        doc: "Stops the machine at once.",
        run: |cx, args| {
            args.vm()?.kill();
            cx.ok(())
        },
    },
    Native {
        class: "VM",
        call: "vm:reset",
        signature: "()",
        doc: "Resets the machine and waits until its agent is back.",
        run: |cx, args| cx.later(args.vm()?.start_reset(), unit),
    },
    Native {
        class: "VM",
        call: "vm:wakeup",
        signature: "()",
        doc: "Wakes a guest that has suspended to RAM, and waits until its agent answers; raises \
              unless it is suspended.",
        run: |cx, args| cx.later(args.vm()?.start_wakeup(), unit),
    },
    Native {
        class: "VM",
        call: "vm:power_button",
        signature: "(): boolean",
        doc: "Presses the power button; true if the guest powered off by itself.",
        run: |cx, args| {
            cx.later(args.vm()?.start_power_button(), |cx, obeyed| {
                cx.values(obeyed)
            })
        },
    },
    Native {
        class: "VM",
        call: "vm:name",
        signature: "(): string",
        doc: "Its name.",
        run: |cx, args| cx.ok(args.vm()?.name()),
    },
    Native {
        class: "VM",
        call: "vm:profile",
        signature: "(): string",
        doc: "The name of its profile.",
        run: |cx, args| cx.ok(args.vm()?.profile()),
    },
    Native {
        class: "VM",
        call: "vm:state",
        signature: "(): string",
        doc: "\"created\", \"booted\", \"paused\", \"shutdown\" or \"dead\".",
        run: |cx, args| cx.ok(args.vm()?.state().name()),
    },
    Native {
        class: "VM",
        call: "vm:cid",
        signature: "(): integer?",
        doc: "Its vsock context id; nil before the first boot.",
        run: |cx, args| cx.ok(args.vm()?.cid()),
    },
    Native {
        class: "VM",
        call: "vm:is_quiescent",
        signature: "(): boolean",
        doc: "True when no operation is in flight, no file open and no stream live.",
        run: |cx, args| cx.ok(args.vm()?.is_quiescent()),
    },
    Native {
        class: "VM",
        call: "vm:open_file_count",
        signature: "(): integer",
        doc: "How many File handles are open.",
        run: |cx, args| cx.ok(args.vm()?.open_file_count()),
    },
    Native {
        class: "VM",
        call: "vm:open_stream_count",
        signature: "(): integer",
        doc: "How many streams are live.",
        run: |cx, args| cx.ok(args.vm()?.open_stream_count()),
    },
    Native {
        class: "VM",
        call: "vm:phys_read",
        signature: "(addr: integer, len: integer): string",
        doc: "Guest-physical memory, read without the guest's help, also while paused.",
        run: |cx, args| {
            let vm = args.vm()?;
            let (addr, len) = (args.int("addr")?.cast_unsigned(), length(args)?);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            cx.ok(cx.lua.create_string(vm.phys_read(addr, len)?)?)
        },
    },
    Native {
        class: "VM",
        call: "vm:phys_write",
        signature: "(addr: integer, data: string)",
        doc: "Writes guest-physical memory without the guest's help, also while paused.",
        run: |cx, args| {
            let vm = args.vm()?;
            let (addr, data) = (args.int("addr")?.cast_unsigned(), args.bytes("data")?);
            vm.phys_write(addr, &data)?;
            cx.ok(())
        },
    },
    Native {
        class: "VM",
        call: "vm:console",
        signature: "(): Console",
        doc: "The host's view of its serial console.",
        run: |cx, args| {
            let vm = args.vm()?;
            cx.ok_handle(Object::Console(vm))
        },
    },
    Native {
        class: "VM",
        call: "vm:clock",
        signature: "(): Clock",
        doc: "The guest's clock.",
        run: |cx, args| {
            let clock = args.vm()?.clock();
            cx.ok_handle(Object::Clock(clock))
        },
    },
];

/// Natives only the prelude calls.
pub(crate) const HIDDEN: &[Native] = &[Native {
    class: "_vm",
    call: "vm:classic_shutdown",
    signature: "(vm)",
    doc: "The shutdown of classic VMs, with its longer grace.",
    run: |cx, args| cx.later(args.vm()?.start_classic_shutdown(), unit),
}];

fn boot(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let vm = args.vm()?;
    let options = read_options(cx, args)?;
    cx.file.observer.phase(&format!("booting vm {}", vm.name()));
    let pending = vm.start_boot(options);
    cx.later(pending, move |cx, ()| {
        cx.file.observer.phase("");
        cx.handle(Object::Vm(vm))
    })
}

const KEYS: &[&str] = &[
    "memory",
    "cpus",
    "kernel_cmdline",
    "kernel_cmdline_append",
    "rng_seed",
    "initial_time",
    "files",
    "boot_timeout",
    "agent_timeout",
    "cold",
];

/// Boot options, the next argument (L-064..L-072, L-241).
pub(crate) fn read_options(cx: &Cx<'_>, args: &mut Args) -> Result<BootOptions, Fault> {
    let options = args.options("opts", KEYS)?;
    let timeout = options.duration("boot_timeout")?;
    Ok(BootOptions {
        memory: options.size("memory")?,
        cpus: cpus(&options)?,
        kernel_cmdline: options.text("kernel_cmdline")?,
        kernel_cmdline_append: options.text("kernel_cmdline_append")?,
        rng_seed: options.int("rng_seed")?.map(i64::cast_unsigned),
        initial_time_ns: initial_time(&options)?,
        files: files(cx, &options)?,
        boot_timeout: timeout.map_or_else(
            || options.duration("agent_timeout"),
            |limit| Ok(Some(limit)),
        )?,
        cold: options.flag("cold")?,
    })
}

fn cpus(options: &Options) -> Result<Option<u32>, Fault> {
    let Some(count) = options.int("cpus")? else {
        return Ok(None);
    };
    match u32::try_from(count) {
        Ok(count) if count >= 1 => Ok(Some(count)),
        _ => Err(options.problem("cpus", format_args!("must be at least 1, got {count}"))),
    }
}

/// Seconds since the epoch as nanoseconds.
fn initial_time(options: &Options) -> Result<Option<i64>, Fault> {
    let value = options.get("initial_time")?;
    let out_of_range = || options.problem("initial_time", "is out of range");
    match &value {
        Value::Nil => Ok(None),
        Value::Integer(seconds) => seconds
            .checked_mul(1_000_000_000)
            .map(Some)
            .ok_or_else(out_of_range),
        Value::Number(seconds) if seconds.is_finite() => {
            integral(&Value::Number((seconds * 1e9).round()))
                .map(Some)
                .ok_or_else(out_of_range)
        }
        Value::Number(_) => {
            Err(options.problem("initial_time", "must be a finite number (got NaN/inf)"))
        }
        other => Err(options.wrong("initial_time", "a number of seconds", other)),
    }
}

/// Injected files in either shape (L-070).
fn files(cx: &Cx<'_>, options: &Options) -> Result<Vec<InjectedFile>, Fault> {
    let Some(table) = options.table("files")? else {
        return Ok(Vec::new());
    };
    let mut list = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let place = format!("files[{}]", list.len() + 1);
        list.push(match pair? {
            (Value::String(path), Value::String(host)) => InjectedFile {
                path: path.to_string_lossy(),
                content: FileContent::Host(cx.file.host_path(&host.as_bytes())),
                mode: None,
            },
            (Value::Integer(_), Value::Table(entry)) => literal_file(options, &place, &entry)?,
            (key, value) => {
                let text = format!(
                    "must map guest paths to host paths or list {{path, content, mode?}}, got {} = {}",
                    kind(&key),
                    kind(&value)
                );
                return Err(options.problem("files", text));
            }
        });
    }
    Ok(list)
}

fn literal_file(options: &Options, place: &str, entry: &Table) -> Result<InjectedFile, Fault> {
    let entry = Options::new(
        "files",
        "entry",
        entry.clone(),
        &["path", "content", "mode"],
    )
    .map_err(|fault| options.problem(place, fault.0))?;
    let missing = |key: &str| options.problem(place, format_args!("{key} is missing"));
    let wrong = |fault: Fault| options.problem(place, fault.0);
    Ok(InjectedFile {
        path: entry
            .text("path")
            .map_err(wrong)?
            .ok_or_else(|| missing("path"))?,
        content: FileContent::Bytes(
            entry
                .bytes("content")
                .map_err(wrong)?
                .ok_or_else(|| missing("content"))?,
        ),
        mode: entry.perm("mode").map_err(wrong)?,
    })
}
