//! Keeping an agent alive: a parent that does nothing but start it again.
//!
//! A test may ask for a system call that ends the agent, or overwrite its memory. The harness
//! then finds a new agent, which says in its hello how the one before ended.

use provium_protocol::errno::describe;

use crate::link::Link;
use crate::server::{Identity, Role, Server};
use crate::sys::{Sys, file, process, time};

/// Pause before the next start, doubled while agents die young.
const FIRST_PAUSE_NS: u64 = 1_000_000;
const LAST_PAUSE_NS: u64 = 1_000_000_000;

/// An agent that lived this long did not die of its start.
const SETTLED_NS: u64 = 10_000_000_000;

/// How often a link that cannot be opened is tried again: an image may load its driver late.
const LINK_AGAIN_NS: u64 = 1_000_000_000;

/// Serves on the link that `open` gives, for ever.
pub(crate) fn run(open: impl Fn() -> Sys<Link>) -> ! {
    process::new_session();
    process::umask(0o022);
    // Memory that runs out must not cost the test its agent. Refused to ordinary users.
    let _ = file::put_contents(b"/proc/self/oom_score_adj", b"-1000");
    // Link and identity are taken here, once: a later agent may find another root around it, and
    // connections that wait while there is none are not lost.
    let identity = Identity::new();
    let link = patiently(open);
    let mut previous_exit = None;
    let mut pause = FIRST_PAUSE_NS;
    loop {
        let started = time::monotonic();
        match process::fork(&[link.raw()]) {
            Ok(0) => serve(link, identity.after(previous_exit)),
            Ok(pid) => previous_exit = Some(wait_for(pid)),
            Err(errno) => crate::log(&format!("fork: {}", describe(errno))),
        }
        if time::monotonic() - started > SETTLED_NS {
            pause = FIRST_PAUSE_NS;
        }
        time::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE_NS);
    }
}

/// Opens the link, however long that takes; says once why it does.
fn patiently(open: impl Fn() -> Sys<Link>) -> Link {
    let mut said = false;
    loop {
        match open() {
            Ok(link) => return link,
            Err(errno) if !said => crate::log(&format!("no link to the host: {}", describe(errno))),
            Err(_) => {}
        }
        said = true;
        time::sleep(LINK_AGAIN_NS);
    }
}

fn wait_for(pid: i32) -> String {
    loop {
        match process::wait_any() {
            Some((ended, how)) if ended == pid => return format!("agent {pid} {how}"),
            Some(_) => {}
            None => return format!("agent {pid} is gone"),
        }
    }
}

/// The agent itself.
fn serve(link: Link, identity: Identity) -> ! {
    process::die_with_parent();
    let served = Server::new(Role::Main, link, identity).and_then(|server| server.run());
    if let Err(errno) = served {
        crate::log(&format!("cannot serve: {}", describe(errno)));
    }
    process::exit_now(1)
}
