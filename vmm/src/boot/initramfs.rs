//! Archives for the initramfs: written for the agent and for injected files, and indexed so that
//! what is appended fits what is there.
//!
//! Linux unpacks the archives of an initramfs one after another, later entries over earlier ones.
//! Two traps lie there. A directory entry for a path that is a symbolic link *replaces the link*
//! (`sbin`, on every merged-`/usr` image), and one for an existing directory changes its mode. So an
//! appended archive names the directories it needs only if they are missing, and follows links.

use std::collections::BTreeMap;
use std::num::TryFromIntError;

use super::cpio::{self, CpioError, Entry};
use super::decompress::{self, DecompressError};

/// Permissions of directories that an archive needs and nobody described.
const PARENT_MODE: u32 = 0o755;
/// Links followed before a path counts as a loop, as in the kernel.
const LONGEST_LINK_CHAIN: usize = 40;
const PERMISSIONS: u32 = 0o7777;

/// Why an archive cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A path that cannot name a file in an archive.
    #[error("path {0:?} in the initramfs: {1}")]
    BadPath(String, &'static str),
    /// A file of 4 GiB or more.
    #[error("file {0:?} is too large for an initramfs (4 GiB or more)")]
    TooLarge(String),
    /// A path leads through something that is not a directory.
    #[error("path {0:?} in the initramfs leads through {1:?}, which is not a directory")]
    NotADirectory(String, String),
    /// A file where the image has a directory: the kernel would leave the file out.
    #[error("path {0:?} in the initramfs is a directory")]
    IsADirectory(String),
    /// Bytes that are neither an archive nor compressed.
    #[error("byte {at} of the initramfs")]
    Unreadable {
        /// Where.
        at: usize,
        /// Why.
        #[source]
        source: CpioError,
    },
    /// A compressed archive that cannot be unpacked.
    #[error("compressed archive at byte {at} of the initramfs")]
    Compressed {
        /// Where it begins.
        at: usize,
        /// Why.
        #[source]
        source: DecompressError,
    },
}

/// What a path in an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory {
        mode: u32,
    },
    File {
        mode: u32,
        content: Vec<u8>,
    },
    Symlink {
        target: String,
    },
    Device {
        kind: u32,
        mode: u32,
        device: (u32, u32),
    },
}

/// A deterministic archive under construction: equal content gives equal bytes.
///
/// Paths are absolute or relative to the root; parents need not be added.
///
/// ```
/// use provium_vmm::boot::initramfs::{Archive, Index};
///
/// let mut archive = Archive::new();
/// archive.file("/sbin/agent", 0o755, b"program".to_vec())?;
/// archive.symlink("/init", "sbin/agent")?;
/// let bytes = archive.finish(&Index::default())?;
/// assert!(bytes.starts_with(b"070701"));
/// # Ok::<(), provium_vmm::boot::initramfs::InitramfsError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Archive::default()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a directory with these permissions.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), InitramfsError> {
        self.add(
            path,
            Node::Directory {
                mode: mode & PERMISSIONS,
            },
        )
    }

    /// Adds a file. A later file at the same path replaces it (lua-api L-244).
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) -> Result<(), InitramfsError> {
        self.add(
            path,
            Node::File {
                mode: mode & PERMISSIONS,
                content,
            },
        )
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), InitramfsError> {
        if target.is_empty() || target.contains('\0') {
            return Err(InitramfsError::BadPath(
                target.to_owned(),
                "not a possible link target",
            ));
        }
        self.add(
            path,
            Node::Symlink {
                target: target.to_owned(),
            },
        )
    }

    /// Adds a character device.
    pub fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
    ) -> Result<(), InitramfsError> {
        let mode = mode & PERMISSIONS;
        self.add(
            path,
            Node::Device {
                kind: cpio::TYPE_CHARACTER,
                mode,
                device,
            },
        )
    }

    /// Adds a block device.
    pub fn block_device(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
    ) -> Result<(), InitramfsError> {
        let mode = mode & PERMISSIONS;
        self.add(
            path,
            Node::Device {
                kind: cpio::TYPE_BLOCK,
                mode,
                device,
            },
        )
    }

    fn add(&mut self, path: &str, node: Node) -> Result<(), InitramfsError> {
        self.nodes.insert(normal_path(path)?, node);
        Ok(())
    }

    /// The archive's bytes, made to be unpacked over what `below` lists; for an initramfs of its own
    /// that is the empty [`Index`].
    pub fn finish(&self, below: &Index) -> Result<Vec<u8>, InitramfsError> {
        let mut placed = Placed {
            below,
            nodes: BTreeMap::new(),
        };
        for (path, node) in &self.nodes {
            placed.add(path, node)?;
        }
        placed.write()
    }
}

