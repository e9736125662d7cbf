//! The duties of process 1, until the image's own init takes over (R-076, R-078, L-253).

mod cmdline;
pub(crate) mod modules;
pub(crate) mod mounts;
mod rootfs;

use std::ffi::{CStr, CString};

use provium_protocol::errno::describe;

use self::cmdline::Cmdline;
use crate::sys::{c_string, file, process, system};
use crate::{fatal, guest_link, log, supervise};

/// Inits of an image, in the order in which they are looked for.
const DEFAULT_INITS: [&CStr; 2] = [c"/init", c"/sbin/init"];

/// Boots the guest and never returns.
pub(crate) fn run() -> ! {
    process::umask(0o022);
    for mount in mounts::BOOT {
        match mount.apply() {
            // Types that the kernel was built without are no loss.
            Ok(()) | Err(libc::ENODEV | libc::EBUSY) => {}
            Err(errno) => log(&format!("mount {:?}: {}", mount.target, describe(errno))),
        }
    }
    let cmdline = Cmdline::read();
    modules::load_at_boot();
    let init = find_init(&cmdline);
    start_agent();
    match init {
        Some(init) => become_init(&init),
        None => match rootfs::enter(&cmdline) {
            Ok(true) => enter_root_init(&cmdline),
            Ok(false) => reap(),
            Err(error) => fatal(&error),
        },
    }
}

/// The image's init, if it has one. One that was named must be there.
fn find_init(cmdline: &Cmdline) -> Option<CString> {
    let named = cmdline.inits();
    let found = first_program(&named).or_else(|| first_program(&default_inits(&named)));
    match named.as_slice() {
        [one] if found.is_none() && !is_default(one) && cmdline.get(b"root").is_none() => {
            fatal(&format!("init {one:?}: {}", describe(libc::ENOENT)))
        }
        _ => found,
    }
}

/// The defaults stand in only for themselves: for nothing named, or for one of them.
fn default_inits(named: &[CString]) -> Vec<CString> {
    if named.iter().all(|init| is_default(init)) {
        DEFAULT_INITS.map(CStr::to_owned).to_vec()
    } else {
        Vec::new()
    }
}

fn is_default(init: &CStr) -> bool {
    DEFAULT_INITS.contains(&init)
}

fn first_program(candidates: &[CString]) -> Option<CString> {
    candidates
        .iter()
        .find(|path| is_program(path.to_bytes()))
        .cloned()
}

fn is_program(path: &[u8]) -> bool {
    file::stat(path, true).is_ok_and(|status| {
        status.st_mode & libc::S_IFMT == libc::S_IFREG && status.st_mode & 0o111 != 0
    })
}

/// The serving agent, below a process that starts it again.
fn start_agent() {
    match process::fork(&[]) {
        Ok(0) => supervise::run(guest_link),
        Ok(_) => {}
        Err(errno) => fatal(&format!("fork: {}", describe(errno))),
    }
}

/// The init of the disk whose root was entered.
fn enter_root_init(cmdline: &Cmdline) -> ! {
    let named = cmdline.inits();
    let mut candidates = named.clone();
    candidates.extend([c"/sbin/init", c"/etc/init", c"/bin/init", c"/bin/sh"].map(CStr::to_owned));
    match first_program(&candidates) {
        Some(init) => become_init(&init),
        None => fatal("the root file system has no init"),
    }
}

/// Becomes the image's init, with the arguments and the environment that the kernel gave us.
fn become_init(init: &CStr) -> ! {
    let args = std::env::args_os().skip(1);
    let args = args.filter_map(|arg| c_string(std::os::unix::ffi::OsStrExt::as_bytes(&*arg)).ok());
    let argv: Vec<CString> = std::iter::once(init.to_owned()).chain(args).collect();
    let errno = system::execute(init, &argv, &system::environment());
    fatal(&format!("init {init:?}: {}", describe(errno)))
}

/// There is no init: we stay process 1 and take care of orphans.
fn reap() -> ! {
    loop {
        if process::wait_any().is_none() {
            // Not even the supervisor is left.
            start_agent();
        }
    }
}
