//! `provium repl` without a terminal, as scripts use it.

mod support;

use std::io::Write;
use std::process::Stdio;

use support::Ran;
use support::kitchen::Kitchen;

/// Runs the prompt on `input`.
fn typed(kitchen: &Kitchen, line: &str, input: &str) -> Ran {
    let mut child = kitchen.command(line).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

#[test]
fn r004_values_are_printed_errors_too_and_the_prompt_goes_on() {
    let kitchen = Kitchen::with(&[]);
    let input = "vm:run('echo hi').stdout\n\
                 vm:read_file('/none')\n\
                 for i = 1, 2 do\n\
                 x = (x or 0) + i\n\
                 end\n\
                 x, vm:name()\n\
                 exit()\n\
                 error('never read')\n";
    let ran = typed(&kitchen, "repl minimal --name box", input).expect(0);
    assert_eq!(ran.stdout, "\"hi\\n\"\n3\t\"box\"\n", "{}", ran.stderr);
    assert!(
        ran.stderr.contains("vm:read_file: vm box: /none"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("never read"), "{}", ran.stderr);
}

#[test]
fn r004_a_fixture_is_resumed_instead_of_booting() {
    let fixture = "local vm = provium:vm('db', 'minimal', { memory = '96M' }):boot()\n\
                   vm:write_file('/tmp/prepared', 'by the fixture')\n\
                   return vm:snapshot()\n";
    let kitchen = Kitchen::with(&[
        ("provium.toml", "[provium]\nroots = [\".\"]\n"),
        ("db.fixture.lua", fixture),
    ]);
    let input = "vm:name(), vm:read_file('/tmp/prepared')\n";
    let ran = typed(&kitchen, "repl --fixture db", input).expect(0);
    assert_eq!(ran.stdout, "\"db\"\t\"by the fixture\"\n", "{}", ran.stderr);
    let ran = typed(&kitchen, "repl --fixture nowhere", input).expect(2);
    assert!(
        ran.stderr
            .contains("\"nowhere\" not found in any test root"),
        "{}",
        ran.stderr
    );
    let ran = typed(&kitchen, "repl", input).expect(2);
    assert!(ran.stderr.contains("PROFILE"), "{}", ran.stderr);
}
