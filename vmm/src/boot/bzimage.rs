//! The x86 boot image of Linux: its setup header, and the compressed kernel inside.
//!
//! Field offsets are those of the kernel's "Linux/x86 Boot Protocol" document. Only protocol 2.12
//! and later with a 64-bit entry point is accepted: that is every x86-64 kernel since 3.8.

use super::decompress::{self, DecompressError};

/// Offset of the setup header in the file, and in the zero page.
pub(crate) const SETUP_HEADER: usize = 0x1f1;
/// First byte after the room that the zero page has for the header.
const SETUP_HEADER_LIMIT: usize = 0x290;
/// Boot protocol 2.12: the first with `xloadflags`.
const OLDEST_PROTOCOL: u16 = 0x020c;
const SECTOR: usize = 512;
const XLF_KERNEL_64: u16 = 1;
const XLF_ABOVE_4G: u16 = 1 << 1;
/// Modules can take part in relocating the kernel only if it can move at all.
const RELOCATABLE: usize = 0x234;

/// Why a file with a Linux boot signature cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BzImageError {
    /// The file ends before its own header says.
    #[error("truncated: {what} ends at byte {needed}, the file at {size}")]
    Truncated {
        /// What does not fit.
        what: &'static str,
        /// Where it ends.
        needed: usize,
        /// Size of the file.
        size: usize,
    },
    /// Not "bzImage" but the ancient "zImage", or a boot sector of something else.
    #[error("boot protocol {}.{:02}; 2.12 or later is needed", .0 >> 8, .0 & 0xff)]
    OldProtocol(u16),
    /// A kernel for 32-bit processors.
    #[error("a 32-bit kernel; only x86-64 kernels can be booted")]
    Not64Bit,
    /// The kernel inside cannot be unpacked.
    #[error("cannot unpack the kernel inside")]
    Payload(#[source] DecompressError),
}

/// The setup header, kept as it stands in the file since most of it is passed on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// Bytes from [`SETUP_HEADER`] to the end that the header gives for itself.
    bytes: Vec<u8>,
}

impl SetupHeader {
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes
            .get(offset - SETUP_HEADER..)
            .and_then(|field| field.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    /// The header's bytes, for the zero page.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Longest command line that the kernel keeps, without the NUL.
    pub fn cmdline_size(&self) -> u32 {
        u32::from_le_bytes(self.field(0x238))
    }

    /// Highest address that the initramfs may occupy.
    pub fn initrd_addr_max(&self) -> u64 {
        if self.xloadflags() & XLF_ABOVE_4G != 0 {
            // The kernel reaches any address; the field is only for loaders older than the flag.
            return u64::MAX;
        }
        u64::from(u32::from_le_bytes(self.field(0x22c)))
    }

    /// Whether the kernel runs at another physical address than the one it was linked for.
    pub fn relocatable(&self) -> bool {
        self.field::<1>(RELOCATABLE)[0] != 0
    }

    fn version(&self) -> u16 {
        u16::from_le_bytes(self.field(0x206))
    }

    fn xloadflags(&self) -> u16 {
        u16::from_le_bytes(self.field(0x236))
    }
}

/// A bzImage taken apart.
#[derive(Debug)]
pub struct BzImage {
    /// The setup header.
    pub header: SetupHeader,
    /// Version text of the kernel, such as `6.1.0-18-cloud-amd64 (…) #1 SMP`.
    pub version: Option<String>,
    /// The ELF file inside.
    pub vmlinux: Vec<u8>,
}

/// Whether the file carries the signature of a Linux boot image.
pub fn is_bzimage(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(b"HdrS") && file.get(0x1fe..0x200) == Some(&[0x55, 0xaa])
}

/// Takes a bzImage apart and unpacks the kernel in it. `file` must pass [`is_bzimage`].
pub fn parse(file: &[u8]) -> Result<BzImage, BzImageError> {
    let header = setup_header(file)?;
    if header.version() < OLDEST_PROTOCOL {
        return Err(BzImageError::OldProtocol(header.version()));
    }
    if header.xloadflags() & XLF_KERNEL_64 == 0 {
        return Err(BzImageError::Not64Bit);
    }
    let payload = payload(file, &header)?;
    // All formats but gzip have the unpacked size appended; gzip ends with it by itself.
    let (stream, size) = payload
        .split_last_chunk::<4>()
        .unwrap_or((payload, &[0; 4]));
    let size = u32::from_le_bytes(*size) as usize;
    let is_gzip = decompress::Format::of(payload) == Some(decompress::Format::Gzip);
    let stream = if is_gzip { payload } else { stream };
    // A damaged size must not make us reserve gigabytes: no kernel shrinks to a twentieth.
    let hint = size.min(payload.len().saturating_mul(20));
    let vmlinux = decompress::decompress(stream, hint)
        .map_err(BzImageError::Payload)?
        .data;
    Ok(BzImage {
        version: version_text(file, &header),
        header,
        vmlinux,
    })
}

fn setup_header(file: &[u8]) -> Result<SetupHeader, BzImageError> {
    let truncated = |needed| BzImageError::Truncated {
        what: "setup header",
        needed,
        size: file.len(),
    };
    // The byte at 0x201 is the operand of a jump over the header, so it tells the header's end.
    let length = *file.get(0x201).ok_or_else(|| truncated(0x202))?;
    let end = (0x202 + usize::from(length)).min(SETUP_HEADER_LIMIT);
    let bytes = file
        .get(SETUP_HEADER..end)
        .ok_or_else(|| truncated(end))?
        .to_vec();
    Ok(SetupHeader { bytes })
}

fn payload<'a>(file: &'a [u8], header: &SetupHeader) -> Result<&'a [u8], BzImageError> {
    let sectors = match header.field::<1>(SETUP_HEADER)[0] {
        // A quirk of the protocol: 0 stands for 4.
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = u32::from_le_bytes(header.field(0x248)) as usize;
    let length = u32::from_le_bytes(header.field(0x24c)) as usize;
    let start = (sectors + 1) * SECTOR + offset;
    let end = start + length;
    file.get(start..end).ok_or(BzImageError::Truncated {
        what: "compressed kernel",
        needed: end,
        size: file.len(),
    })
}