/// Checks a path and brings it into the form of archives: relative, without `.` and double slashes.
fn normal_path(path: &str) -> Result<String, InitramfsError> {
    let bad = |why| Err(InitramfsError::BadPath(path.to_owned(), why));
    if path.contains('\0') {
        return bad("contains a NUL byte");
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.is_empty() {
        return bad("names no file");
    }
    if parts.contains(&"..") {
        return bad("contains \"..\"");
    }
    let normal = parts.join("/");
    if normal.len() > 4000 {
        bad("is too long")
    } else {
        Ok(normal)
    }
}

fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", _) => name.to_owned(),
        (_, "") => directory.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}

/// Nodes at their final paths, links followed and missing parents added.
struct Placed<'a> {
    below: &'a Index,
    nodes: BTreeMap<String, Node>,
}

impl Placed<'_> {
    fn add(&mut self, path: &str, node: &Node) -> Result<(), InitramfsError> {
        let is_directory = matches!(node, Node::Directory { .. });
        let (parent, name) = match path.rsplit_once('/') {
            // A directory may itself be a link to where it really is.
            _ if is_directory => (path, ""),
            Some(split) => split,
            None => ("", path),
        };
        let real = join(&self.resolve(path, parent)?, name);
        let (real_parent, _) = real.rsplit_once('/').unwrap_or(("", ""));
        self.add_missing_parents(real_parent);
        if !is_directory && self.kind(&real) == Some(Kind::Directory) {
            return Err(InitramfsError::IsADirectory(path.to_owned()));
        }
        self.nodes.insert(real, node.clone());
        Ok(())
    }

    /// The directory that `parent` means once links are followed.
    fn resolve(&self, path: &str, parent: &str) -> Result<String, InitramfsError> {
        let mut todo: Vec<String> = parent.rsplit('/').map(str::to_owned).collect();
        let mut real = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    real.truncate(real.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = join(&real, &part);
            match self.kind(&next) {
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > LONGEST_LINK_CHAIN {
                        return Err(InitramfsError::NotADirectory(path.to_owned(), next));
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    todo.extend(target.rsplit('/').map(str::to_owned));
                }
                Some(Kind::Other) => {
                    return Err(InitramfsError::NotADirectory(path.to_owned(), next));
                }
                Some(Kind::Directory) | None => real = next,
            }
        }
        Ok(real)
    }

    fn kind(&self, path: &str) -> Option<Kind> {
        match self.nodes.get(path) {
            Some(Node::Directory { .. }) => Some(Kind::Directory),
            Some(Node::Symlink { target }) => Some(Kind::Symlink(target.clone())),
            Some(_) => Some(Kind::Other),
            None => self.below.paths.get(path).cloned(),
        }
    }

    fn add_missing_parents(&mut self, directory: &str) {
        let ends = directory
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([directory.len()]);
        for end in ends.filter(|end| *end > 0) {
            let parent = &directory[..end];
            if self.kind(parent).is_none() {
                self.nodes
                    .insert(parent.to_owned(), Node::Directory { mode: PARENT_MODE });
            }
        }
    }

    /// Writes all nodes; parents come before children since their paths sort before.
    fn write(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut out = Vec::new();
        for (inode, (path, node)) in (1..).zip(&self.nodes) {
            cpio::append(&mut out, inode, &entry(path, node))
                .map_err(|_: TryFromIntError| InitramfsError::TooLarge(path.clone()))?;
        }
        cpio::append_trailer(&mut out);
        Ok(out)
    }
}

fn entry<'a>(path: &'a str, node: &'a Node) -> Entry<'a> {
    let (mode, links, device, content): (u32, u32, (u32, u32), &[u8]) = match node {
        Node::Directory { mode } => (cpio::TYPE_DIRECTORY | mode, 2, (0, 0), &[]),
        Node::File { mode, content } => (cpio::TYPE_FILE | mode, 1, (0, 0), content),
        Node::Symlink { target } => (cpio::TYPE_SYMLINK | 0o777, 1, (0, 0), target.as_bytes()),
        Node::Device { kind, mode, device } => (kind | mode, 1, *device, &[]),
    };
    Entry {
        name: path.as_bytes(),
        mode,
        uid: 0,
        gid: 0,
        links,
        device,
        content,
    }
}

