//! Which files and tests run (cli-and-config section 3).

use crate::support::{Place, Ran};
use crate::{BAD, GOOD};

#[test]
fn r043_nothing_found_is_an_error_and_nothing_selected_is_none() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    let ran = place.run("run --filter nothing").expect(0);
    assert!(
        ran.stderr
            .contains("none of the 1 file(s) found is selected"),
        "{}",
        ran.stderr
    );
    let empty = Place::with(&[]);
    let ran = empty.run("run").expect(2);
    assert!(
        ran.stderr
            .contains("no *.test.lua file in the current directory"),
        "{}",
        ran.stderr
    );
    let ran = empty.run("run missing").expect(2);
    assert_eq!(ran.stderr, "provium: missing: no such file or directory\n");
}

#[test]
fn r030_fail_fast_starts_no_new_file() {
    let place = Place::with(&[("a.test.lua", BAD), ("b.test.lua", GOOD)]);
    let ran = place.run("run -j 1 --fail-fast").expect(1);
    assert!(
        ran.text()
            .ends_with("1 file(s); 0 passed, 1 failed, 0 skipped; TIME\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r007_r013_r014_list_selects_without_running() {
    let place = Place::with(&[
        ("a.test.lua", "error()"),
        ("b.test.lua", ""),
        ("c/net.test.lua", ""),
    ]);
    assert_eq!(
        place.run("list").expect(0).stdout,
        "a.test.lua\nb.test.lua\nc/net.test.lua\n"
    );
    assert_eq!(
        place.run("list --filter net").expect(0).stdout,
        "c/net.test.lua\n"
    );
    assert_eq!(
        place.run("list --shard 1/2").expect(0).stdout,
        "a.test.lua\nc/net.test.lua\n"
    );
    assert_eq!(
        place.run("list --shard 2/2").expect(0).stdout,
        "b.test.lua\n"
    );
}

#[test]
fn r015_r044_failed_files_are_remembered() {
    let place = Place::with(&[("a.test.lua", GOOD), ("b.test.lua", BAD)]);
    let ran = place.run("run --rerun-failed").expect(0);
    assert!(
        ran.stderr.contains("no failed run is remembered"),
        "{}",
        ran.stderr
    );
    place.run("run").expect(1);
    assert_eq!(
        place.run("list --rerun-failed").expect(0).stdout,
        "b.test.lua\n"
    );
    place.run("run a.test.lua").expect(0);
    assert_eq!(
        place.run("list --rerun-failed").expect(0).stdout,
        "b.test.lua\n"
    );
}

#[test]
fn r018_r041_tags_filter_tests() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    let ran = place.run("run -v --tag x").expect(0);
    assert!(
        ran.stdout
            .contains("SKIP one (filtered: --tag x)\n    PASS two"),
        "{}",
        ran.stdout
    );
    let ran = place.run("run -v --no-tag x").expect(0);
    assert!(
        ran.stdout
            .contains("PASS one\n    SKIP two (filtered: --no-tag x)"),
        "{}",
        ran.stdout
    );
}

#[test]
fn r120_lua_code_finds_the_filter_in_the_environment() {
    let source = "test('x', {tags = 'a', slow = true, area = 'net'}, function(t)\n\
                  t:assert_eq(os.getenv('PROVIUM_TEST_FILTER'), WANTED) end)";
    let filter = "'{\"include_slow\":true,\"tags\":[\"a\"],\"no_tags\":[\"b\"],\
                  \"tag_meta\":[{\"key\":\"area\",\"value\":\"net\"}],\"no_tag_meta\":[]}'";
    let place = Place::with(&[("a.test.lua", &source.replace("WANTED", filter))]);
    let mut command = place.command("run --include-slow --tag a --no-tag b --tag-meta area=net");
    command.env("PROVIUM_TEST_FILTER", "not for users");
    Ran::from(command.output().unwrap()).expect(0);
}
