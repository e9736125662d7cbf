//! Event streams of runs, and the promises that each must keep (events-and-protocol 2.3).

use std::collections::BTreeMap;
use std::path::Path;

use provium_protocol::event::ReadEvent;
use provium_protocol::{Event, EventKind, FrameReader};

/// Reads a saved stream; every frame must be a known event.
pub(crate) fn read(path: &Path) -> Vec<Event> {
    parse(&std::fs::read(path).unwrap())
}

/// The same from bytes.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Event> {
    let mut reader = FrameReader::new();
    reader.push(bytes);
    let mut events = Vec::new();
    while let Some(body) = reader.next_frame().unwrap() {
        match Event::from_body(body).unwrap() {
            ReadEvent::Known(event) => events.push(event),
            ReadEvent::Unknown(kind) => panic!("unknown kind {kind}"),
        }
    }
    reader.finish().unwrap();
    events
}

#[derive(Default)]
struct File {
    discovered: usize,
    dispatched: usize,
    completed: usize,
    /// Tests that have started, and how they ended.
    tests: BTreeMap<String, Option<&'static str>>,
    claims: i32,
    vms: i32,
}

/// Checks E-009, E-031 to E-034 and answers, by file and test, how each test ended.
#[track_caller]
pub(crate) fn check(events: &[Event]) -> BTreeMap<(String, String), &'static str> {
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    // VMs that are up, by the fixture being built with them.
    let mut building: BTreeMap<String, i32> = BTreeMap::new();
    let mut last = i64::MIN;
    let mut dispatching = false;
    for event in events {
        assert!(event.ts >= last, "E-009: time goes back");
        last = event.ts;
        let name = event.kind.name();
        let mut with = |path: &String, act: &mut dyn FnMut(&mut File)| {
            let known = name == "file_discovered" || files.contains_key(path);
            assert!(known, "{name} of {path} before it was discovered");
            act(files.entry(path.clone()).or_default());
        };
        let running = |file: &File| file.dispatched == 1 && file.completed == 0;
        match &event.kind {
            EventKind::FileDiscovered(e) => {
                assert!(
                    !dispatching,
                    "E-012: {} discovered after the first dispatch",
                    e.path
                );
                with(&e.path, &mut |file| file.discovered += 1);
            }
            EventKind::FileBlocked(e) => {
                with(&e.path, &mut |file| assert_eq!(file.dispatched, 0, "E-031"));
            }
            EventKind::FileDispatched(e) => {
                dispatching = true;
                with(&e.path, &mut |file| file.dispatched += 1);
            }
            EventKind::FileCompleted(e) => with(&e.path, &mut |file| {
                assert!(running(file), "E-031: {}", e.path);
                assert_eq!(file.vms, 0, "E-015: {} has VMs", e.path);
                file.completed += 1;
            }),
            EventKind::TestStarted(e) => with(&e.path, &mut |file| {
                assert!(running(file), "{}", e.path);
                let before = file.tests.insert(e.name.clone(), None);
                assert!(
                    before.is_none(),
                    "E-032: {} started twice in {}",
                    e.name,
                    e.path
                );
            }),
            EventKind::TestPassed(e) => with(&e.path, &mut |file| end(file, &e.name, "passed")),
            EventKind::TestFailed(e) => with(&e.path, &mut |file| end(file, &e.name, "failed")),
            EventKind::TestSkipped(e) => with(&e.path, &mut |file| end(file, &e.name, "skipped")),
            EventKind::ClaimAcquired(e) => with(&e.path, &mut |file| {
                assert!(running(file), "E-023: {}", e.path);
                file.claims += 1;
            }),
            EventKind::ClaimReleased(e) => with(&e.path, &mut |file| {
                assert_eq!((file.completed, file.claims), (1, 1), "E-023: {}", e.path);
                file.claims -= 1;
            }),
            EventKind::FixtureBuildStarted(e) => {
                let twice = building.insert(e.path.clone(), 0);
                assert!(twice.is_none(), "E-024: {} is built twice", e.path);
            }
            EventKind::FixtureBuildDone(e) => {
                let up = building.remove(&e.path);
                assert_eq!(up, Some(0), "R-097: VMs of the build of {}", e.path);
            }
            EventKind::VmSpawned(e) => match building.get_mut(&e.file) {
                Some(up) => *up += 1,
                None => with(&e.file, &mut |file| file.vms += 1),
            },
            EventKind::VmShutdown(e) => match building.get_mut(&e.file) {
                Some(up) => *up -= 1,
                None => with(&e.file, &mut |file| file.vms -= 1),
            },
            _ => {}
        }
    }
    assert!(building.is_empty(), "E-034: {building:?}");
    let mut outcomes = BTreeMap::new();
    for (path, file) in files {
        assert_eq!(file.discovered, 1, "E-031: {path}");
        assert!(
            file.dispatched <= 1 && file.completed == file.dispatched,
            "E-031: {path}"
        );
        assert_eq!((file.claims, file.vms), (0, 0), "E-034: {path}");
        for (test, ended) in file.tests {
            let ended = ended.unwrap_or_else(|| panic!("E-032: {path}: {test} never ended"));
            outcomes.insert((path.clone(), test), ended);
        }
    }
    outcomes
}

#[track_caller]
fn end(file: &mut File, test: &str, how: &'static str) {
    let slot = file.tests.get_mut(test);
    let slot = slot.unwrap_or_else(|| panic!("E-032: {test} ended before it started"));
    assert!(slot.replace(how).is_none(), "E-032: {test} ended twice");
}
