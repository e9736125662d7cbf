//! Operations that are done at once, on whichever thread read them, under the state's lock.

use provium_protocol::Op;
use provium_protocol::ops::Uptime;

use crate::server::request::{At, Ticket};
use crate::server::state::State;
use crate::server::timers::Due;
use crate::sys::time;

/// Does one of [`class::is_immediate`](super::class::is_immediate).
pub(crate) fn run(state: &mut State, op: Op, ticket: Ticket) {
    match op {
        Op::Ping(_) => state.answer(
            ticket,
            Ok(Uptime {
                uptime_ns: time::uptime(),
            }),
        ),
        Op::ClockGet(_) => state.answer(ticket, Ok(time::realtime())),
        Op::ClockSleep(op) => {
            let key = state.timers.after(op.ns, Due::Sleep(ticket));
            state.moved(ticket, At::Timer(key));
        }
        Op::OutputRead(op) => {
            let result = state.output_read(op.h, op.which, op.offset, op.max);
            state.answer(ticket, result);
        }
        Op::OutputRelease(op) => {
            let result = state.output_release(op.h);
            state.answer(ticket, result);
        }
        Op::ProcWait(op) => state.proc_wait(op.h, op.timeout_ms, op.kill, ticket),
        Op::ProcSignal(op) => {
            let result = state.proc_signal(op.h, op.signal, op.group == Some(true));
            state.answer(ticket, result);
        }
        Op::ProcStatusGet(op) => {
            let result = state.proc_state(op.h);
            state.answer(ticket, result);
        }
        Op::ProcPid(op) => {
            let result = state.proc_pid(op.h);
            state.answer(ticket, result);
        }
        Op::ProcStdin(op) => state.proc_stdin(op.h, op.data, ticket),
        Op::ProcCloseStdin(op) => {
            let result = state.proc_close_stdin(op.h);
            state.answer(ticket, result);
        }
        Op::ProcRelease(op) => {
            let result = state.proc_release(op.h);
            state.answer(ticket, result);
        }
        Op::ProcStreamOpen(op) => {
            let result = state.stream_process(op.h, op.which);
            let stream = result.as_ref().ok().copied();
            state.answer(ticket, result);
            if let Some(stream) = stream {
                state.pump(stream);
            }
        }
        Op::StreamClose(op) => {
            let result = state.stream_close(op.s);
            state.answer(ticket, result);
        }
        Op::WorkerSignal(op) => {
            let result = state.signal_all(op.signal);
            state.answer(ticket, result);
        }
        Op::WorkerJoin(_) => state.worker_join(ticket),
        Op::Stage(op) => {
            let result = state.current.staged.add(op.key, &op.data, op.last);
            state.answer(ticket, result);
        }
        // Only the operations above are immediate.
        other => state.answer(
            ticket,
            Err::<(), _>(provium_protocol::ops::unknown(other.name())),
        ),
    }
}
