//! An image in use: a file that was checked, and is mapped by the machines that go on from it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_devices::GuestMemory;

use super::base::BaseRef;
use super::error::{SnapshotError, io};
use super::format::{Chunks, Header, PAGE, Parsed, Part, VERSION, chunk_range, cpu_model};
use super::publish::directory;
use super::state::MachineState;
use crate::layout;
use crate::memory::{self, Layer};

/// Longest state, owner's part and console that are read at all.
const MAX_PART: u64 = 1 << 32;

/// A checked snapshot. Machines that go on from one share its pages as long as they do not write
/// them. The file stays open: removing it does not hurt them.
pub struct Image {
    written: Written,
    runs: Vec<Run>,
}

/// What an image is made of.
pub(super) struct Written {
    pub(super) file: File,
    pub(super) path: Option<PathBuf>,
    pub(super) header: Header,
    pub(super) chunks: Chunks,
    /// The whole image that has what this one has not.
    pub(super) base: Option<Arc<Image>>,
    pub(super) state: MachineState,
    pub(super) owner: Vec<u8>,
}

/// A linear range of RAM and where its bytes are.
struct Run {
    range: Range<u64>,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Zero,
    Base,
    Here,
}

impl Image {
    /// One that this process has just written, or checked.
    pub(super) fn new(written: Written) -> Arc<Self> {
        let runs = runs(&written);
        Arc::new(Self { written, runs })
    }

    /// Opens a snapshot and checks all of it, and the one that it builds on.
    ///
    /// # Errors
    /// When it cannot be read, is none, was taken by another version or on another CPU model, or is
    /// damaged anywhere, or the one that it builds on is.
    pub fn open(path: &Path) -> Result<Arc<Self>, SnapshotError> {
        Self::open_with(path, &Self::open)
    }

