//! Putting an initramfs together: files of packages, modules of the kernel, what the recipe adds.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::GuestError;
use super::deb::{self, PackedFile, PackedKind};
use super::modules::{Modules, dep_file};
use super::recipe::Recipe;
use provium_vmm::boot::initramfs::{Archive, Index, InitramfsError, Unpacked};

/// Something in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: String },
}

impl Node {
    fn symlink(target: &str) -> Self {
        Self::Symlink {
            target: target.to_owned(),
        }
    }

    fn content(&self) -> Option<&[u8]> {
        if let Self::File { content, .. } = self {
            Some(content)
        } else {
            None
        }
    }
}

/// The archive of a tree, to lie over what `below` lists.
fn archive(nodes: BTreeMap<String, Node>, below: &Index) -> Result<Vec<u8>, GuestError> {
    let mut archive = Archive::new();
    let mut add = |path: &str, node| match node {
        Node::Directory { mode } => archive.directory(path, mode),
        Node::File { mode, content } => archive.file(path, mode, content),
        Node::Symlink { target } => archive.symlink(path, &target),
    };
    let filled = nodes
        .into_iter()
        .try_for_each(|(path, node)| add(&path, node));
    let made: Result<_, InitramfsError> = filled.and_then(|()| archive.finish(below));
    made.map_err(|error| GuestError::Archive(error.to_string()))
}

/// A kernel with the modules of its package.
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) image: Vec<u8>,
    pub(super) modules: Modules,
}

impl Kernel {
    /// Reads a `linux-image-*` package.
    pub(super) fn from_package(path: &Path) -> Result<Self, GuestError> {
        let wanted = |path: &str| {
            path.starts_with("/boot/vmlinuz-")
                || (path.starts_with("/lib/modules/")
                    && (path.contains(".ko") || path.ends_with("/modules.builtin")))
        };
        let missing = |wanted: &str| GuestError::Missing {
            package: path.display().to_string(),
            wanted: wanted.to_owned(),
        };
        let files = deb::read(path, wanted)?;
        let image = files
            .iter()
            .find_map(|file| Some((file.path.strip_prefix("/boot/vmlinuz-")?, file)));
        let (release, image) = image.ok_or_else(|| missing("/boot/vmlinuz-*"))?;
        let PackedKind::Regular(content) = &image.kind else {
            return Err(missing("kernel image"));
        };
        let prefix = format!("/lib/modules/{release}/");
        let mut modules = Modules::default();
        for file in &files {
            let (Some(name), PackedKind::Regular(content)) =
                (file.path.strip_prefix(&prefix), &file.kind)
            else {
                continue;
            };
            if name == "modules.builtin" {
                modules.add_builtin(&String::from_utf8_lossy(content));
            } else {
                modules.add(name, content.clone());
            }
        }
        Ok(Self {
            release: release.to_owned(),
            image: content.clone(),
            modules,
        })
    }
}

/// What goes into the image, by path.
pub(super) struct Contents<'a> {
    recipe: &'a Recipe,
    nodes: BTreeMap<String, Node>,
}

/// Directories that are links into /usr on a merged system.
const MERGED: [&str; 4] = ["/bin", "/lib", "/lib64", "/sbin"];

impl<'a> Contents<'a> {
    pub(super) fn new(recipe: &'a Recipe) -> Self {
        let mut contents = Self {
            recipe,
            nodes: BTreeMap::new(),
        };
        if recipe.merged_usr {
            for dir in MERGED {
                contents
                    .nodes
                    .insert(format!("/usr{dir}"), Node::Directory { mode: 0o755 });
                contents
                    .nodes
                    .insert(dir.to_owned(), Node::symlink(&format!("usr{dir}")));
            }
        }
        for dir in &recipe.directories {
            let mode = if dir.ends_with("/tmp") { 0o1777 } else { 0o755 };
            contents.nodes.insert(dir.clone(), Node::Directory { mode });
        }
        contents
    }

    /// Adds the files of a package that the recipe takes.
    pub(super) fn add_package(&mut self, path: &Path) -> Result<(), GuestError> {
        for file in deb::read(path, |path| self.recipe.takes(path))? {
            self.add(file);
        }
        Ok(())
    }

    fn add(&mut self, file: PackedFile) {
        let path = self.place(&file.path);
        let node = match file.kind {
            // A directory that is known already keeps its mode.
            PackedKind::Directory if path.is_empty() || self.nodes.contains_key(&path) => return,
            PackedKind::Directory => Node::Directory { mode: file.mode },
            PackedKind::Regular(content) => Node::File {
                mode: file.mode,
                content,
            },
            PackedKind::Symlink(target) => Node::symlink(&target),
            PackedKind::Hardlink(target) => match self.nodes.get(&self.place(&target)) {
                Some(node) => node.clone(),
                None => return,
            },
        };
        self.nodes.insert(path, node);
    }

