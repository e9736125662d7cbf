//! What every command starts from: configuration, directories, backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_lab::config::{Config, GuestFile, Places, Profile};
use provium_lab::guest::{Guests, Progress};
use provium_lab::{EventSink, Harness, Pool};
use provium_vmm::probe::{self, Choice, Request};

use crate::args::{CommonArgs, Vmm};
use crate::discover::Bases;
use crate::problem::Problem;

/// The configuration as the flags left it.
pub(crate) struct Session {
    /// Profiles, roots, cache.
    pub(crate) config: Config,
    /// Directories of the user.
    pub(crate) places: Places,
    /// What names are relative to.
    pub(crate) bases: Bases,
    /// No VM goes on from the state of an earlier boot.
    pub(crate) cold: bool,
}

impl Session {
    /// Loads the configuration: the given file, or the one found by walking up.
    pub(crate) fn open(config: Option<&Path>) -> Result<Self, Problem> {
        let cwd = std::env::current_dir().map_err(|source| Problem::Io {
            action: "find the current directory",
            source,
        })?;
        let places = Places::from_env();
        let config = match config {
            Some(path) => Config::load(path, &places)?,
            None => Config::discover(&cwd, &places)?,
        };
        for warning in &config.warnings {
            eprintln!("provium: warning: {warning}");
        }
        let base = config.path.is_some().then(|| config.dir.clone());
        Ok(Self {
            config,
            places,
            bases: Bases { cwd, config: base },
            cold: false,
        })
    }

    /// The built-in configuration, whatever is around.
    pub(crate) fn builtin() -> Result<Self, Problem> {
        let cwd = std::env::current_dir().map_err(|source| Problem::Io {
            action: "find the current directory",
            source,
        })?;
        let places = Places::from_env();
        Ok(Self {
            config: Config::builtin(&cwd, &places),
            places,
            bases: Bases { cwd, config: None },
            cold: false,
        })
    }

    /// As [`Session::open`], with `--kernel` and `--initrd` put into their profile.
    pub(crate) fn with_guests(common: &CommonArgs) -> Result<Self, Problem> {
        let mut session = Self::open(common.config.as_deref())?;
        session.cold = common.cold;
        let known: Vec<String> = session.config.profiles.keys().cloned().collect();
        let Some(profile) = session.config.profiles.get_mut(&common.profile) else {
            let name = &common.profile;
            let known = known.join(", ");
            return Err(Problem::Usage(format!(
                "--profile: no profile `{name}` (known: {known})"
            )));
        };
        if let Some(kernel) = &common.kernel {
            profile.kernel = guest_file(kernel, &session.bases.cwd);
        }
        if let Some(initrd) = &common.initrd {
            profile.initrd = Some(guest_file(initrd, &session.bases.cwd));
        }
        Ok(session)
    }
}

impl Session {
    /// A profile by name, or an error that lists the known ones.
    pub(crate) fn profile(&self, name: &str) -> Result<Profile, Problem> {
        let profiles = &self.config.profiles;
        profiles.get(name).cloned().ok_or_else(|| {
            let place = match &self.config.path {
                Some(path) => format!("in {}", path.display()),
                None => "(there is no provium.toml)".to_owned(),
            };
            let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
            Problem::Usage(format!(
                "no profile `{name}` {place}; known: {}",
                known.join(", ")
            ))
        })
    }

    /// The prepared guests of this user.
    #[must_use]
    pub(crate) fn guests(&self, progress: Arc<dyn Progress>) -> Guests {
        Guests::new(self.places.guests(), progress)
    }

    /// What all files of a run share, on the backend that was chosen.
    #[must_use]
    pub(crate) fn harness(
        self,
        choice: &Choice,
        pool: Pool,
        progress: Arc<dyn Progress>,
        events: Arc<dyn EventSink>,
    ) -> Harness {
        let guests = self.guests(progress);
        Harness::new(self.config, choice.backend, guests)
            .with_pool(pool)
            .with_cold(self.cold)
            .with_events(events)
    }
}

/// The backend that the flag means on this machine.
pub(crate) fn choose_backend(vmm: Vmm) -> Result<Choice, Problem> {
    let request = match vmm {
        Vmm::Auto => Request::Auto,
        Vmm::Kvm => Request::Kvm,
        Vmm::Soft => Request::Soft,
    };
    Ok(probe::choose(request)?)
}

/// The report on the backend, for people.
#[must_use]
pub(crate) fn backend_line(choice: &Choice) -> String {
    format!("vmm {} ({})", choice.backend, choice.reason)
}

/// A file given on the command line; the word `host` means this machine's own.
fn guest_file(given: &Path, cwd: &Path) -> GuestFile {
    if given == Path::new("host") {
        GuestFile::Host
    } else {
        GuestFile::Path(cwd.join(given))
    }
}

/// The file that remembers what failed.
#[must_use]
pub(crate) fn rerun_state(places: &Places) -> PathBuf {
    match std::env::var_os("PROVIUM_RERUN_STATE") {
        Some(path) if !path.is_empty() => path.into(),
        _ if places.home.is_some() => places.cache.join("rerun.json"),
        _ => std::env::temp_dir().join("provium-rerun.json"),
    }
}
