//! Directories of the user: home, cache, builds (cli-and-config ).

use std::env;
use std::path::PathBuf;

/// Where this user's files are. Taken from the environment once, given explicitly in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// HOME.
    pub home: Option<PathBuf>,
    /// `$XDG_CACHE_HOME/provium`, else `~/.cache/provium`, else a directory of this user in the temporary one.
    pub cache: PathBuf,
    /// PROVIUM_BUILD_DIR, which wins over the cache for builds.
    pub build_dir: Option<PathBuf>,
}

impl Places {
    /// As the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let home = directory("HOME");
        let base = directory("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
        let cache = match base {
            Some(base) => base.join("provium"),
            None => env::temp_dir().join("provium-cache"),
        };
        Self {
            home,
            cache,
            build_dir: directory("PROVIUM_BUILD_DIR"),
        }
    }

    /// Base of the default `build_out` directories.
    #[must_use]
    pub fn builds(&self) -> PathBuf {
        self.build_dir
            .clone()
            .unwrap_or_else(|| self.cache.join("builds"))
    }

    /// Where prepared guests are kept.
    #[must_use]
    pub fn guests(&self) -> PathBuf {
        self.cache.join("guest")
    }
}

/// An environment variable that names a directory; only absolute ones count, as the XDG rules say.
fn directory(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
