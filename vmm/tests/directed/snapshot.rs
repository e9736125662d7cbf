//! Machines that go on from an image: on the backend they were saved on, and on the other (L-080).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use provium_vmm::snapshot::{Extent, Fresh, Image, SaveTo, SnapshotError};
use provium_vmm::{Backend, Machine, MachineConfig, MachineState, StopCause, Waited};

use crate::asm::{Asm, CODE, reg};
use crate::guest::{Kernel, PATIENCE, backends, config, console, expect, run_to_end, start};
use crate::machine::{all_counting, button_guest, timer_guest};

/// Somewhere in RAM that guests look at.
pub(crate) const FLAG: u64 = 0x50_0000;

/// Every way from a backend to a backend.
fn ways() -> Vec<(Backend, Backend)> {
    let backends = backends();
    let pairs = backends
        .iter()
        .flat_map(|a| backends.iter().map(|b| (*a, *b)));
    pairs.collect()
}

fn save(machine: &Machine) -> Arc<Image> {
    machine
        .save(
            SaveTo::Nameless(&std::env::temp_dir()),
            Extent::Whole,
            b"owner",
        )
        .unwrap()
}

/// A running machine that goes on from `image`.
pub(crate) fn restore(kernel: &Kernel, image: &Arc<Image>, backend: Backend) -> Machine {
    let machine = Machine::restore(config(kernel, backend), image, Fresh::default()).unwrap();
    assert_eq!(machine.state(), MachineState::Paused);
    machine.resume().unwrap();
    machine
}

/// Says so, waits for the flag, and tells registers that it had set before.
pub(crate) fn waits_for_a_flag() -> Vec<u8> {
    let mut asm = Asm::new();
    asm.mov(reg::RSI, u64::from(b'K'))
        .print("waiting\n")
        .mov(reg::RBX, FLAG);
    let poll = asm.here();
    // mov eax, [rbx]; test eax, eax
    asm.load_eax(reg::RBX, 0).raw(&[0x85, 0xc0]).jz(poll);
    // mov eax, esi; mov edx, 0x3f8; out dx, al
    asm.raw(&[0x89, 0xf0]).mov(reg::RDX, 0x3f8).raw(&[0xee]);
    asm.print(" went on\n").power_off();
    asm.finish()
}

#[test]
fn l080_a_machine_goes_on_on_either_backend_and_so_does_the_one_saved() {
    let kernel = Kernel::new(&waits_for_a_flag());
    for (from, to) in ways() {
        let machine = start(&kernel, from);
        expect(&machine, "waiting\n");
        let image = save(&machine);
        assert_eq!(image.owner(), b"owner");
        assert_eq!(machine.state(), MachineState::Running);
        for machine in [restore(&kernel, &image, to), machine] {
            machine.phys_write(FLAG, &[1]).unwrap();
            assert_eq!(run_to_end(&machine), StopCause::PowerOff, "{from} to {to}");
            assert_eq!(console(&machine), "waiting\nK went on\n", "{from} to {to}");
        }
    }
}

#[test]
fn l080_armed_timers_fire_in_the_machine_that_goes_on() {
    let kernel = Kernel::new(&timer_guest(200));
    for (from, to) in ways() {
        let machine = start(&kernel, from);
        expect(&machine, "..");
        let image = save(&machine);
        machine.stop();
        let other = restore(&kernel, &image, to);
        assert_eq!(
            run_to_end(&other),
            StopCause::PowerOff,
            "{from} to {to}: {}",
            console(&other)
        );
        let dots = format!("{}done\n", ".".repeat(200));
        assert_eq!(console(&other), dots, "{from} to {to}");
    }
}

#[test]
fn l080_interrupt_routes_and_devices_go_on() {
    let kernel = Kernel::new(&button_guest());
    for (from, to) in ways() {
        let machine = start(&kernel, from);
        expect(&machine, "ready\n");
        let other = restore(&kernel, &save(&machine), to);
        other.power_button();
        expect(&other, "ready\n1 pressed\n");
        assert_eq!(console(&machine), "ready\n", "{from} to {to}");
    }
}

/// Everything of a soft machine that can be compared.
fn fingerprint(machine: &Machine) -> (Vec<u8>, Vec<String>, Option<u64>, u64) {
    let states = machine.vcpu_states().unwrap();
    let states = states
        .iter()
        .map(|s| format!("{:?} {:?} {:?}", s.regs, s.sregs, s.msrs));
    let states = states.collect();
    let memory = machine.phys_read(0, 0x10_0000).unwrap();
    (
        memory,
        states,
        machine.stats().instructions,
        machine.now_ns(),
    )
}

