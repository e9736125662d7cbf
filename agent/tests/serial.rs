//! The serial fallback (E-042): conversations on a line that knows no connections.

mod client;

use std::time::Duration;

use client::{Agent, Client, call, serial_line};
use provium_protocol::ops::*;
use provium_protocol::{FrameReader, Hello, serial};

#[test]
fn a_conversation_starts_over_with_each_call() {
    let (line, guest) = serial_line();
    let mut client = Client::over(Box::new(line), FrameReader::new());
    // Said before the agent has set its end up: the line echoes it and swallows parts of it.
    say(&mut client, 1);
    say(&mut client, 2);
    let _agent = Agent::start_on(&guest);
    let number = (3..100).find(|number| {
        say(&mut client, *number);
        while !client.is_silent(Duration::from_millis(300)) {
            if client.is_answered() {
                return true;
            }
        }
        false
    });
    assert!(number.is_some());
    let pid = client.syscall(39, &[]).ret;
    let control = client.sh("printf 'a\\r\\n\\003\\021\\377'").stdout;
    assert_eq!(control, b"a\r\n\x03\x11\xff");

    // A large frame in both directions.
    let data: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut spec = ExecSpec::shell("cat");
    spec.stdin = Some(data.clone().into());
    let exec = Exec {
        spec,
        timeout_ms: None,
    };
    assert!(client.call(&exec).unwrap().stdout == data);

    // A host that comes back keeps its handles if it says so, even while the agent is busy.
    let process = client.spawn("sleep 1000");
    client.start(&call(34, &[]));
    client.send_raw(&serial::call(200));
    client.restart(serial::host_reader(200));
    client.hello(true).unwrap();
    assert_eq!(client.syscall(39, &[]).ret, pid);
    let kill = ProcSignal {
        h: process.h,
        signal: 9,
        group: Some(true),
    };
    assert!(client.call(&kill).unwrap());
    assert_eq!(client.wait(process.h).signal, Some(9));
}

fn say(client: &mut Client, number: u8) {
    client.restart(serial::host_reader(number));
    client.send_raw(&serial::call(number));
    client.send_raw(&Hello::new("test", false).to_frame().unwrap());
}
