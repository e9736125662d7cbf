//! Files by path and by handle, and streams (E-067 to E-078, L-096 to L-106, L-121 to L-128).

mod client;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use client::{Agent, Client, call, call_with};
use provium_protocol::message::StreamFrame;
use provium_protocol::ops::*;
use provium_protocol::{ErrorKind, INITIAL_CREDIT};

fn read_file(path: Vec<u8>) -> ReadFile {
    ReadFile {
        path,
        max: u64::MAX,
    }
}

fn open(path: Vec<u8>, mode: u32) -> Open {
    Open {
        path,
        mode,
        perm: None,
    }
}

fn seek(h: u64, offset: i64, whence: Whence) -> Seek {
    Seek { h, offset, whence }
}

fn errno<O: provium_protocol::Operation>(client: &mut Client, op: &O) -> Option<i32>
where
    O::Reply: std::fmt::Debug,
{
    client.call(op).unwrap_err().errno
}

/// L-096, L-097: whole files, whatever their size, and those that do not tell it.
#[test]
fn whole_files_are_read_and_written() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = agent.path("file");
    let data: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let write = WriteFile {
        path: path.clone(),
        data: data.clone().into(),
        perm: None,
    };
    client.call(&write).unwrap();
    let file = client.call(&read_file(path.clone())).unwrap();
    assert!(file.data == data && file.h.is_none());
    let mode = |name: &str| {
        std::fs::metadata(agent.dir().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode("file"), 0o644);
    // An existing mode stays; an explicit one is exact.
    std::fs::set_permissions(agent.dir().join("file"), PermissionsExt::from_mode(0o751)).unwrap();
    client
        .call(&WriteFile {
            data: "".into(),
            ..write.clone()
        })
        .unwrap();
    assert_eq!(
        (
            mode("file"),
            std::fs::read(agent.dir().join("file")).unwrap().len()
        ),
        (0o751, 0)
    );
    client
        .call(&WriteFile {
            perm: Some(0o4777),
            ..write.clone()
        })
        .unwrap();
    assert_eq!(mode("file"), 0o4777);
    assert_eq!(
        client.kind(&WriteFile {
            perm: Some(0o10000),
            ..write.clone()
        }),
        ErrorKind::BadArgs
    );
    let no_parent = WriteFile {
        path: agent.path("no/file"),
        ..write
    };
    let error = client.call(&no_parent).unwrap_err();
    assert_eq!(error.errno, Some(libc::ENOENT));
    assert!(error.path.unwrap().ends_with("no/file"));

    let status = client
        .call(&read_file(b"/proc/self/status".to_vec()))
        .unwrap();
    assert!(status.data.starts_with(b"Name:\tprovium-agent"));
    assert_eq!(
        errno(&mut client, &read_file(b"/proc".to_vec())),
        Some(libc::EISDIR)
    );
    assert_eq!(errno(&mut client, &read_file(vec![])), Some(libc::ENOENT));
    assert_eq!(
        errno(&mut client, &read_file(b"/\0".to_vec())),
        Some(libc::EINVAL)
    );
}

/// E-067: what does not fit goes on through a handle.
#[test]
fn the_rest_of_a_large_file_is_read_by_handle() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let size = 40 << 20;
    std::fs::write(agent.dir().join("large"), vec![3; size]).unwrap();
    let mut file = client.call(&read_file(agent.path("large"))).unwrap();
    let h = file.h.unwrap();
    loop {
        match client.call(&Read { h, max: u64::MAX }).unwrap() {
            part if part.is_empty() => break,
            part => file.data.extend(part),
        }
    }
    client.call(&Close { h }).unwrap();
    assert!(file.data.len() == size && file.data.iter().all(|byte| *byte == 3));
}

