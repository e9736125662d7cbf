//! Lua bindings, the test framework and its prelude.
