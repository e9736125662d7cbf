//! Machines that run together keep together: on `soft`, none gets ahead of the others by more than
//! a span of guest time.
//!
//! An idle guest jumps from timer to timer at no cost, a busy one takes its time. Without this, the
//! idle ones of a lab would run hours ahead while the host waits for the busy one, and take the
//! host's processors from it. So all run to the ends of their spans and wait there for each other.
//! A span lasts 50 ms; while all are idle, until the first of them has something to do.
//! One that has nothing to do in a span is not even woken for it: its clock is behind then, and put
//! right before anything happens to it.
//!
//! Spans end at multiples of [`SPAN_NS`] of guest time, where vCPUs change turns anyway, so that
//! waiting there is nothing that a guest could notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends of spans are multiples of this much guest time. Shorter ones keep machines closer and make
/// their threads wait for each other more often.
const SPAN_NS: u64 = 50_000_000;

/// The first end of a span after `now_ns`.
pub(crate) fn next_end(now_ns: u64) -> u64 {
    (now_ns / SPAN_NS + 1).saturating_mul(SPAN_NS)
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
}

struct Member {
    place: Place,
    /// Where its span began.
    begin_ns: u64,
    /// Where it ends.
    end_ns: u64,
    /// For how long after that it has nothing to do, as far as it knew when it arrived.
    idle_ns: u64,
    /// Nobody lets it run just now. Its place is kept: an idle one must not gain a span on a busy
    /// one with every wait of the host.
    resting: bool,
    wake: Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Stands still for reasons of its own; nobody waits for it.
    Away,
    Running,
    /// Waits for the others at the end of its span, or has nothing to do until there.
    Arrived,
}

