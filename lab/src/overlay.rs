//! The agent's archive: the embedded binary as a cpio that is appended to a guest's initramfs (cli-and-config R-083,
//!

use std::sync::{Arc, OnceLock};

use crate::archive::{Archive, Node};

/// The static agent binary, built by this crate's build script.
pub const AGENT: &[u8] = include_bytes!(env!("PROVIUM_AGENT_BINARY"));

/// The archive, made once per process.
pub(crate) fn agent_archive() -> Result<Arc<[u8]>, String> {
    static ARCHIVE: OnceLock<Result<Arc<[u8]>, String>> = OnceLock::new();
    let make = || {
        let nodes = [(
            "/sbin/provium-agent".to_owned(),
            Node::file(0o755, AGENT.to_vec()),
        )];
        Archive::from_nodes(nodes).write().map(Into::into)
    };
    ARCHIVE.get_or_init(make).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_a_static_x86_64_program() {
        assert!(AGENT.starts_with(b"\x7fELF\x02\x01"));
        assert_eq!(&AGENT[18..20], &62u16.to_le_bytes());
        // A dynamic program would name its loader.
        assert!(!AGENT.windows(15).any(|window| window == b"ld-linux-x86-64"));
        assert_eq!(agent_archive().unwrap().len() % 4, 0);
    }
}
