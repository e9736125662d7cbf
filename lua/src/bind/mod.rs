//! The table of all native functions, one file per kind of object.

mod batch;
mod clock;
mod console;
pub(crate) mod convert;
mod file;
mod fixture;
mod guest;
mod host;
mod json;
mod lab;
mod process;
mod snapshot;
mod stream;
mod syscall;
mod task;
mod time;
mod vm;
mod worker;

use crate::native::Native;

/// Every native function.
pub(crate) fn all() -> impl Iterator<Item = &'static Native> {
    [
        json::TABLE,
        lab::TABLE,
        lab::HIDDEN,
        vm::TABLE,
        vm::HIDDEN,
        guest::TABLE,
        guest::HIDDEN,
        syscall::TABLE,
        syscall::HANDLES,
        batch::TABLE,
        batch::QUEUE,
        worker::TABLE,
        file::TABLE,
        process::TABLE,
        stream::TAIL,
        stream::CONSOLE,
        console::TABLE,
        clock::TABLE,
        snapshot::TABLE,
        fixture::HIDDEN,
        task::TABLE,
        time::TABLE,
        host::TABLE,
    ]
    .into_iter()
    .flatten()
}