/// L-099, L-100.
#[test]
fn entries_tell_what_they_are() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let script = "cd $0 && mkdir dir && printf abc > file && ln -s file link && mkfifo fifo && \
                  chmod 1750 dir && printf x > \"$(printf 'b\\377d')\"";
    let dir = agent.dir().join("tree");
    std::fs::create_dir(&dir).unwrap();
    let argv = ["sh", "-c", script, dir.to_str().unwrap()];
    let spec = ExecSpec::argv(argv);
    let made = client
        .call(&Exec {
            spec,
            timeout_ms: None,
        })
        .unwrap();
    assert_eq!(
        made.code,
        Some(0),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let path = |name: &str| dir.join(name).into_os_string().into_encoded_bytes();
    let entries = client.call(&ListDir { path: path("") }).unwrap();
    let expected = [
        (b"b\xffd".to_vec(), EntryType::File),
        (b"dir".to_vec(), EntryType::Directory),
        (b"fifo".to_vec(), EntryType::Fifo),
        (b"file".to_vec(), EntryType::File),
        (b"link".to_vec(), EntryType::Symlink),
    ];
    let found: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry.name, entry.entry_type))
        .collect();
    assert_eq!(found, expected);

    let mut stat = |name: &str, follow| {
        client
            .call(&Stat {
                path: path(name),
                follow,
            })
            .unwrap()
    };
    let file = stat("file", false);
    assert_eq!((file.size, file.entry_type), (3, EntryType::File));
    let modified = std::fs::metadata(dir.join("file"))
        .unwrap()
        .modified()
        .unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(i128::from(file.mtime_ns), since.as_nanos() as i128);
    assert_eq!(stat("link", false).entry_type, EntryType::Symlink);
    assert_eq!(stat("link", true).ino, file.ino);
    assert_eq!(
        (stat("dir", false).perm, stat("fifo", false).entry_type),
        (0o1750, EntryType::Fifo)
    );
    let null = Stat {
        path: b"/dev/null".to_vec(),
        follow: false,
    };
    assert_eq!(
        client.call(&null).unwrap().entry_type,
        EntryType::CharDevice
    );
    assert_eq!(
        errno(&mut client, &ListDir { path: path("file") }),
        Some(libc::ENOTDIR)
    );
}

/// L-101 to L-103.
#[test]
fn directories_are_made_renamed_and_removed() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mkdir = |name: &str, parents, perm| Mkdir {
        path: agent.path(name),
        parents,
        perm,
    };
    assert_eq!(
        errno(&mut client, &mkdir("a/b/c", false, None)),
        Some(libc::ENOENT)
    );
    client.call(&mkdir("a/b/c", true, Some(0o2703))).unwrap();
    client.call(&mkdir("a/b/c", true, Some(0o700))).unwrap();
    let mode = std::fs::metadata(agent.dir().join("a/b/c"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o2703);
    assert_eq!(
        errno(&mut client, &mkdir("a/b", false, None)),
        Some(libc::EEXIST)
    );
    std::fs::write(agent.dir().join("file"), "x").unwrap();
    assert_eq!(
        errno(&mut client, &mkdir("file", true, None)),
        Some(libc::EEXIST)
    );
    assert_eq!(
        errno(&mut client, &mkdir("file/sub", true, None)),
        Some(libc::ENOTDIR)
    );

    let unlink = |name: &str| Unlink {
        path: agent.path(name),
    };
    assert_eq!(errno(&mut client, &unlink("a")), Some(libc::ENOTEMPTY));
    client.call(&unlink("a/b/c")).unwrap();
    let rename = Rename {
        from: agent.path("file"),
        to: agent.path("moved"),
    };
    client.call(&rename).unwrap();
    assert_eq!(errno(&mut client, &rename), Some(libc::ENOENT));
    client.call(&unlink("moved")).unwrap();
    assert_eq!(errno(&mut client, &unlink("moved")), Some(libc::ENOENT));
}

