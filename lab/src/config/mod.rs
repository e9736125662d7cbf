//! `provium.toml`: where tests live and which guests there are (cli-and-config section 7).
//!
//! [`Config::load`] reads one file, [`Config::discover`] finds it by walking up. All paths come out resolved, all
//! defaults filled in; whether the files exist is asked at preflight and boot, not here. Errors carry the
//! line, unknown keys become [`Config::warnings`] with the nearest known key.

mod nearest;
mod place;
mod places;
mod profile;
mod section;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use nearest::nearest;
pub use place::Place;
pub use places::Places;
pub use profile::{DEFAULT_MEMORY, DiskSource, GuestFile, Profile, ProfileDisk};
use section::{Section, Source, resolve};

/// Name of the configuration file.
pub const FILE_NAME: &str = "provium.toml";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("parse {}: {place}: {message}{}", path.display(), place.excerpt())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// It is TOML, but says something that cannot be.
    #[error("invalid config in {}: {place}: {message}{}", path.display(), place.excerpt())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
}

/// A configuration, ready for use.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from; none for the built-in one.
    pub path: Option<PathBuf>,
    /// Directory of that file, or the current one.
    pub dir: PathBuf,
    /// Directories for tests, fixtures and `require`.
    pub roots: Vec<PathBuf>,
    /// Fixture cache.
    pub cache_dir: PathBuf,
    /// Eviction target of the fixture cache.
    pub cache_max_size: u64,
    /// All profiles by name; `minimal` is always there.
    pub profiles: BTreeMap<String, Profile>,
    /// What looked wrong but is usable, one line each.
    pub warnings: Vec<String>,
}

impl Config {
    /// What holds without a configuration file: no roots, the profile `minimal`.
    #[must_use]
    pub fn builtin(dir: &Path, places: &Places) -> Self {
        let minimal = Profile::minimal(places, dir);
        Self {
            path: None,
            dir: dir.to_owned(),
            roots: Vec::new(),
            cache_dir: places.cache.join("fixtures"),
            cache_max_size: 20 << 30,
            profiles: BTreeMap::from([(minimal.name.clone(), minimal)]),
            warnings: Vec::new(),
        }
    }

    /// The configuration found by walking up from `start`, else the built-in one.
    pub fn discover(start: &Path, places: &Places) -> Result<Self, ConfigError> {
        match start
            .ancestors()
            .map(|dir| dir.join(FILE_NAME))
            .find(|path| path.is_file())
        {
            Some(path) => Self::load(&path, places),
            None => Ok(Self::builtin(start, places)),
        }
    }

