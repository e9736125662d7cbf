//! VMs and labs from fixtures (lua-api L-028, L-043, L-044; classic-api section 9).

use provium_lab::RestoreFrom;
use provium_lab::fixture::FixtureKind;

use crate::fault::Fault;
use crate::fixture;
use crate::handle::Object;
use crate::native::Native;

/// Natives only the prelude calls.
pub(crate) const HIDDEN: &[Native] = &[
    Native {
        class: "_fixture",
        call: "vm_fixture.vm",
        signature: "(path: string): VM",
        doc: "A VM that goes on from a cached fixture.",
        run: |cx, args| {
            let name = args.text("path")?;
            args.end()?;
            let root = cx.file.session.root().clone();
            let pending = fixture::with_entry(cx.file, &name, FixtureKind::Vm, |path| {
                root.start_adopt(RestoreFrom::Path(path.to_owned()))
            })?;
            cx.later(pending, |cx, vm| cx.handle(Object::Vm(vm)))
        },
    },
    Native {
        class: "_fixture",
        call: "lab_fixture.lab",
        signature: "(path: string): Lab",
        doc: "A lab that goes on from a cached fixture.",
        run: |cx, args| {
            let name = args.text("path")?;
            args.end()?;
            let session = &cx.file.session;
            let snapshot = fixture::with_entry(cx.file, &name, FixtureKind::Lab, |path| {
                let snapshot = provium_lab::LabSnapshot::at(path);
                snapshot.check(session)?;
                Ok(snapshot)
            })?;
            let lab = session.root().lab(None)?;
            let pending = lab.start_restore(&snapshot);
            cx.later(pending, move |cx, ()| cx.handle(Object::Lab(lab)))
        },
    },
    Native {
        class: "_fixture",
        call: "fixture.classic",
        signature: "(name: string): VM",
        doc: "A VM that goes on from a classic fixture of this run.",
        run: |cx, args| {
            let name = args.text("name")?;
            args.end()?;
            let snapshot = fixture::classic(cx.file, &cx.calling_dir(), &name)?;
            let root = cx.file.session.root();
            let pending = root
                .start_adopt(RestoreFrom::Snapshot(snapshot))
                .map_err(Fault::from)?;
            cx.later(pending, |cx, vm| cx.handle(Object::Vm(vm)))
        },
    },
];
