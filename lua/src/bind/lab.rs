//! Labs (lua-api sections 3 and 4).

use mlua::Value;
use provium_lab::{BootOptions, Member};
use provium_protocol::Amount;

use crate::args::Args;
use crate::bind::guest::{timeout_or, unit};
use crate::bind::vm::read_options;
use crate::fault::Fault;
use crate::handle::{Handle, Object};
use crate::native::{Answer, Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "Lab",
        call: "lab:vm",
        signature: "(name: string, profile?: string, opts?: table): VM",
        doc: "With a profile: declares a VM with staged boot options. With the name alone: the VM \
              of that name.",
        run: vm,
    },
    Native {
        class: "Lab",
        call: "lab:lab",
        signature: "(name?: string): Lab",
        doc: "The sub-lab of that name, made if there is none.",
        run: |cx, args| {
            let lab = args.lab()?;
            let name = args.text_or_nil("name")?;
            cx.ok_handle(Object::Lab(lab.lab(name.as_deref())?))
        },
    },
    Native {
        class: "Lab",
        call: "lab:include",
        signature: "(member: VM|Lab|table)",
        doc: "Adds existing VMs and labs, all or none.",
        run: include,
    },
    Native {
        class: "Lab",
        call: "lab:remove",
        signature: "(member: string|VM|Lab)",
        doc: "Takes a member out of the lab; the thing itself goes on.",
        run: remove,
    },
    Native {
        class: "Lab",
        call: "lab:members",
        signature: "(): {kind: string, name: string}[]",
        doc: "The direct members in declaration order.",
        run: |cx, args| {
            let list = cx.lua.create_table()?;
            for member in args.lab()?.members() {
                let entry = cx.lua.create_table()?;
                entry.raw_set("kind", member.kind().name())?;
                entry.raw_set("name", member.name())?;
                list.raw_push(entry)?;
            }
            cx.ok(list)
        },
    },
    Native {
        class: "Lab",
        call: "lab:vm_names",
        signature: "(): string[]",
        doc: "Names of the direct VMs in declaration order.",
        run: |cx, args| cx.ok(args.lab()?.vm_names()),
    },
    Native {
        class: "Lab",
        call: "lab:sub_lab_names",
        signature: "(): string[]",
        doc: "Names of the direct sub-labs in declaration order.",
        run: |cx, args| cx.ok(args.lab()?.sub_lab_names()),
    },
    Native {
        class: "Lab",
        call: "lab:boot",
        signature: "(opts?: {recursive?: boolean}): Lab",
        doc: "Boots all VMs that are not up, at once.",
        run: boot,
    },
    Native {
        class: "Lab",
        call: "lab:shutdown",
        signature: "(opts?: {recursive?: boolean})",
        doc: "Shuts all VMs down.",
        run: |cx, args| {
            let lab = args.lab()?;
            let recursive = recursive(args)?;
            cx.later(lab.start_shutdown(recursive), unit)
        },
    },
    Native {
        class: "Lab",
        call: "lab:pause",
        signature: "(opts?: {recursive?: boolean})",
        doc: "Pauses all VMs, or none if one is in the wrong state.",
        run: |cx, args| {
            let lab = args.lab()?;
            lab.pause(recursive(args)?)?;
            cx.ok(())
        },
    },
    Native {
        class: "Lab",
        call: "lab:resume",
        signature: "(opts?: {recursive?: boolean})",
        doc: "Resumes all VMs, or none if one is in the wrong state.",
        run: |cx, args| {
            let lab = args.lab()?;
            lab.resume(recursive(args)?)?;
            cx.ok(())
        },
    },
    Native {
        class: "Lab",
        call: "lab:claim",
        signature: "(amount: {memory?, cpus?})",
        doc: "Claims a share of the run's resources, once per file.",
        run: claim,
    },
    Native {
        class: "Lab",
        call: "lab:barrier",
        signature: "(name: string, count: integer, timeout?): boolean",
        doc: "Blocks until `count` callers are at this barrier (60 s).",
        run: |cx, args| {
            let lab = args.lab()?;
            let (name, count) = (args.text("name")?, args.int("count")?);
            let timeout = timeout_or(args, 60.0)?;
            cx.later(lab.start_barrier(&name, count, timeout), |cx, ()| {
                cx.values(true)
            })
        },
    },
    Native {
        class: "Lab",
        call: "lab:depends_on_file",
        signature: "(host_path: string)",
        doc: "Declares a host file that a fixture depends on; nothing happens at run time.",
        run: |cx, args| {
            args.lab()?;
            args.path("host_path")?;
            cx.ok(())
        },
    },
    Native {
        class: "Lab",
        call: "lab:name",
        signature: "(): string",
        doc: "Its name.",
        run: |cx, args| cx.ok(args.lab()?.name()),
    },
];

