//! How a VM is booted (lua-api section 5.2).

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Reason;
use crate::units::show_size;

/// Boot options as they are staged at declaration or given to boot; what is absent comes from the profile (L-064).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BootOptions {
    /// Bytes of RAM (L-065).
    pub memory: Option<u64>,
    /// Virtual CPUs (L-066).
    pub cpus: Option<u32>,
    /// Replaces the profile's whole command line (L-067).
    pub kernel_cmdline: Option<String>,
    /// Placed last on the command line (L-241).
    pub kernel_cmdline_append: Option<String>,
    /// Seed of virtio-rng and of the kernel's random pool (L-068).
    pub rng_seed: Option<u64>,
    /// The realtime clock at the agent handshake, nanoseconds since the epoch (L-069).
    pub initial_time_ns: Option<i64>,
    /// Files put into the guest before init runs (L-070).
    pub files: Vec<InjectedFile>,
    /// How long the agent may take to answer, in host time (L-072, L-241).
    pub boot_timeout: Option<Duration>,
    /// Goes through the boot in any case, instead of going on from the state that an earlier boot has left.
    pub cold: bool,
}

/// A file put into the guest (L-070).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedFile {
    /// Absolute path in the guest.
    pub path: String,
    /// Its content.
    pub content: FileContent,
    /// Its permission bits; absent: those of the host file, else 0644.
    pub mode: Option<u32>,
}

/// Content of an injected file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// That of a host file.
    Host(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Least memory that is not a mistyped unit (L-065).
const MIN_MEMORY: u64 = 16 << 20;

impl BootOptions {
    /// These options with `over` laid over them: it wins per key, files merge by path (L-064).
    #[must_use]
    pub fn merged(mut self, over: Self) -> Self {
        for file in over.files {
            match self.files.iter_mut().find(|known| known.path == file.path) {
                Some(known) => *known = file,
                None => self.files.push(file),
            }
        }
        Self {
            memory: over.memory.or(self.memory),
            cpus: over.cpus.or(self.cpus),
            kernel_cmdline: over.kernel_cmdline.or(self.kernel_cmdline),
            kernel_cmdline_append: over.kernel_cmdline_append.or(self.kernel_cmdline_append),
            cold: over.cold || self.cold,
            rng_seed: over.rng_seed.or(self.rng_seed),
            initial_time_ns: over.initial_time_ns.or(self.initial_time_ns),
            files: self.files,
            boot_timeout: over.boot_timeout.or(self.boot_timeout),
        }
    }

    /// The rules that hold for values on their own.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        let refuse = |name: &str, problem: String| {
            Err(Reason::BadArgument {
                name: name.to_owned(),
                problem,
            })
        };
        if let Some(memory) = self.memory.filter(|memory| *memory < MIN_MEMORY) {
            let hint = "a size under 16M boots no kernel; bare numbers are bytes, write 512M or 1G";
            return refuse(
                "memory",
                format!("{} is too small: {hint}", show_size(memory)),
            );
        }
        if self.cpus == Some(0) {
            return refuse("cpus", "must be at least 1".to_owned());
        }
        for file in &self.files {
            if !file.path.starts_with('/') || file.path.split('/').any(|part| part == "..") {
                let problem = format!("guest path {:?} must be absolute, without ..", file.path);
                return refuse("files", problem);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> InjectedFile {
        let content = FileContent::Bytes(content.into());
        InjectedFile {
            path: path.to_owned(),
            content,
            mode: None,
        }
    }

    #[test]
    fn l064_the_later_options_win_per_key_and_files_merge_by_path() {
        let staged = BootOptions {
            memory: Some(1 << 30),
            cpus: Some(2),
            files: vec![file("/a", "1"), file("/b", "2")],
            ..BootOptions::default()
        };
        let given = BootOptions {
            cpus: Some(4),
            files: vec![file("/b", "3"), file("/c", "4")],
            ..BootOptions::default()
        };
        let merged = staged.merged(given);
        assert_eq!((merged.memory, merged.cpus), (Some(1 << 30), Some(4)));
        assert_eq!(
            merged.files,
            [file("/a", "1"), file("/b", "3"), file("/c", "4")]
        );
    }

    #[test]
    fn l065_too_little_memory_hints_at_units() {
        let text = |memory| {
            BootOptions {
                memory: Some(memory),
                ..BootOptions::default()
            }
            .check()
            .unwrap_err()
            .to_string()
        };
        assert!(text(512).contains("bare numbers are bytes"));
        assert!(
            BootOptions {
                memory: Some(16 << 20),
                ..BootOptions::default()
            }
            .check()
            .is_ok()
        );
        assert!(
            BootOptions {
                cpus: Some(0),
                ..BootOptions::default()
            }
            .check()
            .is_err()
        );
    }

    #[test]
    fn l070_injected_paths_are_absolute() {
        for path in ["relative", "", "/a/../b"] {
            let options = BootOptions {
                files: vec![file(path, "")],
                ..BootOptions::default()
            };
            assert!(options.check().is_err(), "{path}");
        }
    }
}