/// L-104, L-121 to L-127: files by handle, with the cursor the kernel has.
#[test]
fn open_files_keep_their_cursor() {
    use open_mode::{APPEND, CREATE, EXCLUSIVE, READ, TRUNCATE, WRITE};
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = agent.path("file");
    let new = Open {
        perm: Some(0o666),
        ..open(path.clone(), READ | WRITE | CREATE | EXCLUSIVE)
    };
    let file = client.call(&new).unwrap();
    let mode = std::fs::metadata(agent.dir().join("file"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o666);
    assert_eq!(errno(&mut client, &new), Some(libc::EEXIST));
    let h = file.h;
    assert_eq!(
        client
            .call(&Write {
                h,
                data: b"hello world".to_vec()
            })
            .unwrap(),
        11
    );
    assert_eq!(client.call(&Read { h, max: 5 }).unwrap(), b"");
    assert_eq!(client.call(&seek(h, 6, Whence::Set)).unwrap(), 6);
    assert_eq!(client.call(&Read { h, max: 3 }).unwrap(), b"wor");
    assert_eq!(client.call(&seek(h, -1, Whence::Cur)).unwrap(), 8);
    assert_eq!(client.call(&seek(h, -2, Whence::End)).unwrap(), 9);
    assert_eq!(
        errno(&mut client, &seek(h, -1, Whence::Set)),
        Some(libc::EINVAL)
    );
    // The descriptor is the real one: system calls see the same cursor.
    assert_eq!(client.syscall(8, &[i64::from(file.fd), 0, 1]).ret, 9);

    let append = client.call(&open(path.clone(), APPEND)).unwrap().h;
    client
        .call(&Write {
            h: append,
            data: b"!".to_vec(),
        })
        .unwrap();
    assert_eq!(
        errno(&mut client, &Read { h: append, max: 1 }),
        Some(libc::EBADF)
    );
    assert_eq!(
        std::fs::read(agent.dir().join("file")).unwrap(),
        b"hello world!"
    );
    client.call(&open(path.clone(), WRITE | TRUNCATE)).unwrap();
    assert!(std::fs::read(agent.dir().join("file")).unwrap().is_empty());

    client.call(&Close { h }).unwrap();
    assert_eq!(client.kind(&Read { h, max: 1 }), ErrorKind::Stale);
    assert_eq!(client.kind(&Close { h }), ErrorKind::Stale);
    assert_eq!(client.kind(&open(path.clone(), CREATE)), ErrorKind::BadArgs);
    assert_eq!(client.kind(&open(path, 64 | READ)), ErrorKind::BadArgs);
}

/// A pipe without a writer is waited for, and the wait can be cancelled.
#[test]
fn opening_a_pipe_can_be_cancelled() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = agent.path("fifo");
    let made = client.call(&call_with(
        133,
        &[0, 0o10600, 0],
        &[(0, &[&path, b"\0".as_slice()].concat())],
    ));
    assert_eq!(made.unwrap().ret, 0);
    for op in [true, false] {
        let id = match op {
            true => client.start(&open(path.clone(), open_mode::READ)),
            false => client.start(&read_file(path.clone())),
        };
        client.call(&Ping {}).unwrap();
        client.cancel(id);
        assert_eq!(
            client.finish::<Ping>(id).unwrap_err().kind,
            ErrorKind::Cancelled
        );
    }
}

/// L-105: every form of start, growth, truncation.
#[test]
fn files_are_followed() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let file = agent.dir().join("log");
    std::fs::write(&file, "0123456789").unwrap();
    let mut tail = |start| {
        let path = agent.path("log");
        let s = client.call(&TailOpen { path, start }).unwrap();
        (s, start)
    };
    let starts = [
        (TailStart::At(0), "0123456789"),
        (TailStart::At(7), "789"),
        (TailStart::At(-4), "6789"),
        (TailStart::At(-400), "0123456789"),
    ];
    let open: Vec<_> = starts
        .iter()
        .map(|(start, text)| (tail(*start).0, *text))
        .collect();
    let (end, _) = tail(TailStart::End);
    let (beyond, _) = tail(TailStart::At(12));
    for (s, text) in &open {
        assert_eq!(client.stream_bytes(*s, text.len()), text.as_bytes());
    }
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap();
    log.write_all(b"abcd").unwrap();
    assert_eq!(client.stream_bytes(end, 4), b"abcd");
    assert_eq!(client.stream_bytes(beyond, 2), b"cd");
    std::fs::write(&file, "new").unwrap();
    assert_eq!(client.stream_bytes(end, 3), b"new");
    for (s, _) in &open {
        client.call(&StreamClose { s: *s }).unwrap();
    }
    client.call(&StreamClose { s: open[0].0 }).unwrap();
    let missing = TailOpen {
        path: agent.path("missing"),
        start: TailStart::End,
    };
    assert_eq!(errno(&mut client, &missing), Some(libc::ENOENT));
    assert_eq!(client.kind(&StreamClose { s: 1 }), ErrorKind::UnknownHandle);
}

