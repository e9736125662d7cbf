//! From an [`ExecSpec`] to a running child (E-059, E-061, L-084 to L-090).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use provium_protocol::ops::{Blob, Command, ExecSpec};
use provium_protocol::{Error, ErrorKind};

use crate::sys::fd::{self, Fd};
use crate::sys::spawn::{Child, Program, Stack, Step, spawn};
use crate::sys::{Sys, c_string};

/// A child with our ends of its pipes.
pub(crate) struct Launch {
    pub(crate) child: Child,
    pub(crate) stdout: Fd,
    pub(crate) stderr: Fd,
    /// The input, what to write to it, and whether it stays open then.
    pub(crate) stdin: Option<(Fd, Vec<u8>, bool)>,
}

/// What every start of a program needs.
pub(crate) struct Surroundings {
    /// The agent's environment, `NAME=value`.
    pub(crate) env: Vec<CString>,
    pub(crate) stack: Stack,
    pub(crate) null: Fd,
    pub(crate) proc_dir: std::sync::Arc<Fd>,
}

/// A command whose staged parts have been put in place.
struct Resolved {
    argv: Vec<CString>,
    env: Option<Vec<CString>>,
    cwd: Option<CString>,
}

/// Starts a command. `spawned` keeps its input open.
pub(crate) fn launch(
    spec: ExecSpec,
    mut staged: impl FnMut(Blob) -> Result<Vec<u8>, Error>,
    spawned: bool,
    surroundings: &mut Surroundings,
) -> Result<Launch, Error> {
    let stdin = spec.stdin.map(&mut staged).transpose()?;
    let (argv, program) = arguments(spec.command, &mut staged)?;
    let resolved = Resolved {
        argv,
        env: environment(
            &surroundings.env,
            spec.env.as_ref(),
            spec.env_clear == Some(true),
        )?,
        cwd: spec
            .cwd
            .as_deref()
            .map(|cwd| string(cwd, "cwd"))
            .transpose()?,
    };
    let env = resolved.env.as_deref().unwrap_or(&surroundings.env);
    // The path is searched with what the command will see; failing that, with our own.
    let path = path_of(env)
        .or_else(|| path_of(&surroundings.env))
        .unwrap_or_default();
    let candidates = candidates(&program, path);
    let describe = |errno: i32| Error::os("exec", errno);
    let pipes = || -> Sys<_> {
        let (out_read, out_write) = fd::pipe()?;
        let (err_read, err_write) = fd::pipe()?;
        let input = (spawned || stdin.is_some()).then(fd::pipe).transpose()?;
        if let Some((_, write)) = &input {
            fd::set_nonblocking(write.raw(), true)?;
        }
        Ok((out_read, out_write, err_read, err_write, input))
    };
    let (stdout, out_write, stderr, err_write, input) = pipes().map_err(describe)?;
    let input_fd = input
        .as_ref()
        .map_or(surroundings.null.raw(), |(read, _)| read.raw());
    let result = spawn(
        &Program {
            candidates: &candidates,
            argv: &resolved.argv,
            envp: env,
            cwd: resolved.cwd.as_deref(),
            stdio: [input_fd, out_write.raw(), err_write.raw()],
            proc_dir: surroundings.proc_dir.raw(),
        },
        &mut surroundings.stack,
    );
    let child = result.map_err(|(step, errno)| match (step, &resolved.cwd) {
        (Step::Directory, Some(cwd)) => Error::os("chdir", errno).about(cwd.as_bytes()),
        _ => describe(errno).about(&program),
    })?;
    let stdin = input.map(|(_, write)| (write, stdin.unwrap_or_default(), spawned));
    Ok(Launch {
        child,
        stdout,
        stderr,
        stdin,
    })
}

