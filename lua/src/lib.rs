//! Lua bindings, the test framework and its prelude.
//!
//! [`run_file`] runs one test file in a Lua state of its own and tells an [`Observer`] about
//! every test. Bindings are thin: each native ([`native`]) converts its arguments, calls
//! `provium_lab`, and converts the result; what can be plain Lua lives in `src/prelude/`. One
//! table holds name, signature and documentation of every function
//! ([`Interactive::reference`]).
//!
//! A file's Lua code runs on the thread that calls [`run_file`]; nothing here starts threads.

mod args;
mod bind;
mod classic;
mod command;
mod fault;
mod file;
mod filter;
mod fixture;
mod grep;
mod handle;
mod interactive;
mod json;
mod later;
mod meta;
mod native;
mod prelude;
mod record;
mod report;
mod runner;
pub mod scan;
mod state;
mod watch;

pub use classic::{ClassicReport, ConsoleLog, run_classic};
pub use file::{Display, Setup};
pub use filter::{Filter, MetaMatch};
pub use fixture::{Built, build_fixture};
pub use interactive::{Entry, Evaluated, Interactive};
pub use report::{ConsoleTail, Failure, FileReport, FileStatus, Observer, Outcome, TestEnd};
pub use runner::{FileJob, run_file};
pub use watch::{Interrupt, Stop};
