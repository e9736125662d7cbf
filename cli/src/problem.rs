//! What can go wrong before or around a run; the whole chain is printed once, in `main`.

use std::path::PathBuf;

use provium_lab::config::ConfigError;

use crate::discover::DiscoverError;

/// Why a command could not do what it was asked. All of them end with exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A path of the user.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// A file of the program's own.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, `write`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The terminal or a pipe.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A build command of a profile.
    #[error("profile {profile}: build command failed ({status})")]
    Build {
        /// The profile.
        profile: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// `--vmm kvm` on a machine where it cannot be.
    #[error(transparent)]
    Kvm(#[from] provium_vmm::probe::KvmUnusable),
    /// A machine that cannot be started.
    #[error(transparent)]
    Machine(#[from] provium_vmm::Error),
    /// A guest that cannot be had.
    #[error(transparent)]
    Guest(#[from] provium_lab::guest::GuestError),
    /// The event socket.
    #[error(transparent)]
    Socket(#[from] crate::report::SocketError),
    /// An event stream or report of an earlier run.
    #[error(transparent)]
    Stream(#[from] crate::stream::StreamError),
    /// The record of an earlier run.
    #[error(transparent)]
    Record(#[from] crate::timings::RecordError),
    /// Profiles that cannot be booted.
    #[error("{}", .0.join("\n"))]
    Preflight(Vec<String>),
    /// Something a lab was asked for.
    #[error(transparent)]
    Lab(#[from] provium_lab::Error),
}

impl Problem {
    /// Closure for failed file operations.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
