//! The configuration file, builds and checks before a run (cli-and-config sections 6 and 7).

use crate::GOOD;
use crate::support::{Place, Ran};

#[test]
fn r070_config_errors_name_the_file_and_the_line() {
    let place = Place::with(&[
        ("a.test.lua", GOOD),
        ("provium.toml", "[provium]\nroots = 3\n"),
    ]);
    let ran = place.run("run").expect(2);
    assert!(
        ran.stderr.contains("provium.toml") && ran.stderr.contains("line 2"),
        "{}",
        ran.stderr
    );
    place.write("provium.toml", "[provium]\nrots = []\n");
    let ran = place.run("run").expect(0);
    assert!(
        ran.stderr.contains("rots") && ran.stderr.contains("roots"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r039_r072_roots_give_names_and_modules() {
    let place = Place::with(&[
        ("provium.toml", "[provium]\nroots = [\"suite\"]\n"),
        ("suite/lib/help.lua", "return { value = 7 }"),
        (
            "suite/net/a.test.lua",
            "test('x', function(t) t:assert_eq(require('lib.help').value, 7) end)",
        ),
        ("elsewhere/b.test.lua", "error('not selected')"),
    ]);
    let ran = place.run("run").expect(0);
    assert!(
        ran.stdout
            .starts_with("PASS suite/net/a.test.lua (1 passed"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r086_build_commands_run_first_and_may_fail_the_run() {
    let toml =
        "[profiles.p]\nkernel = \"{out}/k\"\nbuild = \"echo built $PROVIUM_PROFILE; exit 3\"\n";
    let place = Place::with(&[("a.test.lua", GOOD), ("provium.toml", toml)]);
    let ran = place.run("run").expect(2);
    assert!(ran.stderr.contains("built p"), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("profile p: build command failed (exit status: 3)"),
        "{}",
        ran.stderr
    );
    assert!(
        place.run("run --no-build").code != 2,
        "the build was skipped"
    );
    assert!(
        place
            .run("prepare p")
            .expect(2)
            .stderr
            .contains("build command failed")
    );
    assert!(
        place
            .run("prepare q")
            .expect(2)
            .stderr
            .contains("no profile `q`")
    );
}

#[test]
fn r065_wrong_guest_files_are_named_before_anything_runs() {
    let source = "local vm = provium:vm('a', 'p'):boot()";
    let toml = "[profiles.p]\nkernel = \"k\"\n";
    let place = Place::with(&[("a.test.lua", source), ("provium.toml", toml)]);
    let ran = place.run("run").expect(2);
    assert!(
        ran.stderr.contains("profile p: kernel") && ran.stderr.contains("No such file"),
        "{}",
        ran.stderr
    );
    place.write("k", "this is not a kernel at all");
    let ran = place.run("run").expect(2);
    assert!(ran.stderr.contains("profile p: kernel"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--kernel"), "{}", ran.stderr);
    // So are an initramfs and an agent of no known format.
    let toml = |line: &str| format!("[profiles.p]\nkernel = \"k\"\n{line}\n");
    for (line, field) in [
        ("initrd = \"k\"", "initrd"),
        ("agent_overlay_path = \"k\"", "agent_overlay_path"),
    ] {
        place.write("provium.toml", &toml(line));
        let ran = place.run("run").expect(2);
        let expected = format!("profile p: {field}: ");
        assert!(
            ran.stderr.contains(&expected) && ran.stderr.contains("/k: neither a cpio archive"),
            "{}",
            ran.stderr
        );
    }
    let mut command = place.command("run");
    place.write("provium.toml", &toml(""));
    command.env("PROVIUM_OVERLAY", "nowhere");
    let ran = Ran::from(command.output().unwrap()).expect(2);
    assert!(
        ran.stderr
            .contains("profile p: PROVIUM_OVERLAY: nowhere: No such file"),
        "{}",
        ran.stderr
    );
    place.write("provium.toml", "[profiles.p]\nkernel = \"k\"\n");
    // A profile that no file names is only a warning.
    place.write("a.test.lua", GOOD);
    let ran = place.run("run").expect(0);
    assert!(
        ran.stderr.contains("warning: profile p: kernel"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r070_a_config_error_points_at_its_place() {
    let place = Place::with(&[("provium.toml", "[provium]\nroots = 3\n")]);
    let ran = place.run("list").expect(2);
    assert!(ran.stderr.contains("line 2, column 9"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("  2 | roots = 3\n    |         ^"),
        "{}",
        ran.stderr
    );
}

/// A guest that lacks a disk it was promised must not boot as if nothing were amiss.
#[test]
fn r077_r124_a_profile_with_disks_is_named() {
    let profiles = "[profiles.r]\nkernel = \"k\"\nrootfs = \"root.img\"\n\
                    [profiles.d]\nkernel = \"k\"\ndisks = [{ path = \"a.img\" }]\n";
    let place = Place::with(&[("provium.toml", profiles), ("k", "no kernel")]);
    let ran = place.run("doctor");
    let said = ran.stdout + &ran.stderr;
    for line in [
        "profile r: rootfs: this version attaches no disks",
        "profile d: disks: this version attaches no disks",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}
