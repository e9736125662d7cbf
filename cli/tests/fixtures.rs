//! `provium fixture` as a user meets it, as far as no guest is needed (cli-and-config section 8).

mod support;

use support::Place;

#[test]
fn r101_an_empty_cache_is_listed_and_cleaned() {
    let place = Place::with(&[]);
    let ran = place.run("fixture list");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "\n0 entries, 0.00MiB\n")
    );
    let ran = place.run("fixture clean");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "removed 0 entries, 0.00MiB\n")
    );
}

#[test]
fn r102_an_unknown_fixture_is_told_with_the_places_searched() {
    let place = Place::with(&[("provium.toml", "[provium]\nroots = [\"t\"]\n")]);
    for command in ["build", "rebuild", "why"] {
        let ran = place.run(&format!("fixture {command} nowhere"));
        assert_eq!(ran.code, 2, "{command}");
        assert!(
            ran.stderr
                .contains("\"nowhere\" not found in any test root"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn r094_fixtures_that_refer_to_each_other_are_told_as_a_chain() {
    let place = Place::with(&[
        ("provium.toml", "[provium]\nroots = [\".\"]\n"),
        (
            "a.fixture.lua",
            "return provium:vm_fixture(\"b\"):snapshot()",
        ),
        (
            "b.fixture.lua",
            "return provium:vm_fixture(\"a\"):snapshot()",
        ),
    ]);
    let ran = place.run("fixture why a");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("in a circle: a -> b -> a"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r090_r097_a_fixture_that_fails_or_returns_nothing_is_named_with_its_position() {
    let place = Place::with(&[
        ("provium.toml", "[provium]\nroots = [\".\"]\n"),
        ("broken.fixture.lua", "local x = 1\nerror(\"no luck\")"),
        ("empty.fixture.lua", "local x = 1"),
    ]);
    let ran = place.run("fixture build broken");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr
            .contains("fixture broken: broken.fixture.lua:2: no luck"),
        "{}",
        ran.stderr
    );
    let ran = place.run("fixture build empty");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("fixture empty: must return a Snapshot"),
        "{}",
        ran.stderr
    );
    let ran = place.run("fixture stale");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "  broken\n  empty\n\n2 stale fixture(s)\n")
    );
}
