//! Directed guests: what a program on the host can't do, and so can't be compared with it.
//! Privileged instructions, exceptions and interrupts across rings, paging, self-modifying code,
//! device accesses, the local APIC, and the modes on the way from reset to 64 bits.

mod apic;
mod code;
mod control;
mod coverage;
mod devices;
mod guest;
mod interrupts;
#[path = "../machine/mod.rs"]
mod machine;
mod modes;
mod paging;
#[path = "../native/scope.rs"]
mod scope;
mod syscalls;
mod tables;
