//! Images that hold only what changed since another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_vmm::snapshot::{Extent, Fresh, Image, SaveTo, SnapshotError};
use provium_vmm::{Backend, Error, Machine, StopCause};

use crate::guest::{Kernel, backends, config, console, expect, run_to_end, start};
use crate::snapshot::{FLAG, restore, waits_for_a_flag};

/// RAM that the guest does not use.
const SCRATCH: u64 = 0x60_0000;
/// Bytes that make the first image large.
const BULK: usize = 4 << 20;

struct Setup {
    kernel: Kernel,
    machine: Machine,
    dir: tempfile::TempDir,
    base: Arc<Image>,
}

impl Setup {
    /// A machine that has just been saved as a whole.
    fn new(backend: Backend) -> Self {
        let kernel = Kernel::new(&waits_for_a_flag());
        let machine = start(&kernel, backend);
        expect(&machine, "waiting\n");
        machine.phys_write(SCRATCH, &vec![7; BULK]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.snap");
        let base = machine
            .save(SaveTo::Durable(&path), Extent::Whole, b"")
            .unwrap();
        Self {
            kernel,
            machine,
            dir,
            base,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn save(&self, name: &str, extent: Extent<'_>) -> Result<Arc<Image>, Error> {
        self.machine
            .save(SaveTo::Durable(&self.path(name)), extent, b"")
    }

    /// A machine of its own from the file, as another process would have it.
    fn opened(&self, name: &str) -> Machine {
        let config = config(&self.kernel, Backend::Soft);
        Machine::restore_from(config, &self.path(name)).unwrap()
    }

    fn refusal(&self, name: &str) -> SnapshotError {
        Image::open(&self.path(name)).map(drop).unwrap_err()
    }
}

fn all(machine: &Machine) -> Vec<u8> {
    machine.phys_read(0, 16 << 20).unwrap()
}

#[test]
fn l079_an_incremental_snapshot_holds_what_changed_and_is_as_good_as_a_whole_one() {
    for backend in backends() {
        let setup = Setup::new(backend);
        let machine = &setup.machine;
        // Something changes, something becomes zero, something new comes.
        machine.phys_write(SCRATCH + 0x1_0000, &[1; 100]).unwrap();
        machine
            .phys_write(SCRATCH + 0x3_0000, &[0; 0x1_0000])
            .unwrap();
        machine.phys_write(0xc0_0000, &[2; 100]).unwrap();
        let one = setup.save("one.snap", Extent::Little).unwrap();
        let at_one = all(machine);
        assert!(Arc::ptr_eq(one.base().unwrap(), &setup.base));
        assert!(
            one.disk_size() * 4 < setup.base.disk_size(),
            "{} of {}",
            one.disk_size(),
            setup.base.disk_size()
        );
        // The next one holds what changed since the whole one, not since the last one.
        machine.phys_write(SCRATCH, &[3; 100]).unwrap();
        let two = setup.save("two.snap", Extent::Since(&one)).unwrap();
        let at_two = all(machine);
        assert!(at_one != at_two);
        assert!(Arc::ptr_eq(two.base().unwrap(), &setup.base));
        fs::remove_file(setup.path("one.snap")).unwrap();
        assert!(all(&setup.opened("two.snap")) == at_two, "{backend}");
        // In place: to and fro between images of one base.
        for (image, content) in [
            (&one, &at_one),
            (&two, &at_two),
            (&two, &at_two),
            (&one, &at_one),
        ] {
            machine.rewind(image, Fresh::default()).unwrap();
            assert!(&all(machine) == content, "{backend}");
            machine
                .phys_write(SCRATCH + 0x2_0000, &[9; 0x2_0000])
                .unwrap();
        }
        // And on, to the end.
        let other = restore(&setup.kernel, &two, backend);
        other.phys_write(FLAG, &[1]).unwrap();
        assert_eq!(run_to_end(&other), StopCause::PowerOff, "{backend}");
        assert_eq!(console(&other), "waiting\nK went on\n", "{backend}");
    }
}

#[test]
fn l079_where_nearly_all_has_changed_the_snapshot_is_whole() {
    let setup = Setup::new(Backend::Soft);
    setup.machine.phys_write(SCRATCH, &vec![8; BULK]).unwrap();
    let image = setup.save("a.snap", Extent::Little).unwrap();
    assert!(image.base().is_none());
    // Unless the author wants it so.
    let image = setup.save("b.snap", Extent::Since(&image)).unwrap();
    assert!(image.base().is_some());
    // It has many more runs than a machine may have mappings for each.
    for at in (0..BULK as u64).step_by(2 * 64 * 1024) {
        setup.machine.phys_write(SCRATCH + at, &[4]).unwrap();
    }
    let image = setup
        .save("c.snap", Extent::Since(image.base().unwrap()))
        .unwrap();
    assert!(image.base().is_some());
    assert!(all(&setup.opened("c.snap")) == all(&setup.machine));
}

#[test]
fn l079_a_machine_that_does_not_go_on_from_the_base_is_refused() {
    let setup = Setup::new(Backend::Soft);
    let other = Setup::new(Backend::Soft);
    other.machine.phys_write(SCRATCH, &[1]).unwrap();
    let other = other.save("other.snap", Extent::Whole).unwrap();
    let error = setup.save("a.snap", Extent::Since(&other)).map(drop);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("a.snap") && error.contains("does not go on from"),
        "{error}"
    );
    assert!(!setup.path("a.snap").exists());
    // A file cannot refer to an image without a name; another one without a name can.
    let nameless = SaveTo::Nameless(setup.dir.path());
    let first = setup.machine.save(nameless, Extent::Whole, b"").unwrap();
    let error = setup.save("a.snap", Extent::Since(&first)).map(drop);
    assert!(error.unwrap_err().to_string().contains("(in memory)"));
    assert!(
        setup
            .save("a.snap", Extent::Little)
            .unwrap()
            .base()
            .is_none()
    );
    let first = setup.machine.save(nameless, Extent::Whole, b"").unwrap();
    let second = setup.machine.save(nameless, Extent::Little, b"").unwrap();
    assert!(Arc::ptr_eq(second.base().unwrap(), &first));
}

#[test]
fn l080_a_base_that_is_gone_or_another_one_is_told() {
    let setup = Setup::new(Backend::Soft);
    setup.machine.phys_write(SCRATCH, &[1]).unwrap();
    setup.save("one.snap", Extent::Since(&setup.base)).unwrap();
    let content = all(&setup.machine);
    assert!(all(&setup.opened("one.snap")) == content);
    // Both move together.
    let moved = setup.path("moved");
    fs::create_dir(&moved).unwrap();
    for name in ["base.snap", "one.snap"] {
        fs::copy(setup.path(name), moved.join(name)).unwrap();
    }
    fs::rename(setup.path("base.snap"), setup.path("away.snap")).unwrap();
    assert!(all(&setup.opened("moved/one.snap")) == content);

    let told = |error: &SnapshotError, why: &str| {
        let source = std::error::Error::source(error).unwrap().to_string();
        assert!(error.is_unusable(), "{error}");
        assert!(error.to_string().contains("one.snap"), "{error}");
        assert!(
            source.contains("base.snap") && source.contains(why),
            "{source}"
        );
    };
    told(&setup.refusal("one.snap"), "opening it failed");
    // Another snapshot at its place, one that builds on a third, itself.
    setup.machine.phys_write(SCRATCH, &[2]).unwrap();
    setup.save("base.snap", Extent::Whole).unwrap();
    told(&setup.refusal("one.snap"), "another snapshot");
    fs::copy(setup.path("one.snap"), setup.path("base.snap")).unwrap();
    told(&setup.refusal("one.snap"), "another snapshot");
    fs::write(setup.path("base.snap"), "no").unwrap();
    told(&setup.refusal("one.snap"), "not a snapshot");
    // A damaged one.
    fs::copy(setup.path("away.snap"), setup.path("base.snap")).unwrap();
    assert!(all(&setup.opened("one.snap")) == content);
    flip(&setup.path("base.snap"), -(9 << 20));
    told(&setup.refusal("one.snap"), "checksum");
}

/// Flips a bit at an offset from the end.
fn flip(path: &Path, from_end: i64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let at = file
        .metadata()
        .unwrap()
        .len()
        .checked_add_signed(from_end)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}
