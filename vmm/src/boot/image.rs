//! A kernel file, recognised, checked, unpacked and kept for every machine that boots it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::bzimage::{self, BzImageError, SetupHeader};
use super::elf::{self, ElfError, ElfKernel};

/// Unpacked kernels kept in memory, tens of megabytes each; a run seldom uses more.
const KEPT_IMAGES: usize = 4;

/// Why a file is not a kernel that we can boot. Names the file; the reason is the source.
#[derive(Debug, thiserror::Error)]
#[error("kernel {}", .path.display())]
pub struct ImageError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub reason: ImageProblem,
}

/// What is wrong with a kernel file.
#[derive(Debug, thiserror::Error)]
pub enum ImageProblem {
    /// It cannot be read.
    #[error("cannot read the file")]
    Read(#[source] std::io::Error),
    /// It is neither a bzImage nor an ELF file.
    #[error("not a kernel: neither a bzImage nor an ELF file{0}")]
    NotAKernel(&'static str),
    /// A bzImage that cannot be used.
    #[error("bzImage")]
    BzImage(#[source] BzImageError),
    /// An ELF file that cannot be used, on its own or inside a bzImage.
    #[error("vmlinux")]
    Elf(#[source] ElfError),
    /// What a bzImage holds is no ELF file.
    #[error("the bzImage unpacks to something that is not an ELF file")]
    PayloadNotElf,
}

/// A kernel ready to be loaded into any number of machines.
#[derive(Debug)]
pub struct KernelImage {
    path: PathBuf,
    vmlinux: Vec<u8>,
    elf: ElfKernel,
    header: Option<SetupHeader>,
    version: Option<String>,
}

impl KernelImage {
    /// Opens a kernel file: a bzImage, or an uncompressed ELF vmlinux (cli-and-config R-075).
    ///
    /// Unpacking takes a while, so the result is kept: opening the same unchanged file again gives
    /// the same image.
    pub fn open(path: &Path) -> Result<Arc<KernelImage>, ImageError> {
        let fail = |reason| ImageError {
            path: path.to_path_buf(),
            reason,
        };
        let mut file = File::open(path).map_err(|e| fail(ImageProblem::Read(e)))?;
        let identity = Identity::of(&file).map_err(|e| fail(ImageProblem::Read(e)))?;
        // Held while unpacking, so that machines started at once unpack only once.
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = cache.get(&identity) {
            return Ok(image);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|e| fail(ImageProblem::Read(e)))?;
        let image = Arc::new(KernelImage::parse(path, bytes)?);
        cache.put(identity, Arc::clone(&image));
        Ok(image)
    }

    /// Takes a kernel from memory; `path` is what errors call it.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<KernelImage, ImageError> {
        let fail = |reason| ImageError {
            path: path.to_path_buf(),
            reason,
        };
        let (vmlinux, header, version) = unpack(bytes).map_err(fail)?;
        let elf = elf::parse(&vmlinux).map_err(|e| fail(ImageProblem::Elf(e)))?;
        Ok(KernelImage {
            path: path.to_path_buf(),
            vmlinux,
            elf,
            header,
            version,
        })
    }

    /// The file that it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Version text as the bzImage gives it; an ELF file has none in a known place.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The setup header of a bzImage.
    pub fn header(&self) -> Option<&SetupHeader> {
        self.header.as_ref()
    }

    /// Segments and entry point.
    pub fn elf(&self) -> &ElfKernel {
        &self.elf
    }

    /// The bytes of one of this image's segments.
    pub(crate) fn segment_bytes(&self, segment: &elf::Segment) -> &[u8] {
        &self.vmlinux[segment.file.clone()]
    }
}

type Unpacked = (Vec<u8>, Option<SetupHeader>, Option<String>);

fn unpack(bytes: Vec<u8>) -> Result<Unpacked, ImageProblem> {
    if elf::is_elf(&bytes) {
        return Ok((bytes, None, None));
    }
    if !bzimage::is_bzimage(&bytes) {
        return Err(ImageProblem::NotAKernel(hint(&bytes)));
    }
    let image = bzimage::parse(&bytes).map_err(ImageProblem::BzImage)?;
    if !elf::is_elf(&image.vmlinux) {
        return Err(ImageProblem::PayloadNotElf);
    }
    Ok((image.vmlinux, Some(image.header), image.version))
}

/// What the file seems to be instead: the mistakes that people make.
fn hint(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => " (the file is empty)",
        [b'0', b'7', b'0', b'7', ..] => " (it is a cpio archive: an initramfs?)",
        _ if bytes.get(0x38..0x3c) == Some(b"ARM\x64") => " (it is a kernel for ARM64)",
        _ if super::decompress::Format::of(bytes).is_some() => {
            " (it is compressed: an initramfs, or a vmlinux that must be unpacked first?)"
        }
        _ => "",
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> std::io::Result<Identity> {
        let meta = file.metadata()?;
        Ok(Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The images used last, least recently used first to go.
#[derive(Default)]
struct Cache {
    images: Option<HashMap<Identity, (u64, Arc<KernelImage>)>>,
    uses: u64,
}

static CACHE: Mutex<Cache> = Mutex::new(Cache {
    images: None,
    uses: 0,
});

impl Cache {
    fn get(&mut self, identity: &Identity) -> Option<Arc<KernelImage>> {
        self.uses += 1;
        let (last_use, image) = self.images.as_mut()?.get_mut(identity)?;
        *last_use = self.uses;
        Some(Arc::clone(image))
    }

    fn put(&mut self, identity: Identity, image: Arc<KernelImage>) {
        let images = self.images.get_or_insert_default();
        while images.len() >= KEPT_IMAGES {
            let oldest = images.iter().min_by_key(|(_, (last_use, _))| *last_use);
            let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) else {
                break;
            };
            images.remove(&oldest);
        }
        images.insert(identity, (self.uses, image));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::decompress::Format;
    use super::*;
    use std::error::Error;

    const MIB: u64 = 1 << 20;

    /// A tiny Linux: one segment at 16 MiB with `code`, 2 MiB in memory.
    pub(crate) fn tiny_vmlinux(code: &[u8]) -> Vec<u8> {
        let notes = [elf::tests::LINUX_NOTE];
        elf::tests::build(16 * MIB, &[(16 * MIB, code, 2 * MIB)], &notes)
    }

    /// The same inside a bzImage.
    pub(crate) fn tiny_bzimage(code: &[u8]) -> KernelImage {
        let file = bzimage::tests::build(Format::Lz4, &tiny_vmlinux(code));
        KernelImage::parse(Path::new("/boot/tiny"), file).unwrap()
    }

    fn chain(error: &dyn Error) -> String {
        let next = error.source().map(|source| format!(": {}", chain(source)));
        format!("{error}{}", next.unwrap_or_default())
    }

    fn reason(bytes: &[u8]) -> String {
        let error = KernelImage::parse(Path::new("/boot/wrong"), bytes.to_vec()).unwrap_err();
        let text = chain(&error);
        assert!(text.starts_with("kernel /boot/wrong: "), "{text}");
        text
    }

    #[test]
    fn bzimage_and_vmlinux_give_the_same_kernel() {
        let bz = tiny_bzimage(b"code");
        let elf = KernelImage::parse(Path::new("vmlinux"), tiny_vmlinux(b"code")).unwrap();
        assert_eq!(bz.elf(), elf.elf());
        assert_eq!(bz.segment_bytes(&bz.elf().segments[0]), b"code");
        assert_eq!(bz.version(), Some("6.1.0-test"));
        assert!(bz.header().is_some() && elf.header().is_none());
    }

    #[test]
    fn wrong_files_are_named_with_the_reason() {
        assert!(reason(b"").contains("empty"));
        assert!(reason(b"just text").contains("not a kernel"));
        assert!(reason(b"070701000").contains("cpio"));
        assert!(reason(&[0x1f, 0x8b, 8, 0]).contains("compressed"));
        let inner = bzimage::tests::build(Format::Xz, b"no ELF");
        assert!(reason(&inner).contains("not an ELF"));
        let whole = bzimage::tests::build(Format::Xz, &tiny_vmlinux(b"code"));
        assert!(reason(&whole[..whole.len() - 8]).contains("truncated"));
        let mut small = tiny_vmlinux(b"code");
        small[4] = 1;
        assert!(reason(&small).contains("32-bit"));
    }

    #[test]
    fn missing_file_is_named() {
        let error = KernelImage::open(Path::new("/no/such/kernel")).unwrap_err();
        let text = chain(&error);
        assert!(
            text.contains("/no/such/kernel") && text.contains("cannot read"),
            "{text}"
        );
    }

    #[test]
    fn the_same_file_is_unpacked_once_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        std::fs::write(&path, tiny_vmlinux(b"one")).unwrap();
        let first = KernelImage::open(&path).unwrap();
        assert!(Arc::ptr_eq(&first, &KernelImage::open(&path).unwrap()));
        std::fs::write(&path, tiny_vmlinux(b"three")).unwrap();
        let second = KernelImage::open(&path).unwrap();
        assert_eq!(second.segment_bytes(&second.elf().segments[0]), b"three");
    }
}
