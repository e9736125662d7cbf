//! System calls on threads of their own (L-235).

use std::collections::BTreeMap;
use std::sync::Arc;

use provium_protocol::Error;
use provium_protocol::ops::SyscallResult;

use crate::ops::kernel::{PreparedCall, finish};
use crate::server::Server;
use crate::server::request::{At, Ticket};
use crate::server::state::{INTERRUPT_AGAIN_NS, State};
use crate::server::timers::Due;
use crate::sys::{process, signal};

/// Stack of such a thread: it makes one system call.
const STACK: usize = 64 * 1024;

/// The calls that are under way.
#[derive(Default)]
pub(crate) struct Calls {
    /// Thread of each call; 0 until it runs.
    live: BTreeMap<u64, Call>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Call {
    tid: i32,
    interrupted: bool,
}

impl Calls {
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

impl State {
    /// Interrupts a call, again and again until it has come back.
    pub(crate) fn interrupt_call(&mut self, id: u64) {
        if let Some(call) = self.calls.live.get_mut(&id) {
            call.interrupted = true;
            if call.tid != 0 {
                signal::interrupt(call.tid);
            }
            self.timers
                .after(INTERRUPT_AGAIN_NS, Due::InterruptCall(id));
        }
    }

    /// The thread of a call runs. False if the call is not wanted any more.
    fn call_starts(&mut self, id: u64) -> bool {
        let Some(call) = self.calls.live.get_mut(&id) else {
            return false;
        };
        call.tid = process::tid();
        !call.interrupted
    }
}

/// Starts a call on a thread of its own. The thread inherits the credentials of the caller, which
/// is the op thread.
pub(crate) fn start(server: &Arc<Server>, call: PreparedCall, ticket: Ticket) -> Result<(), Error> {
    let id = {
        let mut state = server.lock();
        let id = state.calls.next;
        state.calls.next += 1;
        state.calls.live.insert(
            id,
            Call {
                tid: 0,
                interrupted: false,
            },
        );
        state.moved(ticket, At::Call(id));
        id
    };
    let server_of_thread = Arc::clone(server);
    let run = move || run(&server_of_thread, id, call, ticket);
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    thread.map(drop).map_err(|error| {
        server.lock().calls.live.remove(&id);
        Error::os("start a thread", crate::sys::errno_of(&error))
    })
}

fn run(server: &Server, id: u64, call: PreparedCall, ticket: Ticket) {
    let wanted = server.lock().call_starts(id);
    let result = if wanted {
        call.run()
    } else {
        // Cancelled before it began.
        SyscallResult {
            ret: -1,
            errno: libc::EINTR,
            out_bufs: None,
            more: None,
        }
        .into()
    };
    let mut state = server.lock();
    state.calls.live.remove(&id);
    let result = finish(&mut state, result);
    state.answer(ticket, Ok(result));
}