impl Members {
    /// Begins the next span if nobody is on the way any more; whom else than `asking` to wake then.
    fn advance(&mut self, asking: u64) -> Vec<Wake> {
        let places = || self.all.values().map(|member| member.place);
        if places().any(|place| place == Place::Running) {
            return Vec::new();
        }
        let arrived = self.all.values().filter(|m| m.place == Place::Arrived);
        let idle_ns = arrived.map(|member| member.idle_ns).min().unwrap_or(0);
        let span_ns = next_end(idle_ns);
        let mut wake = Vec::new();
        for (id, member) in &mut self.all {
            if member.place == Place::Arrived {
                member.begin_ns = member.end_ns;
                member.end_ns = member.end_ns.saturating_add(span_ns);
                if member.idle_ns >= span_ns {
                    member.idle_ns -= span_ns;
                    continue;
                }
                member.place = Place::Running;
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
            begin_ns: 0,
            end_ns: 0,
            idle_ns: 0,
            resting: false,
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
    /// Where the others are at least: until here it was idle.
    pub(crate) from_ns: u64,
    /// Others that may go on now; to be called without any lock of the caller's.
    pub(crate) wake: Vec<Wake>,
}

impl Seat {
    /// The machine, at guest time `now_ns`, wants to go on; it has nothing to do for `idle_ns`.
    pub(crate) fn permit(&self, now_ns: u64, idle_ns: u64) -> Permit {
        let mut members = self.pace.lock();
        let mut wake = Vec::new();
        if let Some(member) = members.all.get_mut(&self.id) {
            member.resting = false;
            match member.place {
                Place::Away => {
                    member.place = Place::Running;
                    member.begin_ns = now_ns;
                    member.end_ns = next_end(now_ns);
                }
                // Something came up for one that was idle.
                Place::Arrived if now_ns < member.end_ns => member.place = Place::Running,
                Place::Running if now_ns >= member.end_ns => {
                    member.place = Place::Arrived;
                    member.idle_ns = idle_ns;
                    wake = members.advance(self.id);
                }
                Place::Running | Place::Arrived => {}
            }
        }
        let member = members.all.get(&self.id);
        let running = member.filter(|member| member.place == Place::Running);
        Permit {
            until_ns: running.map(|member| member.end_ns),
            from_ns: running.map_or(0, |member| member.begin_ns),
            wake,
        }
    }

    /// Whether the machine may go on.
    pub(crate) fn is_running(&self) -> bool {
        let members = self.pace.lock();
        let member = members.all.get(&self.id);
        member.is_some_and(|member| member.place == Place::Running)
    }

    /// Nobody lets the machine run for now; it keeps its place.
    pub(crate) fn rest(&self) {
        let mut members = self.pace.lock();
        if let Some(member) = members.all.get_mut(&self.id) {
            member.resting = true;
        }
    }

    /// The machine has waited for so long that nobody is to wait for those that rest; gives those
    /// that may go on now.
    pub(crate) fn pass_resting(&self) -> Vec<Wake> {
        let mut members = self.pace.lock();
        for member in members.all.values_mut().filter(|member| member.resting) {
            member.place = Place::Away;
        }
        members.advance(self.id)
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
    fn permit_idle(seat: &Seat, now_ns: u64, idle_ns: u64) -> Option<u64> {
        let permit = seat.permit(now_ns, idle_ns);
        permit.wake.iter().for_each(|wake| wake());
        permit.until_ns
    }

    /// The same for one that is busy.
    fn permit(seat: &Seat, now_ns: u64) -> Option<u64> {
        permit_idle(seat, now_ns, 0)
    }

    /// Spans count in these.
    const S: u64 = SPAN_NS;

    #[test]
    fn one_alone_goes_from_span_to_span() {
        let pace = Arc::default();
        let (seat, _) = seat(&pace);
        assert_eq!(permit(&seat, 5), Some(S));
        assert_eq!(permit(&seat, 6), Some(S));
        assert_eq!(permit(&seat, S), Some(2 * S));
        assert_eq!(permit(&seat, 2 * S + 7), Some(3 * S));
        // Idle until something is due, and the span in which it is.
        assert_eq!(permit_idle(&seat, 3 * S, 70 * S + 1), Some(74 * S));
        assert_eq!(permit(&seat, 74 * S), Some(75 * S));
    }

    #[test]
    fn all_idle_go_on_until_the_first_has_something_to_do() {
        let pace = Arc::default();
        let ((a, woken_a), (b, _)) = (seat(&pace), seat(&pace));
        permit(&a, 0);
        permit(&b, 0);
        assert_eq!(permit_idle(&a, S, 1000 * S), None);
        // The other one is not woken for a span in which it has nothing to do.
        assert_eq!(permit_idle(&b, S, 30 * S), Some(32 * S));
        assert_eq!(permit(&b, 32 * S), Some(33 * S));
        assert_eq!(woken_a.load(Ordering::SeqCst), 0);
        // Something comes for it: it is where the others are.
        let late = a.permit(S, 0);
        assert_eq!((late.from_ns, late.until_ns), (32 * S, Some(33 * S)));
        assert_eq!(permit_idle(&a, 33 * S, 2 * S), None);
        for end in 33..36 {
            assert_eq!(woken_a.load(Ordering::SeqCst), 0);
            assert_eq!(permit(&b, end * S), Some((end + 1) * S));
        }
        assert_eq!(woken_a.load(Ordering::SeqCst), 1);
        assert_eq!(permit(&a, 33 * S), Some(36 * S));
    }

    #[test]
    fn the_first_to_arrive_waits_for_the_last() {
        let pace = Arc::default();
        let ((a, woken_a), (b, woken_b)) = (seat(&pace), seat(&pace));
        assert_eq!(permit(&a, 0), Some(S));
        assert_eq!(permit(&b, 70 * S), Some(71 * S));
        assert_eq!(permit(&a, S), None);
        assert_eq!(permit(&a, S), None);
        assert_eq!(woken_a.load(Ordering::SeqCst), 0);
        assert_eq!(permit(&b, 71 * S), Some(72 * S));
        assert_eq!(woken_a.load(Ordering::SeqCst), 1);
        assert_eq!(woken_b.load(Ordering::SeqCst), 0);
        assert_eq!(permit(&a, S), Some(2 * S));
    }

    #[test]
    fn one_that_rests_keeps_its_place_and_is_passed_in_the_end() {
        let pace = Arc::default();
        let ((a, _), (b, _)) = (seat(&pace), seat(&pace));
        permit(&a, 0);
        permit(&b, 0);
        assert_eq!(permit(&b, S), None);
        // The host waits again and again; each time the busy one gets a little further.
        for at in [100, 200, 300] {
            a.rest();
            b.rest();
            assert_eq!(permit(&b, S), None);
            assert_eq!(permit(&a, at), Some(S));
        }
        assert_eq!(permit(&a, S), Some(2 * S));
        assert_eq!(permit(&b, S), Some(2 * S));
        // Nobody asks for it any more.
        a.rest();
        assert_eq!(permit(&b, 2 * S), None);
        assert!(b.pass_resting().is_empty());
        assert_eq!(permit(&b, 2 * S), Some(3 * S));
        assert_eq!(permit(&a, 400), Some(S));
    }

    #[test]
    fn nobody_waits_for_one_that_stands_still_or_is_gone() {
        let pace = Arc::default();
        let ((a, woken), (b, _)) = (seat(&pace), seat(&pace));
        permit(&a, 0);
        permit(&b, 0);
        assert_eq!(permit(&a, S), None);
        b.leave().iter().for_each(|wake| wake());
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        let end = permit(&a, S).unwrap();
        // It comes back where it is then, maybe put back to a snapshot.
        assert_eq!(permit(&b, 40), Some(S));
        assert_eq!(permit(&a, end), None);
        drop(b);
        assert!(permit(&a, end).is_some());
    }
}
