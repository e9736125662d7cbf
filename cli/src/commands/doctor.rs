//! `provium doctor`: is this machine fit, are the profiles usable?

use std::sync::Arc;

use provium_lab::config::GuestFile;
use provium_lab::guest::StderrProgress;
use provium_vmm::probe::{self, KvmReport};

use crate::args::{CommonArgs, Vmm};
use crate::exit::Exit;
use crate::preflight;
use crate::problem::Problem;
use crate::say::say;
use crate::session::{Session, backend_line, choose_backend};

/// Prints the report.
pub(crate) fn doctor(args: &CommonArgs) -> Result<Exit, Problem> {
    say!("provium {}", env!("CARGO_PKG_VERSION"));
    let session = Session::with_guests(args)?;
    match &session.config.path {
        Some(path) => say!("config {}", path.display()),
        None => {
            say!("config none (no provium.toml from here upward); the profile minimal is built in")
        }
    }
    // Asking for the software CPU means that /dev/kvm is not touched.
    if args.vmm != Vmm::Soft {
        say!("kvm {}", kvm_line(probe::kvm()));
    }
    let mut fit = true;
    match choose_backend(args.vmm) {
        Ok(choice) => say!("{}", backend_line(&choice)),
        Err(problem) => {
            fit = false;
            say!("vmm unusable: {problem}");
        }
    }
    let guests = session.guests(Arc::new(StderrProgress::default()));
    for profile in session.config.profiles.values() {
        let problems = preflight::problems_of(profile, &guests, false);
        match problems.as_slice() {
            [] => say!(
                "profile {}: {}",
                profile.name,
                source(&profile.kernel, &guests)
            ),
            problems => {
                fit = false;
                problems.iter().for_each(|problem| say!("{problem}"));
            }
        }
    }
    Ok(if fit { Exit::Success } else { Exit::Error })
}

fn kvm_line(report: &KvmReport) -> String {
    match report {
        KvmReport::Fast(rate) => format!("usable: {rate:.0} million instructions per second"),
        KvmReport::Emulating(rate) => format!(
            "present, but only emulates: {rate:.1} million instructions per second, {} needed",
            probe::MIN_RATE
        ),
        KvmReport::Unusable(why) => format!("not usable: {why}"),
    }
}

/// Where the profile's kernel comes from, and whether it is there already.
fn source(kernel: &GuestFile, guests: &provium_lab::guest::Guests) -> String {
    match kernel {
        GuestFile::Path(path) => format!("ok, kernel {}", path.display()),
        GuestFile::Host => "ok, kernel of this machine".to_owned(),
        GuestFile::Recipe(name) => match guests.cached(name) {
            Ok(Some(image)) => format!("ok, prepared: {}", image.packages.join(", ")),
            Ok(None) => "ok, will be prepared on first use (downloads Debian packages)".to_owned(),
            Err(error) => format!("its prepared guest cannot be read: {error}"),
        },
    }
}
