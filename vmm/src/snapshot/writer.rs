//! Writing an image of a machine that stands still.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_devices::GuestMemory;

use super::error::{SnapshotError, io};
use super::format::{CHUNK, Chunks, Header, PAGE, Part, chunk_range, cpu_model, page_up};
use super::image::Image;
use super::publish::{directory, nameless, publish, sync_directory};
use super::state::MachineState;
use crate::memory;

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
}

/// Everything that goes into an image.
pub(crate) struct Content<'a> {
    pub(crate) state: &'a MachineState,
    pub(crate) owner: &'a [u8],
    pub(crate) console: &'a [u8],
    pub(crate) memory: &'a GuestMemory,
    /// The image that lies under memory.
    pub(crate) under: Option<&'a Image>,
}

/// Writes an image; what it returns needs no further check.
pub(crate) fn save(to: SaveTo<'_>, content: &Content<'_>) -> Result<Arc<Image>, SnapshotError> {
    let path = to.path();
    let dir = match to {
        SaveTo::Nameless(dir) => dir,
        _ => directory(path),
    };
    let file = nameless(dir).map_err(io(path, "creating it"))?;
    let (header, chunks) = fill(&file, path, content)?;
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
    let named: Option<PathBuf> = match to {
        SaveTo::Nameless(_) => None,
        _ => Some(path.to_owned()),
    };
    Ok(Image::written(
        file,
        named,
        header,
        chunks,
        content.state.clone(),
        content.owner.to_vec(),
    ))
}

fn fill(
    file: &File,
    path: &Path,
    content: &Content<'_>,
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
    let mut at = PAGE;
    let mut place = |bytes: &[u8]| {
        let part = Part::of(at, bytes);
        at += part.len;
        part
    };
    let (state_part, owner, console) =
        (place(&state), place(content.owner), place(content.console));
    write(&state, state_part.offset)?;
    write(content.owner, owner.offset)?;
    write(content.console, console.offset)?;

    let total = memory_len(content.memory);
    let table = Chunks::none(total).len() as u64 * 8;
    let ram = page_up(at + table);
    file.set_len(ram + total)
        .map_err(io(path, "reserving its length"))?;
    let chunks = write_ram(file, ram, content).map_err(io(path, "writing the guest's memory"))?;
    let bytes = chunks.to_bytes();
    let table = Part::of(at, &bytes);
    write(&bytes, at)?;
    let header = Header {
        cpu_model: cpu_model(),
        memory: total,
        state: state_part,
        owner,
        console,
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
fn write_ram(file: &File, ram: u64, content: &Content<'_>) -> std::io::Result<Chunks> {
    let total = memory_len(content.memory);
    let mut chunks = Chunks::none(total);
    let mut wanted = vec![false; chunks.len()];
    if let Some(image) = content.under {
        for (chunk, _) in image.chunks().present() {
            wanted[chunk] = true;
        }
    }
    // What this process has no page of is zero, or the image's.
    memory::for_each_own_page(content.memory, |offset| {
        wanted[(offset / CHUNK) as usize] = true;
    })?;
    let mut buffer = vec![0; CHUNK as usize];
    for chunk in (0..wanted.len()).filter(|chunk| wanted[*chunk]) {
        let range = chunk_range(chunk, total);
        let bytes = &mut buffer[..(range.end - range.start) as usize];
        memory::read_linear(content.memory, range.start, bytes)?;
        if write_pages(file, ram + range.start, bytes)? {
            chunks.set(chunk, crc32fast::hash(bytes));
        }
    }
    chunks.close_gaps(total);
    Ok(chunks)
}

/// Writes runs of pages that are not zero; false if there was none.
fn write_pages(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<bool> {
    let is_zero = |page: &[u8]| page.iter().all(|b| *b == 0);
    let pages: Vec<&[u8]> = bytes.chunks(PAGE as usize).collect();
    let mut any = false;
    let mut index = 0;
    for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let start = index * PAGE as usize;
        let len: usize = run.iter().map(|page| page.len()).sum();
        index += run.len();
        if !is_zero(run[0]) {
            file.write_all_at(&bytes[start..start + len], offset + start as u64)?;
            any = true;
        }
    }
    Ok(any)
}
