//! Durations and sizes as test authors write them (lua-api L-003, L-004, L-249).
//!
//! One grammar serves the Lua API, `provium.toml` and the command line, so it lives here,
//! next to the types that carry the values.

use std::time::Duration;

/// Why a duration or size was refused. The text quotes the input, as L-003 and L-004 ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error(
        "bad timeout string {input:?}: expected a number of seconds or NUMBER with unit ms, s, m or h"
    )]
    Duration {
        /// What was given.
        input: String,
    },
    /// A number that cannot be a duration.
    #[error("bad timeout {input}: {reason}")]
    DurationValue {
        /// What was given.
        input: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a size.
    #[error(
        "bad size string {input:?}: expected bytes or NUMBER with unit K, M, G or T (powers of 1024)"
    )]
    Size {
        /// What was given.
        input: String,
    },
    /// A number that cannot be a size.
    #[error("bad size {input}: {reason}")]
    SizeValue {
        /// What was given.
        input: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The longest duration that is told apart from "for ever": about 292 years, what fits i64
/// nanoseconds.
const MAX_SECONDS: f64 = (i64::MAX / 1_000_000_000) as f64;

/// A duration from a number of seconds (L-003).
pub fn duration_from_secs(seconds: f64) -> Result<Duration, UnitError> {
    let fail = |reason| {
        Err(UnitError::DurationValue {
            input: seconds.to_string(),
            reason,
        })
    };
    if !seconds.is_finite() {
        return fail("must be a finite number (got NaN/inf)");
    }
    if seconds < 0.0 {
        return fail("must not be negative");
    }
    if seconds > MAX_SECONDS {
        return fail("is too long");
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration from text: `1.5s`, `200ms`, `2m`, `1h`, or bare seconds (L-003).
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let malformed = || UnitError::Duration {
        input: text.to_owned(),
    };
    let (number, unit) = split_unit(text).ok_or_else(malformed)?;
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(malformed()),
    };
    let value: f64 = number.parse().map_err(|_| malformed())?;
    duration_from_secs(value * scale).map_err(|_| malformed())
}

/// A size in bytes from text: `64K`, `1.5GiB`, `4096` (L-004).
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let malformed = || UnitError::Size {
        input: text.to_owned(),
    };
    let (number, unit) = split_unit(text).ok_or_else(malformed)?;
    let shift = size_shift(unit).ok_or_else(malformed)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(malformed);
    }
    let value: f64 = number.parse().map_err(|_| malformed())?;
    let bytes = value * (1u64 << shift) as f64;
    if bytes >= i64::MAX as f64 {
        return Err(malformed());
    }
    Ok(bytes.round() as u64)
}

/// A size from a number of bytes as Lua gives it.
pub fn size_from_int(bytes: i64) -> Result<u64, UnitError> {
    u64::try_from(bytes).map_err(|_| UnitError::SizeValue {
        input: bytes.to_string(),
        reason: "must not be negative",
    })
}

fn size_shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    let prefix = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    Some(match prefix {
        // A lone "b" or "ib" is no unit: the prefix is what carries meaning.
        "" if unit.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    })
}

/// Splits `12.5ms` into number and unit; the number must be plain digits with at most one point.
fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let plain = number.bytes().any(|b| b.is_ascii_digit())
        && number.bytes().filter(|b| *b == b'.').count() <= 1;
    plain.then_some((number, unit))
}

/// A duration as messages show it: seconds without needless zeros, `2s`, `0.3s` (L-249).
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    if nanos == 0 {
        return format!("{}s", duration.as_secs());
    }
    let fraction = format!("{nanos:09}");
    format!("{}.{}s", duration.as_secs(), fraction.trim_end_matches('0'))
}

/// A size as messages show it: the largest unit that divides it evenly, else bytes.
pub fn show_size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    for (shift, name) in units {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{name}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l003_durations_accept_numbers_and_units() {
        for (text, millis) in [
            ("1", 1000),
            ("0.3", 300),
            ("200ms", 200),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            (".5s", 500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn l003_malformed_durations_quote_the_input() {
        for text in [
            "",
            "s",
            "1 s",
            " 1",
            "1x",
            "-1",
            "1.2.3",
            "1e3",
            "nan",
            "inf",
            "1S",
            "99999999999h",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.starts_with("bad timeout string"), "{error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert!(
            duration_from_secs(f64::NAN)
                .unwrap_err()
                .to_string()
                .contains("finite number")
        );
        assert!(
            duration_from_secs(-0.5)
                .unwrap_err()
                .to_string()
                .contains("-0.5")
        );
        assert!(duration_from_secs(1e300).is_err());
    }

    #[test]
    fn l004_sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65_536),
            ("512M", 512 << 20),
            ("512mib", 512 << 20),
            ("1.5G", 3 << 29),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "12 M",
            "1X",
            "1b",
            "1ib",
            "-1",
            "99999999T",
            "1.1.1K",
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn l249_durations_are_shown_without_needless_zeros() {
        assert_eq!(show_duration(Duration::from_secs(2)), "2s");
        assert_eq!(show_duration(Duration::from_millis(300)), "0.3s");
        assert_eq!(show_duration(Duration::from_millis(12_050)), "12.05s");
        assert_eq!(show_size(512 << 20), "512M");
        assert_eq!(show_size(1000), "1000");
        assert_eq!(show_size(0), "0");
    }
}
