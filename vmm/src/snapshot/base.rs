//! What an incremental image says about the whole one that it builds on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::format::{FIELDS, Header};

/// Bytes that tell an image from all others: its header, which holds the checksums of everything.
const IDENTITY: usize = FIELDS + 4;

/// A reference to a whole image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseRef {
    identity: Vec<u8>,
    path: PathBuf,
}

impl BaseRef {
    /// To the image with this header, at `path`.
    pub(super) fn to(header: &Header, path: &Path) -> Self {
        Self {
            identity: identity(header),
            path: absolute(path),
        }
    }

    /// As it is written into an image in `directory`: beside it, it is found by its name, so that
    /// both may be moved together.
    pub(super) fn to_bytes(&self, directory: &Path) -> Vec<u8> {
        let path = self.path.strip_prefix(absolute(directory));
        let path = path.unwrap_or(&self.path);
        [&self.identity, path.as_os_str().as_bytes()].concat()
    }

    /// As read from an image in `directory`; none if it makes no sense.
    pub(super) fn from_bytes(bytes: &[u8], directory: &Path) -> Option<Self> {
        let (identity, path) = bytes.split_at_checked(IDENTITY)?;
        (!path.is_empty()).then(|| Self {
            identity: identity.to_owned(),
            path: directory.join(OsStr::from_bytes(path)),
        })
    }

    /// Where it should lie.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the image with this header is the one.
    pub(super) fn is(&self, header: &Header) -> bool {
        self.identity == identity(header)
    }
}

/// A working directory that is gone leaves the path as it is.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn identity(header: &Header) -> Vec<u8> {
    let mut page = header.to_page();
    page.truncate(IDENTITY);
    page
}

#[cfg(test)]
mod tests {
    use super::super::format::Part;
    use super::*;

    fn header(owner: &[u8]) -> Header {
        Header {
            cpu_model: 1,
            memory: 1 << 20,
            state: Part::of(4096, b"s"),
            owner: Part::of(4097, owner),
            console: Part::default(),
            base: Part::default(),
            chunks: Part::default(),
            ram: 8192,
        }
    }

    #[test]
    fn a_base_beside_the_image_moves_with_it_and_another_does_not() {
        let base = BaseRef::to(&header(b"a"), Path::new("/x/base.snap"));
        let moved = BaseRef::from_bytes(&base.to_bytes(Path::new("/x")), Path::new("/y")).unwrap();
        assert_eq!(moved.path(), Path::new("/y/base.snap"));
        let far = BaseRef::from_bytes(&base.to_bytes(Path::new("/z")), Path::new("/y")).unwrap();
        assert_eq!(far.path(), Path::new("/x/base.snap"));
        assert!(far.is(&header(b"a")) && !far.is(&header(b"b")));
    }

    #[test]
    fn a_reference_without_a_path_or_identity_is_none() {
        let bytes = BaseRef::to(&header(b"a"), Path::new("/x/b")).to_bytes(Path::new("/x"));
        for len in 0..bytes.len() {
            assert_eq!(BaseRef::from_bytes(&bytes[..len], Path::new("/")), None);
        }
    }
}