    /// Where a path of a package goes: below /usr on a merged system.
    fn place(&self, path: &str) -> String {
        let moved = MERGED.iter().any(|dir| {
            path.strip_prefix(dir)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if self.recipe.merged_usr && moved {
            format!("/usr{path}")
        } else {
            path.to_owned()
        }
    }

    /// The archive, with the kernel's modules, the recipe's files and the links of the applets.
    pub(super) fn finish(mut self, kernel: &Kernel) -> Result<Vec<u8>, GuestError> {
        add_modules(&mut self.nodes, self.recipe, kernel)?;
        for file in &self.recipe.files {
            let node = Node::File {
                mode: file.mode(),
                content: file.content().as_bytes().to_vec(),
            };
            self.nodes.insert(file.path.clone(), node);
        }
        for link in &self.recipe.links {
            self.nodes
                .insert(link.path.clone(), Node::symlink(&link.target));
        }
        if let Some(program) = &self.recipe.applets {
            self.link_applets(program)?;
        }
        archive(self.nodes, &Index::default())
    }

    /// Links each applet to its program, unless something is there already.
    fn link_applets(&mut self, program: &str) -> Result<(), GuestError> {
        let found = self.nodes.get(&self.place(program)).and_then(Node::content);
        let content = found.ok_or_else(|| GuestError::Missing {
            package: self.recipe.packages.join(" "),
            wanted: program.to_owned(),
        })?;
        for applet in applets(content)? {
            let path = self.place(&format!("/{applet}"));
            if path != self.place(program) {
                self.nodes
                    .entry(path)
                    .or_insert_with(|| Node::symlink(program));
            }
        }
        Ok(())
    }
}

fn add_modules(
    nodes: &mut BTreeMap<String, Node>,
    recipe: &Recipe,
    kernel: &Kernel,
) -> Result<(), GuestError> {
    let closure = kernel
        .modules
        .closure(&recipe.modules)
        .map_err(|source| GuestError::Module {
            kernel: format!("kernel {}", kernel.release),
            source,
        })?;
    let root = format!("/lib/modules/{}", kernel.release);
    for module in &closure {
        let node = Node::File {
            mode: 0o644,
            content: module.content.clone(),
        };
        nodes.insert(format!("{root}/{}", module.file), node);
    }
    let dep = dep_file(&closure);
    nodes.insert(
        format!("{root}/modules.dep"),
        Node::File {
            mode: 0o644,
            content: dep.into_bytes(),
        },
    );
    Ok(())
}

/// An archive with the modules of another kernel laid over it (L-244).
pub(super) fn with_modules(
    mut base: Vec<u8>,
    recipe: &Recipe,
    kernel: &Kernel,
) -> Result<Vec<u8>, GuestError> {
    let fail = |error: InitramfsError| GuestError::Archive(error.to_string());
    let below = Index::of(&Unpacked::new(&base).map_err(fail)?).map_err(fail)?;
    let mut nodes = BTreeMap::new();
    add_modules(&mut nodes, recipe, kernel)?;
    base.extend(archive(nodes, &below)?);
    Ok(base)
}

/// Asks busybox for its applets, as paths without leading slash. It is a static program for this very processor, so
/// the host can run it.
fn applets(program: &[u8]) -> Result<Vec<String>, GuestError> {
    let fail = |command: &Path, source: std::io::Error| GuestError::Apt {
        command: format!("{} --list-full", command.display()),
        output: source.to_string(),
    };
    let mut file = tempfile::Builder::new()
        .prefix("busybox-")
        .tempfile()
        .map_err(|source| GuestError::write(&std::env::temp_dir(), source))?;
    let written = file.write_all(program).and_then(|()| {
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o755))
    });
    written.map_err(|source| GuestError::write(file.path(), source))?;
    // A program cannot be executed while it is open for writing.
    let path = file.into_temp_path();
    let output = Command::new(&path)
        .arg("--list-full")
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|source| fail(&path, source))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(path: &str, kind: PackedKind) -> PackedFile {
        PackedFile {
            path: path.to_owned(),
            mode: 0o755,
            kind,
        }
    }

    #[test]
    fn a_merged_system_keeps_everything_below_usr() {
        let recipe = Recipe::find("userland").unwrap();
        let mut contents = Contents::new(&recipe);
        contents.add(packed("/bin", PackedKind::Directory));
        contents.add(packed("/bin/sh", PackedKind::Symlink("dash".into())));
        contents.add(packed(
            "/lib/x86_64-linux-gnu/libc.so.6",
            PackedKind::Regular(b"c".to_vec()),
        ));
        contents.add(packed("/libexec/a", PackedKind::Regular(b"a".to_vec())));
        let paths: Vec<&str> = contents.nodes.keys().map(String::as_str).collect();
        assert!(paths.contains(&"/usr/bin/sh"), "{paths:?}");
        assert!(paths.contains(&"/usr/lib/x86_64-linux-gnu/libc.so.6"));
        assert!(paths.contains(&"/libexec/a"));
        assert!(!paths.contains(&"/bin/sh"));
        assert_eq!(contents.nodes["/bin"], Node::symlink("usr/bin"));
    }

    #[test]
    fn hard_links_become_copies() {
        let recipe = Recipe::find("minimal").unwrap();
        let mut contents = Contents::new(&recipe);
        contents.add(packed("/bin/a", PackedKind::Regular(b"x".to_vec())));
        contents.add(packed("/bin/b", PackedKind::Hardlink("/bin/a".into())));
        contents.add(packed("/bin/c", PackedKind::Hardlink("/bin/none".into())));
        assert_eq!(contents.nodes["/bin/a"], contents.nodes["/bin/b"]);
        assert!(!contents.nodes.contains_key("/bin/c"));
    }

    #[test]
    fn a_program_is_asked_for_its_applets() {
        let script = b"#!/bin/sh\necho bin/ls\necho usr/bin/wc\n";
        assert_eq!(applets(script).unwrap(), ["bin/ls", "usr/bin/wc"]);
        assert!(applets(b"no program at all").is_err());
    }
}
