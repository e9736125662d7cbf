//! Pressure on the host's CPUs, by which new files are held back (cli-and-config R-110).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::problem::Problem;

/// How long a sample holds.
const PERIOD: Duration = Duration::from_secs(1);

/// Share of time, in percent, from which on the pressure counts as high.
const THRESHOLD: f64 = 50.0;

/// Samples `/proc/pressure/cpu`; a kernel without it is never under pressure.
pub(crate) struct Pressure {
    source: PathBuf,
    threshold: Option<f64>,
    sample: Option<(Instant, bool)>,
}

impl Pressure {
    /// With the threshold of `PROVIUM_PSI_THRESHOLD`, if that is set.
    pub(crate) fn from_env() -> Result<Self, Problem> {
        let name = "PROVIUM_PSI_THRESHOLD";
        let text = std::env::var(name).unwrap_or_default();
        let threshold = threshold(&text).ok_or_else(|| {
            Problem::Usage(format!(
                "{name}={text}: expected a percentage from 0 to 100, or off"
            ))
        })?;
        Ok(Self {
            source: "/proc/pressure/cpu".into(),
            threshold,
            sample: None,
        })
    }

    /// For a host that is never too busy.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self {
            source: PathBuf::new(),
            threshold: None,
            sample: None,
        }
    }

    /// True while no new file should start beside others.
    pub(crate) fn is_high(&mut self) -> bool {
        let Some(threshold) = self.threshold else {
            return false;
        };
        match self.sample {
            Some((at, high)) if at.elapsed() < PERIOD => high,
            _ => {
                let text = std::fs::read_to_string(&self.source).unwrap_or_default();
                let high = some_avg10(&text).is_some_and(|percent| percent >= threshold);
                self.sample = Some((Instant::now(), high));
                high
            }
        }
    }
}

/// The threshold that the variable means: nothing given is the default, `off` is none.
fn threshold(text: &str) -> Option<Option<f64>> {
    match text.trim() {
        "" => Some(Some(THRESHOLD)),
        "off" => Some(None),
        number => {
            let percent: f64 = number.trim_end_matches('%').trim_end().parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some(Some(percent))
        }
    }
}

/// `avg10` of the line `some`.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "some avg10=72.48 avg60=79.88 avg300=61.01 total=8723807834\n\
                          full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    fn pressure(text: &str, threshold: Option<f64>) -> (tempfile::TempDir, Pressure) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("cpu");
        std::fs::write(&source, text).unwrap();
        let sample = None;
        (
            dir,
            Pressure {
                source,
                threshold,
                sample,
            },
        )
    }

    #[test]
    fn r110_pressure_counts_from_the_threshold_on() {
        let (_dir, mut high) = pressure(SAMPLE, Some(72.48));
        assert!(high.is_high());
        let (_dir, mut low) = pressure(SAMPLE, Some(72.49));
        assert!(!low.is_high());
        let (_dir, mut off) = pressure(SAMPLE, None);
        assert!(!off.is_high());
    }

    #[test]
    fn r110_a_sample_holds_for_a_second() {
        let (dir, mut pressure) = pressure(SAMPLE, Some(50.0));
        assert!(pressure.is_high());
        std::fs::write(dir.path().join("cpu"), "some avg10=0.00\n").unwrap();
        assert!(pressure.is_high());
        pressure.sample = Some((Instant::now() - PERIOD, true));
        assert!(!pressure.is_high());
    }

    #[test]
    fn r110_without_pressure_information_nothing_is_held_back() {
        let (dir, mut pressure) = pressure("", Some(0.0));
        assert!(!pressure.is_high());
        drop(dir);
        pressure.sample = None;
        assert!(!pressure.is_high());
    }

    #[test]
    fn r110_the_threshold_is_a_percentage_or_off() {
        assert_eq!(threshold(""), Some(Some(50.0)));
        assert_eq!(threshold("80"), Some(Some(80.0)));
        assert_eq!(threshold("12.5 %"), Some(Some(12.5)));
        assert_eq!(threshold("off"), Some(None));
        assert_eq!(threshold("101"), None);
        assert_eq!(threshold("high"), None);
    }
}