    /// The same; the image that it builds on is had by `open_base`.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        path: &Path,
        open_base: &dyn Fn(&Path) -> Result<Arc<Self>, SnapshotError>,
    ) -> Result<Arc<Self>, SnapshotError> {
        let file = File::open(path).map_err(io(path, "opening it"))?;
        let damaged = |what: &str| SnapshotError::Damaged {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let header = read_header(&file, path)?;
        check_places(&file, path, &header)?;
        let read = |part: &Part, name: &str| read_part(&file, path, part, name);
        let state = read(&header.state, "the state")?;
        let owner = read(&header.owner, "the owner's part")?;
        // Read for its checksum; it is read again when it is needed.
        read(&header.console, "the console")?;
        let base = read(&header.base, "the reference to its base")?;
        let table = read(&header.chunks, "the table of chunks")?;
        let chunks = Chunks::from_bytes(&table)
            .ok_or_else(|| damaged("the table of chunks is senseless"))?;
        if chunks.len() != Chunks::none(header.memory).len() {
            return Err(damaged(
                "the table of chunks has another length than memory",
            ));
        }
        let state: MachineState =
            rmp_serde::from_slice(&state).map_err(|source| SnapshotError::State {
                path: path.to_owned(),
                part: "the state",
                source: source.into(),
            })?;
        check_ram(&file, path, &header, &chunks)?;
        let base = match base.as_slice() {
            [] => None,
            bytes => {
                let reference = BaseRef::from_bytes(bytes, directory(path))
                    .ok_or_else(|| damaged("the reference to its base is senseless"))?;
                let base = find_base(&reference, header.memory, open_base);
                Some(base.map_err(|source| SnapshotError::Base {
                    path: path.to_owned(),
                    base: reference.path().to_owned(),
                    source: Box::new(source),
                })?)
            }
        };
        Ok(Self::new(Written {
            file,
            path: Some(path.to_owned()),
            header,
            chunks,
            base,
            state,
            owner,
        }))
    }

    /// The whole image that it builds on.
    #[must_use]
    pub fn base(&self) -> Option<&Arc<Self>> {
        self.written.base.as_ref()
    }

    /// Where it lies; none for one without a name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.written.path.as_deref()
    }

    /// For messages.
    pub(crate) fn display_path(&self) -> PathBuf {
        self.written
            .path
            .clone()
            .unwrap_or_else(|| PathBuf::from("(in memory)"))
    }

    /// Bytes of RAM of the machine.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.written.header.memory
    }

    /// vCPUs of the machine.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        u32::try_from(self.written.state.engine.vcpus.len()).unwrap_or(u32::MAX)
    }

    /// What the machine's owner had put into it.
    #[must_use]
    pub fn owner(&self) -> &[u8] {
        &self.written.owner
    }

    /// The state of the machine.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        &self.written.state
    }

    /// Bytes that it takes on disk.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.written.file.metadata().map_or(0, |m| m.blocks() * 512)
    }

    /// Everything printed until then.
    pub(crate) fn console(&self) -> Result<Vec<u8>, SnapshotError> {
        let path = self.display_path();
        read_part(
            &self.written.file,
            &path,
            &self.written.header.console,
            "the console",
        )
    }

    pub(super) fn header(&self) -> &Header {
        &self.written.header
    }

    pub(super) fn chunks(&self) -> &Chunks {
        &self.written.chunks
    }

    /// Linear ranges of RAM that may be other than zero, ascending.
    pub(super) fn present(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let runs = self.runs.iter().filter(|run| run.source != Source::Zero);
        runs.map(|run| run.range.clone())
    }

    /// Lays it under `memory`, which has its size.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
        self.lay(memory, |_| true)
    }

    /// Lays it under `memory`, of which it has just been saved while `before` lay under it.
    pub(super) fn map_saved(
        &self,
        memory: &GuestMemory,
        before: Option<&Arc<Self>>,
    ) -> Result<(), SnapshotError> {
        let base = before.map(|before| before.base().unwrap_or(before));
        match (base, self.base()) {
            // What is not in this file lies there already.
            (Some(there), Some(base)) if Arc::ptr_eq(there, base) => {
                self.lay(memory, |source| source == Source::Here)
            }
            _ => self.map(memory),
        }
    }

    fn lay(
        &self,
        memory: &GuestMemory,
        wanted: impl Fn(Source) -> bool,
    ) -> Result<(), SnapshotError> {
        let runs = self.runs.iter().filter(|run| wanted(run.source));
        let layers = runs.map(|run| Layer {
            range: run.range.clone(),
            from: match (run.source, self.base()) {
                (Source::Here, _) => Some(self.bytes_at(run.range.start)),
                (Source::Base, Some(base)) => Some(base.bytes_at(run.range.start)),
                _ => None,
            },
        });
        memory::lay(memory, layers).map_err(io(&self.display_path(), "mapping it"))
    }

    /// Where in which file the byte of RAM at a linear offset is.
    fn bytes_at(&self, offset: u64) -> (&File, u64) {
        (&self.written.file, self.written.header.ram + offset)
    }
}

/// Where all RAM comes from, ascending.
fn runs(image: &Written) -> Vec<Run> {
    let memory = image.header.memory;
    let mut runs: Vec<Run> = Vec::new();
    for chunk in 0..image.chunks.len() {
        let range = chunk_range(chunk, memory);
        let base = image.base.as_ref().map(|base| base.chunks());
        let source = if image.chunks.is_present(chunk) {
            Source::Here
        } else if base.is_some_and(|base| base.is_present(chunk)) {
            Source::Base
        } else {
            Source::Zero
        };
        match runs.last_mut() {
            Some(last) if last.source == source => last.range.end = range.end,
            _ => runs.push(Run { range, source }),
        }
    }
    runs
}

