//! The table of specification rows in `docs/` is what the tests say.

mod support;

use std::process::Command;

use support::repository;

#[test]
fn the_table_of_rows_is_up_to_date() {
    let rows = repository().join("docs/rows");
    let output = Command::new(&rows).arg("--print").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let wanted = String::from_utf8(output.stdout).unwrap();
    let written = std::fs::read_to_string(repository().join("docs/coverage.md")).unwrap();
    let stale = wanted
        .lines()
        .zip(written.lines().chain(std::iter::repeat("")))
        .find(|(wanted, written)| wanted != written);
    assert!(
        stale.is_none() && wanted == written,
        "docs/coverage.md is out of date: run docs/rows; first difference: {stale:?}"
    );
}

/// The script reads every way in which tests cite rows.
#[test]
fn names_ranges_and_comments_are_read() {
    let written = std::fs::read_to_string(repository().join("docs/coverage.md")).unwrap();
    let row = |id: &str| {
        let start = format!("| {id} | ");
        let line = written.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("no row {id}")).to_owned()
    };
    // A range in the name of a Lua test, between its ends; a range in a Rust name.
    assert!(row("C-012").contains("tests/lua/classic.test.lua`: C-011..C-013"));
    assert!(row("L-050").contains("l047_to_l057_the_table_of_the_specification"));
    assert!(row("L-002").contains("l001_l002_the_globals_are_there"));
}
