//! The agent's archive: the embedded binary as a cpio that is appended to a guest's initramfs (cli-and-config R-083,
//!

use provium_vmm::boot::initramfs::{Archive, Index, InitramfsError};

/// The static agent binary, built by this crate's build script.
pub const AGENT: &[u8] = include_bytes!(env!("PROVIUM_AGENT_BINARY"));

/// Where it is in the guest.
pub(crate) const AGENT_PATH: &str = "/sbin/provium-agent";

/// The archive, made to lie over what `below` lists.
pub(crate) fn agent_archive(below: &Index) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = Archive::new();
    archive.file(AGENT_PATH, 0o755, AGENT.to_vec())?;
    archive.finish(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_a_static_x86_64_program() {
        assert!(AGENT.starts_with(b"\x7fELF\x02\x01"));
        assert_eq!(&AGENT[18..20], &62u16.to_le_bytes());
        // A dynamic program would have a segment that names its loader.
        const PT_INTERP: u8 = 3;
        let field = |at: usize| usize::from(u16::from_le_bytes([AGENT[at], AGENT[at + 1]]));
        let (table, size, count) = (field(0x20), field(0x36), field(0x38));
        assert!(count > 0);
        assert!((0..count).all(|index| AGENT[table + index * size] != PT_INTERP));
    }
}
