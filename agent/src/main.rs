//! The agent program; everything is in the library.
fn main() {
    provium_agent::main()
}
