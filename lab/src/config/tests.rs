//! Tests of the configuration file, cited by row.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn places() -> Places {
    Places {
        home: Some(PathBuf::from("/home/u")),
        cache: PathBuf::from("/home/u/.cache/provium"),
        build_dir: None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/p/provium.toml"), text, &places())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn r068_without_a_file_there_is_minimal_and_no_roots() {
    let config = Config::builtin(Path::new("/p"), &places());
    assert!(config.roots.is_empty());
    let minimal = config.profile("minimal").unwrap();
    assert_eq!(minimal.kernel, GuestFile::Recipe("minimal".into()));
    assert_eq!((minimal.memory, minimal.cpus), (512 << 20, 1));
    assert_eq!(minimal.base_cmdline().unwrap(), "panic=-1");
}

#[test]
fn r068_a_file_is_found_by_walking_up() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("provium.toml"),
        "[provium]\nroots = ['t']\n",
    )
    .unwrap();
    let deep = dir.path().join("a/b");
    std::fs::create_dir_all(&deep).unwrap();
    let config = Config::discover(&deep, &places()).unwrap();
    assert_eq!(config.roots, vec![dir.path().join("t")]);
    assert!(config.profiles.contains_key("minimal"));
}

#[test]
fn r069_paths_start_at_the_file_and_tilde_is_home() {
    let config = parse(
        "[provium]\nroots = ['tests', '/abs', '~/mine']\ncache_dir = 'c'\ncache_max_size = '1G'\n\
         [profiles.a]\nkernel = 'k/bzImage'\ninitrd = '~/i'\n",
    )
    .unwrap();
    assert_eq!(
        config.roots,
        ["/p/tests", "/abs", "/home/u/mine"].map(PathBuf::from)
    );
    assert_eq!(config.cache_dir, PathBuf::from("/p/c"));
    assert_eq!(config.cache_max_size, 1 << 30);
    let profile = config.profile("a").unwrap();
    assert_eq!(profile.kernel, GuestFile::Path("/p/k/bzImage".into()));
    assert_eq!(profile.initrd, Some(GuestFile::Path("/home/u/i".into())));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn r070_errors_name_path_and_line() {
    let missing = Config::load(Path::new("/nonexistent/provium.toml"), &places()).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("read /nonexistent/provium.toml: "),
        "{missing}"
    );
    assert!(
        error("[provium]\nroots = \n").starts_with("parse /p/provium.toml: line 2, column 9: ")
    );
    let wrong = error("[profiles.a]\nkernel = 'k'\nmemory = true\n");
    assert_eq!(
        wrong,
        "invalid config in /p/provium.toml: line 3, column 10: [profiles.a]: memory must be a size, not boolean\n  3 | memory = true\n    |          ^"
    );
    let quoted = error("[profiles.a]\nkernel = 'k'\nmemory = '12Q'\n");
    assert!(
        quoted.contains("line 3") && quoted.contains("\"12Q\""),
        "{quoted}"
    );
}

#[test]
fn r070_unknown_keys_warn_with_the_nearest_known_one() {
    let config =
        parse("[profiles.a]\nkernel = 'k'\nintrd = 'x'\n[proviun]\n[provium]\nzzz = 1\n").unwrap();
    assert_eq!(
        config.warnings,
        [
            "/p/provium.toml:6:1: [provium]: unknown key \"zzz\"\n  6 | zzz = 1\n    | ^",
            "/p/provium.toml:3:1: [profiles.a]: unknown key \"intrd\" (did you mean \"initrd\"?)\n  3 | intrd = 'x'\n    | ^",
            "/p/provium.toml:4:2: top level: unknown key \"proviun\" (did you mean \"provium\"?)\n  4 | [proviun]\n    |  ^",
        ]
    );
}

#[test]
fn r075_kernel_is_required() {
    let text = error("[profiles.a]\ninitrd = 'x'\n");
    assert!(
        text.contains("line 1, column 11: [profiles.a]: kernel is required\n"),
        "{text}"
    );
}

#[test]
fn r088_kernels_of_recipes_and_of_the_host() {
    let config = parse("[profiles.a]\nkernel='host'\ninitrd='recipe:userland'\n").unwrap();
    let profile = config.profile("a").unwrap();
    assert_eq!(profile.kernel, GuestFile::Host);
    assert_eq!(profile.initrd, Some(GuestFile::Recipe("userland".into())));
}

#[test]
fn r127_files_given_on_the_command_line_replace_those_of_the_profile() {
    let mut config = Config::builtin(Path::new("/p"), &places());
    config
        .replace_guest("minimal", Some("k"), Some("/i"), Path::new("/cwd"))
        .unwrap();
    let profile = config.profile("minimal").unwrap();
    assert_eq!(profile.kernel, GuestFile::Path("/cwd/k".into()));
    assert_eq!(profile.initrd, Some(GuestFile::Path("/i".into())));
    let mut config = Config::builtin(Path::new("/p"), &places());
    config
        .replace_guest("minimal", Some("host"), None, Path::new("/cwd"))
        .unwrap();
    let profile = config.profile("minimal").unwrap();
    assert_eq!(
        (&profile.kernel, &profile.initrd),
        (&GuestFile::Host, &Some(GuestFile::Host))
    );
    assert!(
        config
            .replace_guest("nope", None, None, Path::new("/cwd"))
            .is_err()
    );
}

