//! Prepared guests: kernels and initramfs images built by recipes into the user's cache (cli-and-config R-088).
//!
//! ```text
//! cache/guest/NAME-RECIPEKEY.json   which image the recipe gave, with the packages that went in
//! cache/guest/HASH/                 that image: vmlinuz, initrd; HASH covers recipe and packages
//! cache/guest/lock                  held while one process prepares
//! ```
//!
//! An image is built in a temporary directory beside its place and moved there whole, so no reader ever sees half of
//! one; a recipe that changed gets a new key and with it a new image.

mod apt;
mod assemble;
mod deb;
mod host;
mod modules;
mod prepare;
mod progress;
mod recipe;

use std::io;
use std::path::{Path, PathBuf};

pub use modules::ModuleError;
pub use prepare::{GuestImage, Guests};
pub use progress::{GuestStep, Progress, Silent, StderrProgress};
pub use recipe::recipe_names;

/// Why a guest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// There is no such recipe.
    #[error("no recipe {name:?}; known: {}", recipe_names().collect::<Vec<_>>().join(", "))]
    NoRecipe {
        /// The name asked for.
        name: String,
    },
    /// Nothing is cached and nothing can be fetched; the text says what to do (R-088).
    #[error("guest {name}: not in the cache, and cannot be prepared: {cause}\n{advice}")]
    Unavailable {
        /// The recipe.
        name: String,
        /// What to supply instead.
        advice: String,
        /// Why preparing failed.
        #[source]
        cause: Box<GuestError>,
    },
    /// A program of apt failed.
    #[error("`{command}` failed: {output}")]
    Apt {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// A package cannot be read.
    #[error("package {}: {source}", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A package does not have what the recipe needs of it.
    #[error("package {package} has no {wanted}")]
    Missing {
        /// The package.
        package: String,
        /// What it should have.
        wanted: String,
    },
    /// A driver is missing or damaged.
    #[error("{kernel}: {source}")]
    Module {
        /// The kernel.
        kernel: String,
        /// Which driver.
        source: ModuleError,
    },
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive cannot be made.
    #[error("initramfs: {0}")]
    Archive(String),
}

impl GuestError {
    fn write(path: &Path, source: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }

    fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }
}
