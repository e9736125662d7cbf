//! Unpacking on the host what a kernel would otherwise unpack in the guest: the payload of a
//! bzImage and the archives of an initramfs.
//!
//! The format is told by its magic number. Each decoder reports how much input it consumed, since
//! an initramfs may hold several archives one after another.

use std::io::{BufRead, Read};

/// More than this no kernel or initramfs unpacks to; a damaged file must not fill the host.
const LARGEST_OUTPUT: u64 = 4 << 30;
/// Size of the independent blocks of the lz4 legacy format.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Largest window that zstd can be told to use; kernels are packed with up to 2^27.
const ZSTD_WINDOW_LOG: u32 = 31;

/// A compression format that Linux knows for kernels and initramfs archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2.
    Bzip2,
    /// The stand-alone LZMA format.
    Lzma,
    /// xz.
    Xz,
    /// LZO in the `lzop` container: recognised, but not unpacked by us.
    Lzo,
    /// lz4 in the legacy container, the only one that Linux uses.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Format {
    /// Recognises a format by the first bytes of the data.
    pub fn of(data: &[u8]) -> Option<Format> {
        let magics: [(&[u8], Format); 8] = [
            (&[0x1f, 0x8b], Format::Gzip),
            (&[0x1f, 0x9e], Format::Gzip),
            (b"BZh", Format::Bzip2),
            (&[0x5d, 0x00, 0x00], Format::Lzma),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Format::Xz),
            (&[0x89, b'L', b'Z', b'O'], Format::Lzo),
            (&LZ4_LEGACY_MAGIC, Format::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
        ];
        magics
            .iter()
            .find(|(magic, _)| data.starts_with(magic))
            .map(|(_, format)| *format)
    }

    /// Name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Bzip2 => "bzip2",
            Format::Lzma => "lzma",
            Format::Xz => "xz",
            Format::Lzo => "lzo",
            Format::Lz4 => "lz4",
            Format::Zstd => "zstd",
        }
    }
}

/// Why data could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// The first bytes are those of no known format.
    #[error("unknown compression (first bytes {0:02x?})")]
    UnknownFormat(Vec<u8>),
    /// A known format that has no decoder here.
    #[error("{} compression is not supported; repack it with zstd, xz, lz4 or gzip", .0.name())]
    Unsupported(Format),
    /// The data end too early or are damaged.
    #[error("damaged or truncated {} data", .format.name())]
    Damaged {
        /// Format that the data claim to have.
        format: Format,
        /// What the decoder said.
        source: std::io::Error,
    },
    /// The output grew past any sensible size.
    #[error("{} data unpack to more than {LARGEST_OUTPUT} bytes", .0.name())]
    TooLarge(Format),
}

/// What one compressed stream held.
#[derive(Debug)]
pub struct Unpacked {
    /// The data.
    pub data: Vec<u8>,
    /// Input bytes that the stream took; what follows is another matter.
    pub consumed: usize,
}

/// Unpacks the one compressed stream at the start of `input`. `size_hint` reserves memory.
pub fn decompress(input: &[u8], size_hint: usize) -> Result<Unpacked, DecompressError> {
    let Some(format) = Format::of(input) else {
        return Err(DecompressError::UnknownFormat(
            input.iter().take(6).copied().collect(),
        ));
    };
    let damaged = |source| DecompressError::Damaged { format, source };
    let mut rest = input;
    let data = match format {
        Format::Gzip => drain(
            format,
            flate2::bufread::GzDecoder::new(&mut rest),
            size_hint,
        )?,
        Format::Bzip2 => drain(format, bzip2::bufread::BzDecoder::new(&mut rest), size_hint)?,
        Format::Lzma | Format::Xz => drain(format, lzma(format, &mut rest)?, size_hint)?,
        Format::Lzo => return Err(DecompressError::Unsupported(format)),
        Format::Lz4 => {
            let (data, consumed) = lz4_legacy(input, size_hint).map_err(damaged)?;
            rest = &input[consumed..];
            data
        }
        Format::Zstd => drain(format, zstd_frame(&mut rest).map_err(damaged)?, size_hint)?,
    };
    Ok(Unpacked {
        data,
        consumed: input.len() - rest.len(),
    })
}