#[test]
fn r079_the_command_line_is_file_then_cmdline_then_append() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cmd");
    std::fs::write(&file, "  a=1\n b=2\t\n").unwrap();
    let text = format!(
        "[profiles.both]\nkernel='k'\ncmdline_file='{0}'\ncmdline=' c '\nappend='d'\n\
         [profiles.file]\nkernel='k'\ncmdline_file='{0}'\n[profiles.none]\nkernel='k'\nappend=' quiet '\n",
        file.display()
    );
    let config = parse(&text).unwrap();
    let line = |name: &str| config.profile(name).unwrap().base_cmdline().unwrap();
    assert_eq!(line("both"), "a=1 b=2 c d");
    assert_eq!(line("file"), "a=1 b=2");
    assert_eq!(line("none"), "panic=-1 quiet");
    let blank = error("[profiles.a]\nkernel='k'\ncmdline='  '\n");
    assert!(blank.contains("profile a has empty cmdline"), "{blank}");
}

#[test]
fn r083_without_agent_something_must_start_one() {
    let text = error("[profiles.a]\nkernel='k'\ninject_agent=false\n");
    assert!(text.contains("needs an initrd or a rootfs"), "{text}");
}

#[test]
fn r087_out_means_the_build_directory() {
    let config = parse(
        "[profiles.a]\nkernel='{out}/bzImage'\ninitrd='{out}/i'\nbuild='make O={out}'\n\
         [profiles.b]\nkernel='{out}/k'\nbuild_out='o'\n",
    )
    .unwrap();
    let a = config.profile("a").unwrap();
    assert_eq!(
        a.kernel,
        GuestFile::Path("/home/u/.cache/provium/builds/a/bzImage".into())
    );
    assert_eq!(
        a.build.as_deref(),
        Some("make O=/home/u/.cache/provium/builds/a")
    );
    let b = config.profile("b").unwrap();
    assert_eq!(b.kernel, GuestFile::Path("/p/o/k".into()));
}

#[test]
fn a_profile_in_both_tables_is_an_error_and_classic_ones_are_marked() {
    let config = parse("[profile.old]\nkernel='k'\nmemory=1048576\n").unwrap();
    assert!(config.profile("old").unwrap().classic);
    assert_eq!(config.profile("old").unwrap().memory, 1 << 20);
    let twice = error("[profiles.a]\nkernel='k'\n[profile.a]\nkernel='k'\n");
    assert!(
        twice.contains("line 3") && twice.contains("profile a is defined twice"),
        "{twice}"
    );
}

#[test]
fn r123_a_directory_of_profiles() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x", "y"] {
        let sub = dir.path().join("vms").join(name);
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(
            sub.join("profile.provium.toml"),
            "kernel = 'vmlinux'\nkernal = 1\n",
        )
        .unwrap();
    }
    std::fs::create_dir_all(dir.path().join("vms/no-profile")).unwrap();
    let file = dir.path().join("provium.toml");
    std::fs::write(&file, "[profiles]\nfrom_dir = 'vms'\n").unwrap();
    let config = Config::load(&file, &places()).unwrap();
    assert_eq!(
        config.profiles.keys().collect::<Vec<_>>(),
        ["minimal", "x", "y"]
    );
    let x = config.profile("x").unwrap();
    assert_eq!(x.kernel, GuestFile::Path(dir.path().join("vms/x/vmlinux")));
    assert_eq!(config.warnings.len(), 2);
    assert!(
        config.warnings[0].contains("did you mean \"kernel\"?"),
        "{:?}",
        config.warnings
    );
}

#[test]
fn r124_root_disks_and_boot_timeout() {
    let config = parse(
        "[profiles.a]\nkernel='boot/k'\nroot='tree'\nagent_boot_timeout='1m'\n\
         disks=[{path='d.img', id='d', readonly=true}, {scratch='1G', cache='writeback'}]\n",
    )
    .unwrap();
    let profile = config.profile("a").unwrap();
    assert_eq!(profile.kernel, GuestFile::Path("/p/tree/boot/k".into()));
    assert_eq!(profile.agent_boot_timeout, Some(Duration::from_secs(60)));
    assert_eq!(profile.disks[0].source, DiskSource::Path("/p/d.img".into()));
    assert!(profile.disks[0].readonly);
    assert_eq!(profile.disks[1].source, DiskSource::Scratch(1 << 30));
    let text = error("[profiles.a]\nkernel='k'\ndisks=[{id='x'}]\n");
    assert!(
        text.contains("disks[1]: needs exactly one of path and scratch"),
        "{text}"
    );
}

#[test]
fn l030_an_unknown_profile_lists_the_known_ones() {
    let config = parse("[profiles.a]\nkernel='k'\n").unwrap();
    let text = config.profile("b").unwrap_err().to_string();
    assert_eq!(text, "no profile \"b\"; known: a, minimal");
}
