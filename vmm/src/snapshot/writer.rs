//! Writing an image of a machine that stands still.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use provium_devices::GuestMemory;

use super::base::BaseRef;
use super::error::{SnapshotError, io};
use super::format::{
    CHUNK, Chunks, Header, PAGE, Part, chunk_range, close_gaps, cpu_model, page_up,
};
use super::image::{Image, Written};
use super::publish::{directory, nameless, publish, sync_directory};
use super::state::MachineState;
use crate::memory;

/// Gaps of fewer chunks than this count as present in a whole image: each gap costs every machine of
/// the image a mapping.
const SHORT_GAP: usize = 16;

/// Where an image goes.
#[derive(Debug, Clone, Copy)]
pub enum SaveTo<'a> {
    /// A file of this name; it survives a crash of the host once the call has returned.
    Durable(&'a Path),
    /// A file of this name for as long as this process lives: not waited for until it is on disk.
    Scratch(&'a Path),
    /// A file without a name in this directory, gone with the last machine that uses it.
    Nameless(&'a Path),
}

impl SaveTo<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Durable(path) | Self::Scratch(path) | Self::Nameless(path) => path,
        }
    }

    /// The name of the file, if it gets one.
    fn name(&self) -> Option<&Path> {
        match self {
            Self::Durable(path) | Self::Scratch(path) => Some(path),
            Self::Nameless(_) => None,
        }
    }
}

/// How much of memory goes into it.
#[derive(Clone, Copy)]
pub enum Extent<'a> {
    /// All: the image needs no other.
    Whole,
    /// What changed since the whole image that memory lies on, if there is one and little enough has
    /// changed; otherwise all.
    Little,
    /// What changed since this image, on which (or on one that builds on it) memory must lie.
    Since(&'a Arc<Image>),
}

/// Everything that goes into an image.
pub(crate) struct Content<'a> {
    pub(crate) state: &'a MachineState,
    pub(crate) owner: &'a [u8],
    pub(crate) console: &'a [u8],
    pub(crate) memory: &'a GuestMemory,
    /// The image that lies under memory.
    pub(crate) under: Option<&'a Arc<Image>>,
}

/// Writes an image; what it returns needs no further check.
pub(crate) fn save(
    to: SaveTo<'_>,
    extent: Extent<'_>,
    content: &Content<'_>,
) -> Result<Arc<Image>, SnapshotError> {
    let path = to.path();
    let dir = match to {
        SaveTo::Nameless(dir) => dir,
        _ => directory(path),
    };
    let plan = Plan::make(to, extent, content)?;
    let file = nameless(dir).map_err(io(path, "creating it"))?;
    let (header, chunks) = fill(&file, path, content, &plan)?;
    match to {
        SaveTo::Durable(path) => {
            file.sync_all().map_err(io(path, "writing it to disk"))?;
            publish(&file, path).map_err(io(path, "giving it its name"))?;
            sync_directory(path).map_err(io(path, "writing its directory to disk"))?;
        }
        SaveTo::Scratch(path) => {
            publish(&file, path).map_err(io(path, "giving it its name"))?;
        }
        SaveTo::Nameless(_) => {}
    }
    Ok(Image::new(Written {
        file,
        path: to.name().map(Path::to_owned),
        header,
        chunks,
        base: plan.base,
        state: content.state.clone(),
        owner: content.owner.to_vec(),
    }))
}

/// Which chunks of RAM are to be written, and the whole image that has the others.
struct Plan {
    marked: Vec<bool>,
    base: Option<Arc<Image>>,
}

impl Plan {
    fn make(
        to: SaveTo<'_>,
        extent: Extent<'_>,
        content: &Content<'_>,
    ) -> Result<Self, SnapshotError> {
        let total = memory_len(content.memory);
        let mut own = vec![false; Chunks::none(total).len()];
        memory::for_each_own_page(content.memory, |offset| {
            own[(offset / CHUNK) as usize] = true;
        })
        .map_err(io(to.path(), "learning what the guest has written"))?;
        let count = |marked: &[bool]| marked.iter().filter(|m| **m).count();
        if let Some(base) = base(to, extent, content)? {
            let mut marked = own.clone();
            if let Some(under) = content.under.filter(|under| under.base().is_some()) {
                mark(&mut marked, under.chunks());
            }
            close_gaps(&mut marked, 0);
            let little = 2 * count(&marked) <= base.chunks().present().count();
            if little || matches!(extent, Extent::Since(_)) {
                let base = Some(base);
                return Ok(Self { marked, base });
            }
        }
        // What memory has no page of its own of is the image's, or zero.
        let under_base = content.under.and_then(|under| under.base());
        let mut marked = own;
        for image in content.under.into_iter().chain(under_base) {
            mark(&mut marked, image.chunks());
        }
        let base = None;
        Ok(Self { marked, base })
    }
}

fn mark(marked: &mut [bool], chunks: &Chunks) {
    for (chunk, _) in chunks.present() {
        marked[chunk] = true;
    }
}

