//! Directed guests: small pieces of ring 0 code, run on both backends.
//!
//! They need no kernel and no user space, so they also run where KVM only emulates.

mod asm;
mod guest;
mod increment;
mod kvm;
mod lockstep;
mod machine;
mod rig;
mod snapshot;