/// Natives only the prelude calls.
pub(crate) const HIDDEN: &[Native] = &[
    Native {
        class: "_lab",
        call: "lab:member",
        signature: "(lab, name: string): VM|Lab|nil",
        doc: "A member by name here or in a parent scope: a VM, else a sub-lab.",
        run: |cx, args| {
            let lab = args.lab()?;
            let Some(name) = args.text_or_nil("name")? else {
                return cx.ok(Value::Nil);
            };
            match (lab.find_vm(&name), lab.find_lab(&name)) {
                (Some(vm), _) => cx.ok_handle(Object::Vm(vm)),
                (None, Some(lab)) => cx.ok_handle(Object::Lab(lab)),
                (None, None) => cx.ok(Value::Nil),
            }
        },
    },
    Native {
        class: "_lab",
        call: "provium.create",
        signature: "(lab, profile: string): VM",
        doc: "Declares a VM with a generated name.",
        run: |cx, args| {
            let lab = args.lab()?;
            let profile = args.text("profile")?;
            args.end()?;
            cx.ok_handle(Object::Vm(lab.declare_vm(
                None,
                &profile,
                BootOptions::default(),
            )?))
        },
    },
    Native {
        class: "_lab",
        call: "lab:vms",
        signature: "(lab): VM[]",
        doc: "The direct VMs.",
        run: |cx, args| {
            let list = cx.lua.create_table()?;
            for vm in args.lab()?.vms(true) {
                for handle in cx.handle(Object::Vm(vm))? {
                    list.raw_push(handle)?;
                }
            }
            cx.ok(list)
        },
    },
];

fn vm(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let lab = args.lab()?;
    let name = args.text("name")?;
    let Some(profile) = args.text_or_nil("profile")? else {
        return cx.ok_handle(Object::Vm(lab.vm(&name)?));
    };
    let options = read_options(cx, args)?;
    cx.ok_handle(Object::Vm(lab.declare_vm(
        Some(&name),
        &profile,
        options,
    )?))
}

fn include(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let lab = args.lab()?;
    let value = args.next();
    let members = match &value {
        Value::Table(table) => table
            .sequence_values::<Value>()
            .enumerate()
            .map(|(index, value)| member(&value?, || format!("member[{}]", index + 1), args))
            .collect::<Result<Vec<_>, _>>()?,
        value => vec![member(value, || "member".to_owned(), args)?],
    };
    lab.include(&members)?;
    cx.ok(())
}

fn member(value: &Value, name: impl FnOnce() -> String, args: &Args) -> Result<Member, Fault> {
    let object = match value {
        Value::UserData(data) => data
            .borrow::<Handle>()
            .ok()
            .map(|handle| handle.object().clone()),
        _ => None,
    };
    match object {
        Some(Object::Vm(vm)) => Ok(Member::Vm(vm)),
        Some(Object::Lab(lab)) => Ok(Member::Lab(lab)),
        _ => Err(args.wrong(&name(), "a VM or Lab handle", value)),
    }
}

fn remove(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let lab = args.lab()?;
    let name = match args.peek_object() {
        Some(Object::Vm(vm)) => vm.name().to_owned(),
        Some(Object::Lab(lab)) => lab.name().to_owned(),
        _ => args.text("member")?,
    };
    lab.remove(&name)?;
    cx.ok(())
}

fn recursive(args: &mut Args) -> Result<bool, Fault> {
    args.options("opts", &["recursive"])?.flag("recursive")
}

fn boot(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let lab = args.lab()?;
    let recursive = recursive(args)?;
    let names = lab.vm_names().join(", ");
    cx.file.observer.phase(&format!("booting {names}"));
    let pending = lab.start_boot(recursive);
    cx.later(pending, move |cx, ()| {
        cx.file.observer.phase("");
        cx.handle(Object::Lab(lab))
    })
}

fn claim(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let lab = args.lab()?;
    let amount = args.options("amount", &["memory", "cpus"])?;
    let cpus = amount.int("cpus")?.unwrap_or(0);
    let cpus = u32::try_from(cpus)
        .map_err(|_| amount.problem("cpus", format_args!("must not be negative, got {cpus}")))?;
    let amount = Amount {
        memory_bytes: amount.size("memory")?.unwrap_or(0),
        cpus,
    };
    cx.later(lab.start_claim(amount), unit)
}
