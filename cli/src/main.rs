//! The provium command.
fn main() {}
