//! The `build` commands of profiles (cli-and-config ).

use std::io;
use std::process::{Command, Stdio};

use provium_lab::config::Profile;

use crate::problem::Problem;

/// Runs the build command of a profile, if it has one. Its output goes to stderr.
pub(crate) fn build(profile: &Profile) -> Result<(), Problem> {
    let Some(command) = &profile.build else {
        return Ok(());
    };
    std::fs::create_dir_all(&profile.build_out)
        .map_err(Problem::file("create", &profile.build_out))?;
    eprintln!("provium: profile {}: {command}", profile.name);
    let run = || {
        Command::new("sh")
            .args(["-c", command])
            .current_dir(&profile.dir)
            .env("PROVIUM_PROFILE", &profile.name)
            .env("PROVIUM_OUT", &profile.build_out)
            .stdin(Stdio::null())
            .stdout(Stdio::from(stderr()?))
            .status()
    };
    let status = run().map_err(|source| Problem::Io {
        action: "run sh",
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Problem::Build {
        profile: profile.name.clone(),
        status,
    })
}

/// Another handle on stderr, for a child's stdout.
fn stderr() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    io::stderr().as_fd().try_clone_to_owned()
}
