//! What files wait for and what the pool refuses (cli-and-config section 10).

use crate::GOOD;
use crate::support::{Place, stream};

#[test]
fn r108_r109_a_claim_blocks_those_behind_it_and_a_run_says_so() {
    let busy = "provium:claim{memory = '300M'}\ntest('x', function() local till = os.clock() + 0.3 while os.clock() < till do end end)";
    let place = Place::with(&[
        ("a.test.lua", busy),
        ("b.test.lua", busy),
        ("c.test.lua", GOOD),
    ]);
    place.run("run -j 3 --mem 500M --save-events ev").expect(0);
    let events = stream::read(&place.path().join("ev"));
    stream::check(&events);
    let names: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.kind {
            provium_protocol::EventKind::FileDispatched(e) => Some(format!("+{}", &e.path[..1])),
            provium_protocol::EventKind::FileCompleted(e) => Some(format!("-{}", &e.path[..1])),
            provium_protocol::EventKind::FileBlocked(e) => {
                assert_eq!(e.reason, provium_protocol::event::BlockReason::PoolFull);
                assert_eq!(e.waiting_for.memory_bytes, 350 << 20);
                Some(format!("?{}", &e.path[..1]))
            }
            _ => None,
        })
        .collect();
    let text = names.join(" ");
    // b waits for a, and c, which would fit, waits behind b.
    assert!(text.starts_with("+a ?b -a +b +c"), "{text}");
}

#[test]
fn r108_a_claim_beyond_the_pool_fails_its_file_at_once() {
    let source = "provium:claim{memory = '4G', cpus = 1}\ntest('x', function() end)";
    let place = Place::with(&[("a.test.lua", source), ("b.test.lua", GOOD)]);
    let ran = place
        .run("run --mem 1G --cpus 4 --save-events ev")
        .expect(1);
    for part in [
        "a.test.lua:1: lab:claim",
        "4096 MiB and 1 CPUs",
        "1024 MiB and 4 CPUs",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains("PASS b.test.lua"), "{}", ran.stdout);
    stream::check(&stream::read(&place.path().join("ev")));
}

#[test]
fn e022_r113_the_state_of_the_pool_is_told_every_second() {
    let slow =
        "test('x', function() local till = os.clock() + 2.5 while os.clock() < till do end end)";
    let place = Place::with(&[("a.test.lua", slow)]);
    place
        .run("run --mem 1G --cpus 2 --save-events ev")
        .expect(0);
    let events = stream::read(&place.path().join("ev"));
    let states: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            provium_protocol::EventKind::PoolState(state) => Some(state),
            _ => None,
        })
        .collect();
    assert!(states.len() >= 2, "{}", states.len());
    assert_eq!(states[0].used.memory_bytes, 50 << 20);
    assert_eq!(states[0].available.memory_bytes, (1024 - 50) << 20);
}

#[test]
fn r022_to_r024_the_pool_is_what_the_flags_say() {
    let slow =
        "test('x', function() local till = os.clock() + 1.5 while os.clock() < till do end end)";
    let place = Place::with(&[("a.test.lua", slow)]);
    for (flags, cpus) in [
        ("--cpus 3 --cpu-overcommit 1.5", 4),
        ("--cpus 1 --cpu-overcommit 0.1", 1),
        ("--cpus 2 --cpu-overcommit 99", 16),
    ] {
        let line = format!("run --mem 1G {flags} --save-events ev");
        place.run(&line).expect(0);
        let events = stream::read(&place.path().join("ev"));
        let total = events.iter().find_map(|event| match &event.kind {
            provium_protocol::EventKind::PoolState(pool) => Some((
                pool.used.memory_bytes + pool.available.memory_bytes,
                pool.used.cpus + pool.available.cpus,
            )),
            _ => None,
        });
        assert_eq!(total, Some((1 << 30, cpus)), "{flags}");
    }
}

#[test]
fn r025_no_more_files_in_flight_than_wanted() {
    let busy =
        "test('x', function() local till = os.clock() + 0.4 while os.clock() < till do end end)";
    let names = ["a", "b", "c", "d", "e"].map(|name| format!("{name}.test.lua"));
    let files: Vec<(&str, &str)> = names.iter().map(|name| (&**name, busy)).collect();
    let place = Place::with(&files);
    for (flags, expected) in [("-j 1", 1), ("-j 3", 3), ("--cpus 1", 2), ("--cpus 4", 4)] {
        let line = format!("run --mem 2G {flags} --save-events ev");
        place.run(&line).expect(0);
        let (mut now, mut most) = (0, 0);
        for event in stream::read(&place.path().join("ev")) {
            match event.kind.name() {
                "file_dispatched" => now += 1,
                "file_completed" => now -= 1,
                _ => {}
            }
            most = most.max(now);
        }
        assert_eq!(most, expected, "{flags}");
    }
}
