//! System calls and ioctls with buffers (E-079, E-080, L-107 to L-111, L-235, L-236).

use std::sync::Arc;

use provium_protocol::ops::{Ioctl, IoctlData, IoctlResult, Nested, Slot, Syscall, SyscallResult};
use provium_protocol::{Error, ErrorKind, MAX_FRAME};

use crate::server::Server;
use crate::server::handles::{Handle, Output};
use crate::server::state::State;
use crate::sys::memory::Arena;
use crate::sys::raw;

/// Most bytes of buffers in one answer.
const INLINE: usize = MAX_FRAME - 64 * 1024;

/// Calls after which the kernel may go on using the memory it was given: alternative stacks,
/// robust lists, restartable sequences, asynchronous input and output, gifted pages. Their
/// buffers are never freed.
const KEEP_MEMORY: [u32; 13] = [
    131, 157, 206, 207, 208, 209, 210, 218, 273, 278, 334, 426, 427,
];

/// `exit` ends one thread; the op thread's end is the agent's.
const EXIT: u32 = 60;
const EXIT_GROUP: u32 = 231;
const IOCTL: u32 = 16;

/// Values in this range are negated error numbers (L-107).
const ERRORS: std::ops::RangeInclusive<i64> = -4095..=-1;

/// A system call whose arguments are checked and whose buffers are in place.
pub(crate) struct PreparedCall {
    nr: u32,
    args: [u64; 6],
    arena: Option<Arena>,
}

/// What a call gave, before it is known whether its buffers fit a frame.
pub(crate) struct CallResult {
    ret: i64,
    errno: i32,
    bufs: Vec<Vec<u8>>,
}

impl From<SyscallResult> for CallResult {
    fn from(result: SyscallResult) -> Self {
        let bufs = result.out_bufs.unwrap_or_default();
        Self {
            ret: result.ret,
            errno: result.errno,
            bufs,
        }
    }
}

impl PreparedCall {
    /// Makes the call.
    pub(crate) fn run(self) -> CallResult {
        // SAFETY: this is the operation that lets a test do anything to the agent; see `raw`.
        #[expect(unsafe_code, reason = "a test author's system call cannot be checked")]
        let raw = unsafe { raw::syscall(self.nr, self.args) };
        let (ret, errno) = match i32::try_from(raw) {
            Ok(code) if ERRORS.contains(&raw) => (-1, -code),
            _ => (raw, 0),
        };
        let bufs = self.arena.as_ref().map(Arena::take).unwrap_or_default();
        if let Some(arena) = self.arena
            && KEEP_MEMORY.contains(&self.nr)
        {
            arena.leak();
        }
        CallResult { ret, errno, bufs }
    }

    fn new(nr: u32, args: &[i64], bufs: &[Vec<u8>]) -> Result<Self, Error> {
        let mut words = [0; 6];
        if args.len() > words.len() {
            return Err(bad("args", "more than 6"));
        }
        for (word, arg) in words.iter_mut().zip(args) {
            *word = u64::from_ne_bytes(arg.to_ne_bytes());
        }
        let arena = (!bufs.is_empty()).then(|| Arena::new(bufs));
        Ok(Self {
            nr,
            args: words,
            arena,
        })
    }

    /// Puts addresses of buffers into arguments and into other buffers.
    fn link(&mut self, slots: &[Slot], nested: &[Nested]) -> Result<(), Error> {
        for (index, link) in nested.iter().enumerate() {
            let field = |name| format!("nested[{index}].{name}");
            let child = self
                .address(link.child)
                .ok_or_else(|| no_buffer(&field("child")))?;
            self.address(link.parent)
                .ok_or_else(|| no_buffer(&field("parent")))?;
            self.store(link.parent, link.offset, child).map_err(|()| {
                bad(
                    &field("offset"),
                    "the address does not fit the buffer there",
                )
            })?;
        }
        for (index, slot) in slots.iter().enumerate() {
            let field = |name| format!("slots[{index}].{name}");
            let address = self
                .address(slot.buf)
                .ok_or_else(|| no_buffer(&field("buf")))?;
            let arg = usize::try_from(slot.arg).unwrap_or(usize::MAX);
            let word = self.args.get_mut(arg);
            *word.ok_or_else(|| bad(&field("arg"), "beyond argument 5"))? = address;
        }
        Ok(())
    }

    fn address(&mut self, index: u32) -> Option<u64> {
        self.arena.as_mut()?.address(usize::try_from(index).ok()?)
    }

    fn store(&mut self, index: u32, offset: u64, address: u64) -> Result<(), ()> {
        let (Some(arena), Ok(index)) = (&mut self.arena, usize::try_from(index)) else {
            return Err(());
        };
        arena.store(index, offset, address).map_err(drop)
    }
}

