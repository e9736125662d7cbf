//! The guest side: PID 1 duties and operations.
fn main() {}