    /// Reads one file.
    pub fn load(path: &Path, places: &Places) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let absolute = std::path::absolute(path).map_err(read)?;
        let text = std::fs::read_to_string(&absolute).map_err(read)?;
        Self::parse(&absolute, &text, places)
    }

    /// Reads the text of the file at `path`, which must be absolute.
    pub fn parse(path: &Path, text: &str, places: &Places) -> Result<Self, ConfigError> {
        let source = Source { path, text };
        let parsed = DeTable::parse(text).map_err(|error| source.malformed(&error))?;
        let top = Section::new(&source, "top level", 0, parsed.get_ref());
        let dir = path.parent().unwrap_or(Path::new("/"));
        let mut config = Self {
            path: Some(path.to_owned()),
            ..Self::builtin(dir, places)
        };
        config.read_provium(&top, places)?;
        let mut found = BTreeMap::new();
        let mut add = |profile: Profile, section: &Section<'_>| match found
            .insert(profile.name.clone(), profile)
        {
            None => Ok(()),
            Some(first) => Err(section.invalid(format!("profile {} is defined twice", first.name))),
        };
        if let Some(profiles) = top.table("profiles")? {
            if let Some(from) = profiles.string("from_dir")? {
                let from = resolve(dir, places.home.as_deref(), &from);
                for profile in read_profile_dir(&from, places, &mut config.warnings)? {
                    add(profile, &profiles)?;
                }
            }
            for (name, section) in profiles.remaining_tables()? {
                add(
                    Profile::read(&name, false, &section, dir, places)?,
                    &section,
                )?;
                section.warn_unknown(&mut config.warnings);
            }
        }
        if let Some(profiles) = top.table("profile")? {
            for (name, section) in profiles.remaining_tables()? {
                add(Profile::read(&name, true, &section, dir, places)?, &section)?;
                section.warn_unknown(&mut config.warnings);
            }
        }
        top.warn_unknown(&mut config.warnings);
        config.profiles.extend(found);
        Ok(config)
    }

    fn read_provium(&mut self, top: &Section<'_>, places: &Places) -> Result<(), ConfigError> {
        let Some(section) = top.table("provium")? else {
            return Ok(());
        };
        let home = places.home.as_deref();
        let roots = section.strings("roots")?.unwrap_or_default();
        self.roots = roots
            .iter()
            .map(|root| resolve(&self.dir, home, root))
            .collect();
        if let Some(dir) = section.string("cache_dir")? {
            self.cache_dir = resolve(&self.dir, home, &dir);
        }
        if let Some(size) = section.size("cache_max_size")? {
            self.cache_max_size = size;
        }
        section.warn_unknown(&mut self.warnings);
        Ok(())
    }

    /// Replaces kernel and initrd of a profile by what the command line or the environment names.
    /// A kernel that is `host` brings its own modules, so it replaces the initrd of a recipe, too.
    pub fn replace_guest(
        &mut self,
        profile: &str,
        kernel: Option<&str>,
        initrd: Option<&str>,
        dir: &Path,
    ) -> Result<(), crate::Reason> {
        self.profile(profile)?;
        let Some(profile) = self.profiles.get_mut(profile) else {
            return Ok(());
        };
        let parse = |text: &str| GuestFile::parse(text, |path| dir.join(path));
        if let Some(kernel) = kernel {
            profile.kernel = parse(kernel);
            if profile.kernel == GuestFile::Host
                && matches!(profile.initrd, Some(GuestFile::Recipe(_)))
            {
                profile.initrd = Some(GuestFile::Host);
            }
        }
        if let Some(initrd) = initrd {
            profile.initrd = Some(parse(initrd));
        }
        Ok(())
    }

    /// The profile of that name, or an error that lists the known ones (L-030).
    pub fn profile(&self, name: &str) -> Result<&Profile, crate::Reason> {
        self.profiles
            .get(name)
            .ok_or_else(|| crate::Reason::Unknown {
                kind: "profile",
                name: name.to_owned(),
                known: self.profiles.keys().cloned().collect(),
            })
    }
}

/// File that makes a directory below `from_dir` a profile.
const PROFILE_FILE: &str = "profile.provium.toml";

/// The profiles of a `from_dir` directory, by name.
fn read_profile_dir(
    dir: &Path,
    places: &Places,
    warnings: &mut Vec<String>,
) -> Result<Vec<Profile>, ConfigError> {
    let read = |source| ConfigError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.path().join(PROFILE_FILE).is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    names
        .iter()
        .map(|name| read_profile_file(&dir.join(name), name, places, warnings))
        .collect()
}

fn read_profile_file(
    dir: &Path,
    name: &str,
    places: &Places,
    warnings: &mut Vec<String>,
) -> Result<Profile, ConfigError> {
    let path = dir.join(PROFILE_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    let source = Source {
        path: &path,
        text: &text,
    };
    let parsed = DeTable::parse(&text).map_err(|error| source.malformed(&error))?;
    let section = Section::new(&source, format!("profile {name}"), 0, parsed.get_ref());
    let profile = Profile::read(name, false, &section, dir, places)?;
    section.warn_unknown(warnings);
    Ok(profile)
}