/// L-106: a regular file from its cursor, which stays where it is.
#[test]
fn open_files_are_followed_from_their_cursor() {
    let agent = Agent::start();
    let mut client = agent.connect();
    std::fs::write(agent.dir().join("log"), "0123456789").unwrap();
    let file = client
        .call(&open(agent.path("log"), open_mode::READ))
        .unwrap();
    client.call(&seek(file.h, 4, Whence::Set)).unwrap();
    let by_fd = FdStreamOpen {
        fd: Some(file.fd),
        h: None,
        offset: None,
    };
    let by_handle = FdStreamOpen {
        fd: None,
        h: Some(file.h),
        offset: Some(8),
    };
    let first = client.call(&by_fd).unwrap();
    let second = client.call(&by_handle).unwrap();
    assert_eq!(client.stream_bytes(first, 6), b"456789");
    assert_eq!(client.stream_bytes(second, 2), b"89");
    assert_eq!(client.call(&seek(file.h, 0, Whence::Cur)).unwrap(), 4);
    assert_eq!(
        client.kind(&FdStreamOpen { fd: None, ..by_fd }),
        ErrorKind::BadArgs
    );
    let closed = FdStreamOpen {
        fd: Some(9999),
        h: None,
        offset: None,
    };
    assert_eq!(errno(&mut client, &closed), Some(libc::EBADF));
}

/// The two descriptors that a system call like `pipe` or `socketpair` wrote.
fn pair(client: &mut Client, nr: u32, args: &[i64], buf: u32) -> (i32, i32) {
    let result = client
        .call(&call_with(nr, args, &[(buf, &[0; 8])]))
        .unwrap();
    assert_eq!(result.ret, 0);
    let bytes = &result.out_bufs.unwrap()[0];
    let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

/// L-106, L-198: pipes and sockets are consumed to their end.
#[test]
fn pipes_and_sockets_are_streamed_to_their_end() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pipe = pair(&mut client, 22, &[0], 0);
    let socket = pair(&mut client, 53, &[1, 1, 0, 0], 3);
    for (read, write) in [pipe, socket] {
        let s = client
            .call(&FdStreamOpen {
                fd: Some(read),
                h: None,
                offset: None,
            })
            .unwrap();
        assert!(client.is_silent(Duration::from_millis(20)));
        client
            .call(&call_with(1, &[i64::from(write), 0, 3], &[(1, b"abc")]))
            .unwrap();
        assert_eq!(client.stream_bytes(s, 3), b"abc");
        client.syscall(3, &[i64::from(write)]);
        assert_eq!(client.stream(s), StreamFrame::Eof(None));
        client.call(&StreamClose { s }).unwrap();
    }
    let counter = client.syscall(290, &[0, 0]).ret;
    let fd = Some(i32::try_from(counter).unwrap());
    let s = client
        .call(&FdStreamOpen {
            fd,
            h: None,
            offset: None,
        })
        .unwrap();
    client
        .call(&call_with(1, &[counter, 0, 8], &[(1, &7u64.to_ne_bytes())]))
        .unwrap();
    assert_eq!(client.stream_bytes(s, 8), 7u64.to_ne_bytes());
    client.call(&Ping {}).unwrap();
}

/// E-053, L-201: a stream sends what it was granted, and holds its writer back beyond that.
#[test]
fn streams_stay_within_their_credit() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = b"/dev/zero".to_vec();
    let s = client
        .call(&TailOpen {
            path,
            start: TailStart::At(0),
        })
        .unwrap();
    let mut got = 0;
    while !client.is_silent(Duration::from_millis(100)) || got < INITIAL_CREDIT {
        let StreamFrame::Data(data) = client.stream(s) else {
            panic!()
        };
        got += data.len() as u64;
    }
    assert_eq!(got, INITIAL_CREDIT);
    client.grant(s, 5);
    assert_eq!(client.stream(s), StreamFrame::Data(vec![0; 5]));
    // Credit without end is no way to fill the agent's memory: other requests go on.
    client.grant(s, u64::MAX);
    client.grant(s, u64::MAX);
    client.stream_bytes(s, 8 << 20);
    client.start(&StreamClose { s });
    client.call(&Ping {}).unwrap();
    assert_eq!(client.syscall(39, &[]).errno, 0);
    // A late grant is nothing.
    client.grant(s, 5);
    client.call(&call(39, &[])).unwrap();
}
