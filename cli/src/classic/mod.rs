//! What only a classic run has (classic-api sections 8 and 10, cli-and-config section 4): which files
//! it takes, and the directory where failed files leave their logs.

mod files;
mod logs;

pub(crate) use files::{ClassicFiles, find};
pub(crate) use logs::RunDirectory;
