//! Machines that run together keep together: on `soft`, none gets ahead of the others by more than
//! a span of guest time.
//!
//! An idle guest jumps from timer to timer at no cost, a busy one takes its time. Without this, the
//! idle ones of a lab would run hours ahead while the host waits for the busy one, and take the
//! host's processors from it. So all run to the ends of their spans and wait there for each other.
//!
//! Spans end at multiples of [`GRID_NS`] of guest time, where vCPUs change turns anyway, so that
//! waiting there is nothing that a guest could notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends of spans, and of turns, are multiples of this much guest time.
pub(crate) const GRID_NS: u64 = 1_000_000;

/// Longest span, for machines that are all idle: how far one may get ahead that then has something
/// to do.
const LONGEST_NS: u64 = 32 * GRID_NS;

/// The first end of a span after `now_ns`.
pub(crate) fn next_end(now_ns: u64) -> u64 {
    (now_ns / GRID_NS + 1).saturating_mul(GRID_NS)
}

/// Makes a member look again whether it may go on.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Machines that run together.
#[derive(Default)]
pub(crate) struct Pace {
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    next_id: u64,
    all: BTreeMap<u64, Member>,
    /// Length of the latest span.
    span_ns: u64,
    /// A vCPU has executed something in it.
    worked: bool,
}

struct Member {
    place: Place,
    /// Where its span ends.
    end_ns: u64,
    wake: Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Stands still for reasons of its own; nobody waits for it.
    Away,
    Running,
    /// Waits for the others at the end of its span.
    Arrived,
}

impl Members {
    /// Begins the next span if nobody is on the way any more; whom else than `asking` to wake then.
    fn advance(&mut self, asking: u64) -> Vec<Wake> {
        let places = || self.all.values().map(|member| member.place);
        if places().any(|place| place == Place::Running) {
            return Vec::new();
        }
        self.span_ns = match std::mem::take(&mut self.worked) {
            true => GRID_NS,
            false => (2 * self.span_ns).clamp(GRID_NS, LONGEST_NS),
        };
        let mut wake = Vec::new();
        for (id, member) in &mut self.all {
            if member.place == Place::Arrived {
                member.place = Place::Running;
                member.end_ns = member.end_ns.saturating_add(self.span_ns);
                if *id != asking {
                    wake.push(member.wake.clone());
                }
            }
        }
        wake
    }
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine comes along; it stands still for now.
    pub(crate) fn join(self: &Arc<Self>, wake: Wake) -> Seat {
        let mut members = self.lock();
        members.next_id += 1;
        let id = members.next_id;
        let member = Member {
            place: Place::Away,
            end_ns: 0,
            wake,
        };
        members.all.insert(id, member);
        Seat {
            pace: self.clone(),
            id,
        }
    }
}

/// One machine's place among those that run together, until dropped.
pub(crate) struct Seat {
    pace: Arc<Pace>,
    id: u64,
}

/// The answer to a member that wants to go on.
pub(crate) struct Permit {
    /// How far it may; none if it has to wait until it is woken.
    pub(crate) until_ns: Option<u64>,
    /// Others that may go on now; to be called without any lock of the caller's.
    pub(crate) wake: Vec<Wake>,
}

impl Seat {
    /// The machine, at guest time `now_ns`, wants to go on.
    pub(crate) fn permit(&self, now_ns: u64) -> Permit {
        let mut members = self.pace.lock();
        let mut wake = Vec::new();
        if let Some(member) = members.all.get_mut(&self.id) {
            match member.place {
                Place::Away => {
                    member.place = Place::Running;
                    member.end_ns = next_end(now_ns);
                }
                Place::Running if now_ns >= member.end_ns => {
                    member.place = Place::Arrived;
                    wake = members.advance(self.id);
                }
                Place::Running | Place::Arrived => {}
            }
        }
        let member = members.all.get(&self.id);
        let running = member.filter(|member| member.place == Place::Running);
        Permit {
            until_ns: running.map(|member| member.end_ns),
            wake,
        }
    }

    /// The machine stands still for reasons of its own; gives those that may go on now.
    pub(crate) fn leave(&self) -> Vec<Wake> {
        let mut members = self.pace.lock();
        match members.all.get_mut(&self.id) {
            Some(member) if member.place != Place::Away => {
                member.place = Place::Away;
                members.advance(self.id)
            }
            _ => Vec::new(),
        }
    }

    /// A vCPU of the machine has executed something.
    pub(crate) fn worked(&self) {
        self.pace.lock().worked = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let wake = self.leave();
        self.pace.lock().all.remove(&self.id);
        wake.iter().for_each(|wake| wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn seat(pace: &Arc<Pace>) -> (Seat, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let wake = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (pace.join(wake), woken)
    }

    /// Asks, and wakes whom it should.
    fn permit(seat: &Seat, now_ns: u64) -> Option<u64> {
        let permit = seat.permit(now_ns);
        permit.wake.iter().for_each(|wake| wake());
        permit.until_ns
    }

    const MS: u64 = GRID_NS;

    #[test]
    fn one_alone_goes_from_span_to_span() {
        let pace = Arc::default();
        let (seat, _) = seat(&pace);
        assert_eq!(permit(&seat, 5), Some(MS));
        assert_eq!(permit(&seat, 6), Some(MS));
        seat.worked();
        assert_eq!(permit(&seat, MS), Some(2 * MS));
        seat.worked();
        assert_eq!(permit(&seat, 2 * MS + 7), Some(3 * MS));
        // Idle: further and further, up to a point.
        let mut at = 3 * MS;
        let mut spans = Vec::new();
        for _ in 0..8 {
            let end = permit(&seat, at).unwrap();
            spans.push((end - at) / MS);
            at = end;
        }
        assert_eq!(spans, [2, 4, 8, 16, 32, 32, 32, 32]);
    }

    #[test]
    fn the_first_to_arrive_waits_for_the_last() {
        let pace = Arc::default();
        let ((a, woken_a), (b, woken_b)) = (seat(&pace), seat(&pace));
        assert_eq!(permit(&a, 0), Some(MS));
        assert_eq!(permit(&b, 70 * MS), Some(71 * MS));
        assert_eq!(permit(&a, MS), None);
        assert_eq!(permit(&a, MS), None);
        b.worked();
        assert_eq!(woken_a.load(Ordering::SeqCst), 0);
        assert_eq!(permit(&b, 71 * MS), Some(72 * MS));
        assert_eq!(woken_a.load(Ordering::SeqCst), 1);
        assert_eq!(woken_b.load(Ordering::SeqCst), 0);
        assert_eq!(permit(&a, MS), Some(2 * MS));
    }

    #[test]
    fn nobody_waits_for_one_that_stands_still_or_is_gone() {
        let pace = Arc::default();
        let ((a, woken), (b, _)) = (seat(&pace), seat(&pace));
        permit(&a, 0);
        permit(&b, 0);
        assert_eq!(permit(&a, MS), None);
        b.leave().iter().for_each(|wake| wake());
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        let end = permit(&a, MS).unwrap();
        // It comes back where it is then, maybe put back to a snapshot.
        assert_eq!(permit(&b, 40), Some(MS));
        assert_eq!(permit(&a, end), None);
        drop(b);
        assert!(permit(&a, end).is_some());
    }
}
