//! Trees of files as cpio archives: what initramfs images and overlays are made of.

use std::collections::BTreeMap;

/// Something in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    mode: u32,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
}

impl Node {
    pub(crate) fn directory(mode: u32) -> Self {
        Self {
            mode,
            kind: Kind::Directory,
        }
    }

    pub(crate) fn file(mode: u32, content: Vec<u8>) -> Self {
        Self {
            mode,
            kind: Kind::File(content),
        }
    }

    pub(crate) fn symlink(target: &str) -> Self {
        Self {
            mode: 0o777,
            kind: Kind::Symlink(target.to_owned()),
        }
    }

    /// Content of a file.
    pub(crate) fn content(&self) -> Option<&[u8]> {
        if let Kind::File(content) = &self.kind {
            Some(content)
        } else {
            None
        }
    }
}

/// A tree of files, by absolute path.
pub(crate) struct Archive(BTreeMap<String, Node>);

impl Archive {
    /// A tree of these nodes; missing parents are added when it is written.
    pub(crate) fn from_nodes(nodes: impl IntoIterator<Item = (String, Node)>) -> Self {
        Self(nodes.into_iter().collect())
    }

    /// The archive in cpio's `newc` form, parents before children, padded so that another may follow. The same tree
    /// always gives the same bytes: no times, owner root.
    pub(crate) fn write(mut self) -> Result<Vec<u8>, String> {
        self.add_parents();
        let mut out = Vec::new();
        for (number, (path, node)) in (1u32..).zip(&self.0) {
            let (kind, data) = match &node.kind {
                Kind::Directory => (0o040_000, &[][..]),
                Kind::File(content) => (0o100_000, &content[..]),
                Kind::Symlink(target) => (0o120_000, target.as_bytes()),
            };
            let name = path.trim_start_matches('/');
            entry(&mut out, number, name, kind | node.mode, data)
                .map_err(|why| format!("{path}: {why}"))?;
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[])?;
        Ok(out)
    }

    fn add_parents(&mut self) {
        let mut missing = Vec::new();
        for path in self.0.keys() {
            let mut rest = path.as_str();
            while let Some((parent, _)) = rest
                .rsplit_once('/')
                .filter(|(parent, _)| !parent.is_empty())
            {
                if !self.0.contains_key(parent) {
                    missing.push(parent.to_owned());
                }
                rest = parent;
            }
        }
        self.0.extend(
            missing
                .into_iter()
                .map(|path| (path, Node::directory(0o755))),
        );
    }
}

fn entry(out: &mut Vec<u8>, number: u32, name: &str, mode: u32, data: &[u8]) -> Result<(), String> {
    if name.contains('\0') {
        return Err("the name contains a NUL byte".to_owned());
    }
    let size = u32::try_from(data.len())
        .map_err(|_| "more than 4 GiB do not fit an archive".to_owned())?;
    let name_size = u32::try_from(name.len() + 1).map_err(|_| "the name is too long".to_owned())?;
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let fields = [number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
    Ok(())
}

/// Fields, names and contents start at multiples of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        Archive::from_nodes([
            (
                "/sbin/agent".to_owned(),
                Node::file(0o755, b"12345".to_vec()),
            ),
            ("/tmp".to_owned(), Node::directory(0o1777)),
            ("/a/b/link".to_owned(), Node::symlink("../x")),
        ])
        .write()
        .unwrap()
    }

    #[test]
    fn parents_come_first_and_everything_is_aligned() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let place = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name}"));
        assert!(place("a\0") < place("a/b\0") && place("a/b\0") < place("a/b/link\0"));
        assert!(place("sbin\0") < place("sbin/agent\0"));
        assert_eq!(bytes, sample());
    }

    #[test]
    fn cpio_reads_it() {
        let Ok(mut child) = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: no cpio program on this host");
            return;
        };
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        for part in ["-rwxr-xr-x", "sbin/agent", "drwxrwxrwt", "a/b/link -> ../x"] {
            assert!(listing.contains(part), "{part}: {listing}");
        }
    }
}
