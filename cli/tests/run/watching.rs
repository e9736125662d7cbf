//! Runs that are watched, interrupted, listened to, or too long (R-029, R-062, R-105; E-040).

use std::io::Read;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::support::{Place, stream};
use crate::{BAD, GOOD};

#[test]
fn r029_the_file_deadline_stops_a_file_and_the_next_runs() {
    let place = Place::with(&[
        (
            "a.test.lua",
            "test('loop', function() while true do end end) test('after', print)",
        ),
        ("b.test.lua", GOOD),
    ]);
    let ran = place.run("run -j 1 -v --timeout 200ms").expect(1);
    assert!(
        ran.stdout
            .starts_with("TIME a.test.lua (0 passed, 1 failed, 1 skipped)"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("a.test.lua:1: file timed out after 0.2s"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .contains("SKIP after (not run: file timed out after 0.2s)"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("PASS b.test.lua"), "{}", ran.stdout);
}

#[test]
fn r062_an_interrupt_ends_the_run_in_order() {
    let place = Place::with(&[
        (
            "a.test.lua",
            "print('running') test('loop', function() while true do end end) test('x', print)",
        ),
        ("b.test.lua", GOOD),
    ]);
    let mut child = place
        .command("run -j 1 -v")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"running\n") {
        stdout.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    std::thread::sleep(Duration::from_millis(50));
    // SAFETY: sends a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(rest.contains("a.test.lua:1: interrupted"), "{rest}");
    assert!(rest.contains("SKIP x (not run: interrupted)"), "{rest}");
    assert!(
        rest.contains("1 file(s); 0 passed, 1 failed, 1 skipped"),
        "{rest}"
    );
}

/// The lines of a child's output as they come.
fn lines(input: impl Read + Send + 'static) -> Receiver<String> {
    use std::io::BufRead;
    let (tell, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(input).lines() {
            let Ok(line) = line else { break };
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

#[track_caller]
fn wait_for(lines: &Receiver<String>, part: &str) {
    let mut seen = String::new();
    loop {
        match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) if line.contains(part) => return,
            Ok(line) => seen += &(line + "\n"),
            Err(_) => panic!("no `{part}` in\n{seen}"),
        }
    }
}

#[test]
fn r105_watch_runs_again_what_a_change_concerns() {
    let place = Place::with(&[
        ("provium.toml", "[provium]\nroots = [\".\"]\n"),
        (
            "a.test.lua",
            "require('lib.help') test('a', function() end)",
        ),
        ("b.test.lua", GOOD),
        ("lib/help.lua", "return 1"),
    ]);
    let (child, out, err) = started(&place, "run -j 1 --watch --save-events ev");
    wait_for(&out, "2 file(s); 3 passed");
    wait_for(&err, "waiting for changes");
    place.write("lib/help.lua", "return 2");
    wait_for(&err, "changed: help.lua");
    wait_for(&out, "1 file(s); 1 passed");
    wait_for(&err, "waiting for changes");
    let events = stream::read(&place.path().join("ev"));
    assert_eq!(
        stream::check(&events).len(),
        1,
        "R-106: the file holds the last run"
    );
    place.write("c.test.lua", BAD);
    wait_for(&err, "changed: c.test.lua");
    wait_for(&out, "1 file(s); 0 passed, 1 failed");
    wait_for(&err, "waiting for changes");
    // SAFETY: sends a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.0.id().cast_signed(), libc::SIGINT) };
    let code = child.wait();
    assert_eq!(code, Some(1), "the last run's code");
}

/// Starts the program here: itself, and the lines of its two outputs as they come.
fn started(place: &Place, line: &str) -> (Reaped, Receiver<String>, Receiver<String>) {
    let mut command = place.command(line);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = lines(child.stdout.take().unwrap());
    let err = lines(child.stderr.take().unwrap());
    (Reaped(child), out, err)
}

/// A child that does not outlive its test.
struct Reaped(std::process::Child);

impl Reaped {
    fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn e040_a_socket_serves_the_run_and_is_gone_afterwards() {
    let slow =
        "test('x', function() local till = os.clock() + 1 while os.clock() < till do end end)";
    let place = Place::with(&[("a.test.lua", slow)]);
    let mut child = place
        .command("run --events-socket sock")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = place.path().join("sock");
    let mut client = loop {
        if let Ok(client) = std::os::unix::net::UnixStream::connect(&path) {
            break client;
        }
        assert!(child.try_wait().unwrap().is_none(), "no socket came");
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let events = stream::parse(&bytes);
    assert_eq!(events.last().unwrap().kind.name(), "file_completed");
    assert!(!path.exists());
    place.write("sock", "a file");
    let ran = place.run("run --events-socket sock").expect(2);
    assert!(ran.stderr.contains("is no socket"), "{}", ran.stderr);
}

#[test]
fn r106_e038_the_socket_and_its_clients_stay_and_files_hold_the_last_run() {
    let place = Place::with(&[("a.test.lua", GOOD)]);
    let (child, out, err) = started(
        &place,
        "run --watch --events-socket sock --save-events ev --junit j.xml",
    );
    wait_for(&out, "1 file(s); 2 passed");
    wait_for(&err, "waiting for changes");
    let mut client = std::os::unix::net::UnixStream::connect(place.path().join("sock")).unwrap();
    for round in ["one", "two"] {
        place.write("a.test.lua", &format!("test('{round}', function() end)"));
        wait_for(&out, "1 file(s); 1 passed");
        wait_for(&err, "waiting for changes");
        let junit = std::fs::read_to_string(place.path().join("j.xml")).unwrap();
        assert!(junit.contains(&format!("name=\"{round}\"")), "{junit}");
        let saved = stream::check(&stream::read(&place.path().join("ev")));
        assert_eq!(saved.len(), 1, "{saved:?}");
    }
    // SAFETY: sends a signal to a child of this process that has not been waited for.
    unsafe { libc::kill(child.0.id().cast_signed(), libc::SIGTERM) };
    assert_eq!(child.wait(), Some(0));
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let tests: Vec<String> = stream::parse(&bytes)
        .into_iter()
        .filter_map(|event| match event.kind {
            provium_protocol::EventKind::TestPassed(test) => Some(test.name),
            _ => None,
        })
        .collect();
    assert_eq!(tests, ["one", "two"], "everything since it connected");
    assert!(!place.path().join("sock").exists());
}
