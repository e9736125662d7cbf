//! The agent program; everything is in the library.
//!
//! It starts without the standard library's own start: that looks at descriptors and installs
//! handlers, which costs a guest time, and would have the agent survive signals that a test sends.
#![no_main]

/// What the C library calls.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    provium_agent::main()
}