/// What a path in an existing initramfs is, as far as appending to it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    Symlink(String),
    Other,
}

/// The paths in the archives of an existing initramfs.
#[derive(Clone, Debug, Default)]
pub struct Index {
    paths: BTreeMap<String, Kind>,
}

impl Index {
    /// Reads the archives of an initramfs.
    pub fn of(initramfs: &Unpacked<'_>) -> Result<Index, InitramfsError> {
        let mut index = Index::default();
        for archive in &initramfs.archives {
            for entry in cpio::Reader::new(&archive.bytes) {
                let at = archive.at;
                index.add(&entry.map_err(|source| InitramfsError::Unreadable { at, source })?);
            }
        }
        Ok(index)
    }

    /// Takes a further archive into account, made by [`Archive::finish`].
    pub fn extend(&mut self, archive: &[u8]) -> Result<(), InitramfsError> {
        for entry in cpio::Reader::new(archive) {
            self.add(&entry.map_err(|source| InitramfsError::Unreadable { at: 0, source })?);
        }
        Ok(())
    }

    /// Whether there is anything at this path, links in its directories followed.
    pub fn contains(&self, path: &str) -> bool {
        let Ok(path) = normal_path(path) else {
            return false;
        };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let placed = Placed {
            below: self,
            nodes: BTreeMap::new(),
        };
        let Ok(real) = placed.resolve(&path, parent) else {
            return false;
        };
        self.paths.contains_key(&join(&real, name))
    }

    fn add(&mut self, entry: &Entry<'_>) {
        // Names that are not UTF-8 cannot clash with ours, which are.
        let Ok(name) = std::str::from_utf8(entry.name) else {
            return;
        };
        let Ok(path) = normal_path(name) else { return };
        let kind = match entry.mode & cpio::TYPE_MASK {
            cpio::TYPE_DIRECTORY => Kind::Directory,
            cpio::TYPE_SYMLINK => {
                Kind::Symlink(String::from_utf8_lossy(entry.content).into_owned())
            }
            _ => Kind::Other,
        };
        self.paths.insert(path, kind);
    }
}

/// An initramfs with its compressed archives unpacked, so that it can be read here and need not be
/// unpacked by the guest.
#[derive(Clone, Debug)]
pub struct Unpacked<'a> {
    archives: Vec<Part<'a>>,
}

/// One archive of an initramfs.
#[derive(Clone, Debug)]
struct Part<'a> {
    /// Where it, or its compressed form, begins in the file.
    at: usize,
    bytes: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Unpacked<'a> {
    /// Takes an initramfs apart the way the kernel does: archives plain or compressed, one after
    /// another, zeros between them.
    pub fn new(file: &'a [u8]) -> Result<Unpacked<'a>, InitramfsError> {
        let mut archives = Vec::new();
        let mut at = 0;
        while let Some(offset) = file[at..].iter().position(|byte| *byte != 0) {
            at += offset;
            let rest = &file[at..];
            if cpio::Reader::recognises(rest) {
                let length = archive_length(rest, at)?;
                archives.push(Part {
                    at,
                    bytes: rest[..length].into(),
                });
                at += length;
            } else {
                let unpacked = decompress::decompress(rest, 0)
                    .map_err(|source| InitramfsError::Compressed { at, source })?;
                // A compressed file may hold several archives itself.
                for part in Unpacked::new(&unpacked.data)?.archives {
                    archives.push(Part {
                        at,
                        bytes: part.bytes.into_owned().into(),
                    });
                }
                at += unpacked.consumed;
            }
        }
        Ok(Unpacked { archives })
    }

    /// The archives, all plain.
    pub fn archives(&self) -> impl Iterator<Item = &[u8]> {
        self.archives.iter().map(|part| &*part.bytes)
    }

    /// Total size of the plain archives.
    pub fn size(&self) -> u64 {
        self.archives
            .iter()
            .map(|part| part.bytes.len() as u64)
            .sum()
    }
}