#[test]
fn l080_a_soft_machine_that_goes_on_executes_the_very_same_instructions() {
    let kernel = Kernel::new(&all_counting(3));
    let mut config = config(&kernel, Backend::Soft);
    config.cpus = 3;
    let machine = Machine::start(config.clone()).unwrap();
    let run = |machine: &Machine, until| {
        let end = machine.wait(Some(until), Some(PATIENCE), || None::<()>);
        assert_eq!(end, Waited::GuestDeadline);
    };
    run(&machine, 400_000);
    let image = save(&machine);
    let other = Machine::restore(config, &image, Fresh::default()).unwrap();
    other.resume().unwrap();
    // Where a run stops decides whose turn is next, so all runs stop at the same times.
    let stops = [450_000, 1_234_567];
    let path = |machine: &Machine| {
        let mut seen = vec![fingerprint(machine)];
        for until in stops {
            run(machine, until);
            seen.push(fingerprint(machine));
        }
        seen
    };
    let original = path(&machine);
    assert!(path(&other) == original, "the machine that goes on differs");
    other.rewind(&image, Fresh::default()).unwrap();
    other.resume().unwrap();
    assert!(path(&other) == original, "the machine put back differs");
}

#[test]
fn going_back_in_place_undoes_memory_console_and_time() {
    let kernel = Kernel::new(&waits_for_a_flag());
    for backend in backends() {
        let machine = start(&kernel, backend);
        expect(&machine, "waiting\n");
        machine.pause().unwrap();
        let image = save(&machine);
        assert_eq!(machine.state(), MachineState::Paused);
        let then = machine.now_ns();
        for _ in 0..3 {
            machine.phys_write(FLAG + 0x1000, b"dirt").unwrap();
            machine.resume().unwrap();
            machine.phys_write(0x3000, &[9; 5000]).unwrap();
            machine.rewind(&image, Fresh::default()).unwrap();
            assert_eq!(machine.phys_read(FLAG + 0x1000, 4).unwrap(), [0; 4]);
            assert_eq!(machine.phys_read(0x3000, 5000).unwrap(), [0; 5000]);
            assert_eq!(machine.now_ns(), then, "{backend}");
        }
        machine.phys_write(FLAG, &[1]).unwrap();
        machine.resume().unwrap();
        assert_eq!(run_to_end(&machine), StopCause::PowerOff, "{backend}");
        assert_eq!(console(&machine), "waiting\nK went on\n", "{backend}");
    }
}

#[test]
fn a_machine_that_went_on_can_be_reset_and_saved_again() {
    let kernel = Kernel::new(&waits_for_a_flag());
    for backend in backends() {
        let machine = start(&kernel, backend);
        expect(&machine, "waiting\n");
        let other = restore(&kernel, &save(&machine), backend);
        other.phys_write(FLAG + 8, b"second").unwrap();
        let third = restore(&kernel, &save(&other), backend);
        assert_eq!(third.phys_read(FLAG + 8, 6).unwrap(), b"second");
        third.reset().unwrap();
        expect(&third, "waiting\nwaiting\n");
        assert_eq!(third.phys_read(FLAG + 8, 6).unwrap(), [0; 6]);
        // What lies under memory now is no image any more.
        let fourth = restore(&kernel, &save(&third), backend);
        fourth.phys_write(FLAG, &[1]).unwrap();
        assert_eq!(run_to_end(&fourth), StopCause::PowerOff, "{backend}");
    }
}

#[test]
fn many_machines_share_the_pages_of_one_image() {
    let kernel = Kernel::new(&waits_for_a_flag());
    let machine = start(&kernel, Backend::Soft);
    expect(&machine, "waiting\n");
    // 8 MiB that are not zero.
    for at in (0x60_0000..0xe0_0000).step_by(4096) {
        machine.phys_write(at, &[7; 4096]).unwrap();
    }
    let image = save(&machine);
    let own = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = own();
    let clones: Vec<Machine> = (0..20)
        .map(|_| restore(&kernel, &image, Backend::Soft))
        .collect();
    for clone in &clones {
        assert_eq!(
            clone.phys_read(0x60_0000, 0x80_0000).unwrap(),
            vec![7; 0x80_0000]
        );
    }
    // Twenty copies would be 160 MiB; what each needs of its own are the processor's tables.
    let grown = own().saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB for 20 machines");
}