fn version_text(file: &[u8], header: &SetupHeader) -> Option<String> {
    let pointer = usize::from(u16::from_le_bytes(header.field(0x20e)));
    if pointer == 0 {
        return None;
    }
    let text = file.get(pointer + SECTOR..)?;
    let end = text.iter().take(256).position(|byte| *byte == 0)?;
    std::str::from_utf8(&text[..end]).ok().map(str::to_owned)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::decompress::{Format, tests::pack};
    use super::*;
    use proptest::prelude::*;

    fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// A minimal bzImage around `vmlinux`.
    pub(crate) fn build(format: Format, vmlinux: &[u8]) -> Vec<u8> {
        let setup_sectors = 2usize;
        let mut payload = pack(format, vmlinux);
        if format != Format::Gzip {
            payload.extend((vmlinux.len() as u32).to_le_bytes());
        }
        let mut file = vec![0; (setup_sectors + 1) * SECTOR];
        put(&mut file, 0x1f1, &[setup_sectors as u8]);
        put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        put(&mut file, 0x202, b"HdrS");
        put(&mut file, 0x206, &0x020fu16.to_le_bytes());
        put(&mut file, 0x20e, &0x180u16.to_le_bytes());
        put(&mut file, 0x380, b"6.1.0-test\0");
        put(&mut file, 0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(&mut file, 0x230, &0x20_0000u32.to_le_bytes());
        put(&mut file, RELOCATABLE, &[1]);
        put(&mut file, 0x236, &0x3u16.to_le_bytes());
        put(&mut file, 0x238, &2047u32.to_le_bytes());
        put(&mut file, 0x248, &16u32.to_le_bytes());
        put(&mut file, 0x24c, &(payload.len() as u32).to_le_bytes());
        file.extend([0; 16]);
        file.extend(payload);
        file
    }

    #[test]
    fn every_packing_is_taken_apart() {
        let vmlinux = b"\x7fELF and so on".repeat(1000);
        for format in super::super::decompress::tests::SUPPORTED {
            let file = build(format, &vmlinux);
            assert!(is_bzimage(&file));
            let image = parse(&file).unwrap();
            assert!(image.vmlinux == vmlinux, "{}", format.name());
            assert_eq!(image.version.as_deref(), Some("6.1.0-test"));
            assert_eq!(image.header.cmdline_size(), 2047);
            assert!(image.header.relocatable());
            assert_eq!(image.header.initrd_addr_max(), u64::MAX);
        }
    }

    #[test]
    fn truncation_tells_where_it_ends_and_where_it_should() {
        let file = build(Format::Gzip, b"kernel");
        let error = parse(&file[..file.len() - 1]).unwrap_err().to_string();
        assert!(error.contains(&file.len().to_string()), "{error}");
        let error = parse(&file[..0x230]).unwrap_err().to_string();
        assert!(error.contains("setup header"), "{error}");
    }

    #[test]
    fn old_and_32_bit_kernels_are_refused() {
        let mut file = build(Format::Gzip, b"kernel");
        put(&mut file, 0x236, &[0, 0]);
        assert!(matches!(parse(&file), Err(BzImageError::Not64Bit)));
        put(&mut file, 0x206, &0x0204u16.to_le_bytes());
        let error = parse(&file).unwrap_err().to_string();
        assert!(error.contains("2.04"), "{error}");
    }

    #[test]
    fn lzo_is_named_in_the_chain() {
        let error = parse(&build(Format::Lzo, b"kernel")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("lzo"), "{source}");
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(
            patches in proptest::collection::vec((0x1f1usize..0x270, any::<u8>()), 0..20),
            length in 0usize..0x700,
        ) {
            let mut file = build(Format::Gzip, b"kernel");
            for (at, byte) in patches {
                file[at] = byte;
            }
            file.truncate(length.max(0x1f1));
            let _ = (is_bzimage(&file), parse(&file));
        }
    }
}
