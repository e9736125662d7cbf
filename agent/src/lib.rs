//! The guest side: PID 1 duties and operations.
//!
//! `provium-agent` is one static program. As process 1 of a guest ([`boot`]) it mounts the pseudo
//! file systems, loads the drivers of the machine's devices, starts the serving agent and becomes
//! the image's own init. The serving agent is a child ([`supervise`]) that is replaced should it
//! not survive what a test asked of it. It answers the harness over vsock or the second serial
//! port ([`link`]) with two threads around one state ([`server`]).
//!
//! Startup is counted in instructions: guests run on a software CPU. So nothing is scanned that is
//! not needed, nothing is allocated ahead, and there is no runtime below it but the C library.
//!
//! The guest kernel must be Linux 5.4 or newer (`pidfd`).
#![deny(unsafe_code)]

mod boot;
mod calls;
mod link;
mod ops;
mod process;
mod root;
mod server;
mod stream;
mod supervise;
mod sys;
mod worker;

use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, Ordering};

use link::Link;

/// Whether process 1 is that of the guest we belong to.
static IN_GUEST: AtomicBool = AtomicBool::new(true);

/// Whether the op thread follows the root of process 1.
pub(crate) fn follows_root() -> bool {
    IN_GUEST.load(Ordering::Relaxed)
}

/// Runs the program. Without arguments it is process 1 of a guest or, started by an image's own
/// init, just the serving agent; `--listen unix:PATH` and `--listen serial:PATH` serve on a socket or
/// terminal of this host.
pub fn main() -> ! {
    let mut args = std::env::args_os().skip(1);
    if sys::process::pid() == 1 {
        boot::run();
    }
    match (args.next(), args.next()) {
        (None, None) => supervise::run(guest_link),
        (Some(flag), Some(address)) if flag == "--listen" => {
            IN_GUEST.store(false, Ordering::Relaxed);
            let address = address.into_vec();
            supervise::run(move || host_link(&address))
        }
        (Some(flag), None) if flag == "--version" => {
            println!("provium-agent {}", env!("CARGO_PKG_VERSION"));
            sys::process::exit_now(0)
        }
        _ => fatal("usage: provium-agent [--version | --listen unix:PATH | --listen serial:PATH]"),
    }
}

/// The link of a guest: vsock where the kernel and the machine have it, else the second serial
/// port (E-042).
fn guest_link() -> sys::Sys<Link> {
    let vsock = if boot::modules::has_vsock() {
        Link::vsock()
    } else {
        Err(libc::ENODEV)
    };
    vsock.or_else(|_| Link::serial(b"/dev/ttyS1"))
}

/// The link of an agent that runs on a host.
fn host_link(address: &[u8]) -> sys::Sys<Link> {
    if let Some(path) = address.strip_prefix(b"unix:") {
        // A path that an agent before this one left behind.
        let _ = sys::file::unlink(path);
        return Link::unix(path);
    }
    Link::serial(address.strip_prefix(b"serial:").ok_or(libc::EINVAL)?)
}

/// Says something on the guest's console, through the kernel log.
pub(crate) fn log(message: &str) {
    let line = format!("provium-agent: {message}\n");
    let kernel = sys::file::open_own(b"/dev/kmsg", libc::O_WRONLY);
    let written = kernel.and_then(|kernel| kernel.write(line.as_bytes()));
    if written.is_err() {
        // On a host, or before /dev is there.
        eprint!("{line}");
    }
}

/// Says why the agent cannot go on, and ends it. Of process 1 that is a kernel panic, which the
/// harness reports with the end of the console.
pub(crate) fn fatal(message: &str) -> ! {
    log(message);
    sys::process::exit_now(1)
}
