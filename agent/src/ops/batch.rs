//! Several operations in one request (E-089, L-115).

use provium_protocol::message::Outcome;
use provium_protocol::ops::{BatchEntry, BatchItem};
use provium_protocol::{Error, ErrorKind, MAX_FRAME, Op};

use super::OpThread;
use crate::server::request::{ReplyTo, Ticket};

/// Most bytes of results in the answer.
const INLINE: usize = MAX_FRAME - 64 * 1024;

/// What an entry costs beside its value.
const ENTRY: usize = 64;

/// A batch on its way: what is left to do and what came of the rest.
pub(crate) struct BatchRun {
    pub(crate) ticket: Ticket,
    left: std::vec::IntoIter<BatchItem>,
    results: Vec<BatchEntry>,
    size: usize,
}

impl BatchRun {
    pub(crate) fn new(ticket: Ticket, items: Vec<BatchItem>) -> Box<Self> {
        let results = Vec::with_capacity(items.len());
        Box::new(Self {
            ticket,
            left: items.into_iter(),
            results,
            size: 0,
        })
    }

    /// Notes the result of the operation whose turn it was.
    pub(crate) fn record(&mut self, outcome: Outcome) {
        let size = ENTRY
            + match &outcome {
                Ok(value) => value.size(),
                Err(error) => error.message.len() + error.path.as_ref().map_or(0, String::len),
            };
        let outcome = if self.size + size <= INLINE {
            self.size += size;
            outcome
        } else {
            self.size += ENTRY;
            Err(Error::new(
                ErrorKind::TooLarge,
                "does not fit the answer to the batch",
            ))
        };
        self.results.push(BatchEntry { outcome });
    }
}

/// Whether an operation may be part of a batch.
fn allowed(op: &Op) -> bool {
    match op {
        Op::Syscall(call) => {
            call.bufs.is_empty() && call.slots.is_empty() && call.nested.is_empty()
        }
        Op::Exec(_)
        | Op::ReadFile(_)
        | Op::WriteFile(_)
        | Op::Stat(_)
        | Op::ListDir(_)
        | Op::Mkdir(_)
        | Op::Unlink(_)
        | Op::Rename(_) => true,
        _ => false,
    }
}

impl OpThread {
    /// Goes on with a batch: to its end, or to the next operation that can be done. The result of
    /// that brings the batch back to the head of the queue, at once or when a command has ended.
    pub(super) fn batch(&mut self, mut run: Box<BatchRun>) {
        loop {
            if self.server.lock().is_dead(run.ticket) {
                return self.reply(ReplyTo::Request(run.ticket), Ok(()));
            }
            let Some(item) = run.left.next() else {
                let results = std::mem::take(&mut run.results);
                return self.reply(ReplyTo::Request(run.ticket), Ok(results));
            };
            match item.decode_op() {
                Ok(op) if allowed(&op) => {
                    self.server.lock().park();
                    return self.run_op(op, ReplyTo::Batch(run));
                }
                Ok(op) => {
                    let message = format!("`{}` cannot be part of a batch", op.name());
                    run.record(Err(Error::new(ErrorKind::BadArgs, message)));
                }
                // An unknown operation is a bad argument of the batch.
                Err(error) => run.record(Err(Error {
                    kind: ErrorKind::BadArgs,
                    ..error
                })),
            }
        }
    }
}
