//! Runs the devices' fuzzing harness for as many scripts as wanted.
//!
//! ```text
//! cargo run --release -p provium-devices --features mock --example fuzz -- [COUNT] [SEED]
//! ```
//!
//! Script N of a seed is a function of both, so a failure is repeated by giving its number as seed
//! and 1 as count. With a file name instead of COUNT the file is the script, for fuzzers that write
//! their input into files.

use std::process::ExitCode;

use provium_devices::mock::fuzz::{Target, run};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LONGEST_SCRIPT: u32 = 4000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map_or("10000", String::as_str);
    let seed = arguments.get(1).map_or(Ok(0), |seed| seed.parse());
    match (first.parse::<u64>(), seed) {
        (Ok(count), Ok(seed)) => run_seeds(seed, count),
        (Err(_), _) => run_file(first),
        (_, Err(error)) => fail(&format!("the seed is not a number: {error}")),
    }
}

fn run_seeds(first: u64, count: u64) -> ExitCode {
    for seed in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let script = script(seed);
        for target in Target::ALL {
            if std::panic::catch_unwind(|| run(target, &script)).is_err() {
                return fail(&format!("{target:?} failed, repeat with: 1 {seed}"));
            }
        }
    }
    println!("{count} scripts from seed {first}, no failure");
    ExitCode::SUCCESS
}

fn script(seed: u64) -> Vec<u8> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let len = generator.next_u32() % LONGEST_SCRIPT;
    let mut script = vec![0; len as usize];
    generator.fill_bytes(&mut script);
    script
}

fn run_file(path: &str) -> ExitCode {
    match std::fs::read(path) {
        Ok(script) => {
            Target::ALL
                .into_iter()
                .for_each(|target| run(target, &script));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("cannot read {path}: {error}")),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
