//! Snapshots of VMs and labs (lua-api sections 5.3, 4 and 15).

use std::path::PathBuf;

use mlua::Value;
use provium_lab::{LabSnapshot, RestoreFrom, Snapshot};

use crate::args::Args;
use crate::bind::guest::unit;
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Cx, Native};

pub(crate) const TABLE: &[Native] = &[
    Native {
        class: "VM",
        call: "vm:snapshot",
        signature: "(path?: string, base?: Snapshot|string): Snapshot",
        doc: "Saves memory, CPUs, devices, clock and console. Without a path it lasts until the \
              end of the file. With a base, from which the VM must go on, it holds only what \
              changed since and is of use together with that one. Refused while streams of the \
              VM are live.",
        run: |cx, args| {
            let vm = args.vm()?;
            let path = host_path(cx, args, "path")?;
            let base = match args.peek().is_nil() {
                true => {
                    args.next();
                    None
                }
                false => Some(restore_from(cx, args, "base")?),
            };
            cx.later(vm.start_snapshot(path.as_deref(), base), |cx, snapshot| {
                cx.handle(Object::Snapshot(snapshot))
            })
        },
    },
    Native {
        class: "VM",
        call: "vm:restore",
        signature: "(snapshot: Snapshot|string)",
        doc: "Goes on from a snapshot or snapshot file; the VM is `created` or `shutdown`.",
        run: |cx, args| {
            let vm = args.vm()?;
            let from = restore_from(cx, args, "snapshot")?;
            cx.later(vm.start_restore(from), unit)
        },
    },
    Native {
        class: "VM",
        call: "vm:clone",
        signature: "(name?: string): VM",
        doc: "Forks the VM, running, into a new one; memory is shared until one of both writes it.",
        run: |cx, args| {
            let vm = args.vm()?;
            let name = args.text_or_nil("name")?;
            let lab = cx.file.session.current();
            cx.later(vm.start_fork(&lab, name.as_deref()), |cx, vm| {
                cx.handle(Object::Vm(vm))
            })
        },
    },
    Native {
        class: "Lab",
        call: "lab:snapshot",
        signature: "(dir?: string): LabSnapshot|string",
        doc: "Saves all members as of one instant. With a directory (absent or empty): into it, \
              returning its path.",
        run: |cx, args| {
            let lab = args.lab()?;
            let dir = host_path(cx, args, "dir")?;
            let named = dir.is_some();
            cx.later(
                lab.start_snapshot(dir.as_deref()),
                move |cx, snapshot| match named {
                    true => cx.values(path_text(cx, snapshot.path())?),
                    false => cx.handle(Object::LabSnapshot(snapshot)),
                },
            )
        },
    },
    Native {
        class: "Lab",
        call: "lab:restore",
        signature: "(snapshot: LabSnapshot|string)",
        doc: "Puts all recorded members back, each into the state it had.",
        run: |cx, args| {
            let lab = args.lab()?;
            let snapshot = match args.peek_object() {
                Some(Object::LabSnapshot(snapshot)) => {
                    args.next();
                    snapshot
                }
                _ => LabSnapshot::at(required_path(cx, args, "snapshot")?),
            };
            cx.later(lab.start_restore(&snapshot), unit)
        },
    },
    Native {
        class: "Lab",
        call: "lab:clone",
        signature: "(name?: string): Lab",
        doc: "Forks all VMs that are up, running, into a new sub-lab.",
        run: |cx, args| {
            let lab = args.lab()?;
            let name = args.text_or_nil("name")?;
            cx.later(lab.start_fork(name.as_deref())?, |cx, lab| {
                cx.handle(Object::Lab(lab))
            })
        },
    },
    Native {
        class: "Snapshot",
        call: "snapshot:path",
        signature: "(): string",
        doc: "Where it lies.",
        run: |cx, args| {
            let snapshot = snapshot(args)?;
            cx.ok(path_text(cx, snapshot.path())?)
        },
    },
    Native {
        class: "Snapshot",
        call: "snapshot:size",
        signature: "(): integer",
        doc: "Bytes that it takes on disk; 0 if it is gone.",
        run: |cx, args| cx.ok(snapshot(args)?.size()),
    },
    Native {
        class: "Snapshot",
        call: "snapshot:delete",
        signature: "()",
        doc: "Removes it; again is nothing.",
        run: |cx, args| {
            snapshot(args)?.delete();
            cx.ok(())
        },
    },
    Native {
        class: "LabSnapshot",
        call: "snapshot:path",
        signature: "(): string",
        doc: "The directory it lies in.",
        run: |cx, args| {
            let snapshot = lab_snapshot(args)?;
            cx.ok(path_text(cx, snapshot.path())?)
        },
    },
    Native {
        class: "LabSnapshot",
        call: "snapshot:size",
        signature: "(): integer",
        doc: "Bytes on disk of the files directly in it; 0 if it is gone.",
        run: |cx, args| cx.ok(lab_snapshot(args)?.size()),
    },
    Native {
        class: "LabSnapshot",
        call: "snapshot:delete",
        signature: "()",
        doc: "Removes it; again is nothing.",
        run: |cx, args| {
            lab_snapshot(args)?.delete();
            cx.ok(())
        },
    },
];

fn snapshot(args: &mut Args) -> Result<Snapshot, Fault> {
    args.this("Snapshot", |object| match object {
        Object::Snapshot(snapshot) => Some(snapshot.clone()),
        _ => None,
    })
}

fn lab_snapshot(args: &mut Args) -> Result<LabSnapshot, Fault> {
    args.this("LabSnapshot", |object| match object {
        Object::LabSnapshot(snapshot) => Some(snapshot.clone()),
        _ => None,
    })
}

/// A snapshot, or the path of one.
fn restore_from(cx: &Cx<'_>, args: &mut Args, name: &str) -> Result<RestoreFrom, Fault> {
    match args.peek_object() {
        Some(Object::Snapshot(snapshot)) => {
            args.next();
            Ok(RestoreFrom::Snapshot(snapshot))
        }
        _ => required_path(cx, args, name).map(RestoreFrom::Path),
    }
}

/// A path of the author's, if there is one (L-007).
fn host_path(cx: &Cx<'_>, args: &mut Args, name: &str) -> Result<Option<PathBuf>, Fault> {
    if args.peek().is_nil() {
        args.next();
        return Ok(None);
    }
    required_path(cx, args, name).map(Some)
}

fn required_path(cx: &Cx<'_>, args: &mut Args, name: &str) -> Result<PathBuf, Fault> {
    let bytes = args.bytes(name)?;
    Ok(cx.file.host_path(&bytes))
}

fn path_text(cx: &Cx<'_>, path: &std::path::Path) -> Result<Value, Fault> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Value::String(
        cx.lua.create_string(path.as_os_str().as_bytes())?,
    ))
}
