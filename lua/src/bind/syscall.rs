//! Raw kernel access: syscall, ioctl, the agent's memory (lua-api L-107..L-111, L-235..L-237).

use mlua::{Table, Value};
use provium_lab::{Ioctl, IoctlData, Nested, Syscall, SyscallHandle};

use crate::args::{Args, Options, integral, kind};
use crate::bind::convert;
use crate::bind::guest::{on_guests, unit};
use crate::fault::Fault;
use crate::handle::Object;
use crate::native::{Answer, Cx, Native};

on_guests! {
    /// Raw kernel access of VMs and workers.
    TABLE {
        "syscall", "(nr: integer, ...: integer|table): table",
        "Makes a system call in the agent. Arguments are up to six integers, or one table with \
         args, bufs, ptrs (argument slot of each buffer) and nested. Answers ret, errno, raw, \
         out_bufs.",
        |cx, args| {
            let guest = args.guest()?;
            let syscall = read(args)?;
            cx.later(guest.start_syscall(syscall), |cx, result| {
                cx.values(convert::syscall_result(cx.lua, &result)?)
            })
        };
        "syscall_async", "(nr: integer, ...: integer|table): SyscallHandle",
        "Makes a system call on a thread of its own, so that it may block.",
        |cx, args| {
            let guest = args.guest()?;
            let syscall = read(args)?;
            cx.later(guest.start_syscall_async(syscall), |cx, handle| {
                cx.handle(Object::Syscall(handle))
            })
        };
        "ioctl", "(fd: integer, cmd: integer, data?: string|integer, opts?: table): table",
        "Makes an ioctl. A string is passed by address and comes back as out_data, an integer as \
         it is. Options: bufs, ptr_offsets.",
        ioctl;
        "read_mem", "(addr: integer, len: integer): string",
        "Bytes of the agent's own address space.",
        |cx, args| {
            let guest = args.guest()?;
            let (addr, len) = (args.int("addr")?.cast_unsigned(), length(args)?);
            cx.later(guest.start_read_mem(addr, len), |cx, data| {
                cx.values(cx.lua.create_string(data)?)
            })
        };
        "write_mem", "(addr: integer, data: string)",
        "Writes into the agent's own address space.",
        |cx, args| {
            let guest = args.guest()?;
            let (addr, data) = (args.int("addr")?.cast_unsigned(), args.bytes("data")?);
            cx.later(guest.start_write_mem(addr, &data), unit)
        };
    }
}

/// Calls under way.
pub(crate) const HANDLES: &[Native] = &[
    Native {
        class: "SyscallHandle",
        call: "handle:await",
        signature: "(timeout?): table",
        doc: "Waits for the call's result; raises at the timeout, the call goes on.",
        run: |cx, args| {
            let handle = handle(args)?;
            let timeout = args.duration_or_nil("timeout")?;
            cx.later(handle.start_wait(timeout), |cx, result| {
                cx.values(convert::syscall_result(cx.lua, &result)?)
            })
        },
    },
    Native {
        class: "SyscallHandle",
        call: "handle:done",
        signature: "(): boolean",
        doc: "True once the call has returned.",
        run: |cx, args| cx.ok(handle(args)?.done()),
    },
    Native {
        class: "SyscallHandle",
        call: "handle:cancel",
        signature: "()",
        doc: "Interrupts the call; a later await answers -1 and EINTR if it was cut short.",
        run: |cx, args| {
            handle(args)?.cancel();
            cx.ok(())
        },
    },
];

fn handle(args: &mut Args) -> Result<SyscallHandle, Fault> {
    args.this("SyscallHandle", |object| match object {
        Object::Syscall(handle) => Some(handle.clone()),
        _ => None,
    })
}

/// A number of bytes.
pub(crate) fn length(args: &mut Args) -> Result<u64, Fault> {
    let len = args.int("len")?;
    u64::try_from(len).map_err(|_| {
        Fault(format!(
            "{}: len must not be negative, got {len}",
            args.call()
        ))
    })
}

/// The call and its arguments in either shape.
pub(crate) fn read(args: &mut Args) -> Result<Syscall, Fault> {
    let nr = number(args)?;
    if let Value::Table(_) = args.peek() {
        let options = args.options("args", &["args", "bufs", "ptrs", "nested"])?;
        args.end()?;
        return from_table(nr, &options);
    }
    integer_form(nr, args)
}

/// The call with plain integers, the one shape that a batch takes.
pub(crate) fn read_integers(args: &mut Args) -> Result<Syscall, Fault> {
    let nr = number(args)?;
    if let Value::Table(_) = args.peek() {
        return Err(Fault(format!(
            "{}: takes integers only; a call with a table of args, bufs, ptrs is made with \
             vm:syscall, outside the batch",
            args.call()
        )));
    }
    integer_form(nr, args)
}

fn number(args: &mut Args) -> Result<u32, Fault> {
    let nr = args.int("nr")?;
    u32::try_from(nr)
        .ok()
        .filter(|nr| *nr <= i32::MAX.cast_unsigned())
        .ok_or_else(|| {
            Fault(format!(
                "{}: argument 1 (nr) must be 0 to {}, got {nr}",
                args.call(),
                i32::MAX
            ))
        })
}

