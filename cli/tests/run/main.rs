//! `provium` seen from outside, with files that boot nothing.

mod commands;
mod config;
mod output;
mod pool;
mod selection;
#[path = "../support/mod.rs"]
mod support;
mod watching;

const GOOD: &str = "test('one', function() end)\ntest('two', {tags='x'}, function() end)\n";
const BAD: &str =
    "test('sum', function(t)\n  t:log('trying')\n  t:assert_eq(1 + 1, 3, 'sum')\nend)\n";
