//! What a profile says: kernel, initrd, command line, init, defaults of boots (cli-and-config R-075..R-088, R-124).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::{Section, resolve};
use super::{ConfigError, Places};

/// Where a kernel or an initrd comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFile {
    /// A file of the user.
    Path(PathBuf),
    /// A guest prepared once into the cache by a recipe of `fixtures/`; in files `recipe:NAME`.
    Recipe(String),
    /// The running host's kernel; as an initrd, its modules with the userland of `minimal`; in files `host`.
    Host,
}

impl GuestFile {
    /// As a configuration or the command line writes it: `host`, `recipe:NAME` or a path that `resolve` completes.
    pub fn parse(text: &str, resolve: impl FnOnce(&str) -> PathBuf) -> Self {
        match (text, text.strip_prefix("recipe:")) {
            ("host", _) => Self::Host,
            (_, Some(name)) => Self::Recipe(name.to_owned()),
            _ => Self::Path(resolve(text)),
        }
    }
}

/// A disk of a profile (R-124, lua-api L-239).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileDisk {
    /// Image file, or a blank disk.
    pub source: DiskSource,
    /// Name for `vm:disk(id)`.
    pub id: Option<String>,
    /// `raw` or `qcow2`.
    pub format: String,
    /// Whether the guest may write.
    pub readonly: bool,
    /// `writeback` or `writethrough`.
    pub cache: String,
}

/// What a disk holds at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// An image file.
    Path(PathBuf),
    /// Nothing: a blank sparse disk of this many bytes.
    Scratch(u64),
}

/// One profile, all paths resolved, all defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: String,
    /// From a classic `[profile.NAME]` table: decides which init is tried first.
    pub classic: bool,
    /// Directory in which `build` runs and relative paths start.
    pub dir: PathBuf,
    /// Kernel.
    pub kernel: GuestFile,
    /// Initramfs.
    pub initrd: Option<GuestFile>,
    /// Root disk image.
    pub rootfs: Option<PathBuf>,
    /// Program that becomes PID 1 after the agent detached.
    pub init: Option<String>,
    /// Inline command line.
    pub cmdline: Option<String>,
    /// File with the base of the command line, read at boot.
    pub cmdline_file: Option<PathBuf>,
    /// Added after the base.
    pub append: String,
    /// Reported, not interpreted.
    pub guest_os: String,
    /// Whether the agent archive is appended to the initrd.
    pub inject_agent: bool,
    /// Agent archive instead of the built-in one.
    pub agent_overlay_path: Option<PathBuf>,
    /// Default of `memory`.
    pub memory: u64,
    /// Default of `cpus`.
    pub cpus: u32,
    /// Build command.
    pub build: Option<String>,
    /// Directory that `{out}` means.
    pub build_out: PathBuf,
    /// Disks, in order.
    pub disks: Vec<ProfileDisk>,
    /// Boot timeout of this profile.
    pub agent_boot_timeout: Option<Duration>,
    /// Whether a boot may go on from the state of an earlier one with the same options.
    pub warm: bool,
}

/// Default memory of a VM (L-064).
pub const DEFAULT_MEMORY: u64 = 512 << 20;

impl Profile {
    /// What is wrong with a profile that asks for disks, naming the field: machines have none, and a guest that lacks
    /// one it was promised must not boot as if nothing were amiss.
    #[must_use]
    pub fn disk_problem(&self) -> Option<String> {
        let field = match (&self.rootfs, &*self.disks) {
            (Some(_), _) => "rootfs",
            (None, []) => return None,
            (None, _) => "disks",
        };
        Some(format!(
            "profile {}: {field}: this version attaches no disks; put the files into an initramfs (`initrd`), or into \
             the guest with the boot option `files`",
            self.name
        ))
    }