/// Reads a decoder to its end, bounded by [`LARGEST_OUTPUT`].
fn drain(format: Format, decoder: impl Read, hint: usize) -> Result<Vec<u8>, DecompressError> {
    let mut data = Vec::with_capacity(hint);
    decoder
        .take(LARGEST_OUTPUT + 1)
        .read_to_end(&mut data)
        .map_err(|source| DecompressError::Damaged { format, source })?;
    if data.len() as u64 > LARGEST_OUTPUT {
        return Err(DecompressError::TooLarge(format));
    }
    Ok(data)
}

fn lzma<R: BufRead>(format: Format, input: R) -> Result<impl Read, DecompressError> {
    let stream = match format {
        Format::Lzma => liblzma::stream::Stream::new_lzma_decoder(u64::MAX),
        _ => liblzma::stream::Stream::new_stream_decoder(u64::MAX, 0),
    };
    let damaged = |error| DecompressError::Damaged {
        format,
        source: std::io::Error::from(error),
    };
    Ok(liblzma::bufread::XzDecoder::new_stream(
        input,
        stream.map_err(damaged)?,
    ))
}

fn zstd_frame<R: BufRead>(input: R) -> std::io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Unpacks the lz4 legacy container: a magic number, then blocks of [`LZ4_BLOCK`] bytes, each after
/// its packed size. It has no end mark, so it ends where no block can follow.
///
/// Blocks are independent of each other, so they are unpacked by as many threads as there are.
fn lz4_legacy(input: &[u8], size_hint: usize) -> std::io::Result<(Vec<u8>, usize)> {
    let (blocks, consumed) = lz4_blocks(input)?;
    let mut data = vec![0; (blocks.len() * LZ4_BLOCK).max(size_hint)];
    let lengths = lz4_unpack_parallel(&blocks, &mut data)?;
    let last = lengths.len().saturating_sub(1);
    if lengths.iter().take(last).any(|length| *length != LZ4_BLOCK) {
        // Legal for archives joined end to end: every archive's last block may be short.
        data = close_gaps(&data, &lengths);
    } else {
        data.truncate(lengths.iter().sum());
    }
    Ok((data, consumed))
}

/// The packed blocks, and where they end.
fn lz4_blocks(input: &[u8]) -> std::io::Result<(Vec<&[u8]>, usize)> {
    let largest = lz4_flex::block::get_maximum_output_size(LZ4_BLOCK);
    let mut blocks = Vec::new();
    let mut at = LZ4_LEGACY_MAGIC.len();
    while let Some(word) = input.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        if *word == LZ4_LEGACY_MAGIC {
            at += 4;
            continue;
        }
        let size = u32::from_le_bytes(*word) as usize;
        if size == 0 || size > largest {
            break;
        }
        let Some(block) = input.get(at + 4..at + 4 + size) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        blocks.push(block);
        at += 4 + size;
    }
    if blocks.is_empty() {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok((blocks, at))
    }
}

/// Unpacks block `i` to `data[i * LZ4_BLOCK..]`; returns the length of each.
fn lz4_unpack_parallel(blocks: &[&[u8]], data: &mut [u8]) -> std::io::Result<Vec<usize>> {
    let threads = std::thread::available_parallelism()
        .map_or(1, |n| n.get())
        .min(8);
    let share = blocks.len().div_ceil(threads);
    let unpack = |blocks: &[&[u8]], data: &mut [u8]| {
        let one = |(block, out): (&&[u8], &mut [u8])| {
            lz4_flex::block::decompress_into(block, out).map_err(std::io::Error::other)
        };
        blocks
            .iter()
            .zip(data.chunks_mut(LZ4_BLOCK))
            .map(one)
            .collect::<Result<Vec<_>, _>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = blocks
            .chunks(share)
            .zip(data.chunks_mut(share * LZ4_BLOCK))
            .map(|(blocks, data)| scope.spawn(move || unpack(blocks, data)))
            .collect();
        let mut lengths = Vec::with_capacity(blocks.len());
        for worker in workers {
            let part = worker
                .join()
                .map_err(|_| std::io::Error::other("decoder panicked"))?;
            lengths.extend(part?);
        }
        Ok(lengths)
    })
}

