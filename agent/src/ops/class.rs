//! What kind of attention an operation needs.

use provium_protocol::Op;

use crate::server::handles::Handles;

/// Whether an operation is done at once by whichever thread reads it: it neither acts with the
/// agent's identity nor waits under anybody's hands (E-055).
pub(crate) fn is_immediate(op: &Op) -> bool {
    matches!(
        op,
        Op::Ping(_)
            | Op::OutputRead(_)
            | Op::OutputRelease(_)
            | Op::ProcWait(_)
            | Op::ProcSignal(_)
            | Op::ProcStatusGet(_)
            | Op::ProcPid(_)
            | Op::ProcStdin(_)
            | Op::ProcCloseStdin(_)
            | Op::ProcRelease(_)
            | Op::ProcStreamOpen(_)
            | Op::StreamClose(_)
            | Op::ClockGet(_)
            | Op::ClockSleep(_)
            | Op::WorkerSignal(_)
            | Op::WorkerJoin(_)
            | Op::Stage(_)
    )
}

/// System calls that never wait for anybody: identity, limits, memory layout, descriptors that
/// are made or copied. Everything else is taken to wait.
const PROMPT_CALLS: &[u32] = &[
    8, 9, 10, 11, 12, 13, 14, 22, 24, 25, 27, 28, 32, 36, 37, 38, 39, 41, 53, 63, 95, 96, 97, 98,
    99, 100, 102, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119,
    120, 121, 122, 123, 124, 125, 126, 127, 131, 140, 141, 145, 157, 158, 160, 186, 200, 201, 203,
    204, 218, 222, 223, 224, 225, 226, 227, 228, 229, 234, 283, 284, 286, 287, 289, 290, 291, 293,
    294, 302, 309, 319, 324, 334, 424, 434,
];

/// Whether an operation of the op thread may wait for somebody, so that the io thread should
/// watch the connection meanwhile.
pub(crate) fn may_wait(op: &Op, handles: &Handles) -> bool {
    match op {
        Op::Syscall(call) => PROMPT_CALLS.binary_search(&call.nr).is_err(),
        Op::Read(read) => !handles.file(read.h).is_ok_and(|file| file.regular),
        Op::Write(write) => !handles.file(write.h).is_ok_and(|file| file.regular),
        Op::Seek(_)
        | Op::Exec(_)
        | Op::Spawn(_)
        | Op::SyscallAsync(_)
        | Op::ClockSet(_)
        | Op::ClockAdvance(_)
        | Op::MemRead(_)
        | Op::MemWrite(_)
        | Op::Dmesg(_)
        | Op::SpawnWorker(_)
        | Op::WorkerExit(_)
        | Op::Quiesce(_)
        | Op::Unquiesce(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_calls_can_be_searched() {
        assert!(PROMPT_CALLS.is_sorted());
    }
}
