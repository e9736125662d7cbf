//! Packs files into an initramfs: `pack OUT GUEST_PATH=HOST_PATH...`, every file executable.
//!
//! Used by `benches/`, which want an archive without asking for a program that makes one.

use std::error::Error;

use provium_vmm::boot::initramfs::{Archive, Index};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let out = args
        .next()
        .ok_or("usage: pack OUT GUEST_PATH=HOST_PATH...")?;
    let mut archive = Archive::new();
    archive.character_device("/dev/console", 0o600, (5, 1))?;
    for arg in args {
        let (guest, host) = arg.split_once('=').ok_or_else(|| format!("{arg}: no ="))?;
        archive.file(
            guest,
            0o755,
            std::fs::read(host).map_err(|e| format!("{host}: {e}"))?,
        )?;
    }
    std::fs::write(&out, archive.finish(&Index::default())?)?;
    Ok(())
}
