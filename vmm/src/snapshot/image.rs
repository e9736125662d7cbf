//! An image in use: a file that was checked, and is mapped by the machines that go on from it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_devices::GuestMemory;

use super::error::{SnapshotError, io};
use super::format::{Chunks, Header, PAGE, Parsed, Part, VERSION, chunk_range, cpu_model};
use super::state::MachineState;
use crate::layout;
use crate::memory;

/// Longest state, owner's part and console that are read at all.
const MAX_PART: u64 = 1 << 32;

/// A checked snapshot. Machines that go on from one share its pages as long as they do not write
/// them. The file stays open: removing it does not hurt them.
pub struct Image {
    file: File,
    path: Option<PathBuf>,
    header: Header,
    chunks: Chunks,
    runs: Vec<Range<u64>>,
    state: MachineState,
    owner: Vec<u8>,
}

impl Image {
    /// One that this process has just written.
    pub(super) fn written(
        file: File,
        path: Option<PathBuf>,
        header: Header,
        chunks: Chunks,
        state: MachineState,
        owner: Vec<u8>,
    ) -> Arc<Self> {
        Arc::new(Self {
            runs: chunks.runs(header.memory),
            file,
            path,
            header,
            chunks,
            state,
            owner,
        })
    }

    /// Opens a snapshot and checks all of it.
    ///
    /// # Errors
    /// When it cannot be read, is none, was taken by another version or on another CPU model, or is
    /// damaged anywhere.
    pub fn open(path: &Path) -> Result<Arc<Self>, SnapshotError> {
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
        Ok(Self::written(
            file,
            Some(path.to_owned()),
            header,
            chunks,
            state,
            owner,
        ))
    }

    /// Where it lies; none for one without a name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// For messages.
    pub(crate) fn display_path(&self) -> PathBuf {
        self.path
            .clone()
            .unwrap_or_else(|| PathBuf::from("(in memory)"))
    }

    /// Bytes of RAM of the machine.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.header.memory
    }

    /// vCPUs of the machine.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        u32::try_from(self.state.engine.vcpus.len()).unwrap_or(u32::MAX)
    }

    /// What the machine's owner had put into it.
    #[must_use]
    pub fn owner(&self) -> &[u8] {
        &self.owner
    }

    /// The state of the machine.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        &self.state
    }

    /// Bytes that it takes on disk.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.blocks() * 512)
    }

    /// Everything printed until then.
    pub(crate) fn console(&self) -> Result<Vec<u8>, SnapshotError> {
        let path = self.display_path();
        read_part(&self.file, &path, &self.header.console, "the console")
    }

    pub(super) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Lays it under `memory`, which has its size.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
        memory::map_image(memory, &self.file, self.header.ram, &self.runs)
            .map_err(io(&self.display_path(), "mapping it"))
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
    for part in [header.state, header.owner, header.console, header.chunks] {
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