fn archive_length(bytes: &[u8], at: usize) -> Result<usize, InitramfsError> {
    let mut reader = cpio::Reader::new(bytes);
    match reader.find_map(Result::err) {
        Some(source) => Err(InitramfsError::Unreadable { at, source }),
        None => Ok(reader.position()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::decompress::{
        Format,
        tests::{SUPPORTED, pack},
    };
    use super::*;
    use proptest::prelude::*;

    fn paths(bytes: &[u8]) -> Vec<(String, u32)> {
        cpio::Reader::new(bytes)
            .map(Result::unwrap)
            .map(|entry| (String::from_utf8(entry.name.to_vec()).unwrap(), entry.mode))
            .collect()
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        paths(bytes).into_iter().map(|(name, _)| name).collect()
    }

    fn index(bytes: &[u8]) -> Index {
        Index::of(&Unpacked::new(bytes).unwrap()).unwrap()
    }

    /// A merged-`/usr` image.
    fn merged_usr() -> Archive {
        let mut image = Archive::new();
        image.symlink("/sbin", "usr/sbin").unwrap();
        image.directory("/usr/sbin", 0o755).unwrap();
        image.directory("/tmp", 0o1777).unwrap();
        image.file("/init", 0o755, b"#!/bin/sh".to_vec()).unwrap();
        image
    }

    #[test]
    fn every_kind_of_node_is_written_parents_first() {
        let mut archive = Archive::new();
        archive
            .file("/a/b/file", 0o644, b"content".to_vec())
            .unwrap();
        archive.symlink("a/link", "b/file").unwrap();
        archive.directory("//a/./dir/", 0o1777).unwrap();
        archive
            .character_device("/dev/console", 0o600, (5, 1))
            .unwrap();
        archive.block_device("/dev/vda", 0o660, (254, 0)).unwrap();
        let bytes = archive.finish(&Index::default()).unwrap();
        let expected = [
            ("a", 0o040_755),
            ("a/b", 0o040_755),
            ("a/b/file", 0o100_644),
            ("a/dir", 0o041_777),
            ("a/link", 0o120_777),
            ("dev", 0o040_755),
            ("dev/console", 0o020_600),
            ("dev/vda", 0o060_660),
        ];
        assert_eq!(
            paths(&bytes),
            expected.map(|(name, mode)| (name.to_owned(), mode))
        );
    }

    #[test]
    fn equal_content_gives_equal_bytes_whatever_the_order() {
        let build = |order: &[&str]| {
            let mut archive = Archive::new();
            for path in order {
                archive.file(path, 0o644, path.as_bytes().to_vec()).unwrap();
            }
            archive.finish(&Index::default()).unwrap()
        };
        assert_eq!(
            build(&["/x/1", "/x/2", "/y"]),
            build(&["/y", "/x/2", "/x/1"])
        );
    }

    #[test]
    fn appended_files_follow_links_and_leave_directories_alone() {
        let image = merged_usr().finish(&Index::default()).unwrap();
        let mut archive = Archive::new();
        archive
            .file("/sbin/agent", 0o755, b"agent".to_vec())
            .unwrap();
        archive
            .file("/tmp/input", 0o644, b"input".to_vec())
            .unwrap();
        archive
            .file("/new/dir/file", 0o644, b"file".to_vec())
            .unwrap();
        archive.directory("/sbin", 0o700).unwrap();
        let bytes = archive.finish(&index(&image)).unwrap();
        assert_eq!(
            names(&bytes),
            [
                "new",
                "new/dir",
                "new/dir/file",
                "tmp/input",
                "usr/sbin",
                "usr/sbin/agent"
            ]
        );
    }

    #[test]
    fn l244_a_later_file_replaces_an_earlier_one_or_a_link() {
        let mut image = merged_usr();
        image.symlink("/etc/conf", "../init").unwrap();
        let image = image.finish(&Index::default()).unwrap();
        let mut archive = Archive::new();
        archive.file("/init", 0o755, b"one".to_vec()).unwrap();
        archive.file("/init", 0o755, b"two".to_vec()).unwrap();
        archive.file("/etc/conf", 0o644, b"x".to_vec()).unwrap();
        let bytes = archive.finish(&index(&image)).unwrap();
        assert_eq!(names(&bytes), ["etc/conf", "init"]);
        let init = cpio::Reader::new(&bytes).nth(1).unwrap().unwrap();
        assert_eq!(init.content, b"two");
    }

    #[test]
    fn links_may_be_absolute_climb_and_chain_but_not_loop() {
        let mut image = Archive::new();
        image.symlink("/a/up", "../b").unwrap();
        image.symlink("/b", "/c").unwrap();
        image.symlink("/loop", "loop").unwrap();
        let image = index(&image.finish(&Index::default()).unwrap());
        let mut archive = Archive::new();
        archive.file("/a/up/file", 0o644, vec![]).unwrap();
        assert_eq!(names(&archive.finish(&image).unwrap()), ["c", "c/file"]);
        let mut archive = Archive::new();
        archive.file("/loop/file", 0o644, vec![]).unwrap();
        let error = archive.finish(&image).unwrap_err();
        assert!(
            matches!(error, InitramfsError::NotADirectory(..)),
            "{error}"
        );
    }

    #[test]
    fn impossible_paths_are_refused_by_name() {
        let mut archive = Archive::new();
        for path in ["", "/", "a/../b", "a\0b", &"x".repeat(5000)] {
            let error = archive.file(path, 0o644, vec![]).unwrap_err();
            assert!(matches!(error, InitramfsError::BadPath(..)), "{error}");
        }
        archive.file("/init/below", 0o644, vec![]).unwrap();
        let image = index(&merged_usr().finish(&Index::default()).unwrap());
        let error = archive.finish(&image).unwrap_err().to_string();
        assert!(
            error.contains("init/below") && error.contains("not a directory"),
            "{error}"
        );
        let mut archive = Archive::new();
        archive.file("/tmp", 0o644, vec![]).unwrap();
        let error = archive.finish(&image).unwrap_err();
        assert!(matches!(error, InitramfsError::IsADirectory(..)), "{error}");
    }

    #[test]
    fn index_sees_through_compression_padding_and_several_archives() {
        let mut first = Archive::new();
        first.file("/microcode", 0o644, vec![1; 1000]).unwrap();
        let first = first.finish(&Index::default()).unwrap();
        let second = merged_usr().finish(&Index::default()).unwrap();
        for format in SUPPORTED {
            let file = [&first[..], &[0; 512], &pack(format, &second), &[0; 8]].concat();
            let unpacked = Unpacked::new(&file).unwrap();
            assert_eq!(unpacked.archives().count(), 2, "{}", format.name());
            assert_eq!(unpacked.size(), (first.len() + second.len()) as u64);
            let index = Index::of(&unpacked).unwrap();
            for path in ["/microcode", "/init", "/usr/sbin", "/sbin"] {
                assert!(index.contains(path), "{path}");
            }
            assert!(!index.contains("/sbin/init"));
        }
    }

    #[test]
    fn damaged_images_are_refused_with_the_place() {
        let image = merged_usr().finish(&Index::default()).unwrap();
        let error = Unpacked::new(&image[..image.len() - 200]).unwrap_err();
        assert!(
            matches!(error, InitramfsError::Unreadable { at: 0, .. }),
            "{error}"
        );
        let packed = pack(Format::Xz, &image);
        let file = [&image[..], &packed[..packed.len() / 2]].concat();
        let error = Unpacked::new(&file).unwrap_err();
        assert!(matches!(error, InitramfsError::Compressed { at, .. } if at == image.len()));
        assert!(Unpacked::new(b"garbage").is_err());
        assert_eq!(Unpacked::new(b"").unwrap().size(), 0);
    }

    /// The reference implementation agrees, where it is installed.
    #[test]
    fn cpio_lists_the_same_names() {
        let image = merged_usr().finish(&Index::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, &image).unwrap();
        let command = std::process::Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(std::fs::File::open(&path).unwrap())
            .output();
        let output = match command {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: cannot run cpio: {error}"),
        };
        assert!(output.status.success());
        let listed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), names(&image));
    }

    proptest! {
        #[test]
        fn files_come_back_as_added(
            files in proptest::collection::btree_map(
                "[a-c]/[a-z]{1,8}",
                (0u32..0o10000, proptest::collection::vec(any::<u8>(), 0..50)),
                0..12,
            ),
        ) {
            let mut archive = Archive::new();
            for (path, (mode, content)) in &files {
                archive.file(path, *mode, content.clone()).unwrap();
            }
            let bytes = archive.finish(&Index::default()).unwrap();
            let back: BTreeMap<_, _> = cpio::Reader::new(&bytes)
                .map(Result::unwrap)
                .filter(|entry| entry.mode & cpio::TYPE_MASK == cpio::TYPE_FILE)
                .map(|entry| {
                    let name = String::from_utf8(entry.name.to_vec()).unwrap();
                    (name, (entry.mode & PERMISSIONS, entry.content.to_vec()))
                })
                .collect();
            prop_assert_eq!(back, files);
        }
    }
}