    /// Everything of it that a booted guest depends on, besides the content of kernel and initrd: two profiles
    /// with equal fingerprints boot the same from the same files. Paths of the project are left out.
    pub(crate) fn fingerprint(&self) -> String {
        let read = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| std::fs::read(path).map_err(|error| error.kind()))
        };
        let disks: Vec<_> = self
            .disks
            .iter()
            .map(|disk| {
                (
                    &disk.source,
                    &disk.id,
                    &disk.format,
                    disk.readonly,
                    &disk.cache,
                )
            })
            .collect();
        format!(
            "{:?}",
            (
                self.classic,
                &self.rootfs,
                &self.init,
                &self.cmdline,
                read(&self.cmdline_file),
                &self.append,
                self.inject_agent,
                read(&self.agent_overlay_path),
                self.memory,
                self.cpus,
                disks,
            )
        )
    }

    /// The built-in profile `minimal`.
    pub(super) fn minimal(places: &Places, dir: &Path) -> Self {
        Self {
            name: "minimal".to_owned(),
            classic: false,
            dir: dir.to_owned(),
            kernel: GuestFile::Recipe("minimal".to_owned()),
            initrd: Some(GuestFile::Recipe("minimal".to_owned())),
            rootfs: None,
            init: None,
            cmdline: None,
            cmdline_file: None,
            append: String::new(),
            guest_os: "linux".to_owned(),
            inject_agent: true,
            agent_overlay_path: None,
            memory: DEFAULT_MEMORY,
            cpus: 1,
            build: None,
            build_out: places.builds().join("minimal"),
            disks: Vec::new(),
            agent_boot_timeout: None,
            warm: true,
        }
    }

    pub(super) fn read(
        name: &str,
        classic: bool,
        section: &Section<'_>,
        dir: &Path,
        places: &Places,
    ) -> Result<Self, ConfigError> {
        let home = places.home.as_deref();
        let build_out = match section.string("build_out")? {
            Some(text) => resolve(dir, home, &text),
            None => places.builds().join(name),
        };
        let out = build_out.to_string_lossy().into_owned();
        let in_dir = |base: &Path, text: String| resolve(base, home, &text.replace("{out}", &out));
        let root = section
            .string("root")?
            .map(|text| resolve(dir, home, &text));
        let lookup = root.as_deref().unwrap_or(dir);
        let path = |key| Ok(section.string(key)?.map(|text| in_dir(dir, text)));
        let kernel = section.string("kernel")?;
        let profile = Self {
            name: name.to_owned(),
            classic,
            dir: dir.to_owned(),
            kernel: match kernel {
                Some(text) => GuestFile::parse(&text, |text| in_dir(lookup, text.to_owned())),
                None => return Err(section.invalid("kernel is required")),
            },
            initrd: section
                .string("initrd")?
                .map(|text| GuestFile::parse(&text, |text| in_dir(dir, text.to_owned()))),
            rootfs: path("rootfs")?,
            init: section.string("init")?,
            cmdline: section.string("cmdline")?,
            cmdline_file: section
                .string("cmdline_file")?
                .map(|text| in_dir(lookup, text)),
            append: section.string("append")?.unwrap_or_default(),
            guest_os: section
                .string("guest_os")?
                .unwrap_or_else(|| "linux".to_owned()),
            inject_agent: section.boolean("inject_agent")?.unwrap_or(true),
            agent_overlay_path: path("agent_overlay_path")?,
            memory: section.size("memory")?.unwrap_or(DEFAULT_MEMORY),
            cpus: section.count("cpus")?.unwrap_or(1),
            build: section
                .string("build")?
                .map(|text| text.replace("{out}", &out)),
            build_out,
            disks: read_disks(section, dir, home)?,
            agent_boot_timeout: section.duration("agent_boot_timeout")?,
            warm: section.boolean("warm")?.unwrap_or(true),
        };
        profile.check(section)?;
        Ok(profile)
    }

    /// The rules that hold between fields.
    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let blank = self
            .cmdline
            .as_deref()
            .is_some_and(|text| text.trim().is_empty());
        if blank && self.cmdline_file.is_none() {
            let name = &self.name;
            let advice = "give it text, or remove the key to get the default \"panic=-1\"";
            return Err(section.invalid(format!("profile {name} has empty cmdline: {advice}")));
        }
        if !self.inject_agent && self.initrd.is_none() && self.rootfs.is_none() {
            let advice =
                "inject_agent = false needs an initrd or a rootfs that starts an agent itself";
            return Err(section.invalid(advice));
        }
        Ok(())
    }

    /// The command line before harness tokens: file content with blanks collapsed, then `cmdline`, then `append`;
    /// `panic=-1` when neither of the first two is given.
    pub fn base_cmdline(&self) -> std::io::Result<String> {
        let mut parts = Vec::new();
        if let Some(path) = &self.cmdline_file {
            let content = std::fs::read_to_string(path)?;
            parts.push(content.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        match (&self.cmdline, &self.cmdline_file) {
            (Some(text), _) => parts.push(text.trim().to_owned()),
            (None, None) => parts.push("panic=-1".to_owned()),
            (None, Some(_)) => {}
        }
        parts.push(self.append.trim().to_owned());
        parts.retain(|part| !part.is_empty());
        Ok(parts.join(" "))
    }
}

fn read_disks(
    section: &Section<'_>,
    dir: &Path,
    home: Option<&Path>,
) -> Result<Vec<ProfileDisk>, ConfigError> {
    section
        .tables("disks")?
        .iter()
        .map(|disk| read_disk(disk, dir, home))
        .collect()
}

fn read_disk(
    disk: &Section<'_>,
    dir: &Path,
    home: Option<&Path>,
) -> Result<ProfileDisk, ConfigError> {
    let source = match (disk.string("path")?, disk.size("scratch")?) {
        (Some(path), None) => DiskSource::Path(resolve(dir, home, &path)),
        (None, Some(size)) => DiskSource::Scratch(size),
        _ => return Err(disk.invalid("needs exactly one of path and scratch")),
    };
    Ok(ProfileDisk {
        source,
        id: disk.string("id")?,
        format: one_of(disk, "format", &["raw", "qcow2"])?,
        readonly: disk.boolean("readonly")?.unwrap_or(false),
        cache: one_of(disk, "cache", &["writethrough", "writeback"])?,
    })
}

/// A string out of a fixed set; the first is the default.
fn one_of(section: &Section<'_>, key: &'static str, legal: &[&str]) -> Result<String, ConfigError> {
    let value = section.string(key)?.unwrap_or_else(|| legal[0].to_owned());
    if legal.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(section.invalid(format!(
        "{key} must be one of {}, not {value:?}",
        legal.join(", ")
    )))
}