/// The whole image to build on, if it is to be one that builds on another.
fn base(
    to: SaveTo<'_>,
    extent: Extent<'_>,
    content: &Content<'_>,
) -> Result<Option<Arc<Image>>, SnapshotError> {
    let whole = |image: &Arc<Image>| image.base().unwrap_or(image).clone();
    // A file cannot refer to one that has no name.
    let fits = |base: &Arc<Image>| to.name().is_none() || base.path().is_some();
    let under = content.under.map(whole);
    match extent {
        Extent::Whole => Ok(None),
        Extent::Little => Ok(under.filter(fits)),
        Extent::Since(image) => {
            let base = whole(image);
            match under.is_some_and(|under| under.header() == base.header()) && fits(&base) {
                true => Ok(Some(base)),
                false => Err(SnapshotError::NotOnBase {
                    path: to.path().to_owned(),
                    base: base.display_path(),
                }),
            }
        }
    }
}

fn fill(
    file: &File,
    path: &Path,
    content: &Content<'_>,
    plan: &Plan,
) -> Result<(Header, Chunks), SnapshotError> {
    let write = |bytes: &[u8], offset| {
        file.write_all_at(bytes, offset)
            .map_err(io(path, "writing it"))
    };
    let state = rmp_serde::to_vec_named(content.state).map_err(|source| SnapshotError::State {
        path: path.to_owned(),
        part: "the state",
        source: source.into(),
    })?;
    let reference = plan.base.as_ref().map_or(Vec::new(), |base| {
        let reference = BaseRef::to(base.header(), &base.display_path());
        reference.to_bytes(directory(path))
    });
    let mut at = PAGE;
    let mut place = |bytes: &[u8]| {
        let part = Part::of(at, bytes);
        at += part.len;
        write(bytes, part.offset).map(|()| part)
    };
    let (state, owner) = (place(&state)?, place(content.owner)?);
    let (console, base) = (place(content.console)?, place(&reference)?);

    let total = memory_len(content.memory);
    let table = Chunks::none(total).len() as u64 * 8;
    let ram = page_up(at + table);
    file.set_len(ram + total)
        .map_err(io(path, "reserving its length"))?;
    let chunks =
        write_ram(file, ram, content, plan).map_err(io(path, "writing the guest's memory"))?;
    let bytes = chunks.to_bytes();
    let table = Part::of(at, &bytes);
    write(&bytes, at)?;
    let header = Header {
        cpu_model: cpu_model(),
        memory: total,
        state,
        owner,
        console,
        base,
        chunks: table,
        ram,
    };
    write(&header.to_page(), 0)?;
    Ok((header, chunks))
}

pub(super) fn memory_len(memory: &GuestMemory) -> u64 {
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
    memory.iter().map(GuestMemoryRegion::len).sum()
}

/// Writes the pages that are not zero.
fn write_ram(file: &File, ram: u64, content: &Content<'_>, plan: &Plan) -> std::io::Result<Chunks> {
    let total = memory_len(content.memory);
    let mut chunks = Chunks::none(total);
    let mut buffer = vec![0; CHUNK as usize];
    for chunk in (0..chunks.len()).filter(|chunk| plan.marked[*chunk]) {
        let range = chunk_range(chunk, total);
        let bytes = &mut buffer[..(range.end - range.start) as usize];
        memory::read_linear(content.memory, range.start, bytes)?;
        let any = write_pages(file, ram + range.start, bytes)?;
        // Zeroes stand where the base has something else.
        if any || plan.base.is_some() {
            chunks.set(chunk, crc32fast::hash(bytes));
        }
    }
    if plan.base.is_none() {
        close_zero_gaps(&mut chunks, total);
    }
    Ok(chunks)
}

/// Counts short gaps as present: they are holes of the file, so they cost nothing but their reading,
/// while a mapping less is gained.
fn close_zero_gaps(chunks: &mut Chunks, total: u64) {
    let mut marked: Vec<bool> = (0..chunks.len()).map(|c| chunks.is_present(c)).collect();
    close_gaps(&mut marked, SHORT_GAP);
    for chunk in (0..marked.len()).filter(|chunk| marked[*chunk]) {
        if !chunks.is_present(chunk) {
            let range = chunk_range(chunk, total);
            let zeroes = vec![0; (range.end - range.start) as usize];
            chunks.set(chunk, crc32fast::hash(&zeroes));
        }
    }
}

/// Writes the pages that are not zero, in runs; false if there was none.
fn write_pages(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<bool> {
    let is_zero = |page: &[u8]| page.iter().all(|b| *b == 0);
    let pages: Vec<&[u8]> = bytes.chunks(PAGE as usize).collect();
    let (mut start, mut any) = (0, false);
    for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let end = start + run.iter().map(|page| page.len()).sum::<usize>();
        if !is_zero(run[0]) {
            file.write_all_at(&bytes[start..end], offset + start as u64)?;
            any = true;
        }
        start = end;
    }
    Ok(any)
}