/// The whole image that `reference` means, for a machine of `memory` bytes.
fn find_base(
    reference: &BaseRef,
    memory: u64,
    open: &dyn Fn(&Path) -> Result<Arc<Image>, SnapshotError>,
) -> Result<Arc<Image>, SnapshotError> {
    let path = reference.path();
    // Looked at before it is opened, so that references in a circle end.
    let file = File::open(path).map_err(io(path, "opening it"))?;
    let header = read_header(&file, path)?;
    if !reference.is(&header) || header.base.len != 0 || header.memory != memory {
        return Err(SnapshotError::Damaged {
            path: path.to_owned(),
            what: "it is another snapshot than the one of then".to_owned(),
        });
    }
    let base = open(path)?;
    match reference.is(base.header()) {
        true => Ok(base),
        false => Err(SnapshotError::Damaged {
            path: path.to_owned(),
            what: "it changed while it was opened".to_owned(),
        }),
    }
}

fn read_header(file: &File, path: &Path) -> Result<Header, SnapshotError> {
    let mut page = vec![0; PAGE as usize];
    let mut filled = 0;
    while filled < page.len() {
        match file.read_at(&mut page[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io(path, "reading it")(e)),
        }
    }
    let path_ = || path.to_owned();
    match Header::parse(&page[..filled]) {
        Parsed::Header(header) if header.cpu_model == cpu_model() => Ok(header),
        Parsed::Header(header) => Err(SnapshotError::CpuModel {
            path: path_(),
            found: header.cpu_model,
            supported: cpu_model(),
        }),
        Parsed::NotASnapshot => Err(SnapshotError::NotASnapshot { path: path_() }),
        Parsed::Version(found) => Err(SnapshotError::Version {
            path: path_(),
            found,
            supported: VERSION,
        }),
        Parsed::Damaged(what) => Err(SnapshotError::Damaged {
            path: path_(),
            what: what.to_owned(),
        }),
    }
}

/// The parts lie one after another, and the file ends where RAM does.
fn check_places(file: &File, path: &Path, header: &Header) -> Result<(), SnapshotError> {
    let damaged = |what: String| SnapshotError::Damaged {
        path: path.to_owned(),
        what,
    };
    layout::ram_regions(header.memory).map_err(|e| damaged(e.to_string()))?;
    let mut at = PAGE;
    for part in header.parts() {
        if part.offset != at || part.len > MAX_PART {
            return Err(damaged("its parts overlap".to_owned()));
        }
        at = part
            .end()
            .ok_or_else(|| damaged("its parts overlap".to_owned()))?;
    }
    let end = header.ram.checked_add(header.memory);
    let len = file.metadata().map_err(io(path, "looking at it"))?.len();
    if !header.ram.is_multiple_of(PAGE) || header.ram < at || end != Some(len) {
        let what = format!("it is {len} bytes long instead of {}", end.unwrap_or(0));
        return Err(damaged(what));
    }
    Ok(())
}

fn read_part(file: &File, path: &Path, part: &Part, name: &str) -> Result<Vec<u8>, SnapshotError> {
    let damaged = |what| SnapshotError::Damaged {
        path: path.to_owned(),
        what,
    };
    let len = usize::try_from(part.len).map_err(|_| damaged(format!("{name} is too long")))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, part.offset)
        .map_err(io(path, "reading it"))?;
    if crc32fast::hash(&bytes) != part.crc {
        return Err(damaged(format!("the checksum of {name} does not match")));
    }
    Ok(bytes)
}

fn check_ram(
    file: &File,
    path: &Path,
    header: &Header,
    chunks: &Chunks,
) -> Result<(), SnapshotError> {
    let mut buffer = vec![0; super::format::CHUNK as usize];
    for (chunk, crc) in chunks.present() {
        let range = chunk_range(chunk, header.memory);
        let bytes = &mut buffer[..(range.end - range.start) as usize];
        file.read_exact_at(bytes, header.ram + range.start)
            .map_err(io(path, "reading it"))?;
        if crc32fast::hash(bytes) != crc {
            let what = format!(
                "the checksum of memory at offset {:#x} does not match",
                header.ram + range.start
            );
            return Err(SnapshotError::Damaged {
                path: path.to_owned(),
                what,
            });
        }
    }
    Ok(())
}
