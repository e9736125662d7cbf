//! Checks before anything runs: can the profiles be booted? (cli-and-config R-065)
//!
//! Profiles that a selected file names literally must be usable; what is wrong with others is a
//! warning. The default guest is prepared here, before any file's deadline starts to run.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provium_lab::config::{GuestFile, Profile};
use provium_lab::guest::{Guests, StderrProgress};
use provium_vmm::boot::KernelImage;
use provium_vmm::boot::decompress::Format;

use crate::discover::TestFile;
use crate::problem::Problem;
use crate::session::Session;

/// The variable that names an agent archive for all profiles.
const OVERLAY: &str = "PROVIUM_OVERLAY";

/// How the archives begin that Linux takes as an initramfs: newc, without and with checksums.
const CPIO: &[u8] = b"07070";

/// Checks the profiles of a run and prepares the guests that it needs.
pub(crate) fn check(session: &Session, files: &[TestFile]) -> Result<(), Problem> {
    let sources: Vec<Vec<u8>> = files
        .iter()
        .map(|file| std::fs::read(&file.path).unwrap_or_default())
        .collect();
    let guests = session.guests(Arc::new(StderrProgress::default()));
    let mut problems = Vec::new();
    for profile in session.config.profiles.values() {
        let needed = sources.iter().any(|source| names(source, &profile.name));
        for problem in problems_of(profile, &guests, needed) {
            if needed {
                problems.push(problem);
            } else {
                eprintln!("provium: warning: {problem}");
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problem::Preflight(problems))
    }
}

/// True when the source holds the name as a string literal.
fn names(source: &[u8], name: &str) -> bool {
    ['"', '\''].iter().any(|quote| {
        let literal = format!("{quote}{name}{quote}");
        source
            .windows(literal.len())
            .any(|window| window == literal.as_bytes())
    })
}

/// Why the profile cannot be booted, a line per reason. `prepare` allows the default guest to be
/// built; otherwise it is left alone.
pub(crate) fn problems_of(profile: &Profile, guests: &Guests, prepare: bool) -> Vec<String> {
    let name = &profile.name;
    let line = |field: &str, problem: String, remedy: &str| {
        format!("profile {name}: {field}: {problem}; {remedy}")
    };
    let or_flag = |flag: &str| match name.as_str() {
        "minimal" => format!("set it in provium.toml or pass {flag} PATH"),
        name => format!("set it in provium.toml or pass --profile {name} {flag} PATH"),
    };
    let mut problems = Vec::new();
    match file_of(&profile.kernel, prepare, || {
        guests.kernel(&profile.kernel).map_err(text)
    }) {
        Ok(Some(path)) => {
            if let Err(problem) = KernelImage::open(&path) {
                problems.push(line("kernel", text(problem), &or_flag("--kernel")));
            }
        }
        Ok(None) => {}
        // The default guest's error says what to do.
        Err(problem) => return vec![format!("profile {name}: {problem}")],
    }
    if let Some(initrd) = &profile.initrd {
        match file_of(initrd, prepare, || guests.initrd(initrd).map_err(text)) {
            Ok(Some(path)) => {
                if let Err(problem) = archive(&path) {
                    problems.push(line("initrd", problem, &or_flag("--initrd")));
                }
            }
            Ok(None) => {}
            Err(problem) => problems.push(format!("profile {name}: {problem}")),
        }
    }
    problems.extend(profile.disk_problem());
    if profile.inject_agent {
        let from_env = std::env::var_os(OVERLAY).map(PathBuf::from);
        let given = profile.agent_overlay_path.as_ref();
        let (field, path, remedy) = match (given, &from_env) {
            (Some(path), _) => ("agent_overlay_path", path, "set it in provium.toml"),
            (None, Some(path)) => (OVERLAY, path, "set the variable to an archive, or unset it"),
            (None, None) => return problems,
        };
        if let Err(problem) = archive(path) {
            problems.push(line(field, problem, remedy));
        }
    }
    problems
}

/// The path of a guest file; nothing when it would have to be prepared first.
fn file_of(
    file: &GuestFile,
    prepare: bool,
    path: impl FnOnce() -> Result<std::path::PathBuf, String>,
) -> Result<Option<std::path::PathBuf>, String> {
    match file {
        GuestFile::Path(path) => Ok(Some(path.clone())),
        _ if prepare => path().map(Some),
        _ => Ok(None),
    }
}

/// An initramfs or agent: a cpio archive, possibly compressed, as its first bytes say.
fn archive(path: &Path) -> Result<(), String> {
    let head = beginning(path)?;
    if head.starts_with(CPIO) || Format::of(&head).is_some() {
        return Ok(());
    }
    Err(format!(
        "{}: neither a cpio archive (newc) nor compressed in a way that Linux unpacks",
        path.display()
    ))
}

/// The first bytes of a file that has some.
fn beginning(path: &Path) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    match read {
        Ok(0) => Err(format!("{}: the file is empty", path.display())),
        Ok(_) => Ok(head),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// An error with its causes.
fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r065_a_profile_is_named_by_a_literal() {
        assert!(names(b"provium:vm('a', \"minimal\")", "minimal"));
        assert!(names(b"provium:vm('a', 'minimal')", "minimal"));
        assert!(!names(b"-- minimal", "minimal"));
    }
}
