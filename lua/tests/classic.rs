//! Files of a classic run (classic-api section 8), without a guest.

mod support;

use provium_lua::{FileStatus, Outcome};
use support::run_classic;

#[test]
fn c048_bodies_run_where_they_are_called() {
    let (report, record) = run_classic(
        r#"
        local steps = "a"
        test("one", function(t) steps = steps .. "b"; t:assert(true) end)
        steps = steps .. "c"
        test("two", { skip = "later" }, function() steps = steps .. "x" end)
        test("three", function() todo("soon") end)
        test("outer", function()
            test("inner", function() assert_eq(1, 2) end)
            steps = steps .. "d"
        end)
        test("one", function() assert_eq("abcd", steps) end)
        "#,
    );
    assert_eq!(report.report.status, FileStatus::Failed);
    assert_eq!(report.report.chunk_error, None);
    let ends: Vec<(&str, &Outcome)> = record
        .ends
        .iter()
        .map(|end| (end.name.as_str(), &end.outcome))
        .collect();
    assert_eq!(ends.len(), 6);
    assert_eq!(ends[0], ("one", &Outcome::Passed));
    assert_eq!(ends[1], ("two", &Outcome::Skipped("later".into())));
    assert_eq!(ends[2], ("three", &Outcome::Skipped("soon".into())));
    let (name, Outcome::Failed(failure)) = ends[3] else {
        panic!("{:?}", ends[3])
    };
    assert_eq!(name, "inner");
    assert_eq!(failure.message, "a.lua:8: expected 1, got 2");
    assert_eq!(ends[4], ("outer", &Outcome::Passed));
    assert_eq!(ends[5], ("one", &Outcome::Passed));
    assert_eq!(record.started[3..5], ["outer", "inner"]);
}

#[test]
fn c051_c054_a_failure_outside_a_test_ends_the_file() {
    let (report, record) = run_classic(
        r#"
        test("kept", function() end)
        assert(false, "no use")
        test("never", function() end)
        "#,
    );
    assert_eq!(report.report.status, FileStatus::Failed);
    assert_eq!(
        report.report.chunk_error.unwrap().message,
        "a.lua:3: no use"
    );
    assert_eq!(record.ends.len(), 1);
}

#[test]
fn c050_todo_ends_the_file() {
    let (report, record) = run_classic("test('a', function() end) todo('not yet') error('after')");
    assert_eq!(report.report.status, FileStatus::Passed);
    assert_eq!(report.todo.as_deref(), Some("not yet"));
    assert_eq!(record.ends.len(), 1);
}

#[test]
fn c055_a_library_is_not_counted() {
    let library = "local M = {} function M.vm() return provium:vm('a') end return M";
    assert!(!run_classic(library).0.counted);
    assert!(run_classic("local p = provium").0.counted);
    assert!(run_classic("test('a', function() end)").0.counted);
    assert!(run_classic("todo()").0.counted);
    assert!(run_classic("error('x')").0.counted);
}

#[test]
fn c059_a_syntax_error_is_a_failure_of_its_file() {
    let (report, _) = run_classic("local = 3");
    assert_eq!(report.report.status, FileStatus::Failed);
    let message = report.report.chunk_error.unwrap().message;
    assert!(message.starts_with("a.lua:1: "), "{message}");
}
