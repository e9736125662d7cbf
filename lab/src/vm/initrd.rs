//! The initial RAM file system of a boot: the profile's initramfs, the agent's archive over it, injected files over
//! both (cli-and-config; lua-api L-070, L-244).
//!
//! Compressed archives are unpacked here, so that the guest's processor need not; what was read stays in the process
//! for the next boot of the same file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use provium_vmm::InitrdPart;
use provium_vmm::boot::initramfs::{Archive, Index, Unpacked};

use super::host_path;
use super::options::{BootOptions, FileContent};
use crate::error::Reason;
use crate::overlay::agent_archive;
use crate::wait::lock;

/// An initramfs file as it was read.
#[derive(Default)]
pub(super) struct Base {
    parts: Vec<Arc<[u8]>>,
    index: Index,
    /// The built-in agent's archive over it, made on first use.
    agent: Mutex<Option<Arc<[u8]>>>,
}

/// Files read before, with size and time by which a changed one is told apart.
type Cache = BTreeMap<PathBuf, (u64, Option<SystemTime>, Arc<Base>)>;

static CACHE: Mutex<Cache> = Mutex::new(BTreeMap::new());

impl Base {
    /// Reads an initramfs.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, Reason> {
        let fail = |source| Reason::Host {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let meta = path.metadata().map_err(fail)?;
        let stamp = (meta.len(), meta.modified().ok());
        if let Some((len, time, base)) = lock(&CACHE).get(path)
            && (*len, *time) == stamp
        {
            return Ok(base.clone());
        }
        let base = Arc::new(Self::parse(&std::fs::read(path).map_err(fail)?, path)?);
        lock(&CACHE).insert(path.to_owned(), (stamp.0, stamp.1, base.clone()));
        Ok(base)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, Reason> {
        let fail = |error| refused(&path.display().to_string(), error);
        let unpacked = Unpacked::new(bytes).map_err(fail)?;
        let index = Index::of(&unpacked).map_err(fail)?;
        let parts = unpacked.archives().map(Into::into).collect();
        Ok(Self {
            parts,
            index,
            agent: Mutex::default(),
        })
    }

    /// Whether the initramfs has this path.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.index.contains(path)
    }

    fn built_in_agent(&self) -> Result<Arc<[u8]>, Reason> {
        let mut slot = lock(&self.agent);
        if let Some(archive) = &*slot {
            return Ok(archive.clone());
        }
        let archive: Arc<[u8]> = agent_archive(&self.index)
            .map_err(|error| refused("the agent's archive", error))?
            .into();
        Ok(slot.insert(archive).clone())
    }
}

/// Which agent goes in.
pub(super) enum Agent {
    /// None.
    Without,
    /// The one built into this program.
    BuiltIn,
    /// An archive of the user.
    Archive(PathBuf),
}

/// The parts in order.
pub(super) fn parts(
    base: &Base,
    agent: &Agent,
    options: &BootOptions,
) -> Result<Vec<InitrdPart>, Reason> {
    let mut parts = base.parts.clone();
    match agent {
        Agent::Without => {}
        Agent::BuiltIn => parts.push(base.built_in_agent()?),
        Agent::Archive(path) => parts.extend(Base::open(path)?.parts.iter().cloned()),
    }
    if !options.files.is_empty() {
        let mut below = base.index.clone();
        for archive in &parts[base.parts.len()..] {
            below
                .extend(archive)
                .map_err(|error| refused("the agent's archive", error))?;
        }
        parts.push(injected(options, &below)?.into());
    }
    Ok(parts.into_iter().map(InitrdPart::Bytes).collect())
}

