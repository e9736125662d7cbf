//! Making an archive: a tree of nodes, placed over what is below it, written deterministically.

use std::collections::BTreeMap;
use std::num::TryFromIntError;

use super::index::Kind;
use super::{Index, InitramfsError, join, normal_path};
use crate::boot::cpio::{self, Entry};

/// Permissions of directories that an archive needs and nobody described.
const PARENT_MODE: u32 = 0o755;
/// Links followed before a path counts as a loop, as in the kernel.
const LONGEST_LINK_CHAIN: usize = 40;
const PERMISSIONS: u32 = 0o7777;

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
        let mut placed = Placed::over(below);
        for (path, node) in &self.nodes {
            placed.add(path, node)?;
        }
        placed.write()
    }
}

/// Nodes at their final paths, links followed and missing parents added.
pub(super) struct Placed<'a> {
    below: &'a Index,
    nodes: BTreeMap<String, Node>,
}

impl<'a> Placed<'a> {
    /// Nothing placed over `below` yet.
    pub(super) fn over(below: &'a Index) -> Self {
        Placed {
            below,
            nodes: BTreeMap::new(),
        }
    }

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
    pub(super) fn resolve(&self, path: &str, parent: &str) -> Result<String, InitramfsError> {
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