/// Checks a call and lays out its buffers. Nothing is executed.
pub(crate) fn prepare(server: &Server, call: Syscall) -> Result<PreparedCall, Error> {
    if i32::try_from(call.nr).is_err() {
        return Err(bad("nr", "outside 0 to 2147483647"));
    }
    let bufs = match call.bufs.is_empty() {
        true => Vec::new(),
        false => server.lock().current.staged.take_all(call.bufs)?,
    };
    let mut prepared = PreparedCall::new(call.nr, &call.args, &bufs)?;
    prepared.link(&call.slots, &call.nested)?;
    Ok(prepared)
}

/// Makes a call on the op thread. A call that would end only this thread ends what the thread is:
/// the agent or worker process, or the thread worker.
pub(crate) fn syscall(server: &Arc<Server>, call: Syscall) -> Result<CallResult, Error> {
    let mut prepared = prepare(server, call)?;
    if prepared.nr == EXIT {
        if server.lock().role == crate::server::Role::ThreadWorker {
            server.lock().quit();
            return Err(Error::new(ErrorKind::Stale, "the worker has ended"));
        }
        prepared.nr = EXIT_GROUP;
    }
    Ok(prepared.run())
}

/// Makes an ioctl.
pub(crate) fn ioctl(server: &Server, op: Ioctl) -> Result<(CallResult, bool), Error> {
    if op.bufs.len() != op.offsets.len() {
        return Err(bad("offsets", "not as many as `bufs`"));
    }
    let (number, data) = match op.data {
        None => (0, None),
        Some(IoctlData::Int(value)) => (value, None),
        Some(IoctlData::Bytes(blob)) => (0, Some(server.lock().current.staged.take(blob)?)),
    };
    if data.is_none() && !op.bufs.is_empty() {
        return Err(bad("bufs", "there is no `data` to hold their addresses"));
    }
    let has_data = data.is_some();
    let mut bufs: Vec<Vec<u8>> = data.into_iter().collect();
    bufs.append(&mut server.lock().current.staged.take_all(op.bufs)?);
    let args = [i64::from(op.fd), i64::from(op.cmd), number];
    let mut prepared = PreparedCall::new(IOCTL, &args, &bufs)?;
    for (index, offset) in op.offsets.iter().enumerate() {
        let child = u32::try_from(index + 1)
            .ok()
            .and_then(|child| prepared.address(child));
        let stored = child
            .ok_or(())
            .and_then(|child| prepared.store(0, *offset, child));
        stored.map_err(|()| {
            bad(
                &format!("offsets[{index}]"),
                "the address does not fit the data there",
            )
        })?;
    }
    if has_data {
        prepared.args[2] = prepared.address(0).unwrap_or_default();
    }
    Ok((prepared.run(), has_data))
}

/// The answer to a system call; buffers that do not fit its frame become an output.
pub(crate) fn finish(state: &mut State, result: CallResult) -> SyscallResult {
    let CallResult { ret, errno, bufs } = result;
    let (out_bufs, more) = fit(state, bufs);
    SyscallResult {
        ret,
        errno,
        out_bufs: out_bufs.filter(|bufs| !bufs.is_empty()),
        more,
    }
}

/// The answer to an ioctl.
pub(crate) fn finish_ioctl(state: &mut State, result: CallResult, has_data: bool) -> IoctlResult {
    let CallResult { ret, errno, bufs } = result;
    let (bufs, more) = fit(state, bufs);
    let (out_data, out_bufs) = match bufs {
        Some(mut bufs) if has_data && !bufs.is_empty() => (Some(bufs.remove(0)), Some(bufs)),
        other => (None, other),
    };
    let out_bufs = out_bufs.filter(|bufs| !bufs.is_empty());
    IoctlResult {
        ret,
        errno,
        out_data,
        out_bufs,
        more,
    }
}

type Fitted = (Option<Vec<Vec<u8>>>, Option<u64>);

fn fit(state: &mut State, bufs: Vec<Vec<u8>>) -> Fitted {
    // Each buffer has a header of at most five bytes.
    if bufs.iter().map(|buf| buf.len() + 5).sum::<usize>() <= INLINE {
        return (Some(bufs), None);
    }
    let output = Output {
        buffers: bufs.concat(),
        ..Output::default()
    };
    (None, Some(state.handles.add(Handle::Output(output))))
}

fn bad(field: &str, why: &str) -> Error {
    Error::new(ErrorKind::BadArgs, format!("field `{field}`: {why}"))
}

fn no_buffer(field: &str) -> Error {
    bad(field, "there is no such buffer")
}