fn saved_file(dir: &Path) -> (Kernel, std::path::PathBuf) {
    let kernel = Kernel::new(&waits_for_a_flag());
    let machine = start(&kernel, Backend::Soft);
    expect(&machine, "waiting\n");
    let path = dir.join("a.snap");
    machine
        .save(SaveTo::Durable(&path), Extent::Whole, b"owner")
        .unwrap();
    (kernel, path)
}

#[test]
fn l080_a_file_is_opened_by_name_and_leaves_no_traces_of_its_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, path) = saved_file(dir.path());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let machine = Machine::restore_from(config(&kernel, Backend::Soft), &path).unwrap();
    // The machine has it open; the name is nobody's business any more.
    fs::remove_file(&path).unwrap();
    machine.phys_write(FLAG, &[1]).unwrap();
    machine.resume().unwrap();
    assert_eq!(run_to_end(&machine), StopCause::PowerOff);
}

#[test]
fn l080_every_damage_is_an_error_that_names_the_file_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, path) = saved_file(dir.path());
    let good = Image::open(&path).unwrap();
    let len = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    // The first pages densely, the rest in samples, the code of the guest among them.
    let ram = len - (16 << 20);
    let sampled = (0..ram)
        .step_by(97)
        .chain((ram..len).step_by(61_681))
        .chain([ram + CODE]);
    let mut refused = 0;
    for at in sampled {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        match Image::open(&path) {
            Err(error) => {
                refused += 1;
                assert!(
                    error.to_string().contains(path.to_str().unwrap()),
                    "{error}"
                );
            }
            // A byte that belongs to nothing: padding, or a hole that no machine maps.
            Ok(image) => {
                let machine =
                    Machine::restore(config(&kernel, Backend::Soft), &image, Fresh::default());
                let machine = machine.unwrap();
                let memory = |m: &Machine| m.phys_read(0, 16 << 20).unwrap();
                let sound =
                    Machine::restore(config(&kernel, Backend::Soft), &good, Fresh::default());
                assert!(
                    memory(&machine) == memory(&sound.unwrap()),
                    "offset {at:#x}"
                );
            }
        }
        file.write_all_at(&byte, at).unwrap();
    }
    assert!(
        refused > 50,
        "only {refused} of the flipped bytes were noticed"
    );
    Image::open(&path).unwrap();
    drop(good);
    for len in (0..len)
        .step_by(400_009)
        .chain([1, 100, 4095, 4096, len - 1])
    {
        let cut = dir.path().join("cut.snap");
        fs::copy(&path, &cut).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&cut)
            .unwrap()
            .set_len(len)
            .unwrap();
        let error = Image::open(&cut).map(drop).unwrap_err();
        assert!(error.to_string().contains("cut.snap"), "{error}");
        assert!(error.is_unusable() || len == 0, "{error}");
    }
}

#[test]
fn l080_other_versions_and_other_files_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (_kernel, path) = saved_file(dir.path());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[7, 0, 0, 0], 8).unwrap();
    let error = Image::open(&path).map(drop).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Version { found: 7, .. }),
        "{error}"
    );
    fs::write(&path, "return 1").unwrap();
    let error = Image::open(&path).map(drop).unwrap_err();
    assert!(
        matches!(error, SnapshotError::NotASnapshot { .. }),
        "{error}"
    );
    let error = Image::open(&dir.path().join("none")).map(drop).unwrap_err();
    assert!(!error.is_unusable(), "{error}");
}

#[test]
fn a_writer_that_finds_no_room_leaves_the_machine_running_and_nothing_behind() {
    let kernel = Kernel::new(&waits_for_a_flag());
    let machine = start(&kernel, Backend::Soft);
    expect(&machine, "waiting\n");
    let missing = Path::new("/nonexistent/a.snap");
    let error = machine
        .save(SaveTo::Durable(missing), Extent::Whole, b"")
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("/nonexistent/a.snap"), "{error}");
    // A device that is always full.
    let error = machine
        .save(
            SaveTo::Durable(Path::new("/dev/full/a")),
            Extent::Whole,
            b"",
        )
        .map(drop);
    assert!(error.is_err());
    machine.phys_write(FLAG, &[1]).unwrap();
    assert_eq!(run_to_end(&machine), StopCause::PowerOff);
}

#[test]
fn an_image_of_another_size_does_not_fit_in_place() {
    let kernel = Kernel::new(&waits_for_a_flag());
    let machine = start(&kernel, Backend::Soft);
    let image = save(&machine);
    let mut larger: MachineConfig = config(&kernel, Backend::Soft);
    larger.memory = 32 << 20;
    let other = Machine::start(larger).unwrap();
    let error = other
        .rewind(&image, Fresh::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not fit"), "{error}");
}
