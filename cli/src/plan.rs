//! From selected files to the list that runs: repetitions, order, what is known beforehand.

use provium_lua::scan::scan;

use crate::args::{Order, OrderArgs};
use crate::discover::TestFile;
use crate::scheduler::Planned;

/// The files of a run in the order in which they are dispatched.
#[must_use]
pub(crate) fn plan(files: Vec<TestFile>, args: &OrderArgs, seed: u64) -> Vec<Planned> {
    let mut planned = Vec::new();
    for round in 1..=args.repeat.max(1) {
        let mut files: Vec<Planned> = files
            .iter()
            .map(|file| {
                // A file that cannot be read says so when it runs.
                let source = std::fs::read(&file.path).unwrap_or_default();
                let name = match round {
                    1 => file.display.clone(),
                    _ => format!("{}#{round}", file.display),
                };
                Planned {
                    file: file.clone(),
                    name,
                    scan: scan(&source),
                }
            })
            .collect();
        if args.order == Order::Random {
            shuffle(&mut files, &mut SplitMix(seed ^ u64::from(round)));
        }
        planned.extend(files);
    }
    planned
}

/// A seed that nobody chose.
#[must_use]
pub(crate) fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    // Short, because people type it.
    SplitMix(u64::from(nanos) << 32 | u64::from(std::process::id())).next() % 1_000_000
}

/// Fisher and Yates' shuffle; the same seed gives the same order in every version.
fn shuffle<T>(items: &mut [T], random: &mut SplitMix) {
    for last in (1..items.len()).rev() {
        let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
        let chosen = usize::try_from(random.next() % bound).unwrap_or(last);
        items.swap(last, chosen);
    }
}

/// The generator of Steele, Lea and Flood; fixed here so that seeds keep their meaning.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: usize) -> Vec<TestFile> {
        (0..count)
            .map(|n| TestFile {
                path: format!("/nonexistent/{n}").into(),
                display: n.to_string(),
                relative: n.to_string(),
                again: n.to_string().into(),
            })
            .collect()
    }

    fn names(count: usize, repeat: u32, order: Order, seed: u64) -> Vec<String> {
        let args = OrderArgs {
            order,
            seed: None,
            repeat,
        };
        let planned = plan(files(count), &args, seed);
        planned.into_iter().map(|planned| planned.name).collect()
    }

    #[test]
    fn repetitions_have_names_of_their_own() {
        let expected = ["0", "1", "0#2", "1#2", "0#3", "1#3"];
        assert_eq!(names(2, 3, Order::Sorted, 0), expected);
    }

    #[test]
    fn a_seed_fixes_the_order_and_loses_nobody() {
        let one = names(50, 1, Order::Random, 7);
        assert_eq!(one, names(50, 1, Order::Random, 7));
        assert_ne!(one, names(50, 1, Order::Random, 8));
        assert_ne!(one, names(50, 1, Order::Sorted, 7));
        let mut sorted: Vec<usize> = one.iter().map(|name| name.parse().unwrap()).collect();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
