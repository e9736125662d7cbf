//! Reading Debian packages: an `ar` archive whose `data.tar.*` member holds the files.
//!
//! Packages come with a signature chain that apt has checked, but a damaged cache is cheap to survive: every length
//! is checked and an unreadable package is an error that names it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::GuestError;

const AR_MAGIC: &[u8] = b"!<arch>\n";
const AR_HEADER: usize = 60;

/// One thing a package installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackedFile {
    /// Absolute path without trailing slash, `/bin/busybox`.
    pub(super) path: String,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) kind: PackedKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PackedKind {
    Directory,
    Regular(Vec<u8>),
    Symlink(String),
    /// A second name for a file that came earlier in the package, by absolute path.
    Hardlink(String),
}

/// The files of the package at `path` for which `wanted` holds.
pub(super) fn read(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PackedFile>, GuestError> {
    let damaged = |source| GuestError::Package {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::read(path).map_err(damaged)?;
    let (name, data) = data_member(&bytes).map_err(damaged)?;
    let mut archive = tar::Archive::new(decompressor(name, data).map_err(damaged)?);
    let mut files = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        if let Some(file) = packed_file(&mut entry.map_err(damaged)?, &wanted).map_err(damaged)? {
            files.push(file);
        }
    }
    Ok(files)
}

/// Finds `data.tar*` in the `ar` archive: its name and content.
fn data_member(bytes: &[u8]) -> io::Result<(&str, &[u8])> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut rest = bytes
        .strip_prefix(AR_MAGIC)
        .ok_or_else(|| bad("not a Debian package"))?;
    while rest.len() >= AR_HEADER {
        let (header, after) = rest.split_at(AR_HEADER);
        let field =
            |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map(str::trim);
        let name = field(0..16).map_err(|_| bad("member name is not text"))?;
        let size = field(48..58)
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        let size = size.ok_or_else(|| bad("member size is not a number"))?;
        let content = after
            .get(..size)
            .ok_or_else(|| bad("package is truncated"))?;
        if name.starts_with("data.tar") {
            return Ok((name.trim_end_matches('/'), content));
        }
        // Members start at even offsets.
        rest = after.get(size + size % 2..).unwrap_or_default();
    }
    Err(bad("package has no data.tar"))
}

fn decompressor<'a>(name: &str, data: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match name {
        "data.tar" => Box::new(data),
        "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new(data)),
        "data.tar.zst" => Box::new(zstd::stream::read::Decoder::new(data)?),
        "data.tar.gz" => Box::new(flate2::read::GzDecoder::new(data)),
        other => {
            let text = format!("unknown compression of {other}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    })
}

fn packed_file(
    entry: &mut tar::Entry<'_, impl Read>,
    wanted: &impl Fn(&str) -> bool,
) -> io::Result<Option<PackedFile>> {
    let path = absolute(&entry.path()?);
    if !wanted(&path) {
        return Ok(None);
    }
    let link = entry.link_name()?.map(|target| target.into_owned());
    let kind = match entry.header().entry_type() {
        tar::EntryType::Directory => PackedKind::Directory,
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            PackedKind::Regular(content)
        }
        tar::EntryType::Symlink => PackedKind::Symlink(target_text(link)?),
        tar::EntryType::Link => PackedKind::Hardlink(absolute(Path::new(&target_text(link)?))),
        // Device nodes and the like: devtmpfs makes them in the guest.
        _ => return Ok(None),
    };
    Ok(Some(PackedFile {
        path,
        mode: entry.header().mode()? & 0o7777,
        kind,
    }))
}

fn target_text(link: Option<PathBuf>) -> io::Result<String> {
    let target = link.and_then(|path| path.to_str().map(str::to_owned));
    target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "link without a target"))
}

/// `./usr/bin/` as `/usr/bin`; `..` cannot occur in a package and is dropped with other oddities.
fn absolute(path: &Path) -> String {
    let mut text = String::new();
    for part in path.components() {
        if let std::path::Component::Normal(name) = part {
            text.push('/');
            text.push_str(&name.to_string_lossy());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = AR_MAGIC.to_vec();
        for (name, content) in members {
            let header = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100644,
                content.len()
            );
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(content);
            if content.len() % 2 == 1 {
                out.push(b'\n');
            }
        }
        out
    }

    fn sample_tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            if link.is_empty() {
                tar.append_data(&mut header, path, data).unwrap();
            } else {
                tar.append_link(&mut header, path, link).unwrap();
            }
        };
        add("./bin/", tar::EntryType::Directory, 0o755, "", b"");
        add(
            "./bin/busybox",
            tar::EntryType::Regular,
            0o4755,
            "",
            b"program",
        );
        add("./bin/sh", tar::EntryType::Symlink, 0o777, "busybox", b"");
        add(
            "./bin/also",
            tar::EntryType::Link,
            0o755,
            "./bin/busybox",
            b"",
        );
        tar.into_inner().unwrap()
    }

    fn package(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn files_modes_and_links_are_read_from_each_compression() {
        let tar = sample_tar();
        let zst = zstd::encode_all(&tar[..], 1).unwrap();
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&tar[..], 1)
            .read_to_end(&mut xz)
            .unwrap();
        for (name, data) in [
            ("data.tar", &tar),
            ("data.tar.zst/", &zst),
            ("data.tar.xz", &xz),
        ] {
            let deb = package(&ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", b"odd"),
                (name, data),
            ]));
            let files = read(deb.path(), |path| path != "/bin").unwrap();
            assert_eq!(files.len(), 3, "{name}");
            assert_eq!(files[0].mode, 0o4755);
            assert_eq!(files[0].kind, PackedKind::Regular(b"program".to_vec()));
            assert_eq!(files[1].kind, PackedKind::Symlink("busybox".into()));
            assert_eq!(files[2].kind, PackedKind::Hardlink("/bin/busybox".into()));
        }
    }

    #[test]
    fn damaged_packages_are_errors_with_their_path() {
        let whole = ar(&[("data.tar", &sample_tar())]);
        for bytes in [
            &b"garbage"[..],
            &whole[..whole.len() / 2],
            &ar(&[("x", b"y")]),
            &whole[..20],
        ] {
            let deb = package(bytes);
            let error = read(deb.path(), |_| true).unwrap_err().to_string();
            assert!(error.contains(&deb.path().display().to_string()), "{error}");
        }
    }
}
