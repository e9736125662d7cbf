//! The domain: labs, virtual machines, processes, files, streams.
//!
//! A Rust test can use all of it without Lua:
//!
//! ```no_run
//! use provium_lab::{BootOptions, Harness, Session};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let harness = Harness::for_tests()?;
//! let session = Session::new(&harness, "my_test.rs");
//! let vm = session.root().declare_vm(Some("a"), "minimal", BootOptions::default())?;
//! vm.boot(BootOptions::default())?;
//! assert_eq!(vm.run("echo hello")?.assert_ok()?.stdout, b"hello\n");
//! vm.write_file("/tmp/x", "content")?;
//! assert_eq!(vm.read_file("/tmp/x")?, b"content");
//! session.finish();
//! # Ok(())
//! # }
//! ```
//!
//! # Floors of this crate
//!
//! ```text
//! Harness          what one run shares: configuration, backend, events, prepared guests
//!   Session        one test file: its world, its root lab, the scope of the running test
//!     Lab          named VMs and sub-labs
//!       Vm         state, life, console; a Guest, and so is each Worker
//!         Guest    operations: run, files, syscalls, clock, batch, streams
//!           Link   the agent protocol over vsock or the second serial port
//! World, Pending   how a host thread waits and lets guests run meanwhile
//! ```
//!
//! Every blocking call `x` is `start_x(...)`, which gives a [`Pending`], and waiting for it; several can be under way
//! at once. Guests on the software CPU run only while somebody waits (lua-api L-247).
#![forbid(unsafe_code)]

mod agent;
pub mod config;
mod error;
mod events;
pub mod fixture;
pub mod guest;
mod harness;
mod images;
mod ksm;
mod lab;
mod ops;
mod overlay;
pub mod pool;
mod session;
mod state;
pub mod units;
mod vm;
mod wait;

pub use error::{Error, GuestFailure, Reason, Result, with_causes};
pub use events::{Booted, EventSink, NoEvents};
pub use harness::Harness;
pub use ksm::Ksm;
pub use lab::{Lab, LabSnapshot, Member, MemberKind, RESERVED};
pub use ops::{
    BatchOp, BatchValue, Clock, Command, DirEntry, EntryType, ExitKind, File, Guest, Ioctl,
    IoctlData, IoctlResult, JoinedProcess, Nested, OpenMode, Process, ProcessStatus, Program,
    RunResult, Stat, StreamKind, Syscall, SyscallHandle, SyscallResult, Tail, TailStart, Whence,
    Worker, signal_by_name, signal_name,
};
pub use overlay::AGENT;
pub use pool::{Pool, Share};
pub use session::{Session, Site};
pub use state::VmState;
pub use vm::{
    BootOptions, Console, ConsoleStream, FileContent, InjectedFile, RestoreFrom, Snapshot, Vm,
};
pub use wait::{Interrupted, Pending, Stopwatch, World};

pub use provium_protocol::{Amount, EventKind};
pub use provium_vmm::{Backend, Error as MachineError};
