//! Host threads at work while the machine's thread serves them: no byte, kick or wake-up is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::guest::{BUF_ALLOC, Guest, Ports};
use crate::signal::Signal;
use crate::virtio::vsock::packet::{Header, op, shutdown};
use crate::virtio::vsock::{VsockHost, VsockStream};
use crate::{ByteStream, Progress};

const THREADS: u8 = 8;
const BYTES: usize = 300_000;

/// Calls `step` until it moves something, blocking in between.
fn block_on(signal: &Signal, mut step: impl FnMut() -> Progress) -> Progress {
    loop {
        let seen = signal.generation();
        match step() {
            Progress::Pending => signal.wait(seen, None),
            done => return done,
        };
    }
}

/// Sends bytes to an echoing guest, from one thread, and gets them back in another.
fn echo(host: &VsockHost, value: u8) {
    let stream = Arc::new(host.connect(5123).unwrap());
    let signal = Signal::new();
    stream.subscribe(&signal);
    let writer = std::thread::spawn({
        let (stream, signal) = (Arc::clone(&stream), Arc::clone(&signal));
        move || write(&stream, &signal, value)
    });
    let mut got = 0;
    let mut buffer = [0; 10_000];
    while let Progress::Bytes(count) = block_on(&signal, || stream.try_read(&mut buffer).unwrap()) {
        assert!(buffer[..count].iter().all(|&byte| byte == value));
        got += count;
    }
    assert_eq!(got, BYTES);
    writer.join().unwrap();
}

fn write(stream: &VsockStream, signal: &Signal, value: u8) {
    let data = vec![value; BYTES];
    let mut done = 0;
    while done < BYTES {
        let end = BYTES.min(done + 7_000);
        let progress = block_on(signal, || stream.try_write(&data[done..end]).unwrap());
        let Progress::Bytes(count) = progress else {
            panic!("{progress:?}")
        };
        done += count;
    }
    stream.shutdown_write();
}

/// The guest's end of an echoed connection.
#[derive(Default)]
struct Echo {
    taken: u32,
    sent: u32,
    host_taken: u32,
    backlog: Vec<u8>,
    host_done: bool,
}

impl Echo {
    fn header(&self, ports: Ports, op: u16, len: usize) -> Header {
        let (len, fwd_cnt) = (len as u32, self.taken);
        Header {
            len,
            buf_alloc: BUF_ALLOC,
            fwd_cnt,
            ..ports.header(op)
        }
    }

    /// Sends back what there is credit for, and says goodbye after the last byte.
    fn answer(&mut self, guest: &mut Guest, ports: Ports) {
        let room = (1 << 20) - self.sent.wrapping_sub(self.host_taken) as usize;
        let len = self.backlog.len().min(room).min(5000);
        let data: Vec<u8> = self.backlog.drain(..len).collect();
        self.sent += len as u32;
        self.taken += len as u32;
        if len > 0 {
            guest.send_raw(self.header(ports, op::RW, len), &data);
        }
        if self.backlog.is_empty() && std::mem::take(&mut self.host_done) {
            let end = Header {
                flags: shutdown::BOTH,
                ..self.header(ports, op::SHUTDOWN, 0)
            };
            guest.send_raw(end, &[]);
        }
    }
}

fn serve(guest: &mut Guest, finished: &AtomicUsize) {
    let mut echoes: BTreeMap<u32, Echo> = BTreeMap::new();
    while finished.load(Ordering::SeqCst) < usize::from(THREADS) {
        for (header, data) in guest.receive() {
            let ports = Ports {
                guest: header.dst_port,
                host: header.src_port,
            };
            let echo = echoes.entry(ports.host).or_default();
            echo.host_taken = header.fwd_cnt;
            match header.op {
                op::REQUEST => guest.send(ports, op::RESPONSE, &[]),
                op::RW => echo.backlog.extend(data),
                op::SHUTDOWN => echo.host_done = true,
                _ => {}
            }
        }
        for (&host, echo) in &mut echoes {
            echo.answer(guest, Ports { guest: 5123, host });
        }
        std::thread::yield_now();
    }
}

/// Counts a thread that ends, also by a panic, so that the guest ends too.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn many_host_threads_at_once() {
    let mut guest = Guest::new();
    let finished = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (1..=THREADS)
        .map(|value| {
            let (host, finished) = (guest.host.clone(), Arc::clone(&finished));
            std::thread::spawn(move || {
                let _counted = Counted(finished);
                echo(&host, value);
            })
        })
        .collect();
    serve(&mut guest, &finished);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(guest.host.connection_count(), 0);
}
