//! What a test says about itself, in events and in filters (lua-api L-216, L-226, L-227).

mod support;

use provium_protocol::event::Meta;
use provium_protocol::{EventKind, Value};
use support::{Place, stream};

const SUITE: &str = "
test('plain', function() end)
test('one', { spec = 'REQ-1', owner = 'net', area = { 'tcp', 'udp' }, level = 3 }, function() end)
test('two', { spec = { 'REQ-1', 'REQ-2' }, owner = 'fs' }, function() error('no') end)
test('three', { spec = 'REQ-3', skip = 'not here' }, function() end)
";

/// The metadata of every test that ended, by its name.
fn metas(place: &Place) -> Vec<(String, Meta)> {
    let events = stream::read(&place.path().join("ev"));
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::TestPassed(end) => Some((end.name.clone(), end.meta.clone())),
            EventKind::TestFailed(end) => Some((end.name.clone(), end.meta.clone())),
            EventKind::TestSkipped(end) => Some((end.name.clone(), end.meta.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn l226_l227_what_a_test_says_of_itself_is_in_its_events_as_it_was_said() {
    let place = Place::with(&[("a.test.lua", SUITE)]);
    place.run("run --save-events ev").expect(1);
    let metas = metas(&place);
    let of = |name: &str| {
        metas
            .iter()
            .find(|(test, _)| test == name)
            .unwrap()
            .1
            .clone()
    };
    let text = |text: &str| Value::Str(text.to_owned());
    let meta = |pairs: &[(&str, Value)]| -> Meta {
        let own = |(key, value): &(&str, Value)| ((*key).to_owned(), value.clone());
        pairs.iter().map(own).collect()
    };
    assert_eq!(metas.len(), 4);
    assert_eq!(of("plain"), Meta::new());
    let area = Value::Array(vec![text("tcp"), text("udp")]);
    let one = [
        ("spec", text("REQ-1")),
        ("owner", text("net")),
        ("area", area),
        ("level", Value::Int(3)),
    ];
    assert_eq!(of("one"), meta(&one));
    let spec = Value::Array(vec![text("REQ-1"), text("REQ-2")]);
    assert_eq!(of("two"), meta(&[("spec", spec), ("owner", text("fs"))]));
    assert_eq!(of("three")["spec"], text("REQ-3"));
}

/// Strings and arrays of strings are matched, numbers never.
#[test]
fn l227_r018_tests_are_chosen_by_what_they_say() {
    let place = Place::with(&[("a.test.lua", SUITE)]);
    let ran_with = |arguments: &str| {
        let ran = place.run(&format!("run -v {arguments}"));
        let lines = ran.stdout.lines().filter_map(|line| {
            let (how, name) = line.trim_start().split_once(' ')?;
            let ran = matches!(how, "PASS" | "FAIL") && line.starts_with("    ");
            ran.then(|| name.to_owned())
        });
        lines.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ran_with("--tag-meta owner=net"), "one");
    assert_eq!(ran_with("--tag-meta area=udp"), "one");
    assert_eq!(ran_with("--tag-meta spec=REQ-1"), "one two");
    assert_eq!(ran_with("--no-tag-meta spec=REQ-2"), "plain one");
    assert_eq!(ran_with("--tag-meta level=3"), "");
    assert_eq!(ran_with("--tag-meta owner=nobody"), "");
}

#[test]
fn c049_l209_tests_of_a_run_come_after_the_chunk_in_order() {
    let place = Place::with(&[(
        "a.test.lua",
        "local order = {}\n\
         test('first', function() order[#order + 1] = 'first' end)\n\
         test('second', function(t) t:assert_eq(table.concat(order, ' '), 'chunk first') end)\n\
         order[#order + 1] = 'chunk'\n\
         test('within', function() test('x', function() end) end)",
    )]);
    let ran = place.run("run -v").expect(1);
    assert!(
        ran.stdout
            .contains("PASS first\n    PASS second\n    FAIL within"),
        "{}",
        ran.stdout
    );
    let twice = "test('a', function() end)\ntest('a', function() end)";
    let place = Place::with(&[("b.test.lua", twice)]);
    let ran = place.run("run").expect(1);
    assert!(
        ran.stdout
            .contains("b.test.lua:2: test: duplicate name `a` in this file"),
        "{}",
        ran.stdout
    );
}
