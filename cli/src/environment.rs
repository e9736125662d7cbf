//! What this program tells the Lua code that it runs, and whatever that starts, in the environment
//! (cli-and-config R-120).

use provium_lua::Filter;

/// The variable that holds the filter of tests.
const TEST_FILTER: &str = "PROVIUM_TEST_FILTER";

/// Tells the filter of this run. To be called while this is the process's only thread.
pub(crate) fn tell_filter(filter: &Filter) {
    // Strings and flags are always JSON.
    let text = serde_json::to_string(filter).unwrap_or_default();
    // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(TEST_FILTER, text) };
}
