//! Archives for the initramfs: written for the agent and for injected files, and indexed so that
//! what is appended fits what is there.
//!
//! Linux unpacks the archives of an initramfs one after another, later entries over earlier ones.
//! Two traps lie there. A directory entry for a path that is a symbolic link *replaces the link*
//! (`sbin`, on every merged-`/usr` image), and one for an existing directory changes its mode. So an
//! appended archive names the directories it needs only if they are missing, and follows links.

mod archive;
mod index;
mod unpack;

pub use archive::Archive;
pub use index::Index;
pub use unpack::Unpacked;

use super::cpio::CpioError;
use super::decompress::DecompressError;

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

#[cfg(test)]
mod tests;