/// Joins blocks that do not fill their places.
fn close_gaps(data: &[u8], lengths: &[usize]) -> Vec<u8> {
    data.chunks(LZ4_BLOCK)
        .zip(lengths)
        .flat_map(|(block, length)| &block[..*length])
        .copied()
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// Packs with a given format the way the tools of that name do.
    pub(crate) fn pack(format: Format, data: &[u8]) -> Vec<u8> {
        match format {
            Format::Gzip => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                gz.write_all(data).unwrap();
                gz.finish().unwrap()
            }
            Format::Bzip2 => {
                let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
                bz.write_all(data).unwrap();
                bz.finish().unwrap()
            }
            Format::Lzma => {
                let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
                let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
                let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                xz.write_all(data).unwrap();
                xz.finish().unwrap()
            }
            Format::Xz => {
                let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
                xz.write_all(data).unwrap();
                xz.finish().unwrap()
            }
            Format::Lzo => [&[0x89, b'L', b'Z', b'O'], data].concat(),
            Format::Lz4 => {
                let mut out = LZ4_LEGACY_MAGIC.to_vec();
                for block in data.chunks(LZ4_BLOCK) {
                    let packed = lz4_flex::block::compress(block);
                    out.extend((packed.len() as u32).to_le_bytes());
                    out.extend(packed);
                }
                out
            }
            Format::Zstd => zstd::encode_all(data, 19).unwrap(),
        }
    }

    pub(crate) const SUPPORTED: [Format; 6] = [
        Format::Gzip,
        Format::Bzip2,
        Format::Lzma,
        Format::Xz,
        Format::Lz4,
        Format::Zstd,
    ];

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * i / 7 % 251) as u8).collect()
    }

    #[test]
    fn every_format_unpacks_and_tells_where_it_ended() {
        let data = sample(300_000);
        for format in SUPPORTED {
            let mut packed = pack(format, &data);
            let size = packed.len();
            // What follows must not be taken for more of the same stream.
            packed.extend([0; 12]);
            let unpacked = decompress(&packed, 0).unwrap();
            assert!(unpacked.data == data, "{}", format.name());
            assert_eq!(unpacked.consumed, size, "{}", format.name());
        }
    }

    #[test]
    fn lz4_of_several_blocks_and_joined_archives() {
        let data = sample(LZ4_BLOCK * 2 + 1234);
        let mut packed = pack(Format::Lz4, &data);
        assert!(decompress(&packed, data.len()).unwrap().data == data);
        packed.extend(pack(Format::Lz4, b"tail"));
        let joined = decompress(&packed, 0).unwrap();
        assert!(joined.data == [&data[..], b"tail"].concat());
        assert_eq!(joined.consumed, packed.len());
    }

    #[test]
    fn truncated_data_are_an_error_that_names_the_format() {
        for format in SUPPORTED {
            let packed = pack(format, &sample(100_000));
            let error = decompress(&packed[..packed.len() / 2], 0).unwrap_err();
            assert!(matches!(error, DecompressError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(format.name()), "{error}");
        }
    }

    #[test]
    fn lzo_is_recognised_and_refused_with_advice() {
        let error = decompress(&pack(Format::Lzo, b"x"), 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("lzo") && error.contains("zstd"), "{error}");
    }

    #[test]
    fn unknown_data_are_refused() {
        for data in [&b""[..], b"\0", b"hello world"] {
            let error = decompress(data, 0).unwrap_err();
            assert!(
                matches!(error, DecompressError::UnknownFormat(_)),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn damaged_streams_never_panic(
            format in proptest::sample::select(&SUPPORTED[..]),
            at in any::<proptest::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 1..9),
        ) {
            let mut packed = pack(format, &sample(5_000));
            let at = at.index(packed.len());
            for (to, from) in packed[at..].iter_mut().zip(&noise) {
                *to = *from;
            }
            let _ = decompress(&packed, 0);
        }
    }
}
