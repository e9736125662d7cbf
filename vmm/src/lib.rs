//! One virtual machine: memory, boot, vCPUs, interrupt controllers, clock.
//!
//! [`Machine::start`] turns a [`MachineConfig`] into a running guest inside this process. Which
//! backend executes the vCPUs ([`Backend`]) is decided by the owner, usually through [`probe`];
//! everything else about the machine is the same on both.
//!
//! | question | file |
//! |---|---|
//! | the owner's view | `machine.rs`, `config.rs`, `wait.rs`, `console.rs`, `lifecycle.rs` |
//! | who may run, and when | `control.rs`, `bell.rs`, `clock.rs` |
//! | devices and their buses | `board.rs` |
//! | what a vCPU is, on either backend | `vcpu.rs`, `engine.rs` |
//! | the backends | `kvm/`, `soft/`, choosing one `probe.rs` |
//! | saving a machine and going on from there | `snapshot/`, `memory.rs` |
//! | kernel, memory layout, CPU model | `boot/`, `layout.rs`, `cpuid.rs` |

mod bell;
mod board;
pub mod boot;
mod clock;
mod config;
mod console;
mod control;
pub mod cpuid;
mod engine;
mod error;
pub mod kvm;
pub mod layout;
mod lifecycle;
mod loader;
mod machine;
mod memory;
mod pace;
mod phys;
pub mod probe;
mod shared;
pub mod snapshot;
pub mod soft;
mod stats;
pub mod vcpu;
mod wait;

pub use bell::Bell;
pub use clock::{AlarmAction, MachineClock};
pub use config::{Backend, BootFiles, BootLater, InitrdPart, MachineConfig};
pub use console::{Console, ConsoleWatch};
pub use error::Error;
pub use lifecycle::{EventHook, MachineEvent, MachineState, StopCause};
pub use machine::{Machine, Subscription};
pub use stats::{ExitCounts, Stats};
pub use vcpu::{VcpuPlace, VcpuState};
pub use wait::{Demand, Waited, host_backstop, run_all_for};
