//! What instructions do, by family. Each function is a [`crate::op::Handler`].

pub(crate) mod address;
pub(crate) mod alu;
pub(crate) mod bcd;
pub(crate) mod bits;
pub(crate) mod branch;
pub(crate) mod control;
pub(crate) mod flags;
pub(crate) mod fpu;
pub(crate) mod io;
pub(crate) mod mov;
pub(crate) mod muldiv;
pub(crate) mod shift;
pub(crate) mod sse;
pub(crate) mod stack;
pub(crate) mod string;
pub(crate) mod syscall;
pub(crate) mod system;
pub(crate) mod tables;
pub(crate) mod x87;
