//! Which files and tests run (cli-and-config section 3).

use crate::support::{Place, Ran, stream};
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

#[test]
fn r016_only_what_is_newer() {
    let place = Place::with(&[("a.test.lua", GOOD), ("b.test.lua", GOOD), ("mark", "")]);
    let set = |name: &str, seconds: u64| {
        let file = std::fs::File::options()
            .write(true)
            .open(place.path().join(name))
            .unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(time).unwrap();
    };
    set("mark", 2000);
    set("a.test.lua", 2000);
    set("b.test.lua", 2001);
    assert_eq!(
        place.run("list --since mark").expect(0).stdout,
        "b.test.lua\n"
    );
    let ran = place.run("list --since nowhere").expect(2);
    assert!(ran.stderr.contains("nowhere"), "{}", ran.stderr);
}

#[test]
fn r017_r042_slow_tests_are_skipped_in_all_outputs_unless_wanted() {
    let source = "test('quick', function() end)\ntest('slow', {slow = true}, function() end)";
    let place = Place::with(&[("a.test.lua", source)]);
    let ran = place.run("run -v --junit j.xml --save-events ev").expect(0);
    assert!(
        ran.stdout
            .contains("SKIP slow (filtered: slow tests skipped"),
        "{}",
        ran.stdout
    );
    let junit = std::fs::read_to_string(place.path().join("j.xml")).unwrap();
    assert!(
        junit.contains("<skipped") && junit.contains("slow"),
        "{junit}"
    );
    let outcomes = stream::check(&stream::read(&place.path().join("ev")));
    let slow = ("a.test.lua".to_owned(), "slow".to_owned());
    assert_eq!(outcomes.get(&slow), Some(&"skipped"));
    let ran = place.run("run --include-slow").expect(0);
    assert!(ran.stdout.contains("(2 passed, 0 failed, 0 skipped)"));
}

#[test]
fn r040_the_shard_is_taken_before_what_failed() {
    let place = Place::with(&[
        ("a.test.lua", GOOD),
        ("b.test.lua", BAD),
        ("c.test.lua", BAD),
    ]);
    place.run("run").expect(1);
    // Of the failed files b and c, c alone is in the first slice of all three.
    assert_eq!(
        place
            .run("list --rerun-failed --shard 1/2")
            .expect(0)
            .stdout,
        "c.test.lua\n"
    );
}
