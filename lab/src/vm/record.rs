//! What a VM's snapshot says about the VM besides the machine: enough to boot it again.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::options::{BootOptions, FileContent, InjectedFile};
use crate::state::VmState;

/// Version of the record; raised with every change.
const VERSION: u32 = 1;

/// The record; it is the owner's part of the image: its length, itself as JSON, then the bytes of injected files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// Name of the VM.
    pub(crate) name: String,
    /// Name of its profile.
    pub(crate) profile: String,
    /// It was paused.
    pub(crate) paused: bool,
    /// Identity of its agent: boot id and pid.
    pub(crate) agent: Option<(String, i32)>,
    memory: Option<u64>,
    cpus: Option<u32>,
    kernel_cmdline: Option<String>,
    kernel_cmdline_append: Option<String>,
    rng_seed: Option<u64>,
    initial_time_ns: Option<i64>,
    boot_timeout_ms: Option<u64>,
    files: Vec<FileRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileRecord {
    path: String,
    mode: Option<u32>,
    host: Option<PathBuf>,
    /// Bytes after the record.
    len: usize,
}

impl Record {
    pub(super) fn encode(
        name: &str,
        profile: &str,
        state: VmState,
        agent: Option<(String, i32)>,
        options: &BootOptions,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut blob = Vec::new();
        let mut files = Vec::new();
        for file in &options.files {
            let (host, bytes): (_, &[u8]) = match &file.content {
                FileContent::Host(path) => (Some(path.clone()), &[]),
                FileContent::Bytes(bytes) => (None, bytes),
            };
            blob.extend_from_slice(bytes);
            files.push(FileRecord {
                path: file.path.clone(),
                mode: file.mode,
                host,
                len: bytes.len(),
            });
        }
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let record = Self {
            version: VERSION,
            name: name.to_owned(),
            profile: profile.to_owned(),
            paused: state == VmState::Paused,
            agent,
            memory: options.memory,
            cpus: options.cpus,
            kernel_cmdline: options.kernel_cmdline.clone(),
            kernel_cmdline_append: options.kernel_cmdline_append.clone(),
            rng_seed: options.rng_seed,
            initial_time_ns: options.initial_time_ns,
            boot_timeout_ms: options.boot_timeout.map(millis),
            files,
        };
        let text = serde_json::to_vec(&record)?;
        let mut out = (text.len() as u64).to_le_bytes().to_vec();
        out.extend_from_slice(&text);
        out.extend_from_slice(&blob);
        Ok(out)
    }

    /// The record in an image, and the options that the VM was booted with; none if there is none that this version
    /// understands.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, BootOptions)> {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (text, mut blob) = rest.split_at_checked(len)?;
        let record: Self = serde_json::from_slice(text).ok()?;
        if record.version != VERSION {
            return None;
        }
        let mut files = Vec::new();
        for file in &record.files {
            let (bytes, rest) = blob.split_at_checked(file.len)?;
            blob = rest;
            let content = match &file.host {
                Some(path) => FileContent::Host(path.clone()),
                None => FileContent::Bytes(bytes.to_vec()),
            };
            files.push(InjectedFile {
                path: file.path.clone(),
                content,
                mode: file.mode,
            });
        }
        let options = BootOptions {
            memory: record.memory,
            cpus: record.cpus,
            kernel_cmdline: record.kernel_cmdline.clone(),
            kernel_cmdline_append: record.kernel_cmdline_append.clone(),
            rng_seed: record.rng_seed,
            initial_time_ns: record.initial_time_ns,
            files,
            boot_timeout: record.boot_timeout_ms.map(Duration::from_millis),
            // Of no meaning any more: what goes on from a snapshot boots cold if it is reset.
            cold: false,
        };
        Some((record, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l079_a_record_keeps_what_the_vm_was_booted_with() {
        let file = |path: &str, content| InjectedFile {
            path: path.into(),
            content,
            mode: Some(0o700),
        };
        let options = BootOptions {
            memory: Some(1 << 28),
            rng_seed: Some(7),
            files: vec![
                file("/a", FileContent::Bytes(b"one".to_vec())),
                file("/b", FileContent::Host("/etc/hostname".into())),
                file("/c", FileContent::Bytes(vec![0, 255])),
            ],
            boot_timeout: Some(Duration::from_millis(1500)),
            ..BootOptions::default()
        };
        let agent = Some(("id".to_owned(), 1));
        let bytes = Record::encode("a", "minimal", VmState::Paused, agent, &options).unwrap();
        let (record, back) = Record::decode(&bytes).unwrap();
        assert_eq!(
            (record.name.as_str(), record.profile.as_str(), record.paused),
            ("a", "minimal", true)
        );
        assert_eq!(back, options);
        for len in [0, 7, 20, bytes.len() - 1] {
            assert!(Record::decode(&bytes[..len]).is_none(), "{len} bytes");
        }
    }
}
