//! Provium's software x86-64 processor.
//!
//! A [`Complex`] is one package of vCPUs over one [`Ram`]: it decodes guest code into cached
//! blocks of compact operations and runs them, one vCPU at a time and in one thread, so that a
//! run is a function of its inputs. The processor knows no device and no host clock: whatever
//! leaves the package comes out of [`Complex::run`] as an [`Exit`], and time is the tick count
//! its owner hands in (one tick is one nanosecond and one TSC cycle).
//!
//! What happens where:
//!
//! | question | file |
//! |---|---|
//! | which host function executes an instruction | `translate/` |
//! | what that function does | `exec/` |
//! | how blocks are found, and dropped when code changes | `code.rs` |
//! | how an address becomes a host pointer | `mem.rs`, `tlb.rs`, `paging.rs` |
//! | exceptions and interrupt delivery | `exception.rs`, `deliver.rs` |
//! | the local APIC and its timer | `apic.rs` |
//! | the loop around it all | `run.rs`, `complex.rs` |

mod apic;
mod code;
mod complex;
mod cpu;
mod cpuid;
mod deliver;
mod exception;
mod exec;
mod flags;
mod jump;
mod kvmclock;
mod mem;
mod msr;
mod op;
mod paging;
mod ram;
mod run;
mod segment;
mod state;
mod tlb;
mod translate;
mod width;

pub use apic::{ApicState, DeliveryMode, InterruptMessage};
pub use complex::{Complex, Exit};
pub use cpu::{Activity, Cpu};
pub use cpuid::CpuidLeaf;
pub use ram::{Ram, RamRegion};
pub use state::{ArchState, Descriptor, SegmentState, TableState};