fn integer_form(nr: u32, args: &mut Args) -> Result<Syscall, Fault> {
    let mut syscall = Syscall {
        nr,
        ..Syscall::default()
    };
    while args.left() > 0 {
        let position = syscall.args.len() + 1;
        syscall.args.push(args.int(&format!("a{position}"))?);
    }
    if syscall.args.len() > 6 {
        let count = syscall.args.len();
        return Err(Fault(format!(
            "{}: takes at most 6 arguments after nr, got {count}",
            args.call()
        )));
    }
    Ok(syscall)
}

fn from_table(nr: u32, options: &Options) -> Result<Syscall, Fault> {
    Ok(Syscall {
        nr,
        args: integers(options, "args")?,
        bufs: options.byte_list("bufs")?.unwrap_or_default(),
        ptrs: small_integers(options, "ptrs")?,
        nested: nested(options)?,
    })
}

fn integers(options: &Options, key: &str) -> Result<Vec<i64>, Fault> {
    let Some(table) = options.table(key)? else {
        return Ok(Vec::new());
    };
    let mut list = Vec::with_capacity(table.raw_len());
    for value in table.sequence_values::<Value>() {
        let value = value?;
        let place = format!("{key}[{}]", list.len() + 1);
        list.push(integral(&value).ok_or_else(|| options.wrong(&place, "an integer", &value))?);
    }
    Ok(list)
}

fn small_integers(options: &Options, key: &str) -> Result<Vec<u32>, Fault> {
    let list = integers(options, key)?;
    let small = |(index, int): (usize, i64)| {
        let place = format!("{key}[{}]", index + 1);
        u32::try_from(int)
            .map_err(|_| options.problem(&place, format_args!("{int} is out of range")))
    };
    list.into_iter().enumerate().map(small).collect()
}

/// Links between buffers; indices count from 1 in Lua.
fn nested(options: &Options) -> Result<Vec<Nested>, Fault> {
    let Some(table) = options.table("nested")? else {
        return Ok(Vec::new());
    };
    let mut list = Vec::with_capacity(table.raw_len());
    for value in table.sequence_values::<Value>() {
        let place = format!("nested[{}]", list.len() + 1);
        match value? {
            Value::Table(link) => list.push(link_of(options, &place, &link)?),
            other => return Err(options.wrong(&place, "a table", &other)),
        }
    }
    Ok(list)
}

fn link_of(options: &Options, place: &str, link: &Table) -> Result<Nested, Fault> {
    let field = |key: &str| -> Result<i64, Fault> {
        let value: Value = link.raw_get(key)?;
        integral(&value).ok_or_else(|| {
            options.problem(
                place,
                format_args!("{key} must be an integer, got {}", kind(&value)),
            )
        })
    };
    let index = |key: &str| -> Result<u32, Fault> {
        let int = field(key)?;
        u32::try_from(int.saturating_sub(1))
            .map_err(|_| options.problem(place, format_args!("{key} {int} is no buffer")))
    };
    let offset = field("offset")?;
    let offset = u64::try_from(offset)
        .map_err(|_| options.problem(place, format_args!("offset {offset} is negative")))?;
    Ok(Nested {
        parent: index("parent")?,
        child: index("child")?,
        offset,
    })
}

fn ioctl(cx: &Cx<'_>, args: &mut Args) -> Answer {
    let guest = args.guest()?;
    let fd = args.int("fd")?;
    let fd = i32::try_from(fd).map_err(|_| {
        Fault(format!(
            "{}: argument 1 (fd): {fd} is no descriptor",
            args.call()
        ))
    })?;
    // Commands with the read bit set are negative when they come from 32-bit code.
    let cmd = args.int("cmd")?;
    let cmd = u32::try_from(cmd)
        .or_else(|_| i32::try_from(cmd).map(i32::cast_unsigned))
        .map_err(|_| {
            Fault(format!(
                "{}: argument 2 (cmd): {cmd} has more than 32 bits",
                args.call()
            ))
        })?;
    let data = match args.next() {
        Value::Nil => None,
        Value::String(bytes) => Some(IoctlData::Bytes(bytes.as_bytes().to_vec())),
        value => match integral(&value) {
            Some(int) => Some(IoctlData::Int(int)),
            None => return Err(args.wrong("data", "a string, an integer or nil", &value)),
        },
    };
    let options = args.options("opts", &["bufs", "ptr_offsets"])?;
    args.end()?;
    let ptr_offsets = small_integers(&options, "ptr_offsets")?
        .into_iter()
        .map(u64::from)
        .collect();
    let bufs = options.byte_list("bufs")?.unwrap_or_default();
    let ioctl = Ioctl {
        fd,
        cmd,
        data,
        bufs,
        ptr_offsets,
    };
    cx.later(guest.start_ioctl(ioctl), |cx, result| {
        let table = cx.lua.create_table()?;
        table.raw_set("ret", result.ret)?;
        table.raw_set("result", result.ret)?;
        table.raw_set("errno", result.errno)?;
        table.raw_set("raw", result.raw)?;
        let out_data = result
            .out_data
            .map(|data| cx.lua.create_string(data))
            .transpose()?;
        table.raw_set("out_data", out_data)?;
        table.raw_set("out_bufs", convert::strings(cx.lua, &result.out_bufs)?)?;
        cx.values(table)
    })
}