/// Arguments of the command, and the name of its program.
fn arguments(
    command: Command,
    staged: &mut impl FnMut(Blob) -> Result<Vec<u8>, Error>,
) -> Result<(Vec<CString>, Vec<u8>), Error> {
    match command {
        Command::Shell(script) => {
            let script = string(&staged(script)?, "shell")?;
            let shell = b"/bin/sh".to_vec();
            Ok((vec![c"/bin/sh".to_owned(), c"-c".to_owned(), script], shell))
        }
        Command::Argv(argv) => {
            let argv: Result<Vec<_>, _> = argv.into_iter().map(staged).collect();
            let argv = argv?;
            let program = argv.first().cloned().unwrap_or_default();
            let argv: Result<_, _> = argv.iter().map(|arg| string(arg, "argv")).collect();
            Ok((argv?, program))
        }
    }
}

/// The environment of the command if it differs from ours.
fn environment(
    ours: &[CString],
    changes: Option<&BTreeMap<Vec<u8>, Vec<u8>>>,
    clear: bool,
) -> Result<Option<Vec<CString>>, Error> {
    let none = BTreeMap::new();
    let changes = match (changes, clear) {
        (None, false) => return Ok(None),
        (changes, _) => changes.unwrap_or(&none),
    };
    let kept = ours
        .iter()
        .filter(|entry| !clear && !changes.contains_key(name_of(entry)));
    let mut env: Vec<CString> = kept.cloned().collect();
    for (name, value) in changes {
        if name.is_empty() || name.contains(&b'=') {
            let name = String::from_utf8_lossy(name).into_owned();
            let message = format!("field `env`: `{}` is no name", name.escape_debug());
            return Err(Error::new(ErrorKind::BadArgs, message));
        }
        env.push(string(&[name, b"=".as_slice(), value].concat(), "env")?);
    }
    Ok(Some(env))
}

fn name_of(entry: &CStr) -> &[u8] {
    entry
        .to_bytes()
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
}

fn path_of(env: &[CString]) -> Option<&[u8]> {
    env.iter()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
}

/// Where a program may be: as it is named if that has a slash, else in each directory of the path.
fn candidates(program: &[u8], path: &[u8]) -> Vec<CString> {
    if program.contains(&b'/') || program.is_empty() {
        return c_string(program).into_iter().collect();
    }
    let join = |dir: &[u8]| match dir {
        // An empty entry is the working directory.
        b"" => c_string(program),
        dir => c_string(&[dir, b"/", program].concat()),
    };
    path.split(|byte| *byte == b':')
        .filter_map(|dir| join(dir).ok())
        .collect()
}

fn string(bytes: &[u8], field: &str) -> Result<CString, Error> {
    let zero = || {
        Error::new(
            ErrorKind::BadArgs,
            format!("field `{field}`: holds a zero byte"),
        )
    };
    c_string(bytes).map_err(|_| zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_searched_in_the_path() {
        let found = candidates(b"ls", b"/bin::/usr/bin");
        assert_eq!(
            found,
            [
                c"/bin/ls".to_owned(),
                c"ls".to_owned(),
                c"/usr/bin/ls".to_owned()
            ]
        );
        assert_eq!(candidates(b"./ls", b"/bin"), [c"./ls".to_owned()]);
        assert_eq!(candidates(b"", b"/bin"), [c"".to_owned()]);
    }

    /// L-085: without `env_clear` the variables lie over the agent's.
    #[test]
    fn variables_lie_over_the_agents() {
        let ours = [c"PATH=/bin".to_owned(), c"HOME=/".to_owned()];
        let changes = BTreeMap::from([(b"HOME".to_vec(), b"/root".to_vec())]);
        let merged = environment(&ours, Some(&changes), false).unwrap().unwrap();
        assert_eq!(merged, [c"PATH=/bin".to_owned(), c"HOME=/root".to_owned()]);
        let cleared = environment(&ours, Some(&changes), true).unwrap().unwrap();
        assert_eq!(cleared, [c"HOME=/root".to_owned()]);
        assert_eq!(environment(&ours, None, false).unwrap(), None);
        assert_eq!(environment(&ours, None, true).unwrap(), Some(vec![]));
        let bad = BTreeMap::from([(b"A=B".to_vec(), vec![])]);
        assert!(environment(&ours, Some(&bad), false).is_err());
    }
}