/// The archive of injected files (L-070).
fn injected(options: &BootOptions, below: &Index) -> Result<Vec<u8>, Reason> {
    let fail = |error| refused("files", error);
    let mut archive = Archive::new();
    for file in &options.files {
        let (content, host_mode) = match &file.content {
            FileContent::Bytes(bytes) => (bytes.clone(), 0o644),
            FileContent::Host(path) => read_host(&host_path(path))?,
        };
        archive
            .file(&file.path, file.mode.unwrap_or(host_mode), content)
            .map_err(fail)?;
    }
    archive.finish(below).map_err(fail)
}

/// Content and permission bits of a host file.
fn read_host(path: &Path) -> Result<(Vec<u8>, u32), Reason> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |source| Reason::Host {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mode = path.metadata().map_err(fail)?.permissions().mode() & 0o7777;
    Ok((std::fs::read(path).map_err(fail)?, mode))
}

fn refused(what: &str, error: impl std::error::Error) -> Reason {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    Reason::Refused(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::InjectedFile;

    fn initramfs() -> tempfile::NamedTempFile {
        let mut archive = Archive::new();
        archive.directory("/usr/sbin", 0o755).unwrap();
        archive.symlink("/sbin", "usr/sbin").unwrap();
        archive.file("/init", 0o755, b"x".to_vec()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), archive.finish(&Index::default()).unwrap()).unwrap();
        file
    }

    fn bytes(part: &InitrdPart) -> &[u8] {
        match part {
            InitrdPart::Bytes(bytes) => bytes,
            InitrdPart::File(_) => panic!("a file"),
        }
    }

    #[test]
    fn r083_the_agent_lies_over_the_image_and_follows_its_links() {
        let file = initramfs();
        let base = Base::open(file.path()).unwrap();
        assert!(base.contains("/init") && !base.contains("/sbin/provium-agent"));
        let parts = parts(&base, &Agent::BuiltIn, &BootOptions::default()).unwrap();
        assert_eq!(parts.len(), 2);
        let mut index = base.index.clone();
        index.extend(bytes(&parts[1])).unwrap();
        assert!(index.contains("/usr/sbin/provium-agent"));
        assert_eq!(
            super::parts(&base, &Agent::Without, &BootOptions::default())
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn l070_l244_injected_files_come_last() {
        let file = initramfs();
        let base = Base::open(file.path()).unwrap();
        let host = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(host.path(), "host").unwrap();
        let inject = |path: &str, content| InjectedFile {
            path: path.into(),
            content,
            mode: None,
        };
        let options = BootOptions {
            files: vec![
                inject("/etc/deep/a", FileContent::Bytes(b"a".to_vec())),
                inject("/etc/b", FileContent::Host(host.path().to_owned())),
            ],
            ..BootOptions::default()
        };
        let parts = parts(&base, &Agent::BuiltIn, &options).unwrap();
        let last = String::from_utf8_lossy(bytes(parts.last().unwrap())).into_owned();
        assert!(last.contains("etc/deep/a") && last.contains("host"));
        let missing = BootOptions {
            files: vec![inject("/c", FileContent::Host("/nonexistent/f".into()))],
            ..BootOptions::default()
        };
        let text = super::parts(&base, &Agent::Without, &missing)
            .err()
            .unwrap()
            .to_string();
        assert!(text.contains("read /nonexistent/f"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_initramfs_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not an archive at all").unwrap();
        let text = Base::open(file.path()).err().unwrap().to_string();
        assert!(text.contains(&file.path().display().to_string()), "{text}");
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let file = initramfs();
        let first = Base::open(file.path()).unwrap();
        assert!(Arc::ptr_eq(&first, &Base::open(file.path()).unwrap()));
        let archive = Archive::new().finish(&Index::default()).unwrap();
        std::fs::write(file.path(), archive).unwrap();
        assert!(!Base::open(file.path()).unwrap().contains("/init"));
    }

    #[test]
    fn l070_host_files_bring_their_mode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x").unwrap();
        let (content, mode) = read_host(file.path()).unwrap();
        assert_eq!((content.as_slice(), mode), (&b"x"[..], 0o600));
    }
}
