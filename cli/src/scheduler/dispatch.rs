//! Admits files to the pool, strictly in order, and starts their threads (cli-and-config
//! R-108..R-111).

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use provium_lab::{Pool, Share};
use provium_protocol::event::BlockReason;

use super::{Planned, Shop, locked};
use crate::news::News;
use crate::pressure::Pressure;

/// How long at most until the pool, the pressure and signals are looked at again. The end of a
/// file is noticed at once.
const LOOK: Duration = Duration::from_millis(20);

/// What waits for longer than this deserves a line (R-050 has the same figure).
pub(crate) const LONG_WAIT: Duration = Duration::from_secs(30);

/// The queue and who is in flight.
pub(super) struct Dispatcher<'a> {
    shop: &'a Shop,
    jobs: usize,
    queue: Mutex<VecDeque<Planned>>,
    pressure: Mutex<Pressure>,
    in_flight: Mutex<usize>,
    ended: Condvar,
}

/// What the head of the queue waits for, and since when.
struct Blocked {
    reason: BlockReason,
    since: Instant,
    told: bool,
}

impl<'a> Dispatcher<'a> {
    pub(super) fn new(
        shop: &'a Shop,
        files: Vec<Planned>,
        jobs: usize,
        pressure: Pressure,
    ) -> Self {
        Self {
            shop,
            jobs: jobs.max(1),
            queue: Mutex::new(files.into()),
            pressure: Mutex::new(pressure),
            in_flight: Mutex::new(0),
            ended: Condvar::new(),
        }
    }

    /// Runs all files; returns when the last has ended.
    pub(super) fn run(&self, tell: &Sender<News>) {
        std::thread::scope(|scope| {
            let mut blocked = None;
            while !self.shop.no_more_files() {
                let Some(head) = locked(&self.queue).front().cloned() else {
                    break;
                };
                if *locked(&self.in_flight) >= self.jobs {
                    self.wait();
                    continue;
                }
                match self.admit(&head) {
                    Ok(share) => {
                        blocked = None;
                        locked(&self.queue).pop_front();
                        *locked(&self.in_flight) += 1;
                        // The desk outlives the dispatcher, so telling cannot fail.
                        let _ = tell.send(News::Dispatched {
                            path: head.name.clone(),
                            reservation: share.reservation(),
                        });
                        let tell = tell.clone();
                        scope.spawn(move || {
                            self.shop.run(&head, share, &tell);
                            *locked(&self.in_flight) -= 1;
                            self.ended.notify_all();
                        });
                    }
                    Err(reason) => {
                        self.note(&mut blocked, reason, &head, tell);
                        self.wait();
                    }
                }
            }
        });
        let _ = tell.send(News::Finished);
    }

    /// Room for a file, or why there is none now. A claim that can never be met is not waited
    /// for: the call that makes it says so.
    fn admit(&self, file: &Planned) -> Result<Share, BlockReason> {
        let alone = *locked(&self.in_flight) == 0;
        if !alone && locked(&self.pressure).is_high() {
            return Err(BlockReason::PsiPressure);
        }
        let pool = self.pool();
        let claim = file.scan.claim.filter(|claim| pool.could_admit(*claim));
        pool.admit(&file.name, claim.unwrap_or_default())
            .ok_or(BlockReason::PoolFull)
    }

    fn pool(&self) -> &Pool {
        self.shop.setup.harness.pool()
    }

    /// Tells when a file begins to wait, or waits for something else; for people also when it
    /// waits for long.
    fn note(
        &self,
        blocked: &mut Option<Blocked>,
        reason: BlockReason,
        file: &Planned,
        tell: &Sender<News>,
    ) {
        match blocked {
            Some(known) if known.reason == reason => {
                if known.since.elapsed() >= LONG_WAIT && !known.told {
                    known.told = true;
                    let text = format!("{} has waited for 30s: {}", file.name, why(reason));
                    let _ = tell.send(News::Note { text });
                }
            }
            _ => {
                let waiting_for = self.pool().reservation(file.scan.claim.unwrap_or_default());
                let path = file.name.clone();
                let _ = tell.send(News::Blocked {
                    path,
                    waiting_for,
                    reason,
                });
                *blocked = Some(Blocked {
                    reason,
                    since: Instant::now(),
                    told: false,
                });
            }
        }
    }

    fn wait(&self) {
        let in_flight = locked(&self.in_flight);
        drop(self.ended.wait_timeout(in_flight, LOOK));
    }
}

/// A reason for people.
pub(crate) fn why(reason: BlockReason) -> &'static str {
    match reason {
        BlockReason::PoolFull => "the pool is full",
        BlockReason::PsiPressure => "the host's CPUs are under pressure",
    }
}
