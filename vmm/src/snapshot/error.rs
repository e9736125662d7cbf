//! Why a snapshot could not be written or used.

use std::path::{Path, PathBuf};

/// Errors of snapshots; every one names the file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused.
    #[error("snapshot {}: {step} failed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{}: not a snapshot", path.display())]
    NotASnapshot {
        /// The file.
        path: PathBuf,
    },
    /// Another version of Provium has written it.
    #[error(
        "snapshot {}: format version {found}, this Provium reads version {supported}; take it anew",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Taken on another CPU model.
    #[error(
        "snapshot {}: taken on CPU model {found:08x}, this Provium's is {supported:08x}; take it anew",
        path.display()
    )]
    CpuModel {
        /// The file.
        path: PathBuf,
        /// Fingerprint of its model.
        found: u32,
        /// Of ours.
        supported: u32,
    },
    /// The content is not what was written.
    #[error("snapshot {}: damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The one that it builds on is of no use.
    #[error(
        "snapshot {}: holds only what changed since snapshot {}, which cannot be used",
        path.display(), base.display()
    )]
    Base {
        /// The file.
        path: PathBuf,
        /// The one it builds on.
        base: PathBuf,
        /// Why not.
        #[source]
        source: Box<SnapshotError>,
    },
    /// The machine does not go on from the one that it is to build on.
    #[error(
        "snapshot {}: the VM does not go on from {}, so what changed since then is not known; \
         restore it from there, or take a whole snapshot",
        path.display(), base.display()
    )]
    NotOnBase {
        /// The file that was to be written.
        path: PathBuf,
        /// What it was to build on.
        base: PathBuf,
    },
    /// The state does not fit a machine of this Provium.
    #[error("snapshot {}: {part} cannot be put back", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Which part.
        part: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SnapshotError {
    /// The file it is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::NotASnapshot { path }
            | Self::Version { path, .. }
            | Self::CpuModel { path, .. }
            | Self::Damaged { path, .. }
            | Self::Base { path, .. }
            | Self::NotOnBase { path, .. }
            | Self::State { path, .. } => path,
        }
    }

    /// True when taking the snapshot anew helps: the file is not what this Provium would write.
    #[must_use]
    pub fn is_unusable(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::NotOnBase { .. })
    }
}

/// Names the step on the file at `path` that failed.
pub(super) fn io<'a>(
    path: &'a Path,
    step: &'static str,
) -> impl Fn(std::io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Io {
        path: path.to_owned(),
        step,
        source,
    }
}
